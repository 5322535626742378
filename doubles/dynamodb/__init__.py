"""DynamoDB in memory: the boto3 calls that a ledger makes, without network, faults or delay.

Reads of a table are consistent; an index can lag behind. Pages end after `page_items` items, far earlier than
DynamoDB's megabyte, to expose callers that forget to ask for the next page.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import Any

import msgpack
from botocore.exceptions import ClientError

from doubles.aws_errors import check_members, client_error
from doubles.dynamodb import expressions
from doubles.dynamodb.expressions import Item, Parsed, Value, resolve
from doubles.dynamodb.table import Schema, Table

_MAX_BATCH_GET_KEYS = 100
_MAX_BATCH_STATEMENTS = 25
_MAX_ACTIONS = 100
_PLACEHOLDERS = {"ExpressionAttributeNames", "ExpressionAttributeValues"}
_CONDITIONAL = {"ConditionExpression", "ReturnValuesOnConditionCheckFailure", *_PLACEHOLDERS}
_PAGED = {"ConsistentRead", "ExclusiveStartKey", "Limit", "FilterExpression", *_PLACEHOLDERS}
_EMPTY: Any = {}


class MemoryDynamoDB:
    """A boto3-shaped DynamoDB client and its tables.

    Args:
        now: returns UNIX seconds, for indexes that lag.
        page_items: the maximum number of items that one response to a query or scan covers.

    Attributes:
        batch_get_keys: the maximum number of keys that one BatchGetItem processes; it returns the others as unprocessed.
    """

    def __init__(self, now: Callable[[], float] = lambda: 0.0, page_items: int = 500) -> None:
        self._now = now
        self._tables: dict[str, Table] = {}
        self._page_items = page_items
        self.batch_get_keys = _MAX_BATCH_GET_KEYS
        self._tokens: dict[str, str] = {}

    def create_table(self, **request: Any) -> dict[str, Any]:
        """Create a table with its global secondary indexes."""
        if request["TableName"] in self._tables:
            raise client_error("ResourceInUseException", "CreateTable")
        self._tables[request["TableName"]] = Table(request, self._now)
        return {"TableDescription": {"TableName": request["TableName"], "TableStatus": "ACTIVE"}}

    def describe_table(self, *, TableName: str) -> dict[str, Any]:  # noqa: N803 -- boto3's name
        """Return when a table was created."""
        created = datetime.fromtimestamp(self._table({"TableName": TableName}, "DescribeTable").created, UTC)
        return {"Table": {"TableName": TableName, "TableStatus": "ACTIVE", "CreationDateTime": created}}

    def get_item(self, **request: Any) -> dict[str, Any]:
        """Return `Item` if there is one."""
        with _rejections("GetItem", request, {"Key", "ConsistentRead"}):
            table = self._table(request, "GetItem")
            item = table.items.get(table.place(request["Key"]))
        return {} if item is None else {"Item": _copy(item)}

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        """Return the items of up to 100 keys, and the keys that were not processed."""
        responses: dict[str, list[Item]] = {}
        unprocessed: dict[str, Any] = {}
        with _rejections("BatchGetItem", request, {"RequestItems"}):
            count = sum(len(wanted["Keys"]) for wanted in request["RequestItems"].values())
            if not 0 < count <= _MAX_BATCH_GET_KEYS:
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
        with _rejections("PutItem", request, {"Item", *_CONDITIONAL}):
            table = self._table(request, "PutItem")
            item = _copy(request["Item"])
            place = table.place_of(item)
            _check_condition(table.items.get(place), request, "PutItem")
            table.put(place, item)
        return {}

    def delete_item(self, **request: Any) -> dict[str, Any]:
        """Delete an item, if the condition holds."""
        with _rejections("DeleteItem", request, {"Key", *_CONDITIONAL}):
            table = self._table(request, "DeleteItem")
            place = table.place(request["Key"])
            _check_condition(table.items.get(place), request, "DeleteItem")
            table.put(place, None)
        return {}

    def update_item(self, **request: Any) -> dict[str, Any]:
        """Change an item, or create it, if the condition holds."""
        with _rejections("UpdateItem", request, {"Key", "UpdateExpression", "ReturnValues", *_CONDITIONAL}):
            table = self._table(request, "UpdateItem")
            place = table.place(request["Key"])
            old = table.items.get(place)
            update = expressions.update(request["UpdateExpression"])
            _check_condition(old, request, "UpdateItem", update)
            new = _copy(_updated(old or request["Key"], table.schema, update.expression, request))
            table.place_of(new)
            table.put(place, new)
        return _returned(new, update.expression, request)

    def batch_execute_statement(self, **request: Any) -> dict[str, Any]:
        """Insert items by up to 25 PartiQL statements, each of which succeeds or fails on its own."""
        with _rejections("BatchExecuteStatement", request, {"Statements"}):
            if not 0 < len(request["Statements"]) <= _MAX_BATCH_STATEMENTS:
                raise ValueError("Member must have length between 1 and 25")
        return {"Responses": [self._insert(statement) for statement in request["Statements"]]}

    def transact_write_items(self, **request: Any) -> dict[str, Any]:
        """Make up to 100 puts and updates of different items, all or none. A repeated token of a success changes nothing."""
        with _rejections("TransactWriteItems", request, {"TransactItems", "ClientRequestToken"}):
            actions = [next(iter(action.items())) for action in request["TransactItems"]]
            if not 0 < len(actions) <= _MAX_ACTIONS:
                raise ValueError("Member must have length between 1 and 100")
        token = request.get("ClientRequestToken")
        if token in self._tokens:
            if self._tokens[token] != repr(actions):
                message = "The request has the token of another request"
                raise client_error("IdempotentParameterMismatchException", "TransactWriteItems", message)
            return {}
        undo, reasons = [], []
        places: set[Any] = set()
        try:
            for kind, action in actions:
                table = self._table(action, "TransactWriteItems")
                place = table.place(action["Key"]) if "Key" in action else table.place_of(action["Item"])
                if (action["TableName"], place) in places:
                    message = "Transaction request cannot include multiple operations on one item"
                    raise client_error("ValidationException", "TransactWriteItems", message)
                places.add((action["TableName"], place))
                undo.append((table, place, table.items.get(place)))
                reasons.append(self._outcome(kind, action))
        except ClientError:
            _undo(undo)
            raise
        if any(reason["Code"] != "None" for reason in reasons):
            _undo(undo)
            codes = ", ".join(reason["Code"] for reason in reasons)
            message = (
                f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
            )
            cancelled = client_error("TransactionCanceledException", "TransactWriteItems", message)
            cancelled.response["CancellationReasons"] = reasons  # type: ignore[typeddict-item]  # its messages are optional
            raise cancelled
        if token is not None:
            self._tokens[token] = repr(actions)
        return {}

    def _outcome(self, kind: str, action: Mapping[str, Any]) -> dict[str, str]:
        """Make one put or update of a transaction; return its reason for a cancellation, as AWS reports it."""
        try:
            {"Put": self.put_item, "Update": self.update_item}[kind](**action)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
        return {"Code": "None"}

    def _insert(self, statement: Mapping[str, Any]) -> dict[str, Any]:
        try:
            name, item = expressions.parse_insert(statement["Statement"], statement.get("Parameters", ()))
            table = self._tables.get(name)
            if table is None:
                return _statement_error("ResourceNotFound", "Requested resource not found")
            item = _copy(item)
            place = table.place_of(item)
        except ValueError as error:
            return _statement_error("ValidationError", str(error))
        if table.items.get(place) is not None:
            return _statement_error("DuplicateItem", "Duplicate primary key exists in table")
        table.put(place, item)
        return {"TableName": name}

    def query(self, **request: Any) -> dict[str, Any]:
        """Return one page of a partition of the table or an index, in order."""
        known = {"IndexName", "KeyConditionExpression", "ScanIndexForward", *_PAGED}
        with _rejections("Query", request, known):
            table = self._table(request, "Query")
            condition = expressions.key_condition(request["KeyConditionExpression"])
            accept = _predicate(request, "FilterExpression", condition)
            items, schema = table.items, table.schema
            start: Mapping[str, Value] | None = request.get("ExclusiveStartKey")
            after = None if start is None else table.schema.place(start)
            if "IndexName" in request:
                if request.get("ConsistentRead"):
                    raise ValueError("Consistent reads are not supported on global secondary indexes")
                index = table.indexes.get(request["IndexName"])
                if index is None:
                    raise ValueError(f"The table does not have the specified index: {request['IndexName']}")
                items, schema = index.items(self._now()), index.schema
                after = None if start is None or after is None else index.place(start, after)
            hash_value, sign, bound = _selection(condition.expression, schema, request)
            forward = request.get("ScanIndexForward", True)
            found = items.select(hash_value, sign, bound, after=after and after[1], forward=forward)
            return self._page(found, accept, request, (*table.schema.names, *schema.names))

    def scan(self, **request: Any) -> dict[str, Any]:
        """Return one page of all items of a table."""
        with _rejections("Scan", request, _PAGED):
            table = self._table(request, "Scan")
            accept = _predicate(request, "FilterExpression")
            start = request.get("ExclusiveStartKey")
            after = None if start is None else table.schema.place(start)
            return self._page(table.items.all(after), accept, request, table.schema.names)

    def lag_indexes(self, table: str, seconds: float) -> None:
        """Let indexes show later writes after a delay; with 0 they catch up at once. Not a DynamoDB operation."""
        self._tables[table].index_delay_seconds = seconds
        for index in self._tables[table].indexes.values() if not seconds else ():
            index.items(float("inf"))

    def keep_history(self, table: str) -> None:
        """Remember every change of a table that is still empty. Not a DynamoDB operation."""
        self._tables[table].history = []

    def changed(self, table: str, prefix: str, until: float) -> float:
        """Return when an item whose partition key begins so was last changed before a moment; the moment if never. Not a DynamoDB operation."""
        changes = self._tables[table].history or ()
        return max((at for at, (pk, _), _ in changes if at < until and pk.startswith(prefix)), default=until)

    def backup(self, table: str, moment: Callable[[Any], float]) -> list[Item]:
        """Return a table's items, each as it was at a moment that its place gives, UNIX seconds. Not a DynamoDB operation."""
        changes = self._tables[table].history or ()
        found = {place: item for at, place, item in changes if at <= moment(place)}
        return [item for item in found.values() if item is not None]

    def restore(self, table: str, items: Iterable[Item]) -> None:
        """Replace a table with one that is created now and has these items, as a restore from a backup does. Not a DynamoDB operation."""
        self._tables[table] = restored = Table(self._tables[table].request, self._now)
        for item in items:
            restored.put(restored.place_of(item), item)

    def items(self, table: str, wanted: Callable[[Item], bool] = bool) -> Iterator[Item]:
        """Yield a copy of every item of a table that is wanted. Not a DynamoDB operation."""
        items = list(
            filter(wanted, self._tables[table].items.all())
        )  # the caller may change the table meanwhile
        yield from map(_copy, items)

    def _page(
        self,
        selected: Iterable[Item],
        accept: Callable[[Item], bool],
        request: Mapping[str, Any],
        key_names: tuple[str, ...],
    ) -> dict[str, Any]:
        limit = min(request.get("Limit") or self._page_items, self._page_items)
        page = list(islice(selected, limit))
        found = [_copy(item) for item in page if accept(item)]
        answer: dict[str, Any] = {"Items": found, "Count": len(found), "ScannedCount": len(page)}
        if len(page) == limit:  # as DynamoDB does, even if nothing follows
            answer["LastEvaluatedKey"] = _copy({name: page[-1][name] for name in key_names})
        return answer

    def _table(self, request: Mapping[str, Any], operation: str) -> Table:
        table = self._tables.get(request["TableName"])
        if table is None:
            raise client_error("ResourceNotFoundException", operation, "Requested resource not found")
        return table


