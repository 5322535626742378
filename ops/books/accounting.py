"""Reconciles what was received with what happened to it, by account and table.

The ledger has rows once the worker has planned them. What is not planned yet is counted in records: those on the stream after the
last span of each shard's chain, and those in the overflow queue. Object names show whether the bucket has what is set aside.

The worker may keep running. The end of each chain is read first: spans planned later are ignored, and their records count as
unread. A span is one item, read atomically, so the sums hold at any time. Memory grows with the number of set-aside chunks, not
with the ledger, except for eight bytes per span that the archive should have.
"""

import json
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from shared import envelope
from shared.clock import Clock
from shared.settings import MOST_ARCHIVE_DAYS
from worker.archive import Archive, ArchivedSpan
from worker.chain import ChainId
from worker.delivery import ASIDE, Entry, State
from worker.ledger import Ledger, Place
from worker.record import START, Number
from worker.set_aside import SetAsideStore
from worker.shards import Position, Shards
from worker.span import ChunkKey, Group, Span

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_DAY_SECONDS = 86_400
_QUEUE_COUNTS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass(slots=True)
class Rows:
    """Rows of one account's table, or of many.

    Attributes:
        received: planned by the worker.
        states: their number by state. Treasure Data may already have some of the pending ones.
        unbacked: set aside according to the ledger, but without an object in the bucket. Always 0 unless objects were deleted.
    """

    received: int = 0
    states: Counter[State] = field(default_factory=Counter)
    unbacked: int = 0

    @property
    def delivered(self) -> int:
        """Accepted by Treasure Data."""
        return self.states[State.DELIVERED]

    @property
    def in_flight(self) -> int:
        """Neither settled nor set aside yet."""
        return self.states[State.PENDING]

    @property
    def aside(self) -> Counter[State]:
        """Set aside, by state."""
        return Counter({state: rows for state, rows in self.states.items() if state in ASIDE})

    @property
    def adds_up(self) -> bool:
        """Whether received = delivered + set aside + in flight + dropped + missing, and the bucket has what is set aside."""
        counts = self.states.values()
        return self.received == sum(counts) and min(counts, default=0) >= 0 and self.unbacked == 0

    def __iadd__(self, other: "Rows") -> Self:
        self.received += other.received
        self.states.update(other.states)
        self.unbacked += other.unbacked
        return self


@dataclass(frozen=True, slots=True)
class UnreadShard:
    """Records of one shard that the worker has not planned yet.

    Attributes:
        records: behind the last planned span.
        is_complete: whether the shard was read to its end in time; if not, there are more.
        behind_seconds: how long ago the oldest of them arrived, by Kinesis's arrival time.
        rows: in the records; one for a record that cannot be decoded.
        after: the end of the chain, which they follow.
    """

    records: int = 0
    is_complete: bool = True
    behind_seconds: float = 0.0
    rows: int = 0
    after: Number = field(default=START, compare=False)


