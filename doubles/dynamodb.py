"""DynamoDB in memory: the calls of a boto3 low-level client that a ledger needs, without network, faults or delay.

Reads are consistent. Pages end after `page_items` items, far earlier than DynamoDB's megabyte, so that whoever forgets
to ask for the next page is found out.
"""

import marshal
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from doubles import dynamodb_expressions as expressions
from doubles.aws_errors import Exceptions, client_error
from doubles.dynamodb_expressions import Item, Names, Value, Values

_EMPTY: Any = {}
_CONDITION_FAILED = "The conditional request failed"


class _Partition:
    """Items of one partition, sorted."""

    __slots__ = ("items", "keys")

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.items: dict[Any, Item] = {}

    def put(self, key: Any, item: Item) -> None:
        if key not in self.items:
            insort(self.keys, key)
        self.items[key] = item

    def delete(self, key: Any) -> None:
        if self.items.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]


class _Schema(NamedTuple):
    hash_name: str
    range_name: str | None

    @classmethod
    def of(cls, keys: Iterable[Mapping[str, str]]) -> "_Schema":
        by_type = {key["KeyType"]: key["AttributeName"] for key in keys}
        return cls(by_type["HASH"], by_type.get("RANGE"))

    def key(self, item: Mapping[str, Value]) -> tuple[Any, Any]:
        """Return the item's place: the partition's value, then what sorts within it."""
        hash_key = expressions.compare_key(item[self.hash_name])
        return hash_key, expressions.compare_key(item[self.range_name]) if self.range_name else ""


class _Table:
    def __init__(self, schema: _Schema, indexes: dict[str, _Schema]) -> None:
        self.schema = schema
        self.indexes = indexes
        self.partitions: dict[Any, _Partition] = {}
        self.index_partitions: dict[str, dict[Any, _Partition]] = {name: {} for name in indexes}

    def key(self, key: Mapping[str, Value]) -> tuple[Any, Any]:
        names = {self.schema.hash_name, self.schema.range_name} - {None}
        if not names <= key.keys():
            raise ValueError("One of the required keys was not given a value")
        return self.schema.key(key)

    def get(self, place: tuple[Any, Any]) -> Item | None:
        partition = self.partitions.get(place[0])
        return partition.items.get(place[1]) if partition is not None else None

    def store(self, place: tuple[Any, Any], item: Item | None) -> None:
        """Put the item there, or leave nothing there, and keep the indexes."""
        if self.indexes:
            old = self.get(place)
            for name, schema in self.indexes.items():
                self._index(name, schema, place, old, item)
        partition = self.partitions.get(place[0])
        if item is not None:
            if partition is None:
                partition = self.partitions[place[0]] = _Partition()
            partition.put(place[1], item)
        elif partition is not None:
            partition.delete(place[1])
            if not partition.keys:
                del self.partitions[place[0]]

    def _index(
        self, name: str, schema: _Schema, place: tuple[Any, Any], old: Item | None, new: Item | None
    ) -> None:
        partitions = self.index_partitions[name]
        for item, stays in ((old, False), (new, True)):
            if item is None or schema.hash_name not in item:
                continue
            if schema.range_name and schema.range_name not in item:
                continue
            hash_key, range_key = schema.key(item)
            partition = partitions.setdefault(hash_key, _Partition())
            if stays:
                partition.put((range_key, place), item)
            else:
                partition.delete((range_key, place))


