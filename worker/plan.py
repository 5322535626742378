"""Plans a span before anything is sent: where it ends, where its rows go, and which blocks belong together."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgpack

from shared.accounts import Account
from shared.tracking_plan import COLUMN_CODES
from worker.chain import ChainId
from worker.delivery import UNRESOLVED, State
from worker.record import NOBODY, Block, Number, Record
from worker.span import (
    MAX_PLAN_BYTES,
    NO_OWNER,
    TOO_MANY_TABLES,
    Archived,
    Cut,
    Database,
    Destination,
    Group,
    NotDeliverable,
    Owner,
    Span,
    digest_of,
    milliseconds,
    plan_bytes,
)

DISABLED = "disabled_account"
REVOKED = "revoked_key"
UNPLANNED = "unplanned"
"""The reason of rows that are not sent because their owner is not in the span's plan: newer code reads the records differently."""

Excess = Callable[[str, Sequence[str], int], Collection[str]]
"""Returns which tables exceed an account's limit, given the account, the tables of its rows, and the limit."""


MAX_REJECTED_TABLES = 5
"""A span counts an account's rejected events by table for this many tables, and the rest without their table. Tables of a tracking plan
do not count towards this limit, because senders cannot choose their names."""
MAX_KEPT_EVENTS = 200
MAX_KEPT_BYTES = 256 * 1024
"""A span keeps the originals of an account's rejected events up to these limits and only counts the rest, so no flood fills the bucket."""

Groups = Mapping[Group, Sequence[Block]]
"""The blocks of a span by group, in the stream's order."""
Owners = Mapping[tuple[str, str], Owner]
"""The owners of rows, by account and key id."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A stretch of records and where their rows go.

    Attributes:
        groups: the blocks of the records that count.
        counts: the number of rows by group.
        ignored: positions of the records that do not count, because another copy does.
        has_claims: some records have a claim, so the ledger must say which of them count.
        passed_over: the number of rows by group that a forced replay skips.
    """

    records: Sequence[Record]
    destinations: Mapping[Owner, Destination]
    cut: Cut
    groups: Groups
    counts: Mapping[Group, int]
    ignored: frozenset[int] = frozenset()
    has_claims: bool = False
    passed_over: Mapping[Group, int] = field(default_factory=dict)

    def span(self, chain: ChainId, after: Number, now: float, *, archive_days: int, in_order: bool) -> Span:
        """Return the span to append to a chain behind `after`, planned at `now` (UNIX seconds).

        The archive keeps its records for `archive_days`, unless it has no rows that count (markers, copies).
        """
        return Span(
            chain=chain,
            after=after,
            first=self.records[0].number,
            last=self.records[-1].number,
            planned_at=milliseconds(now),
            destinations=self.destinations,
            cut=self.cut,
            counts=self.counts,
            records=len(self.records),
            digest=digest_of([record.number for record in self.records]),
            ignored=self.ignored,
            archived=Archived.of(self.records, archive_days) if self.counts else None,
            in_order=in_order,
        )


