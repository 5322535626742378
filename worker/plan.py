"""Plans a span before anything is sent: where it ends, where its rows go, and the chunks that they are sent in."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from math import inf
from operator import getitem

import msgpack

from shared.accounts import Account
from shared.envelope import RejectedEvent
from shared.tracking_plan import COLUMN_CODES
from worker.claims import Decided
from worker.index import Index, SpanPlan
from worker.ledger import Claiming, Gap
from worker.record import CLAIMED, NOBODY, Records
from worker.span import (
    MAX_PLAN_BYTES,
    TOO_MANY_TABLES,
    ChunkKey,
    Destination,
    Group,
    RowSender,
    Span,
    digest_of_numbers,
    milliseconds,
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


_Groups = dict[Group, Chunk]
Answers = Mapping[str, Account | str]
"""Each account, or why it has none. Accounts that could not be looked up are missing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A span to append, and what to store before.

    Attributes:
        span: as it is appended, but for its object.
        chunks: to store in its object.
        index: of its object, without the chunks.
        rejected: the rejected events that are kept, back to back, by group.
        claims: to make in the transaction that appends it, by request id.
    """

    span: Span
    chunks: Sequence[Chunk]
    index: Index
    rejected: Mapping[Group, bytes]
    claims: Mapping[str, Claiming]


def plan(
    decided: Decided,
    gap: Gap,
    answers: Answers,
    cut: Cut,
    now: float,
    *,
    failing: Callable[[str], str] = lambda _: "",
    excess: Excess = lambda *_: (),
) -> Plan:
    """Plan as many of the records as fit into one span, from the first on, for this gap. There is at least one; `now` is UNIX seconds.

    `failing` returns why a database's rows are left to the sender, because it has just failed; empty if they are not. `excess` returns the
    tables that are too many.
    """
    most = inf
    while True:
        records, uncounted = decided.records, decided.uncounted
        senders, destinations = _destinations(records, answers, failing)
        groups, rejected = _grouped(records, senders, uncounted, most)
        if surplus := _surplus(groups, answers, excess):
            groups = _gathered(groups, surplus)
        chunks = [part for chunk in groups.values() for part in _parts(chunk, cut)]
        counts = {chunk.key: chunk.rows for chunk in chunks}
        counts |= {ChunkKey(group, 0): number for group, (number, _) in rejected.items()}
        if most < inf or plan_bytes(counts, destinations) <= MAX_PLAN_BYTES:
            span, index = _span(decided, gap, counts, destinations, milliseconds(now))
            kept = {group: events for group, (_, events) in rejected.items() if events}
            return Plan(span, chunks, index, kept, decided.with_append)
        if len(records) > 1:
            decided = decided.before(len(records) // 2)
        else:
            most = MAX_REJECTED_GROUPS


def _span(
    decided: Decided,
    gap: Gap,
    chunks: Mapping[ChunkKey, int],
    destinations: Mapping[RowSender, Destination],
    planned_at: int,
) -> tuple[Span, Index]:
    """Return the span of the records, and its index without the chunks."""
    records, numbers = decided.records, decided.records.numbers
    # `round` takes half as long again
    arrivals = list(map(float.__round__, map((1000.0).__mul__, records.arrivals)))
    earliest, latest = min(arrivals), max(arrivals)
    own = frozenset(numbers if decided.owners else ())
    span = Span(
        chain=gap.chain,
        after=gap.after,
        first=numbers[0],
        last=numbers[-1],
        planned_at=planned_at,
        chunks=chunks,
        destinations=destinations,
        records=len(numbers),
        digest=digest_of_numbers(numbers),
        earliest=earliest,
        latest=max(gap.latest, latest),
        received_at=min(records.receipts),
        copies={
            request_id: owner
            for request_id, owner in decided.owners.values()
            if owner.chain != gap.chain.root or owner.number not in own
        },
    )
    if all(entry.since is None for _, entry in span.all_leaves()):  # it has nothing to send now
        span = span.with_entries({}, settled=True)
    rest = SpanPlan(gap.after, planned_at, list(destinations.items()), "", 0)
    ids, claims, uncounted = records.request_ids, records.claims, decided.uncounted
    return span, Index(" ".join(numbers), arrivals, records.receipts, ids, claims, uncounted, (), rest)


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
        if account not in answers or destination.reason == REVOKED:
            sender = RowSender(account, key_id)
        if account != NOBODY:
            destinations[sender] = destination
        senders[account, key_id] = sender
    return senders, destinations


def _destination(answer: Account | str | None, key_id: str, failing: Callable[[str], str]) -> Destination:
    if answer is None:
        return Destination(reason=ACCOUNT_UNAVAILABLE)
    if isinstance(answer, str):
        return Destination(reason=answer, is_final=True)
    if obstacle := obstacle_of(answer, key_id):
        return Destination(reason=obstacle, is_final=True)
    reason = failing(answer.database)
    return Destination(reason=reason) if reason else Destination(answer.database)


def obstacle_of(account: Account, key_id: str) -> str:
    """Return why rows that came by a key cannot be delivered; empty if they go to the account's database."""
    if account.status == "disabled":
        return DISABLED
    return REVOKED if key_id and key_id in account.revoked_key_ids else ""


def _grouped(
    records: Records, senders: _Senders, uncounted: Collection[int], most: float
) -> tuple[_Groups, dict[Group, tuple[int, bytes]]]:
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
    groups: _Groups = {}
    for (sender, again), own in found.items():
        for label, blocks in own.items():
            columns = (list(map(column.__getitem__, blocks)) for column in (payloads, counts, positions))
            is_code = label.startswith("-")
            group = Group(sender, "", label[1:]) if is_code else Group(sender, label, request_id=again)
            groups[group] = Chunk(ChunkKey(group, 0), *columns)
    events = [
        (*sender_of(position), records.receipts[position], records.rejected[position])
        for position in compress(range(len(records)), records.rejected)
        if position not in uncounted
    ]
    return groups, _rejected(events, most)


def _rejected(
    found: Iterable[tuple[RowSender, str, int, Sequence[RejectedEvent]]], most: float
) -> dict[Group, tuple[int, bytes]]:
    """Return, for each table and code of rejected events, up to `most`, their number, and the events that are kept.

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
    return {key: (number, b"".join(kept.get(key, ()))) for key, number in counts.items()}


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
    for key, chunk in groups.items():
        if key in surplus:
            group = Group(key.sender, "", TOO_MANY_TABLES)
            mixed = gathered.setdefault(group, Chunk(ChunkKey(group, 0)))
            for block, rows, position in zip(chunk.blocks, chunk.row_counts, chunk.positions, strict=True):
                mixed.add(msgpack.packb((key.table, rows, block)), rows, position)
        else:
            kept[key] = chunk
    return kept | gathered


def _parts(chunk: Chunk, cut: Cut) -> Iterator[Chunk]:
    """Yield the chunks that a group's rows are cut into. Blocks are never cut, so a large one exceeds the limits."""
    if chunk.rows <= cut.rows and sum(map(len, chunk.blocks)) <= cut.bytes:
        yield chunk
        return
    begin = number = rows = size = 0
    for end, (count, length) in enumerate(zip(chunk.row_counts, map(len, chunk.blocks), strict=True)):
        if end > begin and (rows + count > cut.rows or size + length > cut.bytes):
            yield chunk.part(number, slice(begin, end))
            begin, number, rows, size = end, number + 1, 0, 0
        rows, size = rows + count, size + length
    yield chunk.part(number, slice(begin, None))