class MemoryDynamoDB:
    """A boto3-shaped DynamoDB client and its tables.

    Args:
        page_items: items that one answer of a query or scan looks at, at most.
    """

    exceptions = Exceptions()

    def __init__(self, page_items: int = 500) -> None:
        self._tables: dict[str, _Table] = {}
        self._page_items = page_items

    def create_table(
        self,
        *,
        TableName: str,  # noqa: N803 -- boto3's names, here and below
        KeySchema: Iterable[Mapping[str, str]],  # noqa: N803
        GlobalSecondaryIndexes: Iterable[Mapping[str, Any]] = (),  # noqa: N803
        **_ignored: Any,
    ) -> dict[str, Any]:
        """Make a table; every index projects all attributes."""
        if TableName in self._tables:
            raise client_error("ResourceInUseException", "CreateTable")
        indexes = {index["IndexName"]: _Schema.of(index["KeySchema"]) for index in GlobalSecondaryIndexes}
        self._tables[TableName] = _Table(_Schema.of(KeySchema), indexes)
        return {"TableDescription": {"TableName": TableName, "TableStatus": "ACTIVE"}}

    def get_item(self, **request: Any) -> dict[str, Any]:
        """Return `Item` where there is one."""
        table = self._table(request, "GetItem")
        with _Refusals("GetItem"):
            item = table.get(table.key(request["Key"]))
            if item is None:
                return {}
            return {"Item": _projected(_copy(item), request)}

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        """Return the items of up to 100 keys."""
        answers: dict[str, list[Item]] = {}
        for name, wanted in request["RequestItems"].items():
            table = self._table({"TableName": name}, "BatchGetItem")
            with _Refusals("BatchGetItem"):
                if not 0 < len(wanted["Keys"]) <= 100:
                    raise ValueError("Too many items requested for the BatchGetItem call")
                found = [table.get(table.key(key)) for key in wanted["Keys"]]
                answers[name] = [_projected(_copy(item), wanted) for item in found if item is not None]
        return {"Responses": answers, "UnprocessedKeys": {}}

    def put_item(self, **request: Any) -> dict[str, Any]:
        """Put a whole item, if the condition holds."""
        table = self._table(request, "PutItem")
        with _Refusals("PutItem"):
            item = _copy(request["Item"])
            place = table.key(item)
            old = table.get(place)
            _check(old, request, "PutItem")
        table.store(place, item)
        if request.get("ReturnValues") == "ALL_OLD" and old is not None:
            return {"Attributes": _copy(old)}
        return {}

    def delete_item(self, **request: Any) -> dict[str, Any]:
        """Delete an item, if the condition holds."""
        table = self._table(request, "DeleteItem")
        with _Refusals("DeleteItem"):
            place = table.key(request["Key"])
            old = table.get(place)
            _check(old, request, "DeleteItem")
        table.store(place, None)
        if request.get("ReturnValues") == "ALL_OLD" and old is not None:
            return {"Attributes": _copy(old)}
        return {}

    def update_item(self, **request: Any) -> dict[str, Any]:
        """Change an item, or make it, if the condition holds."""
        table = self._table(request, "UpdateItem")
        with _Refusals("UpdateItem"):
            place = table.key(request["Key"])
            old = table.get(place)
            update = expressions.update(request["UpdateExpression"])
            _check(old, request, "UpdateItem", update.used)
            new = _updated(old if old is not None else request["Key"], update, request)
            if table.key(new) != place:
                raise ValueError("Cannot update attribute. This attribute is part of the key")
        table.store(place, new)
        return _returned(old, new, update, request)

    def query(self, **request: Any) -> dict[str, Any]:
        """Return one page of a partition's items in order."""
        table = self._table(request, "Query")
        with _Refusals("Query"):
            schema, partitions = table.schema, table.partitions
            index = request.get("IndexName")
            if index is not None:
                if request.get("ConsistentRead"):
                    raise ValueError("Consistent reads are not supported on global secondary indexes")
                if index not in table.indexes:
                    raise ValueError(f"The table does not have the specified index: {index}")
                schema, partitions = table.indexes[index], table.index_partitions[index]
            names: Names = request.get("ExpressionAttributeNames") or _EMPTY
            values: Values = request.get("ExpressionAttributeValues") or _EMPTY
            condition = expressions.key_condition(request["KeyConditionExpression"])
            accept = _filter(request, condition.used, names, values)
            hash_value, selection = _selection(condition, schema, names)
            partition = partitions.get(expressions.compare_key(values[hash_value]))
            if partition is None:
                return {"Items": [], "Count": 0, "ScannedCount": 0}
            low, high = _range(partition.keys, selection, values, indexed=index is not None)
            start = request.get("ExclusiveStartKey")
            if start is not None:
                after: Any = schema.key(start)[1]
                after = (after, table.schema.key(start)) if index is not None else after
                if request.get("ScanIndexForward", True):
                    low = max(low, bisect_right(partition.keys, after))
                else:
                    high = min(high, bisect_left(partition.keys, after))
            most = min(request.get("Limit") or self._page_items, self._page_items)
            if request.get("ScanIndexForward", True):
                keys, more = partition.keys[low : min(high, low + most)], high - low > most
            else:
                keys, more = partition.keys[max(low, high - most) : high][::-1], high - low > most
            found = [partition.items[key] for key in keys]
            # DynamoDB names a next page whenever the limit was reached, even if nothing follows
            more = more or bool(request.get("Limit") and len(found) == request["Limit"])
            return _page(found, accept, request, (schema, table.schema) if more else None)

    def scan(self, **request: Any) -> dict[str, Any]:
        """Return one page of all items."""
        table = self._table(request, "Scan")
        with _Refusals("Scan"):
            names: Names = request.get("ExpressionAttributeNames") or _EMPTY
            values: Values = request.get("ExpressionAttributeValues") or _EMPTY
            accept = _filter(request, expressions.Used(frozenset(), frozenset()), names, values)
            index = request.get("IndexName")
            partitions = table.index_partitions[index] if index else table.partitions
            schema = table.indexes[index] if index else table.schema
            everything = [
                (place, key, partition)
                for place, partition in sorted(partitions.items(), key=lambda entry: str(entry[0]))
                for key in partition.keys
            ]
            start = 0
            if request.get("ExclusiveStartKey") is not None:
                after = table.schema.key(request["ExclusiveStartKey"])
                places = [table.schema.key(partition.items[key]) for _, key, partition in everything]
                start = places.index(after) + 1 if after in places else 0
            most = min(request.get("Limit") or self._page_items, self._page_items)
            found = [partition.items[key] for _, key, partition in everything[start : start + most]]
            more = len(everything) > start + most
            return _page(found, accept, request, (schema, table.schema) if more else None)

    def get_paginator(self, operation: str) -> "_Paginator":
        """Return what follows `LastEvaluatedKey` by itself."""
        return _Paginator({"query": self.query, "scan": self.scan}[operation])

    def items(self, table: str) -> Iterator[Item]:
        """Yield a copy of every item of a table; not a call of DynamoDB's."""
        for partition in self._tables[table].partitions.values():
            for key in partition.keys:
                yield _copy(partition.items[key])

    def _table(self, request: Mapping[str, Any], operation: str) -> _Table:
        table = self._tables.get(request["TableName"])
        if table is None:
            raise client_error("ResourceNotFoundException", operation, "Requested resource not found")
        return table


