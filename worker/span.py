"""Spans: the records of one shard that the worker plans as one unit.

The plan (borders, destinations, cut) never changes. The entries say what became of the chunks, as exceptions from the plan: while
the span is open, a chunk without an entry is pending; once it is done, delivered.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple, Self

from worker.chain import ChainId
from worker.delivery import FINAL, Entry, State
from worker.record import NOBODY, Number, Record

SECONDS_KEPT = 366 * 86_400
"""How long a settled span is remembered: longer than any retention, so a replay always finds it."""

MAX_PLAN_BYTES = 280_000
MAX_ITEM_BYTES = 370_000
"""A span's item stays below DynamoDB's 400 KB, whatever becomes of its chunks; splits may use what the plan leaves."""

TOO_MANY_TABLES = "too_many_tables"
"""Why rows are dead letters if their account has too many tables."""

EXPIRED = -1
"""The part of a group that stands for rows whose records have expired."""

_ENTRY_BYTES = (
    330  # the most that an entry takes beside its key: names and digests of a chunk that was edited
)
_HALVES = {"0": 0, "1": 1}


class Owner(NamedTuple):
    """Whose rows a group holds.

    Attributes:
        account: the account; NOBODY for records that name none.
        key_id: of a revoked write key, whose rows are kept apart from the account's others; else empty.
    """

    account: str
    key_id: str = ""

    @property
    def name(self) -> str:
        """The text for the ledger: `account`, or `account:key id`."""
        return f"{self.account}:{self.key_id}" if self.key_id else self.account

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the owner of that name."""
        account, _, key_id = name.partition(":")
        return cls(account, key_id)


NO_OWNER = Owner(NOBODY)


class Group(NamedTuple):
    """Rows of one owner's table within a span, or what could not become rows.

    Attributes:
        owner: whose they are.
        table: their table; empty for what could not become rows, unless it was rejected and named a table.
        code: why it could not; empty for rows.
        is_rejected: they are events whose senders were told so: they are not received, but counted and, in part, kept.
    """

    owner: Owner
    table: str
    code: str = ""
    is_rejected: bool = False

    @property
    def name(self) -> str:
        """The text for the ledger: `owner/table`, `owner/-code` or `owner/table!code`; no table has such a name."""
        return f"{self.owner.name}/{self.label}"

    @property
    def label(self) -> str:
        """The table, or `-` and the code, or, for rejected events, their table, `!` and the code."""
        if self.is_rejected:
            return f"{self.table}!{self.code}"
        return f"-{self.code}" if self.code else self.table

    @property
    def is_gathered(self) -> bool:
        """Whether its blocks are made from those of many records and tables."""
        return self.is_rejected or self.code == TOO_MANY_TABLES

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the group of that name."""
        owner, _, table = name.partition("/")
        if table.startswith("-"):
            return cls(Owner.parse(owner), "", table[1:])
        if "!" in table:
            table, _, code = table.partition("!")
            return cls(Owner.parse(owner), table, code, is_rejected=True)
        return cls(Owner.parse(owner), table)


class ChunkKey(NamedTuple):
    """Names a chunk within its span.

    Attributes:
        group: whose rows they are, and of which table.
        part: its number among the parts that the group is cut into.
        path: for a half `0` or `1`, for half of a half two digits, and so on; empty for a planned chunk.
    """

    group: Group
    part: int
    path: str = ""

    @property
    def name(self) -> str:
        """The text for the ledger: `owner/table/part`, and `.0` or `.1` for each halving."""
        return ".".join((f"{self.group.name}/{self.part}", *self.path))

    @property
    def account(self) -> str:
        """Whose rows they are."""
        return self.group.owner.account

    @property
    def planned(self) -> "ChunkKey":
        """The planned chunk that it is, or is a half of."""
        return self._replace(path="")

    @property
    def halves(self) -> "tuple[ChunkKey, ChunkKey]":
        """The two chunks that stand for it once it is split."""
        return self._replace(path=f"{self.path}0"), self._replace(path=f"{self.path}1")

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the key of that name.

        Raises:
            ValueError: it is not a chunk's name.
        """
        group, _, part = name.rpartition("/")
        number, *path = part.split(".")
        if not group or not all(step in _HALVES for step in path):
            raise ValueError(f"{name!r} does not name a chunk")
        return cls(Group.parse(group), int(number), "".join(path))

    def within(self, rows: int) -> range:
        """Return the positions of its rows among those of its planned chunk, which has that many."""
        positions = range(rows)
        for step in self.path:
            half = len(positions) // 2
            positions = positions[half:] if _HALVES[step] else positions[:half]
        return positions