@dataclass(frozen=True, slots=True)
class Unread:
    """What the worker has not planned yet.

    Attributes:
        in_queue: envelopes in the overflow queue, as SQS estimates them. Some may be on the stream as well.
        shards: records by the shard's chain.
    """

    in_queue: int = 0
    shards: Mapping[ChainId, UnreadShard] = field(default_factory=dict)

    @property
    def on_stream(self) -> int:
        """Records counted on the stream."""
        return sum(shard.records for shard in self.shards.values())

    @property
    def rows(self) -> int:
        """Rows in the records counted on the stream."""
        return sum(shard.rows for shard in self.shards.values())

    @property
    def is_complete(self) -> bool:
        """Whether all shards were read to their ends."""
        return all(shard.is_complete for shard in self.shards.values())

    @property
    def behind_seconds(self) -> float:
        """How long ago the oldest record arrived."""
        return max((shard.behind_seconds for shard in self.shards.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class Balance:
    """What was received and what happened to it.

    Attributes:
        tables: rows by account and table. What could not become rows is listed under the table `-CODE`, and under the account
            `-` if no account could be read.
        unread: what the worker has not planned yet.
        forced: rows that forced replays have sent again, by account and table. They do not count as received again.
        spans: number of spans counted.
        open_spans: number of these that are not settled.
        copies: records that do not count because another copy of their envelope does.
        rejected: rejected events by account, table and code. They do not count as received.
        unarchived: settled spans missing from the archive, although it should still have their records.
    """

    tables: Mapping[tuple[str, str], Rows]
    unread: Unread
    forced: Mapping[tuple[str, str], Rows]
    spans: int
    open_spans: int
    copies: int = 0
    rejected: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    unarchived: int = 0

    @property
    def total(self) -> Rows:
        """The sums over all accounts and tables."""
        total = Rows()
        for rows in self.tables.values():
            total += rows
        return total

    @property
    def adds_up(self) -> bool:
        """Whether every table's rows add up."""
        return all(rows.adds_up for rows in (*self.tables.values(), *self.forced.values()))


class _Archived:
    """A chain's spans that the archive should have: their earliest hour, and an eight-byte hash of each."""

    def __init__(self, hour: str) -> None:
        self.hour = hour
        self.hashes = array("q")

    def add(self, span: ArchivedSpan) -> None:
        self.hour = min(span.hour, self.hour)
        self.hashes.append(hash(span))


class Accounting:
    """Takes balances.

    Args:
        ledger: the ledger.
        shards: the stream.
        store: the bucket of set-aside chunks.
        archive: the archive.
        sqs: a boto3 client.
        queue_url: the overflow queue.
        clock: the time, for the age of records and for deadlines.
        archive_days: how many days the archive keeps records for, by today's setting.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        shards: Shards,
        store: SetAsideStore,
        archive: Archive,
        sqs: "SQSClient",
        queue_url: str,
        clock: Clock,
        archive_days: int = MOST_ARCHIVE_DAYS,
    ) -> None:
        self._archive_days = archive_days
        self._ledger = ledger
        self._shards = shards
        self._store = store
        self._archive = archive
        self._sqs = sqs
        self._queue_url = queue_url
        self._clock = clock

    def take(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        seconds: float = 60.0,
        each: Callable[[Span], None] = lambda _: None,
    ) -> Balance:
        """Return the balance of everything in the ledger, or of a time range.

        This reads the whole ledger, whatever the range: one read unit per 4 KB.

        Args:
            since: UNIX seconds; only what was planned then or later.
            until: UNIX seconds; only what was planned before.
            seconds: how long to count unread records.
            each: called with each span that counts.

        Raises:
            UnavailableError: the ledger, bucket or stream cannot be read.
            ClientError: SQS rejects the call.
            BotoCoreError: SQS cannot be reached.
        """
        ends = self._ends()
        tables: dict[tuple[str, str], Rows] = {}
        forced: dict[tuple[str, str], Rows] = {}
        aside: dict[tuple[Place, ChunkKey], tuple[Rows, str]] = {}
        rejected: Counter[tuple[str, str, str]] = Counter()
        archived: dict[ChainId, _Archived] = {}
        spans = open_spans = copies = 0
        for span in self._ledger.spans(since, until):
            if span.chain in ends and span.last > ends[span.chain]:
                continue
            spans += 1
            open_spans += not span.done
            copies += len(span.ignored)
            each(span)
            sums = forced if span.chain.is_forced else tables
            place = Place(span.chain, span.after)
            for group, states in by_group(span).items():
                if group.is_rejected:
                    rejected[group.owner.account, group.table, group.code] += states.total()
                    continue
                total = sums.setdefault((group.owner.account, group.label), Rows())
                total += Rows(states.total(), states)
            for key, entry in span.entries.items():
                if entry.state in ASIDE:
                    total = sums[key.account, key.group.label]
                    aside[place, key] = (total, self._name(span, key, entry))
            if found := self._should_be_archived(span):
                archived.setdefault(found.chain, _Archived(found.hour)).add(found)
        self._find_unbacked(aside)
        unarchived = self._find_unarchived(archived)
        unread = self._unread(ends, self._clock.now() + seconds)
        return Balance(tables, unread, forced, spans, open_spans, copies, rejected, unarchived)

    def unread(self, *, seconds: float = 60.0) -> Unread:
        """Return what the worker has not planned yet. This reads only the ends of chains from the ledger.

        Raises: as `take`.
        """
        return self._unread(self._ends(), self._clock.now() + seconds)

    def _ends(self) -> dict[ChainId, Number]:
        """Return the last planned sequence number of each shard's chain."""
        chains = [self._shards.chain(shard.shard_id) for shard in self._shards.all()]
        return {chain: self._ledger.end(chain) for chain in chains}

    def _name(self, span: Span, key: ChunkKey, entry: Entry) -> str:
        return self._store.name(span, key, entry.edit, entry.digest)

    def _find_unbacked(self, aside: Mapping[tuple[Place, ChunkKey], tuple[Rows, str]]) -> None:
        """Count set-aside chunks without an object.

        An object is written before the ledger refers to it, and deleted only after the ledger has settled its chunk. If the listing,
        taken after the ledger was read, lacks an object, it is missing only if the ledger still refers to it.
        """
        listed = {one.name for one in self._store.listed()} if aside else set()
        for (place, key), (rows, name) in aside.items():
            if name not in listed:
                span = self._ledger.get(place)
                entry = Entry() if span is None else span.entry(key)
                if span is not None and entry.state in ASIDE and self._name(span, key, entry) == name:
                    rows.unbacked += entry.rows

    def _should_be_archived(self, span: Span) -> ArchivedSpan | None:
        """Return the archive's name for a settled span if the archive should still have it.

        A span with records that expired before they were read was never archived.
        """
        if span.archived is None or not span.done:
            return None
        days = min(span.archived.days, self._archive_days)
        kept_until = span.planned_at / 1000 + days * _DAY_SECONDS
        if kept_until <= self._clock.now() or any(
            entry.state is State.MISSING for entry in span.entries.values()
        ):
            return None
        return ArchivedSpan.of(span)

    def _find_unarchived(self, wanted: Mapping[ChainId, _Archived]) -> int:
        """Count the spans that the archive lacks. An object is written before its span is settled."""
        count = 0
        for chain, spans in wanted.items():
            missing = set(spans.hashes)
            for found in self._archive.planned_since(chain, spans.hour):
                missing.discard(hash(found))
            count += len(missing)
        return count

    def _unread(self, ends: Mapping[ChainId, Number], deadline: float) -> Unread:
        shards = {chain: self._unread_shard(chain.shard, end, deadline) for chain, end in ends.items()}
        counts = self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=list(_QUEUE_COUNTS))
        return Unread(sum(int(counts["Attributes"][name]) for name in _QUEUE_COUNTS), shards)

    def _unread_shard(self, shard: str, end: Number, deadline: float) -> UnreadShard:
        records, rows, behind = 0, 0, 0.0
        for page in self._shards.pages(shard, Position(after=end), deadline):
            if page is None:
                return UnreadShard(records, is_complete=False, behind_seconds=behind, rows=rows, after=end)
            if page.records and not records:
                arrived_at = page.records[0]["ApproximateArrivalTimestamp"].timestamp()
                behind = max(0.0, self._clock.now() - arrived_at)
            records += len(page.records)
            rows += sum(row_count(record["Data"]) for record in page.records)
            if page.at_tip:
                break
        return UnreadShard(records, behind_seconds=behind, rows=rows, after=end)


def row_count(data: bytes) -> int:
    """Return the number of rows in a record: 0 if it only has rejected events, 1 if it cannot be decoded."""
    try:
        if data.startswith(b"{"):
            return len(json.loads(data)["events"])
        return envelope.decode(data).row_count
    except (ValueError, KeyError, TypeError):
        return 1


def by_group(span: Span) -> dict[Group, Counter[State]]:
    """Return a span's rows by group and state.

    Two kinds of rows are left out because the stream's spans count them: those returned to the stream, and those of an overflow
    chunk that was never sent but found in Treasure Data, since they arrived by the stream.
    """
    rest = State.DELIVERED if span.done else State.PENDING
    rows = {group: Counter({rest: count}) for group, count in span.counts.items()}
    for key, entry in span.entries.items():
        if entry.state in (State.SPLIT, State.PENDING):
            continue
        states = rows.setdefault(key.group, Counter())
        states[rest] -= entry.rows
        is_found = entry.state is State.DELIVERED and not entry.database
        if not (is_found and span.chain.is_overflow) and entry.state is not State.RETURNED:
            states[entry.state] += entry.rows
    return rows
