"""Plans a span before anything is sent: where it ends, where its rows go, and the chunks that they are sent in."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from math import inf
from operator import getitem
from typing import NamedTuple

import msgpack

from shared.accounts import Account
from shared.envelope import RejectedEvent
from shared.tracking_plan import COLUMN_CODES
from worker.index import Index
from worker.record import CLAIMED, NOBODY, Block, Number, Records
from worker.span import (
    MAX_PLAN_BYTES,
    TOO_MANY_TABLES,
    ChunkKey,
    Database,
    Destination,
    Group,
    Later,
    NotDeliverable,
    RowSender,
    digest_of,
    plan_bytes,
)
from worker.span_object import Chunk
from worker.states import ACCOUNT_UNAVAILABLE

DISABLED = "disabled_account"
REVOKED = "revoked_key"

Excess = Callable[[str, Sequence[str], int], Collection[str]]
"""Returns which tables exceed an account's limit, given the account, the tables of its rows, and the limit."""

MAX_REJECTED_TABLES = 5
"""A span counts an account's rejected events by table for this many tables, and the rest without their table. Tables of a tracking plan
do not count towards this limit, because senders cannot choose their names."""
MAX_REJECTED_GROUPS = 100
"""A record that does not fit into a span by itself has its rejected events counted by their tables and codes up to this many, and the rest
without these. Only who writes to the stream directly can send such a record."""
OTHER_CODES = "other"
"""The code that stands for the rest."""
MAX_KEPT_EVENTS = 200
MAX_KEPT_BYTES = 256 * 1024
"""A span keeps the originals of an account's rejected events up to these limits and only counts the rest, so no flood fills the bucket."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The limits of a chunk: groups are cut into chunks of at most this many rows and bytes."""

    rows: int
    bytes: int


class _Part(NamedTuple):
    """Blocks of one group: the position of each one's record, its number of rows, and the rows."""

    positions: list[int]
    counts: list[int]
    data: list[bytes]

    def add(self, position: int, count: int, data: bytes) -> None:
        """Add a block."""
        self.positions.append(position)
        self.counts.append(count)
        self.data.append(data)


_Groups = dict[Group, _Part]
Answers = Mapping[str, Account | str]
"""Each account, or why it has none. Accounts that could not be looked up are missing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Records, the chunks that their rows are sent in, and where these go.

    Attributes:
        records: in the stream's order.
        chunks: to store in the span's object.
        rejected: rejected events, by group: their number, and the originals that are kept, back to back.
        index: of the span, without the chunks.
    """

    records: Records
    chunks: Sequence[Chunk]
    rejected: Mapping[Group, Block]
    destinations: Mapping[RowSender, Destination]
    index: Index

    @property
    def counts(self) -> dict[ChunkKey, int]:
        """The number of rows, or of rejected events, by chunk."""
        counts = {chunk.key: chunk.rows for chunk in self.chunks}
        return counts | {ChunkKey(group, 0): block[1] for group, block in self.rejected.items()}

    @property
    def digest(self) -> bytes:
        """The digest of the records' sequence numbers."""
        return digest_of(self.index.numbers)

    @property
    def earliest(self) -> int:
        """The earliest arrival of a record, in UNIX milliseconds."""
        return min(self.index.arrivals)

    @property
    def latest(self) -> int:
        """The latest arrival of a record, in UNIX milliseconds."""
        return max(self.index.arrivals)

    @property
    def received_at(self) -> int:
        """The earliest time at which the ingest received a record, in UNIX milliseconds."""
        return min(self.index.receipts)


