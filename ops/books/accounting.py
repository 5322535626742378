"""Reconciles what was received with what became of it, by account and table.

The ledger has rows once the worker has appended their span. What is not in a span yet is counted in records: those on the stream after
the last span of each shard's chain, and those in the overflow queue.

The worker may keep running. The end of each chain is read first: spans appended later are ignored, and their records count as
unread. A span is one item, read atomically, so the sums hold at any time.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Self

from ops.background import in_order
from ops.books.stored_spans import has_object
from ops.stream.readable_shards import Position, ReadableShards
from shared.clock import Clock
from shared.queue_counts import queue_counts
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.ledger import BEHIND_ALL, Ledger
from worker.record import START, Number, decode
from worker.span import Group, Span
from worker.states import UNSETTLED, State

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@dataclass(slots=True)
class Rows:
    """Rows of one account's table, or of many.

    Attributes:
        received: in a span of the ledger.
        states: their number by state.
        in_flight: those of the waiting ones that their worker is sending right now.
        unbacked: waiting or dead according to the ledger, but without an object in the bucket. Always 0 unless objects were deleted.
        unchecked: waiting or dead ones whose object was not looked for, because there are so many.
    """

    received: int = 0
    states: Counter[State] = field(default_factory=Counter)
    in_flight: int = 0
    unbacked: int = 0
    unchecked: int = 0

    @property
    def delivered(self) -> int:
        """Accepted by Treasure Data."""
        return self.states[State.DELIVERED]

    @property
    def waiting(self) -> int:
        """Waiting to be sent, without those that are being sent."""
        return self.states[State.WAITING] + self.states[State.AGAIN] - self.in_flight

    @property
    def dead(self) -> int:
        """Dead."""
        return self.states[State.DEAD]

    @property
    def adds_up(self) -> bool:
        """Whether received = delivered + waiting + dead + dropped + forgotten + in flight, and the bucket has what waits or is dead."""
        counts = self.states.values()
        return self.received == sum(counts) and min(counts, default=0) >= 0 and self.unbacked == 0

    def __iadd__(self, other: "Rows") -> Self:
        self.received += other.received
        self.states.update(other.states)
        self.in_flight += other.in_flight
        self.unbacked += other.unbacked
        self.unchecked += other.unchecked
        return self


@dataclass(frozen=True, slots=True)
class UnreadShard:
    """Records of one shard that are in no span yet.

    Attributes:
        records: after the last span.
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
    """What is in no span yet.

    Attributes:
        in_queue: envelopes in the overflow queue, as SQS estimates them. Some may be on the stream as well.
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
        forced: rows that forced replays have sent again, by account and table. They do not count as received again.
        copies: rows that do not count, because another copy of their envelope does.
        rejected: rejected events by account, table and code. They do not count as received.
    """

    tables: Mapping[tuple[str, str], Rows]
    unread: Unread
    forced: Mapping[tuple[str, str], Rows]
    spans: int
    copies: int = 0
    rejected: Mapping[tuple[str, str, str], int] = field(default_factory=dict)

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