class _Paginator:
    def __init__(self, call: Callable[..., dict[str, Any]]) -> None:
        self._call = call

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages."""
        while True:
            page = self._call(**request)
            yield page
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


class _Refusals:
    """Turns what an expression is refused for into a ValidationException."""

    __slots__ = ("operation",)

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ValueError):
            raise client_error("ValidationException", self.operation, str(error)) from error


def _copy(item: Item) -> Item:
    try:
        return cast("Item", marshal.loads(marshal.dumps(item)))
    except ValueError:  # a subclass of str somewhere
        return {str(name): cast("Value", _plain(value)) for name, value in item.items()}


def _plain(value: Any) -> Any:
    """Return a deep copy without subclasses of str."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {_plain(name): _plain(member) for name, member in value.items()}
    return [_plain(member) for member in value] if isinstance(value, list) else value


def _check(
    item: Item | None, request: Mapping[str, Any], operation: str, used: expressions.Used | None = None
) -> None:
    """Raise unless the request's condition holds and uses every placeholder that the request gives."""
    names: Names = request.get("ExpressionAttributeNames") or _EMPTY
    values: Values = request.get("ExpressionAttributeValues") or _EMPTY
    text = request.get("ConditionExpression")
    if text is None:
        _refuse_unused(used, None, names, values)
        return
    condition, condition_used = expressions.condition(text)
    _refuse_unused(used, condition_used, names, values)
    if not condition(item if item is not None else _EMPTY, names, values):
        members = {}
        if request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and item is not None:
            members["Item"] = _copy(item)
        raise client_error("ConditionalCheckFailedException", operation, _CONDITION_FAILED, **members)


