"""A table's items and its global secondary indexes."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from doubles.dynamodb.expressions import COMPARATORS, Item, Value, compare_key

Place = tuple[Any, tuple[Any, ...]]
"""Where an item is: the value of its partition key, then what sorts it within the partition."""

_MAX_BYTES = (2048, 1024)  # of a partition key, and of a sort key


class Schema(NamedTuple):
    """The key attributes of a table or an index, and their types: strings unless defined otherwise."""

    names: tuple[str, ...]
    types: Mapping[str, str]

    @classmethod
    def of(cls, keys: Iterable[Mapping[str, str]], types: Mapping[str, str]) -> "Schema":
        """Return the schema of a `KeySchema`."""
        return cls(tuple(key["AttributeName"] for key in sorted(keys, key=lambda key: key["KeyType"])), types)

    def place(self, item: Mapping[str, Value]) -> Place:
        """Return where an item that has the key attributes is."""
        hash_value, *sort = [compare_key(item[name]) for name in self.names]
        return hash_value, tuple(sort)

    def check(self, item: Mapping[str, Value]) -> None:
        """Raise ValueError for a key attribute of the wrong type or size, among those that the item has."""
        for name, most in zip(self.names, _MAX_BYTES, strict=False):
            if name not in item:
                continue
            ((kind, raw),) = item[name].items()
            size = len(raw.encode() if isinstance(raw, str) else raw)
            if kind != self.types.get(name, "S") or not 1 <= size <= most:
                raise ValueError(
                    f"One or more parameter values were invalid: key {name}: {kind} of {size} bytes"
                )


class Collection:
    """Items by partition and sort value: those of a table, or of an index."""

    def __init__(self) -> None:
        self._partitions: defaultdict[Any, dict[tuple[Any, ...], Item]] = defaultdict(dict)

    def get(self, place: Place) -> Item | None:
        """Return the item at a place."""
        return self._partitions.get(place[0], {}).get(place[1])

    def put(self, place: Place, item: Item | None) -> None:
        """Store an item at a place, or delete the one that is there."""
        if item is not None:
            self._partitions[place[0]][place[1]] = item
        else:
            self._partitions[place[0]].pop(place[1], None)

    def select(
        self, hash_value: Any, sign: str, bound: Any, *, after: tuple[Any, ...] | None, forward: bool
    ) -> list[Item]:
        """Return the items of a partition in order.

        Args:
            hash_value: of the partition.
            sign: compares the sort key with `bound`; empty for all items.
            bound: a value of the sort key.
            after: the sort value of the last item that the caller has, None at the beginning.
            forward: False for descending order.
        """
        partition = self._partitions.get(hash_value, {})
        found = sorted(partition.items(), key=lambda entry: entry[0], reverse=not forward)
        return [
            item
            for sort, item in found
            if (not sign or COMPARATORS[sign](sort[0], bound))
            and (after is None or (sort > after if forward else sort < after))
        ]

    def all(self, after: Place | None = None) -> list[Item]:
        """Return every item, or those after a place, partition by partition."""
        start = None if after is None else (str(after[0]), after[1])
        items = {
            (str(hash_value), sort): item
            for hash_value, partition in self._partitions.items()
            for sort, item in partition.items()
        }
        return [items[place] for place in sorted(items) if start is None or place > start]


class Index:
    """A global secondary index: sparse, and as far behind its table as it is told to be.

    Args:
        request: an element of CreateTable's `GlobalSecondaryIndexes`.
        table: the table's schema.
    """

    def __init__(self, request: Mapping[str, Any], table: Schema) -> None:
        self.schema = Schema.of(request["KeySchema"], table.types)
        projection = request["Projection"]
        self._projects_all = projection["ProjectionType"] == "ALL"
        self._projected = {*self.schema.names, *table.names, *projection.get("NonKeyAttributes", ())}
        self._seen: dict[Place, Item] = {}
        self._pending: deque[tuple[float, Place, Item | None]] = deque()

    def follow(self, due: float, place: Place, item: Item | None) -> None:
        """Show from a time on, UNIX seconds, what the table has at a place."""
        self._pending.append((due, place, item))

    def place(self, key: Mapping[str, Value], table_place: Place) -> Place:
        """Return where the index holds an item. The table's key separates items with equal index keys."""
        hash_value, sort = self.schema.place(key)
        return hash_value, (*sort, table_place)

    def items(self, now: float) -> Collection:
        """Return what the index shows at a time, UNIX seconds."""
        while self._pending and self._pending[0][0] <= now:
            _, place, item = self._pending.popleft()
            self._seen.pop(place, None)
            if item is not None and all(name in item for name in self.schema.names):
                self._seen[place] = item
        shown = Collection()
        for place, item in self._seen.items():
            kept = {name: item[name] for name in item if self._projects_all or name in self._projected}
            shown.put(self.place(item, place), kept)
        return shown


class Table:
    """A table and its indexes.

    Args:
        request: of CreateTable.
        now: tells UNIX seconds.
    """

    def __init__(self, request: Mapping[str, Any], now: Callable[[], float]) -> None:
        types = {
            one["AttributeName"]: one["AttributeType"] for one in request.get("AttributeDefinitions", ())
        }
        self.schema = Schema.of(request["KeySchema"], types)
        self.items = Collection()
        indexes = request.get("GlobalSecondaryIndexes", ())
        self.indexes = {index["IndexName"]: Index(index, self.schema) for index in indexes}
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
        for schema in (self.schema, *(index.schema for index in self.indexes.values())):
            schema.check(item)
        return self.place({name: item[name] for name in self.schema.names if name in item})

    def put(self, place: Place, item: Item | None) -> None:
        """Store an item, or delete the one that is there. The indexes follow."""
        self.items.put(place, item)
        for index in self.indexes.values():
            index.follow(self._now() + self.index_delay_seconds, place, item)