@dataclass(frozen=True, slots=True)
class Accounting:
    """Takes balances. The clock tells the age of records, and deadlines.

    Attributes:
        most_checked: how many spans with waiting or dead rows have their objects looked for.
    """

    _: KW_ONLY
    ledger: Ledger
    shards: ReadableShards
    bucket: Bucket
    sqs: "SQSClient"
    queue_url: str
    clock: Clock
    most_checked: int = 20_000

    def take(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        seconds: float = 60.0,
        each: Callable[[Span], None] = lambda _: None,
    ) -> Balance:
        """Return the balance of everything in the ledger, or of the spans planned from `since` to before `until`, UNIX seconds.

        This reads the whole ledger, whatever the range: one read unit per 4 KB. Unread records are counted for so many seconds. `each` is
        called with each span that counts.
        """
        ends = self._ends()
        tables: dict[tuple[str, str], Rows] = {}
        forced: dict[tuple[str, str], Rows] = {}
        rejected: Counter[tuple[str, str, str]] = Counter()
        spans = copies = 0

        def suspects() -> Iterator[Span]:
            nonlocal spans, copies
            for span in self.ledger.spans(since, until):
                if span.chain in ends and ends[span.chain] < span.last != BEHIND_ALL:
                    continue
                spans += 1
                each(span)
                sums = forced if span.is_forced else tables
                for group, states in by_group(span).items():
                    copies += states.pop(State.COPY, 0)
                    if group.is_rejected:
                        rejected[group.sender.account, group.table, group.code] += states[State.REJECTED]
                        continue
                    total = sums.setdefault(group.table_of, Rows())
                    in_flight = 0 if span.settled else states[State.WAITING]
                    total += Rows(states.total(), states, in_flight)
                if span.states() & (UNSETTLED | {State.DEAD}):
                    yield span

        looked = in_order(lambda one: self._doubtful(*one), enumerate(suspects()))
        for span, is_checked in filter(None, looked):
            sums = forced if span.is_forced else tables
            for group, states in by_group(span).items():
                rows = sum(states[one] for one in (*UNSETTLED, State.DEAD))
                if not group.is_rejected and group.table_of in sums:
                    total = sums[group.table_of]
                    total += Rows(unbacked=rows) if is_checked else Rows(unchecked=rows)
        unread = self._unread(ends, self.clock.now() + seconds)
        return Balance(tables, unread, forced, spans, copies, rejected)

    def unread(self, *, seconds: float = 60.0) -> Unread:
        """Return what the worker has not planned yet. This reads only the ends of chains from the ledger."""
        return self._unread(self._ends(), self.clock.now() + seconds)

    def _ends(self) -> dict[ChainId, Number]:
        """Return the last sequence number in each shard's chain."""
        ends = {one.chain: last_planned(self.ledger, one.chain) for one in self.shards.all()}
        return {chain: START if end is None else end.last for chain, end in ends.items()}

    def _doubtful(self, position: int, span: Span) -> tuple[Span, bool] | None:
        """Return a span whose object is not there or, with False, was not looked for; None if it is there."""
        if position >= self.most_checked:
            return span, False
        if span.object is not None and has_object(self.bucket, span):
            return None
        current = self.ledger.get(span.place)
        if current is None or current.object != span.object:
            return None  # written anew meanwhile
        return current, True

    def _unread(self, ends: Mapping[ChainId, Number], deadline: float) -> Unread:
        shards = {chain: self._unread_shard(chain.shard, end, deadline) for chain, end in ends.items()}
        return Unread(sum(queue_counts(self.sqs, self.queue_url)), shards)

    def _unread_shard(self, shard: str, end: Number, deadline: float) -> UnreadShard:
        records, is_complete, behind, rows = 0, False, 0.0, 0
        for page in self.shards.pages(shard, Position(after=end), deadline):
            if page.records and not records:
                arrived_at = page.records[0]["ApproximateArrivalTimestamp"].timestamp()
                behind = max(0.0, self.clock.now() - arrived_at)
            records += len(page.records)
            rows += sum(row_count(record["Data"]) for record in page.records)
            is_complete = page.at_tip
        return UnreadShard(records, is_complete, behind, rows, end)


def last_planned(ledger: Ledger, chain: ChainId) -> Span | None:
    """Return the last span of a chain that has records: the one at its end may only close it."""
    end = ledger.end(chain)
    if end is not None and end.last == BEHIND_ALL:
        return ledger.preceding(chain, end.after)
    return end


def row_count(data: bytes) -> int:
    """Return the number of rows in a record: 0 if it only has rejected events, 1 if it cannot be decoded."""
    record = decode(data, "", START, 0.0)
    return sum(count for _, count, _ in record.blocks)


def by_group(span: Span) -> dict[Group, Counter[State]]:
    """Return a span's rows by group and state.

    Rows that were replaced are left out, because the span of the new rows counts them.
    """
    rows: dict[Group, Counter[State]] = {}
    for key, entry in span.all_leaves():
        if entry.state is not State.REPLACED:
            rows.setdefault(key.group._replace(request_id=""), Counter())[entry.state] += span.rows(key)
    return rows
