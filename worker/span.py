"""Spans: what the worker plans as one unit, mostly records of one shard, and the chunks that their rows are sent in.

What was planned never changes, except that forgetting puts other chunks, without a person's rows, in the place of some. The entries record
the states of chunks that differ from the default: a chunk that can be delivered waits until the span is settled, and is delivered from then
on. Other defaults follow from the chunk's key and its destination.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from copy import replace
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from worker.chain import FORCED, ChainId, Owner
from worker.record import NOBODY, START, Number
from worker.states import FINAL, UNSETTLED, Entry, State

SECONDS_KEPT = 366 * 86_400
"""How long the ledger keeps a span after its last chunk reached a final state: longer than any retention, so a replay always finds it."""

MAX_PLAN_BYTES = 280_000
MAX_ITEM_BYTES = 360_000
"""A span's item stays below DynamoDB's 400 KB in whatever states its chunks end; splits may use the room that the plan leaves."""
MOST_EXPLAINED = 100
"""How many chunks of a span keep Treasure Data's words. They have room of their own, and the other chunks were refused alike."""

TOO_MANY_TABLES = "too_many_tables"
"""The reason of dead chunks whose account has too many tables."""

_ENTRY_BYTES = 280  # the largest entry without its key and Treasure Data's words
_HALVES = {"0": 0, "1": 1}


class RowSender(NamedTuple):
    """Whose rows these are.

    Attributes:
        account: the account; NOBODY for records that name none.
        key_id: the write key that they came by, where that may still decide whether they are delivered; else empty.
    """

    account: str
    key_id: str = ""

    @property
    def name(self) -> str:
        """The text for the ledger: `account`, or `account:key id`."""
        return f"{self.account}:{self.key_id}" if self.key_id else self.account

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the sender with this name."""
        account, _, key_id = name.partition(":")
        return cls(account, key_id)


NO_SENDER = RowSender(NOBODY)


class Group(NamedTuple):
    """Rows of one sender's table within a span, or originals that could not become rows.

    Attributes:
        table: their table; empty for originals, except rejected events that name a table.
        code: why they could not become rows; empty for rows.
        is_rejected: they are events that the ingest rejected, and told their senders so. They do not count as received; they are
            counted separately and, in part, kept.
        request_id: of the envelope that was put again; its rows are apart from all others. Else empty.
    """

    sender: RowSender
    table: str
    code: str = ""
    is_rejected: bool = False
    request_id: str = ""

    @property
    def name(self) -> str:
        """The text for the ledger: the sender, `/` and the label, and `~` and the request id of an envelope that was put again."""
        name = f"{self.sender.name}/{self.label}"
        return f"{name}~{self.request_id}" if self.request_id else name

    @property
    def label(self) -> str:
        """The table, or `-` and the code; for rejected events, the table, `!` and the code. A table's name has none of these signs."""
        if self.is_rejected:
            return f"{self.table}!{self.code}"
        return f"-{self.code}" if self.code else self.table

    @property
    def table_of(self) -> tuple[str, str]:
        """The account and the label, under which rows are counted."""
        return self.sender.account, self.label

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the group with this name."""
        sender, _, label = name.partition("/")
        label, _, request_id = label.partition("~")
        if label.startswith("-"):
            return cls(RowSender.parse(sender), "", label[1:], request_id=request_id)
        if "!" in label:
            table, _, code = label.partition("!")
            return cls(RowSender.parse(sender), table, code, is_rejected=True, request_id=request_id)
        return cls(RowSender.parse(sender), label, request_id=request_id)


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
        """The text for the ledger: the group, `/` and the part, and `.0` or `.1` for each halving."""
        return ".".join((f"{self.group.name}/{self.part}", *self.path))

    @property
    def account(self) -> str:
        """The account that owns its rows."""
        return self.group.sender.account

    @property
    def planned(self) -> "ChunkKey":
        """The planned chunk that this chunk is, or is a part of."""
        return self._replace(path="") if self.path else self

    @property
    def halves(self) -> "tuple[ChunkKey, ChunkKey]":
        """The two chunks that replace it when it is split."""
        return self._replace(path=f"{self.path}0"), self._replace(path=f"{self.path}1")

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the key with this name; raise ValueError if it does not name a chunk."""
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

    def within(self, rows: int) -> range:
        """Return the positions of its rows within its planned chunk, which has `rows` rows."""
        positions = range(rows)
        for step in self.path:
            half = len(positions) // 2
            positions = positions[half:] if _HALVES[step] else positions[:half]
        return positions