@dataclass(frozen=True, slots=True)
class Database:
    """Rows go to this Treasure Data database."""

    name: str

    @property
    def text(self) -> str:
        """The text for the ledger: the database's name."""
        return self.name


@dataclass(frozen=True, slots=True)
class NotDeliverable:
    """Rows go nowhere; the reason says why, in one word."""

    reason: str

    @property
    def text(self) -> str:
        """The text for the ledger: `!` and the reason, which no database can be called."""
        return f"!{self.reason}"


Destination = Database | NotDeliverable


@dataclass(frozen=True, slots=True)
class Cut:
    """The limits by which groups are cut into chunks."""

    rows: int
    bytes: int


class Archived(NamedTuple):
    """How the archive keeps a span's records: when the first and the last arrived (UNIX milliseconds), and for how many days."""

    since: int
    until: int
    days: int

    @classmethod
    def of(cls, records: Iterable[Record], days: int) -> Self | None:
        """Return how records are to be archived; None if they are not, for 0 days."""
        arrivals = [record[1] for record in records]
        return cls(milliseconds(min(arrivals)), milliseconds(max(arrivals)), days) if days else None


def milliseconds(seconds: float) -> int:
    """Return UNIX milliseconds, the unit of the times in the ledger."""
    return round(seconds * 1000)


@lru_cache(maxsize=16)
def _pending(since: int) -> Entry:
    return Entry(since=since)


_DELIVERED = Entry(State.DELIVERED)