def plan(
    records: Sequence[Record],
    answers: Mapping[str, Account | str],
    cut: Cut,
    *,
    limit: Number | None = None,
    is_too_old: Callable[[float], bool] = lambda _: False,
    ignored: frozenset[Number] = frozenset(),
    excess: Excess | None = None,
) -> Plan:
    """Plan the longest possible stretch from the first record on; it is empty if that record must wait.

    Args:
        records: in the stream's order.
        answers: each account, or why it has none. A record of an account without an answer ends the stretch.
        cut: the limits of chunks.
        limit: sequence number before which the stretch must end.
        is_too_old: returns whether records that arrived then (UNIX seconds) no longer wait for their account.
        ignored: records that do not count, because another copy does.
        excess: returns the tables that are too many; None for no limit.
    """
    senders = _senders(records)
    waits = {account for account, _, _ in senders} - answers.keys() - {NOBODY}
    stretch = records
    if waits or limit is not None:
        stretch = _stretch(records, waits, limit, is_too_old)
    while True:
        if stretch is not records:
            senders = _senders(stretch)
        destinations, owners = _destinations(senders, answers)
        groups: Groups = group(stretch, owners, ignored)
        if excess is not None and (surplus := _surplus(groups, answers, excess)):
            groups = without(groups, surplus)
        counts = count(groups)
        if len(stretch) <= 1 or plan_bytes(counts, destinations, cut) <= MAX_PLAN_BYTES:
            positions = frozenset(
                position
                for position, record in enumerate(stretch if ignored else ())
                if record.number in ignored
            )
            has_claims = any(claim for _, _, claim in senders)
            return Plan(stretch, destinations, cut, groups, counts, positions, has_claims)
        stretch = stretch[: len(stretch) // 2]


def only_delivered(planned: Plan, root: Span) -> Plan:
    """Return the plan of a forced replay, reduced to the groups that `root`, a span of the shard's own chain, has fully delivered.

    The redrive may still send rows that are set aside there, so the replay would duplicate them.
    """
    undelivered = {
        (key.group.owner, key.group.table)
        for key, entry in root.entries.items()
        if entry.state not in (State.DELIVERED, State.SPLIT) and not key.group.is_rejected
    }
    if not undelivered:
        return planned
    then = owners_of(planned.records, root.destinations)
    now = owners_of(planned.records, planned.destinations)
    left_out = {
        Group(now[sender], block[0])
        for record in planned.records
        for block in record.blocks
        if (sender := (record.account, record.key_id)) in now
        and (
            sender not in then
            or (then[sender], block[0]) in undelivered
            or Group(then[sender], block[0]) not in root.counts
        )
    }
    groups = {key: blocks for key, blocks in planned.groups.items() if key not in left_out}
    passed_over = {key: rows for key, rows in planned.counts.items() if key in left_out}
    return replace(planned, groups=groups, counts=count(groups), passed_over=passed_over)


def owners_of(records: Iterable[Record], destinations: Mapping[Owner, Destination]) -> Owners:
    """Return the owners of the records' rows in an existing plan, given its destinations."""
    owners = {}
    for account, key_id in dict.fromkeys([(record[2], record[3]) for record in records]):
        for owner in (Owner(account, key_id), Owner(account)):
            if owner in destinations or owner == NO_OWNER:
                owners[account, key_id] = owner
                break
    return owners


def group(
    records: Iterable[Record], owners: Owners, ignored: frozenset[Number] = frozenset()
) -> dict[Group, list[Block]]:
    """Return the records' blocks by group. Rows of senders without an owner get the code UNPLANNED."""
    blocks_by_key: dict[tuple[Owner | None, str, str], list[Block]] = {}
    rejected = []
    for record in records:
        number, _at, account, key_id, _received, _id, _claim, blocks, refused, events, _key, _data = record
        if ignored and number in ignored:
            continue
        owner = owners.get((account, key_id))
        for block in blocks:
            key = (owner, block[0], "")
            try:
                blocks_by_key[key].append(block)
            except KeyError:
                blocks_by_key[key] = [block]
        for block in refused:
            blocks_by_key.setdefault((owner, "", block[0]), []).append(block)
        if events and owner is not None:
            rejected.append((owner, record))
    groups: dict[Group, list[Block]] = {}
    for (owner, table, code), found in blocks_by_key.items():
        if owner is None:
            groups.setdefault(Group(NO_OWNER, "", UNPLANNED), []).extend(found)
        else:
            groups[Group(owner, table, code)] = found
    return groups | _rejected(rejected) if rejected else groups


def _rejected(records: Iterable[tuple[Owner, Record]]) -> dict[Group, list[Block]]:
    """Return a block for each table and code of rejected events: their number, and the events that are kept.

    A kept event is `[received_at, original, message]` as MessagePack; they stand back to back.
    """
    counts: Counter[Group] = Counter()
    kept: dict[Group, list[bytes]] = {}
    tables: dict[Owner, set[str]] = {}
    room: dict[Owner, tuple[int, int]] = {}
    for owner, record in records:
        for _index, code, table, original, message in record.rejected:
            named = tables.setdefault(owner, set())
            if code not in COLUMN_CODES and len(named) < MAX_REJECTED_TABLES:
                named.add(table)
            is_named = code in COLUMN_CODES or table in named
            key = Group(owner, table if is_named else "", code, is_rejected=True)
            counts[key] += 1
            events, size = room.get(owner, (MAX_KEPT_EVENTS, MAX_KEPT_BYTES))
            if original and events and len(original) + len(message) <= size:
                room[owner] = events - 1, size - len(original) - len(message)
                kept.setdefault(key, []).append(msgpack.packb((record.received_at, original, message)))
    return {key: [(key.label, number, b"".join(kept.get(key, ())))] for key, number in counts.items()}


def _surplus(groups: Groups, answers: Mapping[str, Account | str], excess: Excess) -> set[Group]:
    """Return the groups with tables that exceed their account's limit."""
    tables: dict[Owner, list[str]] = {}
    for key in groups:
        if not key.code:
            tables.setdefault(key.owner, []).append(key.table)
    surplus = set()
    for owner, found in tables.items():
        account = answers.get(owner.account)
        if len(found) > 1 and isinstance(account, Account):
            surplus |= {Group(owner, table) for table in excess(owner.account, found, account.limits.tables)}
    return surplus


def without(groups: Groups, surplus: Collection[Group]) -> dict[Group, Sequence[Block]]:
    """Return the groups, with one group for each owner in place of its surplus ones.

    Its originals are `[table, number of rows, MessagePack maps]`.
    """
    kept: dict[Group, Sequence[Block]] = {}
    gathered: dict[Group, list[Block]] = {}
    for key, blocks in groups.items():
        if key in surplus:
            mixed = gathered.setdefault(Group(key.owner, "", TOO_MANY_TABLES), [])
            mixed += [(TOO_MANY_TABLES, block[1], msgpack.packb(block)) for block in blocks]
        else:
            kept[key] = blocks
    return kept | gathered


def as_planned(groups: Groups, counts: Mapping[Group, int]) -> Groups:
    """Return the groups of an existing plan, in which the same tables are too many as when it was made."""
    if not any(key.code == TOO_MANY_TABLES and not key.is_rejected for key in counts):
        return groups
    return without(groups, {key for key in groups if not key.code and key not in counts})


def count(groups: Groups) -> dict[Group, int]:
    """Return the number of rows by group."""
    return {group: sum([block[1] for block in blocks]) for group, blocks in groups.items()}


Senders = Iterable[tuple[str, str, int]]


def _senders(records: Iterable[Record]) -> Senders:
    """Return the account, key id and claim of each record, without duplicates."""
    return dict.fromkeys([(record[2], record[3], record[6]) for record in records])


def _stretch(
    records: Sequence[Record],
    waits: Collection[str],
    limit: Number | None,
    is_too_old: Callable[[float], bool],
) -> Sequence[Record]:
    for index, record in enumerate(records):
        if limit is not None and record.number >= limit:
            return records[:index]
        if record.account in waits and not is_too_old(record.arrived_at):
            return records[:index]
    return records


def _destinations(
    senders: Senders, answers: Mapping[str, Account | str]
) -> tuple[dict[Owner, Destination], dict[tuple[str, str], Owner]]:
    destinations: dict[Owner, Destination] = {}
    owners: dict[tuple[str, str], Owner] = {}
    for account, key_id, _ in senders:
        owner, destination = Owner(account), _destination(answers.get(account), key_id)
        if destination == NotDeliverable(REVOKED):
            owner = Owner(account, key_id)
        if account != NOBODY:
            destinations[owner] = destination
        owners[account, key_id] = owner
    return destinations, owners


def _destination(answer: Account | str | None, key_id: str) -> Destination:
    if isinstance(answer, Account):
        obstacle = obstacle_of(answer, key_id)
        return NotDeliverable(obstacle) if obstacle else Database(answer.database)
    return NotDeliverable(UNRESOLVED if answer is None else answer)


def obstacle_of(account: Account, key_id: str) -> str:
    """Return why rows that came by a key cannot be delivered; empty if they go to the account's database."""
    if account.status == "disabled":
        return DISABLED
    return REVOKED if key_id and key_id in account.revoked_key_ids else ""
