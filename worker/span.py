"""Spans: the records of one shard that the worker plans as one unit.

The plan (borders, destinations, cut) never changes. The entries record the states of chunks that differ from the default: while the
span is open, a chunk without an entry is pending; once the span is done, it is delivered.
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
"""How long the ledger keeps a settled span: longer than any retention, so a replay always finds it."""

MAX_PLAN_BYTES = 280_000
MAX_ITEM_BYTES = 370_000
"""A span's item stays below DynamoDB's 400 KB in whatever states its chunks end; splits may use the room that the plan leaves."""

TOO_MANY_TABLES = "too_many_tables"
"""The reason of dead letters whose account has too many tables."""

EXPIRED_PART = -1
"""The part number that represents the rows of a group whose records have expired."""

_ENTRY_BYTES = 330  # the largest entry without its key: that of an edited chunk, with names and digests
_HALVES = {"0": 0, "1": 1}


class Owner(NamedTuple):
    """The owner of a group's rows.

    Attributes:
        account: the account; NOBODY for records that name none.
        key_id: the id of a revoked write key; its rows are kept apart from the account's others. Else empty.
    """

    account: str
    key_id: str = ""

    @property
    def name(self) -> str:
        """The text for the ledger: `account`, or `account:key id`."""
        return f"{self.account}:{self.key_id}" if self.key_id else self.account

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the owner with this name."""
        account, _, key_id = name.partition(":")
        return cls(account, key_id)


NO_OWNER = Owner(NOBODY)


class Group(NamedTuple):
    """Rows of one owner's table within a span, or originals that could not become rows.

    Attributes:
        table: their table; empty for originals, except rejected events that name a table.
        code: why they could not become rows; empty for rows.
        is_rejected: they are events that the ingest rejected, and told their senders so. They do not count as received; they are
            counted separately and, in part, kept.
    """

    owner: Owner
    table: str
    code: str = ""
    is_rejected: bool = False

    @property
    def name(self) -> str:
        """The text for the ledger: `owner/table`, `owner/-code` or `owner/table!code`; a table's name has neither `-` nor `!`."""
        return f"{self.owner.name}/{self.label}"

    @property
    def label(self) -> str:
        """The table, or `-` and the code; for rejected events, the table, `!` and the code."""
        if self.is_rejected:
            return f"{self.table}!{self.code}"
        return f"-{self.code}" if self.code else self.table

    @property
    def is_gathered(self) -> bool:
        """Whether its blocks are built from the blocks of several records and tables."""
        return self.is_rejected or self.code == TOO_MANY_TABLES

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the group with this name."""
        owner, _, table = name.partition("/")
        if table.startswith("-"):
            return cls(Owner.parse(owner), "", table[1:])
        if "!" in table:
            table, _, code = table.partition("!")
            return cls(Owner.parse(owner), table, code, is_rejected=True)
        return cls(Owner.parse(owner), table)


class ChunkKey(NamedTuple):
    """Identifies a chunk within its span.

    Attributes:
        part: its number among the parts that the group is cut into.
        path: `0` or `1` for a half, two digits for half of a half, and so on; empty for a planned chunk.
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
        """The account that owns its rows."""
        return self.group.owner.account

    @property
    def planned(self) -> "ChunkKey":
        """The planned chunk that this chunk is, or is a part of."""
        return self._replace(path="")

    @property
    def halves(self) -> "tuple[ChunkKey, ChunkKey]":
        """The two chunks that replace it when it is split."""
        return self._replace(path=f"{self.path}0"), self._replace(path=f"{self.path}1")

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the key with this name.

        Raises:
            ValueError: it does not name a chunk.
        """
        group, _, part = name.rpartition("/")
        number, *path = part.split(".")
        if not group or not all(step in _HALVES for step in path):
            raise ValueError(f"{name!r} does not name a chunk")
        return cls(Group.parse(group), int(number), "".join(path))

    def lineage(self) -> Iterator[Self]:
        """Yield this chunk, the chunk that it is a half of, and so on up to the planned chunk."""
        yield self
        if self.path:
            yield from self._replace(path=self.path[:-1]).lineage()

    def within(self, rows: int, whole: "ChunkKey | None" = None) -> range:
        """Return the positions of its rows within `whole`, a chunk of `rows` rows that it is a part of; by default, its planned chunk."""
        positions = range(rows)
        for step in self.path.removeprefix((whole or self.planned).path):
            half = len(positions) // 2
            positions = positions[half:] if _HALVES[step] else positions[:half]
        return positions


@dataclass(frozen=True, slots=True)
class Database:
    """A Treasure Data database that rows go to."""

    name: str

    @property
    def text(self) -> str:
        """The text for the ledger: the database's name."""
        return self.name


@dataclass(frozen=True, slots=True)
class NotDeliverable:
    """The plan names no database for these rows; `reason` says why, in one word.

    Rows of an account that could not be looked up are parked, and delivered later. Others become dead letters.
    """

    reason: str

    @property
    def text(self) -> str:
        """The text for the ledger: `!` and the reason, which cannot be a database's name."""
        return f"!{self.reason}"


