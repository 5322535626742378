"""A table's items, its global secondary indexes, and the size of items."""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

from doubles.dynamodb.expressions import Item, Value

Place = tuple[Any, tuple[Any, ...]]
"""Where an item is: the value of its partition key, then the values that order it within the partition."""

MAX_ITEM_BYTES = 400 * 1024
_MAX_BYTES = (2048, 1024)  # for a partition key and a sort key


class Schema:
    """The `KeySchema` of a table or an index: its key attributes, all of them strings."""

    def __init__(self, keys: Iterable[Mapping[str, str]]) -> None:
        self.names = tuple(key["AttributeName"] for key in sorted(keys, key=itemgetter("KeyType")))

    def place(self, item: Mapping[str, Value]) -> Place:
        """Return the place of an item that has the key attributes."""
        hash_value, *sort = [item[name]["S"] for name in self.names]
        return hash_value, tuple(sort)

    def check(self, item: Mapping[str, Value]) -> None:
        """Raise ValueError if a key attribute that the item has is of the wrong type or size."""
        for name, most in zip(self.names, _MAX_BYTES, strict=False):
            if name not in item:
                continue
            ((kind, raw),) = item[name].items()
            size = len(raw.encode() if isinstance(raw, str) else raw)
            if kind != "S" or not 1 <= size <= most:
                raise ValueError(
                    f"One or more parameter values were invalid: key {name}: {kind} of {size} bytes"
                )


class Collection:
    """The items of a table or an index, ordered by place."""

    def __init__(self) -> None:
        self._items: dict[Place, Item] = {}
        self._places: list[Place] = []  # in order, so that a page costs the same however many items there are

    def get(self, place: Place) -> Item | None:
        """Return the item at a place."""
        return self._items.get(place)

    def put(self, place: Place, item: Item | None) -> None:
        """Store an item at a place, or delete the item there if `item` is None."""
        if item is not None:
            if place not in self._items:
                insort(self._places, place)
            self._items[place] = item
        elif self._items.pop(place, None) is not None:
            del self._places[bisect_left(self._places, place)]

    def select(
        self, hash_value: Any, sign: str, bound: Any, *, after: tuple[Any, ...] | None, forward: bool
    ) -> Iterator[Item]:
        """Yield the items of a partition in order.

        Args:
            hash_value: the partition key's value.
            sign: the comparator between the sort key and `bound`; empty for all items.
            bound: a value of the sort key.
            after: the sort values of the last item that the caller has; None to start from the first.
            forward: False for descending order.
        """
        places = self._places
        begin = bisect_left(places, hash_value, key=itemgetter(0))
        end = bisect_right(places, hash_value, lo=begin, key=itemgetter(0))
        if sign in ("=", ">=", ">"):
            bisect = bisect_right if sign == ">" else bisect_left
            begin = bisect(places, bound, begin, end, key=_sort_key)
        if sign in ("=", "<=", "<"):
            bisect = bisect_left if sign == "<" else bisect_right
            end = bisect(places, bound, begin, end, key=_sort_key)
        if after is not None and forward:
            begin = bisect_right(places, (hash_value, after), begin, end)
        elif after is not None:
            end = bisect_left(places, (hash_value, after), begin, end)
        indexes = range(begin, end) if forward else range(end - 1, begin - 1, -1)
        return (self._items[places[index]] for index in indexes)

    def all(self, after: Place | None = None) -> Iterator[Item]:
        """Yield every item, or those after a place, partition by partition."""
        begin = 0 if after is None else bisect_right(self._places, after)
        return (self._items[self._places[index]] for index in range(begin, len(self._places)))


def _sort_key(place: Place) -> Any:
    return place[1][0]


