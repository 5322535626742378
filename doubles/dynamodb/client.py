"""A client of DynamoDB in memory.

Reads of a table are consistent; an index can lag behind. Pages end after `page_items` items, far earlier than
DynamoDB's megabyte, so that a caller who forgets to ask for the next page is found out.
"""

import marshal
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from doubles.aws_errors import Exceptions, check_members, client_error
from doubles.dynamodb import expressions, partiql
from doubles.dynamodb.expressions import Compiled, Item, Names, Value, Values, resolve
from doubles.dynamodb.item_size import MAX_ITEM_BYTES, item_size
from doubles.dynamodb.table import Schema, Table

_MAX_BATCH_GET_KEYS = 100
_MAX_BATCH_STATEMENTS = 25
_EMPTY: Any = {}


class MemoryDynamoDB:
    """A boto3-shaped DynamoDB client and its tables.

    Args:
        now: tells UNIX seconds, for indexes that lag.
        page_items: the most items that one response of a query or scan covers.

    Attributes:
        batch_get_keys: the most keys that one BatchGetItem answers; it returns the others as unprocessed.
    """

    exceptions = Exceptions()

    def __init__(self, now: Callable[[], float] = lambda: 0.0, page_items: int = 500) -> None:
        self._now = now
        self._tables: dict[str, Table] = {}
        self._page_items = page_items
        self.batch_get_keys = _MAX_BATCH_GET_KEYS

    def create_table(self, **request: Any) -> dict[str, Any]:
        """Create a table with its global secondary indexes."""
        name = request["TableName"]
        if name in self._tables:
            raise client_error("ResourceInUseException", "CreateTable")
        self._tables[name] = Table(request, self._now)
        return {"TableDescription": {"TableName": name, "TableStatus": "ACTIVE"}}

    def get_item(self, **request: Any) -> dict[str, Any]:
        """Return `Item` if there is one."""
        with _Rejections("GetItem", request, {"Key", "ConsistentRead"}):
            table = self._table(request, "GetItem")
            item = table.items.get(table.place(request["Key"]))
        return {} if item is None else {"Item": _copy(item)}

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        """Return the items of up to 100 keys, and the keys that it did not come to."""
        responses: dict[str, list[Item]] = {}
        unprocessed: dict[str, Any] = {}
        with _Rejections("BatchGetItem", request, {"RequestItems"}):
            if not 0 < sum(len(wanted["Keys"]) for wanted in request["RequestItems"].values()) <= 100:
                raise ValueError("Too many items requested for the BatchGetItem call")
            left = self.batch_get_keys
            for name, wanted in request["RequestItems"].items():
                check_members("BatchGetItem", wanted, {"Keys", "ConsistentRead"})
                table = self._table({"TableName": name}, "BatchGetItem")
                places = [table.place(key) for key in wanted["Keys"]]
                if len(set(places)) < len(places):
                    raise ValueError("Provided list of item keys contains duplicates")
                found = [table.items.get(place) for place in places[:left]]
                responses[name] = [_copy(item) for item in found if item is not None]
                if len(places) > left:
                    unprocessed[name] = wanted | {"Keys": wanted["Keys"][left:]}
                left = max(0, left - len(places))
        return {"Responses": responses, "UnprocessedKeys": unprocessed}

    def put_item(self, **request: Any) -> dict[str, Any]:
        """Put a whole item, if the condition holds."""
        with _Rejections("PutItem", request, {"Item", *_CONDITIONAL}):
            table = self._table(request, "PutItem")
            item = _checked_copy(request["Item"], "Item size has exceeded the maximum allowed size")
            place = table.place_of(item)
            _check_condition(table.items.get(place), request, "PutItem")
            table.put(place, item)
        return {}

    def delete_item(self, **request: Any) -> dict[str, Any]:
        """Delete an item, if the condition holds."""
        with _Rejections("DeleteItem", request, {"Key", *_CONDITIONAL}):
            table = self._table(request, "DeleteItem")
            place = table.place(request["Key"])
            _check_condition(table.items.get(place), request, "DeleteItem")
            table.put(place, None)
        return {}

    def update_item(self, **request: Any) -> dict[str, Any]:
        """Change an item, or create it, if the condition holds."""
        with _Rejections("UpdateItem", request, {"Key", "UpdateExpression", *_CONDITIONAL}):
            table = self._table(request, "UpdateItem")
            place = table.place(request["Key"])
            old = table.items.get(place)
            update = expressions.update(request["UpdateExpression"])
            _check_condition(old, request, "UpdateItem", update)
            new = _updated(old or request["Key"], table.schema, update.expression, request)
            new = _checked_copy(new, "Item size to update has exceeded the maximum allowed size")
            table.place_of(new)
            table.put(place, new)
        return {}

    def batch_execute_statement(self, **request: Any) -> dict[str, Any]:
        """Insert items by up to 25 PartiQL statements, each of which succeeds or fails for itself."""
        with _Rejections("BatchExecuteStatement", request, {"Statements"}):
            if not 0 < len(request["Statements"]) <= _MAX_BATCH_STATEMENTS:
                raise ValueError(
                    "Member must have length less than or equal to 25 and greater than or equal to 1"
                )
        return {"Responses": [self._insert(statement) for statement in request["Statements"]]}

    def _insert(self, statement: Mapping[str, Any]) -> dict[str, Any]:
        try:
            name, item = partiql.parse_insert(statement["Statement"], statement.get("Parameters", ()))
            table = self._tables.get(name)
            if table is None:
                return _statement_error("ResourceNotFound", "Requested resource not found")
            item = _checked_copy(item, "Item size has exceeded the maximum allowed size")
            place = table.place_of(item)
        except ValueError as error:
            return _statement_error("ValidationError", str(error))
        if table.items.get(place) is not None:
            return _statement_error("DuplicateItem", "Duplicate primary key exists in table")
        table.put(place, item)
        return {"TableName": name}

    def query(self, **request: Any) -> dict[str, Any]:
        """Return one page of a partition of the table or an index, in order."""
        known = {"IndexName", "KeyConditionExpression", "FilterExpression", "ScanIndexForward", *_PAGED}
        with _Rejections("Query", request, known):
            table = self._table(request, "Query")
            names, values = _placeholders(request)
            condition = expressions.key_condition(request["KeyConditionExpression"])
            accept = _filter(request, condition)
            items, schema = table.items, table.schema
            start = request.get("ExclusiveStartKey")
            after = None
            if "IndexName" in request:
                if request.get("ConsistentRead"):
                    raise ValueError("Consistent reads are not supported on global secondary indexes")
                index = table.index(request["IndexName"])
                items, schema = index.items, index.schema
                if start is not None:
                    after = index.place(start, table.schema.place(start))[1]
            elif start is not None:
                after = table.schema.place(start)[1]
            hash_value, operator, bound = _selection(condition.expression, schema, names, values)
            selected = items.select(
                hash_value, operator, bound, after, forward=request.get("ScanIndexForward", True)
            )
            return self._page(selected, accept, request, [*table.schema.names, *schema.names])

    def scan(self, **request: Any) -> dict[str, Any]:
        """Return one page of all items of a table."""
        with _Rejections("Scan", request, {"FilterExpression", *_PAGED}):
            table = self._table(request, "Scan")
            accept = _filter(request)
            start = request.get("ExclusiveStartKey")
            after = ("", ()) if start is None else table.schema.place(start)
            everything = [
                item
                for place, item in table.items.all()
                if start is None or (str(place[0]), place[1]) > (str(after[0]), after[1])
            ]
            return self._page(everything, accept, request, table.schema.names)

    def lag_indexes(self, table: str, seconds: float) -> None:
        """Let the indexes of a table show later writes only after a delay; not a call of DynamoDB's.

        Args:
            table: its name.
            seconds: of the delay, infinite for until `settle_indexes`.
        """
        self._tables[table].index_delay_seconds = seconds

    def settle_indexes(self, table: str) -> None:
        """Let the indexes of a table catch up at once; not a call of DynamoDB's."""
        for index in self._tables[table].indexes.values():
            index.settle(float("inf"))

    def items(self, table: str) -> Iterator[Item]:
        """Yield a copy of every item of a table; not a call of DynamoDB's."""
        for _, item in self._tables[table].items.all():
            yield _copy(item)

    def _page(
        self,
        selected: list[Item],
        accept: Callable[[Item], bool] | None,
        request: Mapping[str, Any],
        key_names: list[str],
    ) -> dict[str, Any]:
        limit = request.get("Limit") or self._page_items
        page = selected[: min(limit, self._page_items)]
        found = [_copy(item) for item in page if accept is None or accept(item)]
        answer: dict[str, Any] = {"Items": found, "Count": len(found), "ScannedCount": len(page)}
        # DynamoDB names a next page whenever the limit was reached, even if nothing follows
        if page and (len(page) < len(selected) or len(page) == limit):
            answer["LastEvaluatedKey"] = _copy({name: page[-1][name] for name in key_names})
        return answer

    def _table(self, request: Mapping[str, Any], operation: str) -> Table:
        table = self._tables.get(request["TableName"])
        if table is None:
            raise client_error("ResourceNotFoundException", operation, "Requested resource not found")
        return table