@dataclass(frozen=True, slots=True)
class Span:
    """A span of a chain.

    Attributes:
        after: last sequence number of the preceding span.
        planned_at: UNIX milliseconds.
        records: how many records it holds.
        digest: of their sequence numbers; empty if the span was planned without it.
        ignored: positions among them of those whose rows do not count, because another copy of their envelope does.
        archived: how the archive keeps its records; None if it does not.
        version: grows by one with every write.
        writer: names the last write.
        done: no chunk is pending: all are delivered or set aside.
        settled_at: UNIX seconds at which its last chunk reached a final state; None while one is pending or set aside.
        entries: exceptions from the plan.
        in_order: the event source delivered it, not a replay: all records before its batch were settled by then.
    """

    chain: ChainId
    after: Number
    first: Number
    last: Number
    planned_at: int
    destinations: Mapping[Owner, Destination]
    cut: Cut
    counts: Mapping[Group, int]
    records: int = 0
    digest: bytes = b""
    ignored: frozenset[int] = frozenset()
    archived: Archived | None = None
    version: int = 1
    writer: str = ""
    done: bool = False
    settled_at: int | None = field(default=None, compare=False)
    entries: Mapping[ChunkKey, Entry] = field(default_factory=dict)
    in_order: bool = False

    def has(self, number: Number) -> bool:
        """Tell whether a record lies within the span."""
        return self.first <= number <= self.last

    def is_whole(self, numbers: Sequence[Number]) -> bool:
        """Tell whether these are the sequence numbers of its records: all of them, and no others."""
        if len(numbers) != self.records:
            return False
        return not self.digest or self.digest == digest_of(numbers)

    def entry(self, key: ChunkKey) -> Entry:
        """Return what the ledger says of a chunk."""
        entry = self.entries.get(key)
        if entry is not None:
            return entry
        return _DELIVERED if self.done else _pending(self.planned_at)

    def leaves(self, key: ChunkKey) -> Iterator[ChunkKey]:
        """Yield the chunks that stand for a chunk: itself, or the halves that it was split into."""
        entry = self.entries.get(key)
        if entry is None or entry.state is not State.SPLIT:
            yield key
        else:
            for half in key.halves:
                yield from self.leaves(half)

    def is_final(self, key: ChunkKey) -> bool:
        """Tell whether every row of a chunk's planned chunk is in a final state."""
        return all(self.entry(leaf).state in FINAL for leaf in self.leaves(key.planned))

    def destination(self, key: ChunkKey) -> Destination:
        """Return where a chunk goes."""
        if key.group.code:
            return NotDeliverable(key.group.code)
        database = self.entry(key).database
        return Database(database) if database else self.destinations[key.group.owner]

    def unique_id(self, key: ChunkKey, database: str, generation: int | None = None) -> str:
        """Return the id under which a chunk is sent to a database: the same rows always have the same id, until it is renewed."""
        current = self.entry(key).generation if generation is None else generation
        return self._digest(key, database, str(current))

    def object_id(self, key: ChunkKey) -> str:
        """Return what names the objects of a planned chunk in S3."""
        return self._digest(key.planned, "aside", "")

    def _digest(self, key: ChunkKey, *rest: str) -> str:
        members = (self.chain.name, self.after, key.name, str(self.cut.rows), str(self.cut.bytes), *rest)
        return hashlib.sha256("\n".join(members).encode()).hexdigest()[:32]

    def with_entries(self, changes: Mapping[ChunkKey, Entry], *, done: bool = False) -> "Span":
        """Return the span with these entries; a done span keeps only those of chunks that are not delivered.

        A span of an overflow chain keeps all: they tell whether a chunk was sent, or came by the stream after all.
        """
        entries = {**self.entries, **changes}
        done = done or self.done
        if done and not self.chain.is_overflow:
            entries = {key: one for key, one in entries.items() if one.state is not State.DELIVERED}
        for key in sorted(entries, key=_depth, reverse=True):
            if entries[key].state is State.SPLIT:
                _join(entries, key, done=done)
        return replace(self, entries=entries, done=done)

    def can_split(self, key: ChunkKey) -> bool:
        """Tell whether the item has room for a chunk's halves, whatever becomes of all that it holds."""
        planned = plan_bytes(self.counts, self.destinations, self.cut)
        halves = sum(_ENTRY_BYTES + len(one.name) for one in self.entries if one.path)
        return planned + halves + 2 * (_ENTRY_BYTES + len(key.name) + 2) <= MAX_ITEM_BYTES


def digest_of(numbers: Iterable[Number]) -> bytes:
    """Return a digest of records, by their sequence numbers in order."""
    return hashlib.sha256("".join(numbers).encode()).digest()[:8]


def plan_bytes(counts: Mapping[Group, int], destinations: Mapping[Owner, Destination], cut: Cut) -> int:
    """Return the most bytes that a span's item takes before anything is split: an entry for each chunk."""
    size = 0
    for group, rows in counts.items():
        parts = 1 + 2 * rows // cut.rows
        size += len(group.name) + 16 + parts * (len(group.name) + _ENTRY_BYTES)
    for owner, destination in destinations.items():
        size += len(owner.name) + len(destination.text) + 16
    return size


def _depth(key: ChunkKey) -> int:
    return len(key.path)


def _join(entries: dict[ChunkKey, Entry], key: ChunkKey, *, done: bool) -> None:
    """Let one entry stand for two halves that have ended alike; in a done span, none for halves that are delivered."""
    first, second = (entries.get(half) for half in key.halves)
    if first is None and second is None and done:
        del entries[key]
    elif first is not None and second is not None and first.state is second.state and first.state in FINAL:
        for half in key.halves:
            del entries[half]
        entries[key] = replace(first, rows=first.rows + second.rows)