class Index:
    """A global secondary index: sparse, keys only, and with a configurable lag behind its table."""

    def __init__(self, request: Mapping[str, Any], table: Schema) -> None:
        if request["Projection"] != {"ProjectionType": "KEYS_ONLY"}:
            raise NotImplementedError("an index of the DynamoDB double projects only keys")
        self.schema = Schema(request["KeySchema"])
        self._projected = {*self.schema.names, *table.names}
        self._shown = Collection()
        self._shown_at: dict[Place, Place] = {}  # by the table's place, the index's
        self._pending: deque[tuple[float, Place, Item | None]] = deque()

    def follow(self, due: float, place: Place, item: Item | None) -> None:
        """Show a change of the table at a place from a time on, UNIX seconds. An item of None is a deletion."""
        self._pending.append((due, place, item))

    def place(self, key: Mapping[str, Value], table_place: Place) -> Place:
        """Return an item's place in the index. The table's key distinguishes items with equal index keys."""
        hash_value, sort = self.schema.place(key)
        return hash_value, (*sort, table_place)

    def items(self, now: float) -> Collection:
        """Return what the index shows at a time, UNIX seconds."""
        while self._pending and self._pending[0][0] <= now:
            _, place, item = self._pending.popleft()
            if place in self._shown_at:
                self._shown.put(self._shown_at.pop(place), None)
            if item is not None and all(name in item for name in self.schema.names):
                self._shown_at[place] = self.place(item, place)
                kept = {name: item[name] for name in self._projected}
                self._shown.put(self._shown_at[place], kept)
        return self._shown


class Table:
    """A table and its indexes, as specified by a CreateTable request."""

    def __init__(self, request: Mapping[str, Any], now: Callable[[], float]) -> None:
        if any(one["AttributeType"] != "S" for one in request["AttributeDefinitions"]):
            raise NotImplementedError("the DynamoDB double supports only keys that are strings")
        self.request = request
        self.created = now()
        self.schema = Schema(request["KeySchema"])
        self.items = Collection()
        indexes = request.get("GlobalSecondaryIndexes", ())
        self.indexes = {index["IndexName"]: Index(index, self.schema) for index in indexes}
        self.index_delay_seconds = 0.0
        # every change and when it was made, UNIX seconds; None if nobody needs it
        self.history: list[tuple[float, Place, Item | None]] | None = None
        self._now = now

    def place(self, key: Mapping[str, Value]) -> Place:
        """Return the place of the item with a key. Raise ValueError if it cannot be a key of the table."""
        if key.keys() != set(self.schema.names):
            raise ValueError("The provided key element does not match the schema")
        self.schema.check(key)
        return self.schema.place(key)

    def place_of(self, item: Item) -> Place:
        """Return a whole item's place. Raise ValueError if it is too large, or does not fit the table and its indexes."""
        if item_size(item) > MAX_ITEM_BYTES:
            raise ValueError("Item size has exceeded the maximum allowed size")
        for schema in (self.schema, *(index.schema for index in self.indexes.values())):
            schema.check(item)
        return self.place({name: item[name] for name in self.schema.names if name in item})

    def put(self, place: Place, item: Item | None) -> None:
        """Store an item, or delete the item at its place if it is None. The indexes follow."""
        self.items.put(place, item)
        if self.history is not None:
            self.history.append((self._now(), place, item))
        for index in self.indexes.values():
            index.follow(self._now() + self.index_delay_seconds, place, item)


def item_size(item: Item) -> int:
    """Return an item's size in bytes by DynamoDB's documented rule: attribute names and values."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Value) -> int:
    ((kind, raw),) = value.items()
    match kind:
        case "S":
            return len(raw.encode())
        case "N":  # one byte for every two significant digits, plus one
            digits = raw.lower().partition("e")[0].lstrip("-+").replace(".", "").strip("0")
            return (len(digits) + 1) // 2 + 1
        case "B":
            return len(raw)
        case "M":  # three bytes, plus one for each member
            return 3 + item_size(raw) + len(raw)
        case "L":
            return 3 + sum(_value_size(element) + 1 for element in raw)
        case "BOOL" | "NULL":
            return 1
    raise NotImplementedError(f"the DynamoDB double does not support the type {kind}")