class Destination(NamedTuple):
    """Where a sender's rows go.

    Attributes:
        database: a Treasure Data database; empty if they go to none, or if the sender decides.
        reason: in one word, why they go to no database now: their account could not be looked up, or its database has just failed.
        is_final: they go to none at all.
    """

    database: str = ""
    reason: str = ""
    is_final: bool = False


LATER = Destination()


class ObjectRef(NamedTuple):
    """Where a span's object is in the bucket, and where its index is within it.

    Attributes:
        hour: the UTC hour of the plan, or of the last rewrite: `2026-11-24T03`.
        digest: of the index as it is stored; 16 bytes.
        offset: of the index, in bytes.
        length: of the index, in bytes.
    """

    hour: str
    digest: bytes
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a span is in the ledger."""

    chain: ChainId
    after: Number

    @classmethod
    def parse(cls, chain: str, after: Number) -> "Place":
        """Return the place given by the name of a chain and a sequence number; raise ValueError if `chain` does not name a chain."""
        return cls(ChainId.parse(chain), after)

    @property
    def name(self) -> str:
        """The text for logs: the chain's name, `/` and the number."""
        return f"{self.chain.name}/{self.after}"

    def replacement_of(self, key: ChunkKey) -> "Place":
        """Return where the new rows are that stand in place of a chunk of its span, if it was replaced."""
        origin = f"{self.name}/{key.name}".encode()
        return Place(ChainId.edit(hashlib.sha256(origin).hexdigest()[:32]), START)


def milliseconds(seconds: float) -> int:
    """Return UNIX milliseconds, the unit of the times in the ledger."""
    return round(seconds * 1000)