def _undo(changes: Iterable[tuple[Table, Any, Item | None]]) -> None:
    for table, place, item in reversed(list(changes)):
        table.put(place, item)


@contextmanager
def _rejections(operation: str, request: Mapping[str, Any], known: set[str]) -> Iterator[None]:
    """Turn a ValueError into a ValidationException. Raise NotImplementedError for an unknown member of the request."""
    check_members(operation, request, known | {"TableName"})
    try:
        yield
    except ValueError as error:
        raise client_error("ValidationException", operation, str(error)) from error


def _statement_error(code: str, message: str) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": message}}


def _copy(item: Item) -> Item:
    """Return a deep copy of an item in which instances of str's subclasses are plain strings."""
    copy: Item = msgpack.unpackb(msgpack.packb(item))
    return copy


def _predicate(request: Mapping[str, Any], kind: str, *others: Parsed[Any]) -> Callable[[Item], bool]:
    """Return the request's condition or filter as a predicate.

    Raises:
        ValueError: the request's expressions do not use exactly its placeholders.
    """
    text = request.get(kind)
    used = () if text is None else (expressions.condition(text, kind),)
    names = request.get("ExpressionAttributeNames", _EMPTY)
    values = request.get("ExpressionAttributeValues", _EMPTY)
    wanted = set[str]().union(*(one.placeholders for one in (*used, *others)))
    if difference := (names.keys() | values.keys()) ^ wanted:
        raise ValueError(f"Value provided unused in expressions, or used and not defined: {difference}")
    return lambda item: all(condition.expression(item, names, values) for condition in used)


