"""Watermarks: the `received_at` before which every accepted row is in Treasure Data, or set aside.

A watermark is taken in these steps; docs/completeness.md explains why each is needed. If a step proves nothing, the watermark does not
advance.

1. Check that the overflow queue is empty. Everything that has left it is on the stream, or set aside.
2. Read every shard, from the last record known to be settled to its tip. Records that no settled span holds are pending.
3. Read every shard to its tip once more: a copy of an envelope that landed meanwhile may be the one that counts.
4. Count separately what is set aside.

Every request that was answered before `began`, the time of step 1, has left a message or a record. Requests that are answered later
were received at most INGEST_SECONDS earlier, by clocks that may each be wrong by CLOCK_SECONDS.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from shared.clock import Clock
from shared.errors import UnprovenError
from worker.chain import ChainId
from worker.delivery import ASIDE, State
from worker.executor import Executors, Threads, run_parallel
from worker.ledger import Gap, Ledger, Place
from worker.record import NOBODY, START, Number
from worker.search import SECOND_LOOK_SECONDS
from worker.shard_reader import ShardReader
from worker.shards import HASH_KEYS, Shard, Shards
from worker.span import Group, Span

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

INGEST_SECONDS = 10.0
"""Lambda ends an invocation of the ingest after this time."""
CLOCK_SECONDS = 20.0
"""By how much the clock of a function, or of the machine that takes a watermark, may be wrong."""
COUNTED_SECONDS = 200.0
"""How long the queue's counts may miss a message. SQS documents a minute or more. The notice of a message lasts longer."""
INDEX_SECONDS = 600.0
"""How long the ledger's index may lag."""
LARGEST_BATCH = 10_000
"""The most records that the event source delivers at once."""

_ALL_SERVERS_SECONDS = 1
"""SQS queries all of its servers only if a receive may wait."""
_QUEUE_COUNTS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)

Table = tuple[str, str]
"""An account and one of its tables."""


@dataclass(frozen=True, slots=True)
class Completeness:
    """Up to when rows are complete.

    Attributes:
        at: UNIX seconds at which this was found out.
        horizon: UNIX milliseconds; every row received before is settled, set aside or in `pending`. None if that cannot be proved.
        pending: by account and table, the earliest `received_at` of rows that are not settled.
        aside: by account and table, the number of rows that are set aside, by state.
        tables: the accounts and tables of all rows that were seen.
        obstacle: why the horizon cannot be proved.
    """

    at: float
    horizon: int | None
    pending: Mapping[Table, int] = field(default_factory=dict)
    aside: Mapping[Table, Counter[State]] = field(default_factory=dict)
    tables: frozenset[Table] = frozenset()
    obstacle: str = ""

    def before(self, account: str, table: str) -> int | None:
        """Return a table's watermark, in UNIX milliseconds; None if none can be proved."""
        if self.horizon is None:
            return None
        return min(self.horizon, self.pending.get((account, table), self.horizon)) or None

    def set_aside(self, account: str, table: str) -> Counter[State]:
        """Return how many rows of a table are set aside, by state."""
        return self.aside.get((account, table), Counter())