_PLACEHOLDERS = ("ExpressionAttributeNames", "ExpressionAttributeValues")
_CONDITIONAL = ("ConditionExpression", "ReturnValuesOnConditionCheckFailure", *_PLACEHOLDERS)
_PAGED = ("ConsistentRead", "ExclusiveStartKey", "Limit", *_PLACEHOLDERS)


class _Rejections:
    """Raises a ValidationException for a ValueError, and NotImplementedError for an unknown member of a request."""

    __slots__ = ("operation",)

    def __init__(self, operation: str, request: Mapping[str, Any], known: set[str]) -> None:
        self.operation = operation
        check_members(operation, request, known | {"TableName"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ValueError):
            raise client_error("ValidationException", self.operation, str(error)) from error


def _statement_error(code: str, message: str) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": message}}


def _copy(item: Item) -> Item:
    return cast("Item", marshal.loads(marshal.dumps(item)))  # noqa: S302 -- written just now


def _checked_copy(item: Item, too_large: str) -> Item:
    """Return a copy of an item that is not larger than DynamoDB allows."""
    try:
        written = marshal.dumps(item, 2)
    except ValueError:  # a subclass of str somewhere
        item = {str(name): cast("Value", _plain(value)) for name, value in item.items()}
        written = marshal.dumps(item, 2)
    # this form of marshal is never shorter than what DynamoDB counts, and far quicker than counting
    if len(written) > MAX_ITEM_BYTES and item_size(item) > MAX_ITEM_BYTES:
        raise ValueError(too_large)
    return cast("Item", marshal.loads(written))  # noqa: S302 -- written just now


def _plain(value: Any) -> Any:
    """Return a deep copy without subclasses of str."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {_plain(name): _plain(member) for name, member in value.items()}
    return [_plain(member) for member in value] if isinstance(value, list) else value


def _placeholders(request: Mapping[str, Any]) -> tuple[Names, Values]:
    return request.get("ExpressionAttributeNames", _EMPTY), request.get("ExpressionAttributeValues", _EMPTY)


def _check_placeholders(request: Mapping[str, Any], *used: Compiled[Any]) -> tuple[Names, Values]:
    """Raise unless the expressions use the placeholders that the request defines, all of them and no other."""
    names, values = _placeholders(request)
    used_names = frozenset[str]().union(*(expression.names for expression in used))
    used_values = frozenset[str]().union(*(expression.values for expression in used))
    for kind, given, wanted in (("Names", names, used_names), ("Values", values, used_values)):
        if unused := given.keys() - wanted:
            raise ValueError(
                f"Value provided in ExpressionAttribute{kind} unused in expressions: keys: {unused}"
            )
        if missing := wanted - given.keys():
            raise ValueError(f"An expression attribute {kind[:-1].lower()} is not defined: {missing}")
    return names, values


def _check_condition(
    item: Item | None, request: Mapping[str, Any], operation: str, update: Compiled[Any] | None = None
) -> None:
    """Raise unless the request's condition holds."""
    others = () if update is None else (update,)
    text = request.get("ConditionExpression")
    if text is None:
        _check_placeholders(request, *others)
        return
    condition = expressions.condition(text)
    names, values = _check_placeholders(request, condition, *others)
    if not condition.expression(item if item is not None else _EMPTY, names, values):
        members: dict[str, Any] = {}
        if request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and item is not None:
            members["Item"] = _copy(item)
        message = "The conditional request failed"
        raise client_error("ConditionalCheckFailedException", operation, message, **members)


def _filter(request: Mapping[str, Any], *others: Compiled[Any]) -> Callable[[Item], bool] | None:
    """Return what the filter says of an item, None if there is no filter."""
    text = request.get("FilterExpression")
    if text is None:
        _check_placeholders(request, *others)
        return None
    condition = expressions.condition(text, "FilterExpression")
    names, values = _check_placeholders(request, condition, *others)
    return lambda item: condition.expression(item, names, values)


def _selection(
    terms: list[expressions.KeyTerm], schema: Schema, names: Names, values: Values
) -> tuple[Any, str, Any]:
    """Return the partition's value, then the comparator and value for the sort key, if any."""
    by_name = {resolve(name, names): (operator, values[value]) for name, operator, value in terms}
    if by_name.keys() - set(schema.names) or by_name.get(schema.hash_name, ("", _EMPTY))[0] != "=":
        raise ValueError("Query condition missed key schema element")
    schema.check({name: value for name, (_, value) in by_name.items()})
    hash_value = expressions.compare_key(by_name.pop(schema.hash_name)[1])
    for operator, value in by_name.values():
        return hash_value, operator, expressions.compare_key(value)
    return hash_value, "", None


def _updated(item: Item, schema: Schema, update: expressions.Update, request: Mapping[str, Any]) -> Item:
    names, values = _placeholders(request)
    # every operand reads the item as it was
    sets = [(resolve(name, names), operand(item, names, values)) for name, operand in update.sets]
    removes = [resolve(name, names) for name in update.removes]
    changed = [*(name for name, _ in sets), *removes]
    if len(set(changed)) < len(changed):
        raise ValueError("Invalid UpdateExpression: Two document paths overlap with each other")
    for name in schema.names:
        if name in changed:
            raise ValueError(f"Cannot update attribute {name}. This attribute is part of the key")
    new = {**item, **{name: cast("Value", value) for name, value in sets}}
    for name in removes:
        new.pop(name, None)
    return new