def _check_condition(
    item: Item | None, request: Mapping[str, Any], operation: str, *others: Parsed[Any]
) -> None:
    """Raise ConditionalCheckFailedException unless the request's condition holds."""
    if not _predicate(request, "ConditionExpression", *others)(item or _EMPTY):
        shown = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and item is not None
        members: dict[str, Any] = {"Item": _copy(item or _EMPTY)} if shown else {}
        message = "The conditional request failed"
        raise client_error("ConditionalCheckFailedException", operation, message, **members)


def _selection(
    terms: list[expressions.KeyTerm], schema: Schema, request: Mapping[str, Any]
) -> tuple[Any, str, Any]:
    """Return the partition's value, then the comparator and value for the sort key, if any."""
    names, values = request.get("ExpressionAttributeNames", _EMPTY), request["ExpressionAttributeValues"]
    wanted = {resolve(name, names): (sign, values[value]) for name, sign, value in terms}
    hash_name = schema.names[0]
    if wanted.keys() - set(schema.names) or wanted.get(hash_name, ("",))[0] != "=":
        raise ValueError("Query condition missed key schema element")
    schema.check({name: value for name, (_, value) in wanted.items()})
    hash_value = wanted.pop(hash_name)[1]["S"]
    for sign, value in wanted.values():
        return hash_value, sign, value["S"]
    return hash_value, "", None


