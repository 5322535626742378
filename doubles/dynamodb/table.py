"""A table's items and its global secondary indexes."""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from doubles.dynamodb.expressions import Item, Value, compare_key

Place = tuple[Any, tuple[Any, ...]]
"""Where an item is: the value of its partition key, then what sorts it within the partition."""

_MAX_HASH_BYTES = 2048
_MAX_RANGE_BYTES = 1024


class Schema(NamedTuple):
    """The key attributes of a table or an index, and their types: strings where nothing else is said."""

    hash_name: str
    range_name: str | None
    types: Mapping[str, str]

    @classmethod
    def of(cls, keys: Iterable[Mapping[str, str]], types: Mapping[str, str]) -> "Schema":
        """Return the schema of a `KeySchema`."""
        names = {key["KeyType"]: key["AttributeName"] for key in keys}
        return cls(names["HASH"], names.get("RANGE"), types)

    @property
    def names(self) -> list[str]:
        """The key attributes."""
        return [self.hash_name, self.range_name] if self.range_name else [self.hash_name]

    def place(self, item: Mapping[str, Value]) -> Place:
        """Return where an item that has the key attributes is."""
        ranges = (compare_key(item[self.range_name]),) if self.range_name else ()
        return compare_key(item[self.hash_name]), ranges

    def key(self, item: Mapping[str, Value]) -> dict[str, Value]:
        """Return the key attributes of an item."""
        return {name: item[name] for name in self.names}

    def check(self, item: Mapping[str, Value]) -> None:
        """Raise ValueError for a key attribute of the wrong type or size, among those that the item has."""
        for name, most in zip(self.names, (_MAX_HASH_BYTES, _MAX_RANGE_BYTES), strict=False):
            if name not in item:
                continue
            ((kind, raw),) = item[name].items()
            if kind != (expected := self.types.get(name, "S")):
                raise ValueError(
                    "One or more parameter values were invalid: "
                    f"Type mismatch for key {name} expected: {expected} actual: {kind}"
                )
            size = len(raw.encode() if isinstance(raw, str) else raw)
            if not size:
                raise ValueError(
                    "One or more parameter values are not valid. "
                    f"A value specified for a key attribute is empty. Key: {name}"
                )
            if size > most:
                raise ValueError(
                    f"One or more parameter values were invalid: Size of key {name} exceeds {most}"
                )


class _Partition:
    """The items of one partition, sorted."""

    __slots__ = ("items", "sorts")

    def __init__(self) -> None:
        self.sorts: list[tuple[Any, ...]] = []
        self.items: dict[tuple[Any, ...], Item] = {}