Destination = Database | NotDeliverable


@dataclass(frozen=True, slots=True)
class Cut:
    """The limits of a chunk: groups are cut into chunks of at most this many rows and bytes."""

    rows: int
    bytes: int


class Archived(NamedTuple):
    """How the archive keeps a span's records.

    Attributes:
        since: UNIX milliseconds at which the earliest record arrived.
        until: UNIX milliseconds at which the latest one arrived.
        days: for how many days.
    """

    since: int
    until: int
    days: int

    @classmethod
    def of(cls, records: Iterable[Record], days: int) -> Self | None:
        """Return how the archive keeps records; None for 0 days."""
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
        counts: the number of rows by group.
        records: how many records it holds.
        digest: of their sequence numbers; empty if the span was planned without it.
        ignored: positions of the records that do not count, because another copy of their envelope does.
        archived: how the archive keeps its records; None if it does not.
        version: grows by one with every write.
        writer: a random name for the last write.
        done: no chunk is pending: all are delivered or set aside.
        final_at: UNIX seconds at which its last chunk reached a final state; None while one is pending or set aside.
        entries: the states of chunks that differ from the default.
        in_order: the event source delivered its records, not a replay: every record before its batch was settled by then.
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
    final_at: int | None = field(default=None, compare=False)
    entries: Mapping[ChunkKey, Entry] = field(default_factory=dict)
    in_order: bool = False

    def has(self, number: Number) -> bool:
        """Return whether a record lies within the span."""
        return self.first <= number <= self.last

    def is_whole(self, numbers: Sequence[Number]) -> bool:
        """Return whether these are the sequence numbers of exactly its records, in order."""
        if len(numbers) != self.records:
            return False
        return not self.digest or self.digest == digest_of(numbers)

    def entry(self, key: ChunkKey) -> Entry:
        """Return a chunk's entry, the default one if the ledger has none."""
        entry = self.entries.get(key)
        if entry is not None:
            return entry
        return _DELIVERED if self.done else _pending(self.planned_at)

    def leaves(self, key: ChunkKey) -> Iterator[ChunkKey]:
        """Yield the chunks that a chunk consists of now: itself, or the halves that it was split into."""
        entry = self.entries.get(key)
        if entry is None or entry.state is not State.SPLIT:
            yield key
        else:
            for half in key.halves:
                yield from self.leaves(half)

    def is_final(self, key: ChunkKey) -> bool:
        """Return whether every row of a chunk's planned chunk has reached a final state."""
        return all(self.entry(leaf).state in FINAL for leaf in self.leaves(key.planned))

    def destination(self, key: ChunkKey) -> Destination:
        """Return where a chunk goes."""
        if key.group.code:
            return NotDeliverable(key.group.code)
        database = self.entry(key).database
        return Database(database) if database else self.destinations[key.group.owner]

    def unique_id(self, key: ChunkKey, database: str, generation: int | None = None) -> str:
        """Return the id under which a chunk is sent to a database: the same for the same rows, until `generation` grows."""
        current = self.entry(key).generation if generation is None else generation
        return self._digest(key, database, str(current))

    def object_id(self, key: ChunkKey) -> str:
        """Return the id in the names of a planned chunk's objects in S3."""
        return self._digest(key.planned, "aside", "")

    def _digest(self, key: ChunkKey, *rest: str) -> str:
        members = (self.chain.name, self.after, key.name, str(self.cut.rows), str(self.cut.bytes), *rest)
        return hashlib.sha256("\n".join(members).encode()).hexdigest()[:32]

    def with_entries(self, changes: Mapping[ChunkKey, Entry], *, done: bool = False) -> "Span":
        """Return the span with these entries; a done span drops the entries of delivered chunks.

        A span of an overflow chain keeps them all: they show whether a chunk was sent from here, or came by the stream after all.
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
        """Return whether the item has room for a chunk's halves, in whatever states its chunks end."""
        planned = plan_bytes(self.counts, self.destinations, self.cut)
        halves = sum(_ENTRY_BYTES + len(one.name) for one in self.entries if one.path)
        return planned + halves + 2 * (_ENTRY_BYTES + len(key.name) + 2) <= MAX_ITEM_BYTES


def digest_of(numbers: Iterable[Number]) -> bytes:
    """Return the digest of sequence numbers, given in order."""
    return hashlib.sha256("".join(numbers).encode()).digest()[:8]


def plan_bytes(counts: Mapping[Group, int], destinations: Mapping[Owner, Destination], cut: Cut) -> int:
    """Return the largest size in bytes of a span's item before a split: the plan, and an entry for each chunk."""
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
    """Replace the entries of two halves in the same final state with one; in a done span, delete it if both are delivered."""
    first, second = (entries.get(half) for half in key.halves)
    if first is None and second is None and done:
        del entries[key]
    elif first is not None and second is not None and first.state is second.state and first.state in FINAL:
        for half in key.halves:
            del entries[half]
        entries[key] = replace(first, rows=first.rows + second.rows)