def _updated(item: Item, schema: Schema, update: expressions.Update, request: Mapping[str, Any]) -> Item:
    names = request.get("ExpressionAttributeNames", _EMPTY)
    values = request.get("ExpressionAttributeValues", _EMPTY)
    sets = {resolve(name, names): values[value] for name, value in update.sets}
    sets |= {
        name: _sum(item.get(name, {"N": "0"}), values[value])
        for name, value in ((resolve(name, names), value) for name, value in update.adds)
    }
    removes = {resolve(name, names) for name in update.removes}
    if len(sets.keys() | removes) < len(update.sets) + len(update.removes) + len(update.adds):
        raise ValueError("Invalid UpdateExpression: Two document paths overlap with each other")
    if (sets.keys() | removes) & set(schema.names):
        raise ValueError("Cannot update attribute: this attribute is part of the key")
    return {name: value for name, value in {**item, **sets}.items() if name not in removes}


def _sum(value: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    if value.keys() != {"N"} or added.keys() != {"N"}:
        raise ValueError("An operand in the update expression has an incorrect data type")
    return {"N": str(Decimal(value["N"]) + Decimal(added["N"]))}


def _returned(item: Item, update: expressions.Update, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response to an update: empty, or the changed attributes as they are now."""
    wanted = request.get("ReturnValues", "NONE")
    if wanted == "NONE":
        return {}
    if wanted != "UPDATED_NEW":
        raise NotImplementedError(f"the DynamoDB double does not return {wanted}")
    names = request.get("ExpressionAttributeNames", _EMPTY)
    changed = [resolve(name, names) for name, _ in (*update.sets, *update.adds)]
    return {"Attributes": _copy({name: item[name] for name in changed})}