def plan(
    records: Records,
    answers: Answers,
    cut: Cut,
    *,
    uncounted: frozenset[Number] = frozenset(),
    claimed: frozenset[Number] = frozenset(),
    failing: Callable[[str], str] = lambda _: "",
    excess: Excess | None = None,
) -> Plan:
    """Plan as many of the records as fit into one span, from the first on.

    Args:
        records: in the stream's order; at least one.
        answers: what is known of their accounts.
        cut: the limits of chunks.
        uncounted: records that do not count, because another copy does.
        claimed: records without a claim of their own that were claimed because they are late, or lie in a gap.
        failing: why a database's rows are left to the sender, because it has just failed; empty if they are not.
        excess: returns the tables that are too many; None for no limit.
    """
    most = inf
    while True:
        senders, destinations = _destinations(records, answers, failing)
        numbers = enumerate(records.numbers if uncounted else ())
        passed_over = frozenset([position for position, number in numbers if number in uncounted])
        groups, rejected = _grouped(records, senders, passed_over, most)
        if excess is not None and (surplus := _surplus(groups, answers, excess)):
            groups = _gathered(groups, surplus)
        chunks = [chunk for group, part in groups.items() for chunk in _chunks(group, part, cut)]
        keys = [*(chunk.key for chunk in chunks), *(ChunkKey(group, 0) for group in rejected)]
        if most < inf or plan_bytes(keys, destinations) <= MAX_PLAN_BYTES:
            return Plan(records, chunks, rejected, destinations, _index(records, passed_over, claimed))
        if len(records) > 1:
            records = records[: len(records) // 2]
        else:
            most = MAX_REJECTED_GROUPS


def _index(records: Records, uncounted: frozenset[int], claimed: frozenset[Number]) -> Index:
    numbers, claims = records.numbers, records.claims
    if claimed:
        claims = [claim or int(number in claimed) for number, claim in zip(numbers, claims, strict=True)]
    arrivals = [round(one * 1000) for one in records.arrivals]
    return Index(numbers, arrivals, records.receipts, records.request_ids, claims, uncounted, {})


_Senders = dict[tuple[str, str], RowSender]


def _destinations(
    records: Records, answers: Answers, failing: Callable[[str], str]
) -> tuple[_Senders, dict[RowSender, Destination]]:
    """Return the sender of each account and key, and where each sender's rows go."""
    senders: _Senders = {}
    destinations: dict[RowSender, Destination] = {}
    for account, key_id in dict.fromkeys(zip(records.accounts, records.key_ids, strict=True)):
        sender, destination = RowSender(account), _destination(answers.get(account), key_id, failing)
        # a key may still decide whether the rows are delivered
        if account not in answers or destination == NotDeliverable(REVOKED):
            sender = RowSender(account, key_id)
        if account != NOBODY:
            destinations[sender] = destination
        senders[account, key_id] = sender
    return senders, destinations


def _destination(answer: Account | str | None, key_id: str, failing: Callable[[str], str]) -> Destination:
    if answer is None:
        return Later(ACCOUNT_UNAVAILABLE)
    if isinstance(answer, str):
        return NotDeliverable(answer)
    if obstacle := obstacle_of(answer, key_id):
        return NotDeliverable(obstacle)
    reason = failing(answer.database)
    return Later(reason) if reason else Database(answer.database)


def obstacle_of(account: Account, key_id: str) -> str:
    """Return why rows that came by a key cannot be delivered; empty if they go to the account's database."""
    if account.status == "disabled":
        return DISABLED
    return REVOKED if key_id and key_id in account.revoked_key_ids else ""


def _grouped(
    records: Records, senders: _Senders, uncounted: Collection[int], most: float
) -> tuple[_Groups, dict[Group, Block]]:
    """Return the records' blocks by group, and their rejected events in up to `most` groups by table and code."""

    def sender_of(position: int) -> tuple[RowSender, str]:
        owner = records.accounts[position], records.key_ids[position]
        if records.claims[position] > CLAIMED:
            return RowSender(*owner), records.request_ids[position]
        return senders[owner], ""

    found: dict[tuple[RowSender, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    usual = {owner: found[sender, ""] for owner, sender in senders.items()}
    tables = list(map(usual.__getitem__, zip(records.accounts, records.key_ids, strict=True)))
    for position in compress(range(len(records)), map(CLAIMED.__lt__, records.claims)):
        tables[position] = found[sender_of(position)]
    for position in uncounted:
        tables[position] = defaultdict(list)  # of no group
    lists = map(getitem, map(tables.__getitem__, records.positions), records.tables)
    deque(map(list.append, lists, range(len(records.tables))), maxlen=0)  # a loop takes twice as long
    positions, _, counts, payloads = records.blocks
    groups = {
        Group(sender, table, request_id=again): _Part(
            *(list(map(column.__getitem__, places)) for column in (positions, counts, payloads))
        )
        for (sender, again), own in found.items()
        for table, places in own.items()
    }
    places = range(len(records))
    for position in compress(places, records.refused):
        if position not in uncounted:
            sender, _ = sender_of(position)
            for code, count, data in records.refused[position]:
                groups.setdefault(Group(sender, "", code), _Part([], [], [])).add(position, count, data)
    events = [
        (*sender_of(position), records.receipts[position], records.rejected[position])
        for position in compress(places, records.rejected)
        if position not in uncounted
    ]
    return groups, _rejected(events, most)


def _rejected(
    found: Iterable[tuple[RowSender, str, int, Sequence[RejectedEvent]]], most: float
) -> dict[Group, Block]:
    """Return a block for each table and code of rejected events, up to `most`: their number, and the events that are kept.

    A kept event is `[received_at, original, message]` as MessagePack; they stand back to back.
    """
    counts: Counter[Group] = Counter()
    kept: dict[Group, list[bytes]] = {}
    tables: dict[RowSender, set[str]] = {}
    room: dict[RowSender, tuple[int, int]] = {}
    for sender, again, received_at, events_of_one in found:
        for _index, code, table, original, message in events_of_one:
            named = tables.setdefault(sender, set())
            if code not in COLUMN_CODES and len(named) < MAX_REJECTED_TABLES:
                named.add(table)
            is_named = code in COLUMN_CODES or table in named
            key = Group(sender, table if is_named else "", code, is_rejected=True, request_id=again)
            if key not in counts and len(counts) >= most:
                key = key._replace(table="", code=OTHER_CODES)
            counts[key] += 1
            events, size = room.get(sender, (MAX_KEPT_EVENTS, MAX_KEPT_BYTES))
            if original and events and len(original) + len(message) <= size:
                room[sender] = events - 1, size - len(original) - len(message)
                kept.setdefault(key, []).append(msgpack.packb((received_at, original, message)))
    return {key: (key.label, number, b"".join(kept.get(key, ()))) for key, number in counts.items()}


def _surplus(groups: _Groups, answers: Answers, excess: Excess) -> set[Group]:
    """Return the groups with tables that exceed their account's limit."""
    tables: dict[str, dict[str, None]] = {}
    for key in groups:
        if not key.code and key.sender.account in answers:
            tables.setdefault(key.sender.account, {})[key.table] = None
    too_many: set[tuple[str, str]] = set()
    for name, found in tables.items():
        account = answers.get(name)
        if len(found) > 1 and isinstance(account, Account):
            too_many |= {(name, table) for table in excess(name, list(found), account.limits.tables)}
    return {
        key
        for key in groups
        if not key.code and not key.request_id and (key.sender.account, key.table) in too_many
    }


def _gathered(groups: _Groups, surplus: Collection[Group]) -> _Groups:
    """Return the groups, with one group for each sender in place of its surplus ones.

    Its originals are `[table, number of rows, MessagePack maps]`.
    """
    kept: _Groups = {}
    gathered: _Groups = {}
    for key, part in groups.items():
        if key in surplus:
            mixed = gathered.setdefault(Group(key.sender, "", TOO_MANY_TABLES), _Part([], [], []))
            for position, count, data in zip(*part, strict=True):
                mixed.add(position, count, msgpack.packb((key.table, count, data)))
        else:
            kept[key] = part
    return kept | gathered


def _chunks(group: Group, part: _Part, cut: Cut) -> Iterator[Chunk]:
    """Yield a group's chunks. Blocks are never cut, so a large one exceeds the limits."""
    positions, counts, data = part
    sizes = list(map(len, data))
    if sum(counts) <= cut.rows and sum(sizes) <= cut.bytes:
        yield Chunk(ChunkKey(group, 0), data, sum(counts), positions, counts)
        return
    begin = number = rows = size = 0
    for end, (count, length) in enumerate(zip(counts, sizes, strict=True)):
        if end > begin and (rows + count > cut.rows or size + length > cut.bytes):
            cut_off = slice(begin, end)
            yield Chunk(ChunkKey(group, number), data[cut_off], rows, positions[cut_off], counts[cut_off])
            begin, number, rows, size = end, number + 1, 0, 0
        rows, size = rows + count, size + length
    rest = slice(begin, None)
    yield Chunk(ChunkKey(group, number), data[rest], rows, positions[rest], counts[rest])