@dataclass(frozen=True, slots=True)
class Span:
    """A span of a chain.

    Attributes:
        after: last sequence number of the preceding span of the chain.
        planned_at: UNIX milliseconds.
        chunks: the planned chunks, with their numbers of rows; rejected events are among them.
        records: how many records it has.
        digest: of their sequence numbers.
        earliest: the earliest arrival of its records, in UNIX milliseconds; 0 if it has none.
        latest: the latest arrival in its chain up to here, in UNIX milliseconds; 0 if there is none.
        received_at: the earliest time at which the ingest received a record of it, in UNIX milliseconds.
        object: where its chunks and its index are; None for a span without chunks to keep, and once they have been deleted.
        origin: for new rows in place of a chunk: the name of that chunk's place and its own.
        copies: claims of its records that do not count, by request id: their owners, as long as these are in no span.
        version: grows by one with every write.
        writer: a random name for the last write.
        settled: the entries say everything: a chunk that can be delivered and has none is delivered.
        final_at: UNIX seconds at which its last chunk reached a final state; None before.
        entries: the states of chunks that differ from the default.

    The ledger has the members in this order: new ones come last, with a default.
    """

    chain: ChainId
    after: Number
    first: Number
    last: Number
    planned_at: int
    chunks: Mapping[ChunkKey, int] = field(default_factory=dict)
    destinations: Mapping[RowSender, Destination] = field(default_factory=dict)
    records: int = 0
    digest: bytes = b""
    earliest: int = 0
    latest: int = 0
    received_at: int = 0
    object: ObjectRef | None = None
    origin: str = ""
    copies: Mapping[str, Owner] = field(default_factory=dict)
    version: int = 1
    writer: str = ""
    settled: bool = False
    final_at: int | None = field(default=None, compare=False)
    entries: Mapping[ChunkKey, Entry] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        """Where it is in the ledger."""
        return Place(self.chain, self.after)

    @property
    def is_forced(self) -> bool:
        """Whether a forced replay sends its rows once more, or an edit of such rows: they count apart."""
        return self.chain.is_forced or self.origin.startswith(FORCED)

    def rows(self, key: ChunkKey) -> int:
        """Return how many rows a chunk has."""
        planned = self.chunks[key.planned]
        return len(key.within(planned)) if key.path else planned

    def entry(self, key: ChunkKey) -> Entry:
        """Return a chunk's entry, the default one if the ledger has none."""
        entry = self.entries.get(key)
        return self.default(key) if entry is None else entry

    def default(self, key: ChunkKey) -> Entry:
        """Return the entry of a chunk that the ledger says nothing about."""
        group = key.group
        if group.request_id:  # whatever its account is: later, an operator may have it sent
            return Entry(State.AGAIN)
        if group.is_rejected:
            return Entry(State.REJECTED)
        destination = self.destination(key)
        if destination.is_final:
            return Entry(State.DEAD, reason=destination.reason)
        if self.settled:
            return Entry(State.DELIVERED)
        return Entry(since=self.planned_at if destination.database else None, reason=destination.reason)

    def destination(self, key: ChunkKey) -> Destination:
        """Return where the plan sends a chunk."""
        if key.group.code:
            return Destination(reason=key.group.code, is_final=True)
        return self.destinations.get(key.group.sender, LATER)

    def database(self, key: ChunkKey) -> str:
        """Return the database that a chunk was sent to, or is to be sent to by the plan; empty if that is undecided."""
        return self.entry(key).database or self.destination(key).database

    def leaves(self, key: ChunkKey) -> Iterator[ChunkKey]:
        """Yield the chunks that a chunk consists of now: itself, or the halves that it was split into."""
        entry = self.entries.get(key)
        if entry is None or entry.state is not State.SPLIT:
            yield key
        else:
            for half in key.halves:
                yield from self.leaves(half)

    def all_leaves(self) -> Iterator[tuple[ChunkKey, Entry]]:
        """Yield every chunk that is not split, with its entry."""
        for planned in self.chunks:
            for key in self.leaves(planned) if self.entries else (planned,):
                yield key, self.entry(key)

    def states(self) -> frozenset[State]:
        """Return the states of its chunks."""
        return frozenset(entry.state for _, entry in self.all_leaves())

    @property
    def has_rows(self) -> bool:
        """Whether it has chunks other than rejected events."""
        return any(not key.group.is_rejected for key in self.chunks)

    @property
    def is_final(self) -> bool:
        """Whether nobody needs a row of it any more. Rejected events do not count: they have objects of their own."""
        return self.states() <= FINAL | {State.REJECTED}

    def is_final_chunk(self, planned: ChunkKey) -> bool:
        """Return whether every row of a planned chunk has reached a final state."""
        return all(self.entry(leaf).state in FINAL for leaf in self.leaves(planned))

    def unique_id(self, key: ChunkKey, database: str) -> str:
        """Return the id under which a chunk is sent to a database: the same for the same rows, until its generation grows.

        A ledger that was restored from a backup may plan other rows in the same place, at another time, so the id depends on that too.
        """
        members = (
            self.chain.name,
            self.after,
            str(self.planned_at),
            key.name,
            database,
            str(self.entry(key).generation),
        )
        return hashlib.sha256("\n".join(members).encode()).hexdigest()[:32]

    def with_entries(self, changes: Mapping[ChunkKey, Entry], *, settled: bool = False) -> "Span":
        """Return the span with these entries.

        The first write that settles it names every chunk that is not delivered. Entries that say no more than the default are dropped: that a
        chunk is delivered, where the plan sends it.
        """
        settled = settled or self.settled
        entries = {**self.entries, **changes}
        if settled and not self.settled:
            for key, entry in self.all_leaves():
                if entry.state in UNSETTLED and not key.group.request_id:
                    entries.setdefault(key, entry)
        span = replace(self, settled=settled)
        for key, entry in list(entries.items()):
            is_default = entry.state is State.DELIVERED and span.default(key).state is State.DELIVERED
            if not key.path and is_default and not entry.database:
                del entries[key]
        explained = [key for key, entry in entries.items() if entry.words]
        entries |= {key: replace(entries[key], words="") for key in explained[MOST_EXPLAINED:]}
        return replace(span, entries=entries)

    def can_split(self, key: ChunkKey) -> bool:
        """Return whether the item has room for a chunk's halves, in whatever states its chunks end."""
        halves = sum(_ENTRY_BYTES + len(one.name) for one in self.entries if one.path)
        copies = sum(len(one) + len(owner.name) + 48 for one, owner in self.copies.items())
        room = (
            plan_bytes(self.chunks, self.destinations)
            + copies
            + halves
            + 2 * (_ENTRY_BYTES + len(key.name) + 2)
        )
        return room <= MAX_ITEM_BYTES


def digest_of_numbers(numbers: Iterable[Number]) -> bytes:
    """Return the digest of sequence numbers, given in order."""
    return hashlib.sha256("".join(numbers).encode()).digest()[:8]


def plan_bytes(chunks: Iterable[ChunkKey], destinations: Mapping[RowSender, Destination]) -> int:
    """Return the largest size in bytes of a span's item before a split: the plan, and an entry for each chunk."""
    size = 0
    for key in chunks:
        size += 16 + 2 * len(key.name) + (16 if key.group.is_rejected else _ENTRY_BYTES)
    for sender, destination in destinations.items():
        size += len(sender.name) + len(destination.database) + len(destination.reason) + 16
    return size