@dataclass(slots=True)
class ShardProgress:
    """One shard, read from the last record that is known to be settled.

    Attributes:
        after: the last record that is known to be settled; START if there is none.
        settled: earlier spans that may have set-aside chunks which the index does not show yet.
        records: the records of the last read, by sequence number: the UNIX milliseconds at which rows of each table were received.
    """

    reader: ShardReader
    chain: ChainId
    after: Number
    settled: list[Span]
    records: dict[Number, dict[Table, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Found:
    """What a run has found out so far."""

    pending: dict[Table, int] = field(default_factory=dict)
    tables: set[Table] = field(default_factory=set)
    spans: dict[Place, Span] = field(default_factory=dict)

    def wait_for(self, rows: Mapping[Table, int]) -> None:
        """Note rows that are not settled."""
        for table, received_at in rows.items():
            self.pending[table] = min(received_at, self.pending.get(table, received_at))


class Watermarks:
    """Takes watermarks. It only reads, and changes nothing.

    Args:
        queue_url: the overflow queue.
        notices_url: the queue of notices that the overflow queue was used.
    """

    def __init__(
        self,
        *,
        shards: Shards,
        ledger: Ledger,
        sqs: "SQSClient",
        queue_url: str,
        notices_url: str,
        clock: Clock,
        executors: Executors = Threads,
    ) -> None:
        self._shards = shards
        self._ledger = ledger
        self._sqs = sqs
        self._queue_url = queue_url
        self._notices_url = notices_url
        self._clock = clock
        self._executors = executors

    def take(self, seconds: float = 60.0) -> Completeness:
        """Return up to when rows are complete, as far as that can be proved in `seconds`.

        Raises:
            UnavailableError: the stream or the ledger does not answer.
            ClientError: SQS refuses.
            BotoCoreError: SQS cannot be reached.
        """
        began = self._clock.now()
        try:
            return self._take(began, began + seconds)
        except UnprovenError as error:
            return Completeness(self._clock.now(), None, obstacle=str(error))

    def _take(self, began: float, until: float) -> Completeness:
        latest = self._in_queue(began) - INGEST_SECONDS - 2 * CLOCK_SECONDS
        shards = self._open_and_closed()
        found = _Found()
        lanes: list[ShardProgress] = run_parallel(
            self._executors, [partial(self._first_look, shard, began, until) for shard in shards]
        )
        for lane in lanes:
            for span in lane.settled:
                found.spans[Place(span.chain, span.after)] = span
                found.tables.update(
                    (group.owner.account, group.table) for group in span.counts if not group.code
                )
            self._judge(lane, found, all_read=True)
        self._look_again(lanes, found, until)
        for lane in lanes:
            if lane.reader.is_empty:
                self._check_empty(lane, began)
        aside = self._aside(began, found, until)
        tables = frozenset(table for table in (*found.tables, *aside) if table[0] != NOBODY)
        return Completeness(self._clock.now(), int(latest * 1000), found.pending, aside, tables)

    # 1. The queue

    def _in_queue(self, began: float) -> float:
        """Return the UNIX seconds up to which no message sent to the queue is left there.

        The queue's counts show older messages. A notice shows that there may be newer ones; it is received, but stays in its queue.

        Raises:
            UnprovenError: the queue holds messages.
        """
        notices = self._sqs.receive_message(
            QueueUrl=self._notices_url, VisibilityTimeout=0, WaitTimeSeconds=_ALL_SERVERS_SECONDS
        )
        answer = self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=list(_QUEUE_COUNTS))
        waiting = sum(int(answer["Attributes"][name]) for name in _QUEUE_COUNTS)
        if waiting:
            raise UnprovenError(f"about {waiting:,} envelopes are in the overflow queue")
        return began - COUNTED_SECONDS if notices.get("Messages") else began

    # 2. and 3. The stream

    def _open_and_closed(self) -> list[Shard]:
        """Return the stream's shards.

        Raises:
            UnprovenError: the list is incomplete.
        """
        shards = list(self._shards.all())
        if sum(shard.keys.stop - shard.keys.start for shard in shards if shard.is_open) != HASH_KEYS:
            raise UnprovenError("Kinesis does not list all shards")
        return shards

    def _first_look(self, shard: Shard, began: float, until: float) -> ShardProgress:
        lane = self._lane(shard, began)
        self._read(lane, until)
        return lane

    def _lane(self, shard: Shard, began: float) -> ShardProgress:
        """Return a shard's lane, with the record to read from."""
        shards_chain = self._shards.chain(shard.shard_id)
        index_shows = began - INDEX_SECONDS - 2 * CLOCK_SECONDS
        recent = list(_unsettled(self._ledger.latest(shards_chain), index_shows))
        unsettled = list(_unsettled(recent, float("inf")))
        after = unsettled[-1].after if unsettled else START
        settled = recent[len(unsettled) :]
        holes = [hole for span in settled for hole in self._holes(span)]
        return ShardProgress(
            ShardReader(self._shards, shard, after, self._clock), shards_chain, after, settled + holes
        )

    def _holes(self, span: Span) -> Iterator[Span]:
        """Yield the spans of the hole before a span, and of the holes within it."""
        hole = span.chain.hole(span.after)
        if self._ledger.get(Place(hole, START)) is not None:
            for inner in self._ledger.latest(hole):
                yield inner
                yield from self._holes(inner)

    @staticmethod
    def _read(lane: ShardProgress, until: float) -> None:
        """Read a shard to its tip, and keep the account, tables and `received_at` of each record."""
        lane.records = {
            record.number: {(record.account, block[0]): record.received_at for block in record.blocks}
            for record in lane.reader.read(until)
        }

    def _look_again(self, lanes: Iterable[ShardProgress], found: _Found, until: float) -> None:
        """Read the shards to their tips once more, a while later: a record that has landed meanwhile may be the copy that counts."""
        run_parallel(self._executors, [partial(self._second_look, lane, until) for lane in lanes])
        for lane in lanes:
            if lane.records:
                self._judge(lane, found, all_read=False)

    def _second_look(self, lane: ShardProgress, until: float) -> bool:
        self._clock.sleep(max(0.0, lane.reader.looked_at + SECOND_LOOK_SECONDS - self._clock.now()))
        self._read(lane, until)
        return True

    def _check_empty(self, lane: ShardProgress, began: float) -> None:
        """Check that a shard that shows no record may be empty: it is closed, and the ledger knows of no record that it still has.

        Raises:
            UnprovenError: it may hold records.
            UnavailableError: the ledger or Kinesis does not answer.
        """
        shard = lane.reader.shard
        if shard.is_open:
            raise UnprovenError(
                f"the shard {shard.shard_id} shows no record; the redrive puts a marker there within five minutes"
            )
        retention: float = self._shards.summary()["RetentionPeriodHours"] * 3600
        for span in islice(self._ledger.latest(lane.chain), 1):
            if span.in_order and began - span.planned_at / 1000 < retention:
                raise UnprovenError(f"the shard {shard.shard_id} shows none of its records")

    # The ledger

    def _judge(self, lane: ShardProgress, found: _Found, *, all_read: bool) -> None:
        """Find out which of the records that were read are not settled.

        Args:
            lane: the shard.
            found: receives the results.
            all_read: all records behind `lane.after` have been read, not only those that have landed since.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
        """
        spans = self._spans_behind(lane)
        starts = [span.first for span in spans]
        held: dict[Place, list[Number]] = {}
        where: Span | Gap | None = None
        for number in sorted(lane.records):
            rows = lane.records[number]
            found.tables.update(rows)
            if where is None or not where.has(number):
                where = self._locate(lane, number, spans, starts)
            if isinstance(where, Gap):
                found.wait_for(rows)
                continue
            span = where
            place = Place(span.chain, span.after)
            found.spans[place] = span
            held.setdefault(place, []).append(number)
            if not span.done:
                pending = self._pending_of(span)
                found.wait_for({table: at for table, at in rows.items() if table in pending})
        for span in spans:
            place = Place(span.chain, span.after)
            found.spans[place] = span
            may_be_read = all_read and span.last <= lane.reader.anchor
            if may_be_read and not span.done and not span.is_whole(held.get(place, [])):
                found.wait_for(dict.fromkeys(self._pending_of(span), 0))  # received at an unknown time

    @staticmethod
    def _pending_of(span: Span) -> frozenset[Table]:
        """Return the accounts and tables with unsettled rows in an open span."""
        rest: dict[Group, int] = dict(span.counts)
        for key, entry in span.entries.items():
            if entry.state not in (State.SPLIT, State.PENDING) and key.group in rest:
                rest[key.group] -= entry.rows
        return frozenset((group.owner.account, group.label) for group, rows in rest.items() if rows > 0)

    def _spans_behind(self, lane: ShardProgress) -> list[Span]:
        """Return the spans behind `lane.after` as they are now, in order."""
        spans = []
        for span in self._ledger.latest(lane.chain):
            if span.last <= lane.after:
                break
            spans.append(span)
        return spans[::-1]

    def _locate(
        self, lane: ShardProgress, number: Number, spans: list[Span], starts: list[Number]
    ) -> Span | Gap:
        """Return the span or the gap that holds a record."""
        index = bisect_right(starts, number) - 1
        if index >= 0 and spans[index].has(number):
            return spans[index]
        return self._ledger.locate(lane.chain, number)

    # 4. What is set aside

    def _aside(self, began: float, found: _Found, until: float) -> dict[Table, Counter[State]]:
        """Return how many rows are set aside, by account, table and state.

        The index shows chunks that were set aside some time ago. Those set aside since belong to spans that this run has read.

        Raises:
            UnprovenError: the time is up.
            UnavailableError: the ledger or Kinesis does not answer.
        """
        recent = self._ledger.spans() if self._index_may_lag(began) else ()
        for span in chain(self._indexed(found.spans), recent):
            if self._clock.now() >= until:
                raise UnprovenError("the time was up before all set-aside rows were counted")
            found.spans.setdefault(Place(span.chain, span.after), span)
        aside: dict[Table, Counter[State]] = {}
        for span in found.spans.values():
            if span.chain.is_forced:
                continue
            for key, entry in span.entries.items():
                if entry.state in ASIDE:
                    table = key.account, key.group.label
                    aside.setdefault(table, Counter())[entry.state] += entry.rows
        return aside

    def _index_may_lag(self, began: float) -> bool:
        """Return whether a span that this run has not read may have set-aside chunks which the index does not show yet.

        That is possible if the drainer has set something aside lately, or if the stream has been recreated lately.
        """
        latest = max(self._ledger.set_aside_by_drainer_at(), self._shards.created_at())
        return began - latest < INDEX_SECONDS + 2 * CLOCK_SECONDS

    def _indexed(self, known: Collection[Place]) -> Iterator[Span]:
        for dead in (False, True):
            for place in self._ledger.worklist(dead=dead):
                if place not in known and (span := self._ledger.get(place)):
                    yield span


def _unsettled(spans: Iterable[Span], moment: float) -> Iterator[Span]:
    """Yield those of a chain's spans, the latest first, that may have held unsettled records at `moment` (UNIX seconds).

    When a span is planned in order, all records before its batch are settled. The batch may have begun up to LARGEST_BATCH
    records before the span, because a changed mapping may have skipped its beginning.
    """
    records, in_order = 0, False
    for span in spans:
        if in_order and records >= LARGEST_BATCH:
            return
        yield span
        in_order = in_order or (span.in_order and span.planned_at / 1000 <= moment)
        records += span.records if in_order else 0