def _refuse_unused(
    one: expressions.Used | None, other: expressions.Used | None, names: Names, values: Values
) -> None:
    used_names = (one.names if one else frozenset()) | (other.names if other else frozenset())
    used_values = (one.values if one else frozenset()) | (other.values if other else frozenset())
    if unused := names.keys() - used_names:
        raise ValueError(f"Value provided in ExpressionAttributeNames unused in expressions: keys: {unused}")
    if unused := values.keys() - used_values:
        raise ValueError(f"Value provided in ExpressionAttributeValues unused in expressions: keys: {unused}")


def _filter(
    request: Mapping[str, Any], used: expressions.Used, names: Names, values: Values
) -> Callable[[Item], bool] | None:
    """Return what the filter says of an item, None where everything passes."""
    text = request.get("FilterExpression")
    projected = request.get("ProjectionExpression")
    more = expressions.projection(projected)[1].names if projected else frozenset()
    if text is None:
        _refuse_unused(used, expressions.Used(more, frozenset()), names, values)
        return None
    condition, filter_used = expressions.condition(text)
    both = expressions.Used(filter_used.names | more, filter_used.values)
    _refuse_unused(used, both, names, values)
    return lambda item: condition(item, names, values)


def _selection(
    condition: expressions.KeyCondition, schema: _Schema, names: Names
) -> tuple[str, tuple[str, tuple[str, ...]]]:
    """Return the placeholder of the partition, and operator and placeholders for the sort key."""
    hash_name = names.get(condition.hash_name, condition.hash_name)
    range_name = names.get(condition.range_name, condition.range_name)
    hash_value, operator, range_values = condition.hash_value, condition.operator, condition.range_values
    if operator == "=" and range_name == schema.hash_name:
        hash_name, range_name = range_name, hash_name
        hash_value, range_values = range_values[0], (hash_value,)
    if hash_name != schema.hash_name or (operator and range_name != schema.range_name):
        raise ValueError("Query condition missed key schema element")
    return hash_value, (operator, range_values)


def _range(
    keys: list[Any], selection: tuple[str, tuple[str, ...]], values: Values, *, indexed: bool
) -> tuple[int, int]:
    """Return the first of the keys that are selected and the one behind the last."""
    operator, placeholders = selection
    if not operator:
        return 0, len(keys)
    bounds = [expressions.compare_key(values[placeholder]) for placeholder in placeholders]
    sort: Callable[[Any], Any] | None = (lambda key: key[0]) if indexed else None

    def left(bound: Any) -> int:
        return bisect_left(keys, bound, key=sort)

    def right(bound: Any) -> int:
        return bisect_right(keys, bound, key=sort)

    first = bounds[0]
    match operator:
        case "<":
            return 0, left(first)
        case "<=":
            return 0, right(first)
        case ">":
            return right(first), len(keys)
        case ">=":
            return left(first), len(keys)
        case "=":
            return left(first), right(first)
        case "BETWEEN":
            return left(first), max(left(first), right(bounds[1]))
    highest = chr(0x10FFFF) if isinstance(first, str) else b"\xff" * 1024
    return left(first), right(first + highest)


def _page(
    found: list[Item],
    accept: Callable[[Item], bool] | None,
    request: Mapping[str, Any],
    next_key: tuple[_Schema, _Schema] | None,
) -> dict[str, Any]:
    items = [item for item in found if accept is None or accept(item)]
    answer: dict[str, Any] = {"Count": len(items), "ScannedCount": len(found)}
    if request.get("Select") != "COUNT":
        answer["Items"] = [_projected(_copy(item), request) for item in items]
    if next_key is not None and found:
        names = {name for schema in next_key for name in schema if name}
        answer["LastEvaluatedKey"] = {name: dict(found[-1][name]) for name in names}
    return answer