class Collection:
    """Items by partition and sort value: those of a table, or of an index.

    Args:
        schema: of the key.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._partitions: dict[Any, _Partition] = {}

    def get(self, place: Place) -> Item | None:
        """Return the item at a place."""
        partition = self._partitions.get(place[0])
        return partition.items.get(place[1]) if partition is not None else None

    def put(self, place: Place, item: Item | None) -> None:
        """Store an item at a place, or delete the one that is there."""
        hash_value, sort = place
        partition = self._partitions.get(hash_value)
        if item is not None:
            if partition is None:
                partition = self._partitions[hash_value] = _Partition()
            if sort not in partition.items:
                insort(partition.sorts, sort)
            partition.items[sort] = item
        elif partition is not None and partition.items.pop(sort, None) is not None:
            del partition.sorts[bisect_left(partition.sorts, sort)]
            if not partition.sorts:
                del self._partitions[hash_value]

    def select(self, hash_value: Any, operator: str, bound: Any, after: Any, *, forward: bool) -> list[Item]:
        """Return the items of a partition in order.

        Args:
            hash_value: of the partition.
            operator: compares the sort key with `bound`; empty for all items.
            bound: a value of the sort key.
            after: the sort value of the last item that the caller has, None at the beginning.
            forward: False for descending order.
        """
        partition = self._partitions.get(hash_value)
        if partition is None:
            return []
        sorts = partition.sorts
        low, high = 0, len(sorts)
        if operator in (">", ">=", "="):
            cut = bisect_right if operator == ">" else bisect_left
            low = cut(sorts, bound, key=itemgetter(0))
        if operator in ("<", "<=", "="):
            cut = bisect_left if operator == "<" else bisect_right
            high = cut(sorts, bound, key=itemgetter(0))
        if after is not None and forward:
            low = max(low, bisect_right(sorts, after))
        elif after is not None:
            high = min(high, bisect_left(sorts, after))
        selected = sorts[low:high] if forward else sorts[low:high][::-1]
        return [partition.items[sort] for sort in selected]

    def all(self) -> Iterator[tuple[Place, Item]]:
        """Yield every item and its place, partition by partition."""
        for hash_value in sorted(self._partitions, key=str):
            partition = self._partitions[hash_value]
            for sort in partition.sorts:
                yield (hash_value, sort), partition.items[sort]


class Index:
    """A global secondary index: sparse, and as far behind its table as it is told to be.

    Args:
        schema: of the index.
        table: the table's schema.
        projected: attributes that the index holds beside the keys, None for all.
    """

    def __init__(self, schema: Schema, table: Schema, projected: frozenset[str] | None) -> None:
        self.schema = schema
        self.items = Collection(schema)
        self._projected = None if projected is None else projected | {*schema.names, *table.names}
        self._places: dict[Place, Place] = {}  # where an item of the table is in the index
        self._pending: deque[tuple[float, Place, Item | None]] = deque()

    def place(self, key: Mapping[str, Value], table_place: Place) -> Place:
        """Return where the index holds an item; the table's key keeps items with equal index keys apart."""
        hash_value, ranges = self.schema.place(key)
        return hash_value, (*(ranges or ("",)), table_place)

    def update(self, due: float, place: Place, item: Item | None) -> None:
        """Follow a write to the table, from the time `due` on.

        Args:
            due: UNIX seconds.
            place: where the table holds the item.
            item: what is there now.
        """
        self._pending.append((due, place, item))

    def settle(self, now: float) -> None:
        """Apply the writes that are due, in their order."""
        while self._pending and self._pending[0][0] <= now:
            _, place, item = self._pending.popleft()
            if place in self._places:
                self.items.put(self._places.pop(place), None)
            if item is None or not all(name in item for name in self.schema.names):
                continue
            self._places[place] = self.place(item, place)
            self.items.put(self._places[place], self._project(item))

    def _project(self, item: Item) -> Item:
        if self._projected is None:
            return item
        return {name: value for name, value in item.items() if name in self._projected}


class Table:
    """A table and its indexes.

    Args:
        request: of CreateTable.
        now: tells UNIX seconds.
    """

    def __init__(self, request: Mapping[str, Any], now: Callable[[], float]) -> None:
        types = {
            attribute["AttributeName"]: attribute["AttributeType"]
            for attribute in request.get("AttributeDefinitions", ())
        }
        self.schema = Schema.of(request["KeySchema"], types)
        self.items = Collection(self.schema)
        self.indexes = {
            index["IndexName"]: Index(
                Schema.of(index["KeySchema"], types), self.schema, _projection(index["Projection"])
            )
            for index in request.get("GlobalSecondaryIndexes", ())
        }
        self.index_delay_seconds = 0.0
        self._now = now

    def place(self, key: Mapping[str, Value]) -> Place:
        """Return where the item with a key is.

        Raises:
            ValueError: the key has other attributes than the table's, or values that cannot be keys.
        """
        if key.keys() != set(self.schema.names):
            raise ValueError("The provided key element does not match the schema")
        self.schema.check(key)
        return self.schema.place(key)

    def place_of(self, item: Item) -> Place:
        """Return where a whole item belongs.

        Raises:
            ValueError: it lacks a key attribute, or has a value that cannot be a key of the table or an index.
        """
        for name in self.schema.names:
            if name not in item:
                raise ValueError(
                    f"One or more parameter values were invalid: Missing the key {name} in the item"
                )
        for schema in (self.schema, *(index.schema for index in self.indexes.values())):
            schema.check(item)
        return self.schema.place(item)

    def put(self, place: Place, item: Item | None) -> None:
        """Store an item, or delete the one that is there; the indexes follow."""
        self.items.put(place, item)
        due = self._now() + self.index_delay_seconds
        for index in self.indexes.values():
            index.update(due, place, item)

    def index(self, name: str) -> Index:
        """Return an index as of now.

        Raises:
            ValueError: there is none with this name.
        """
        if name not in self.indexes:
            raise ValueError(f"The table does not have the specified index: {name}")
        self.indexes[name].settle(self._now())
        return self.indexes[name]


def _projection(projection: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the attributes that an index projects beside the keys, None for all."""
    if projection["ProjectionType"] == "ALL":
        return None
    return frozenset(projection.get("NonKeyAttributes", ()))
