"""Compares what arrived, as counted before the ledger, with what the ledger has, so that a loss in between shows.

On a deployed stack the stream counts its records (CloudWatch's IncomingRecords, in closed windows of five minutes). This count is
compared with the records of the same time that the ledger has planned or that wait on the stream. On the local stack, the gateway
counts the events that its responses call accepted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ops.books.accounting import Balance
from ops.stream.readable_shards import Position, ReadableShards, from_stream
from shared.clock import Clock
from shared.errors import HeldError, IndexDamagedError, IndexLostError
from worker.chain import ChainId
from worker.membership import Membership
from worker.record import Number, number
from worker.span import Span

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

WINDOW_SECONDS = 300
_CLOSED_AFTER_SECONDS = 180.0  # CloudWatch has a minute's count within two minutes
_UNSURE_SECONDS = 5.0  # the stream and CloudWatch may date a record on different sides of a border
_NO_END: Number = "999"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How many arrived, by two counts.

    Attributes:
        unit: what is counted: `events` or `records`.
        counted: number counted before the ledger.
        seen: number in the ledger, or waiting for it.
        unsure: how far the counts may differ without a loss.
        since: start of the compared time, UNIX seconds; None for all time.
        until: its end, UNIX seconds.
    """

    unit: str
    counted: int
    seen: int
    unsure: int = 0
    since: float | None = None
    until: float | None = None

    @property
    def lost(self) -> int:
        """How many counted ones are neither in the ledger nor waiting; 0 if the counts agree within `unsure`."""
        lost = self.counted - self.seen
        return lost if lost > self.unsure else 0


def of_gateway(counted: int, balance: Balance, repeated: Callable[[], int]) -> Arrivals:
    """Compare the number of events that the local gateway accepted with the rows of a complete balance taken afterwards.

    The counts may differ if envelopes have copies that do not count, because the gateway counted each, or if the queue has
    messages, because their rows are not counted. `repeated` returns how many rows are in copies; it is called only if rows are missing.
    """
    seen = balance.total.received + balance.unread.rows
    missing = max(0, counted - seen)
    is_unsure = balance.unread.in_queue or balance.copies or not balance.unread.is_complete
    unsure = missing if is_unsure or not missing else repeated()
    return Arrivals("events", counted, seen, unsure)


def repeated_rows(shards: ReadableShards) -> int:
    """Return how many rows are in envelopes that the stream has had before, such as those of a repeated request."""
    rows, known = 0, set[str]()
    for shard in shards.all():
        for page in shards.pages(shard.shard_id, Position()):
            for record in from_stream(page.records, shard.shard_id):
                if record.request_id in known:
                    rows += sum(count for _, count, _ in record.blocks)
                elif record.request_id:
                    known.add(record.request_id)
    return rows


@dataclass(slots=True)
class _Borders:
    """The compared time in one shard: its first record, the first one after it, and how many may be on either side."""

    first: Number
    end: Number
    unsure: int


@dataclass(slots=True)
class StreamCount:
    """Compares the ledger's records of a closed time range, in UNIX seconds, with the stream's own count."""

    shards: ReadableShards
    membership: Membership
    since: float
    until: float
    _borders: dict[ChainId, _Borders] = field(default_factory=dict)
    _seen: int = 0
    _unsure: int = 0

    @classmethod
    def of(
        cls, shards: ReadableShards, membership: Membership, clock: Clock, since: float | None
    ) -> "StreamCount | None":
        """Return a count over the closed windows since a time, within the stream's retention; None if there are none."""
        summary = shards.summary()
        now = clock.now()
        oldest = now - summary["RetentionPeriodHours"] * 3600 + 2 * WINDOW_SECONDS
        created = summary["StreamCreationTimestamp"].timestamp() - WINDOW_SECONDS
        begin = max(created, oldest, since or 0.0)
        begin = -(-begin // WINDOW_SECONDS) * WINDOW_SECONDS
        end = (now - _CLOSED_AFTER_SECONDS) // WINDOW_SECONDS * WINDOW_SECONDS
        if end <= begin:
            return None
        count = cls(shards, membership, begin, end)
        for shard in shards.all():
            first, unsure = count._border(shard.shard_id, begin)
            behind, more = count._border(shard.shard_id, end)
            count._borders[shard.chain] = _Borders(first, behind, unsure + more)
        return count

    def add(self, span: Span) -> None:
        """Count the records of a span that are within the range."""
        borders = self._borders.get(span.chain.root)
        if borders is None or not span.records or span.last < borders.first or span.first >= borders.end:
            return
        if borders.first <= span.first and span.last < borders.end:
            self._seen += span.records
            return
        # some of these may have been passed over, and others be in the chain of a gap
        there = list(set(self._numbers(span.chain.shard, Position(at=span.first), span.last + "~")))
        try:
            numbers, hidden = self.membership.numbers(span, there), 0
        except (IndexLostError, IndexDamagedError, HeldError):
            numbers, hidden = there, abs(len(there) - span.records)
        self._unsure += hidden
        self._seen += max(0, sum(borders.first <= one < borders.end for one in numbers) - hidden)

    def result(self, cloudwatch: "CloudWatchClient", stream: str, balance: Balance) -> Arrivals:
        """Return the counts. Call this after `add` has seen all spans of the balance."""
        for chain, unread in balance.unread.shards.items():
            borders = self._borders.get(chain)
            if borders is not None and unread.records and unread.after < borders.end:
                numbers = self._numbers(chain.shard, Position(after=unread.after), borders.end)
                self._seen += sum(borders.first <= one for one in numbers)
        pages = cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[
                {
                    "Id": "records",
                    "MetricStat": {
                        "Metric": {
                            "Namespace": "AWS/Kinesis",
                            "MetricName": "IncomingRecords",
                            "Dimensions": [{"Name": "StreamName", "Value": stream}],
                        },
                        "Period": WINDOW_SECONDS,
                        "Stat": "Sum",
                    },
                }
            ],
            StartTime=datetime.fromtimestamp(self.since, UTC),
            EndTime=datetime.fromtimestamp(self.until, UTC),
        )
        counted = sum(sum(found["Values"]) for page in pages for found in page["MetricDataResults"])
        unsure = self._unsure + sum(borders.unsure for borders in self._borders.values())
        return Arrivals("records", round(counted), self._seen, unsure, self.since, self.until)

    def _border(self, shard: str, moment: float) -> tuple[Number, int]:
        """Return the first record at or after a time, and how many are close enough to count on either side."""
        first, close = _NO_END, 0
        for page in self.shards.pages(shard, Position(moment=moment - _UNSURE_SECONDS)):
            for record in page.records:
                arrived_at = record["ApproximateArrivalTimestamp"].timestamp()
                if arrived_at > moment + _UNSURE_SECONDS:
                    return min(first, number(record["SequenceNumber"])), close
                close += 1
                if first == _NO_END and arrived_at >= moment:
                    first = number(record["SequenceNumber"])
        return first, close

    def _numbers(self, shard: str, position: Position, end: Number) -> Iterator[Number]:
        """Yield the sequence numbers of records from a position up to but excluding `end`."""
        for page in self.shards.pages(shard, position):
            for record in page.records:
                if (this := number(record["SequenceNumber"])) >= end:
                    return
                yield this