def _projected(item: Item, request: Mapping[str, Any]) -> Item:
    text = request.get("ProjectionExpression")
    if text is None:
        return item
    names: Names = request.get("ExpressionAttributeNames") or _EMPTY
    answer: Item = {}
    for path in expressions.projection(text)[0]:
        value = expressions.find(item, path, names)
        if value is None:
            continue
        parts = [names.get(str(part), str(part)) for part in path if not isinstance(part, int)]
        place: dict[str, Any] = answer
        for part in parts[:-1]:
            place = place.setdefault(part, {"M": {}})["M"]
        place[parts[-1]] = value
    return answer


def _updated(item: Item, update: expressions.Update, request: Mapping[str, Any]) -> Item:
    names: Names = request.get("ExpressionAttributeNames") or _EMPTY
    values: Values = request.get("ExpressionAttributeValues") or _EMPTY
    new = _copy(item)
    # every operand reads the item as it was
    for path, value in [(path, operand(item, names, values)) for path, operand in update.sets]:
        _set(new, path, names, _copy({"": cast("Value", value)})[""])
    for path in update.removes:
        _remove(new, path, names)
    for path, placeholder in update.adds:
        added = values[placeholder]
        _set(new, path, names, _added(expressions.find(item, path, names), added))
    for path, placeholder in update.deletes:
        _subtract(new, path, names, values[placeholder])
    return new


def _container(item: Item, path: expressions.Path, names: Names) -> tuple[Any, str | int]:
    """Return the map or list that holds the path's last part, and that part."""
    invalid = "The document path provided in the update expression is invalid for update"
    last = path[-1]
    key = last if isinstance(last, int) else names.get(last, last)
    if len(path) == 1:
        return item, key
    parent = expressions.find(item, path[:-1], names)
    kind = "L" if isinstance(last, int) else "M"
    if parent is None or kind not in parent:
        raise ValueError(invalid)
    return parent[kind], key


def _set(item: Item, path: expressions.Path, names: Names, value: Value) -> None:
    container, key = _container(item, path, names)
    if isinstance(container, list) and int(key) >= len(container):
        container.append(value)
    else:
        container[key] = value


def _remove(item: Item, path: expressions.Path, names: Names) -> None:
    container, key = _container(item, path, names)
    if isinstance(container, list):
        del container[int(key) : int(key) + 1]
    else:
        container.pop(key, None)


def _added(old: Value | None, added: Value) -> Value:
    ((kind, amount),) = added.items()
    if kind == "N":
        total = expressions.number(amount) + (expressions.number(old["N"]) if old is not None else 0)
        return {"N": expressions.number_text(total)}
    if kind in ("SS", "NS", "BS"):
        members = list(old[kind]) if old is not None else []
        return {kind: [*members, *(member for member in amount if member not in members)]}
    raise ValueError("Incorrect operand type for operator or function; operator: ADD")


def _subtract(item: Item, path: expressions.Path, names: Names, removed: Value) -> None:
    old = expressions.find(item, path, names)
    ((kind, members),) = removed.items()
    if old is None or kind not in old:
        return
    left = [member for member in old[kind] if member not in members]
    if left:
        _set(item, path, names, {kind: left})
    else:
        _remove(item, path, names)


def _returned(
    old: Item | None, new: Item, update: expressions.Update, request: Mapping[str, Any]
) -> dict[str, Any]:
    wanted = request.get("ReturnValues", "NONE")
    if wanted == "NONE":
        return {}
    if wanted == "ALL_NEW":
        return {"Attributes": _copy(new)}
    if wanted == "ALL_OLD":
        return {"Attributes": _copy(old)} if old is not None else {}
    names: Names = request.get("ExpressionAttributeNames") or _EMPTY
    paths = [path for path, _ in update.sets] + [path for path, _ in update.adds]
    paths += [*update.removes, *(path for path, _ in update.deletes)]
    source = new if wanted == "UPDATED_NEW" else old or {}
    top = {names.get(str(path[0]), str(path[0])) for path in paths}
    attributes = {name: source[name] for name in top if name in source}
    return {"Attributes": _copy(attributes)} if attributes else {}
