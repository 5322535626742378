"""What was received and what became of it: delivered, set aside by kind, or in flight.

Rows are counted per account and table from the ledger, which knows them from the moment that the worker has planned
them. What the worker has not planned yet is counted in records: on the stream behind the last span of each shard's
chain, and in the overflow queue. What is set aside is compared with the objects in S3.

The worker may go on meanwhile. Where each chain ends is noted first; spans that are planned later do not count, their
records count as unread. Each span is counted as it stands when it is read, in one piece, so the sums hold at any time.
Memory does not grow with the ledger.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from botocore.exceptions import ClientError

from shared.clock import Clock
from worker.aside import Aside
from worker.forced import FORCED
from worker.record import START, Number, sequence_number
from worker.search import SECONDS_BETWEEN_READS, THROTTLED, list_shards
from worker.shard import Shards
from worker.span import Kind, Span, State

_QUEUE_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
_LOOKS = 3  # at S3 and the ledger, where chunks seem to be missing: one may just be on its way


@dataclass(slots=True)
class Rows:
    """Rows of one account's table, or of many.

    Attributes:
        received: planned by the worker.
        delivered: taken by Treasure Data.
        aside: set aside, by kind.
        in_flight: planned, and neither delivered nor set aside yet; Treasure Data may have taken some already.
        unbacked: set aside by the ledger's word, but without an object in S3. Always 0, unless objects were deleted.
    """

    received: int = 0
    delivered: int = 0
    aside: Counter[Kind] = field(default_factory=Counter)
    in_flight: int = 0
    unbacked: int = 0

    @property
    def adds_up(self) -> bool:
        """Whether received = delivered + set aside + in flight, and S3 has what is set aside."""
        parts = (self.delivered, self.in_flight, *self.aside.values())
        return self.received == sum(parts) and min(parts) >= 0 and self.unbacked == 0

    def __iadd__(self, other: "Rows") -> Self:
        self.received += other.received
        self.delivered += other.delivered
        self.aside.update(other.aside)
        self.in_flight += other.in_flight
        self.unbacked += other.unbacked
        return self


@dataclass(frozen=True, slots=True)
class Unread:
    """Records that the worker has not planned yet.

    Attributes:
        on_stream: counted on the stream.
        is_complete: the stream was read to its end within the time; otherwise there are more.
        behind_seconds: how long ago the oldest of them arrived, as Kinesis tells it.
        in_queue: envelopes in the overflow queue, as SQS estimates them. Some may be on the stream as well.
        shards: the same by shard.
    """

    on_stream: int = 0
    is_complete: bool = True
    behind_seconds: float = 0.0
    in_queue: int = 0
    shards: Mapping[str, "UnreadShard"] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class UnreadShard:
    """The part of `Unread` that stands on one shard; `end` is the last sequence number that is planned."""

    end: Number = START
    records: int = 0
    is_complete: bool = True
    behind_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Balance:
    """What was received and what became of it.

    Attributes:
        tables: rows by account and table. What could not become rows stands under a table that is called `-` and the
            reason, and under account `-` where no account could be read.
        unread: what the worker has not planned yet.
        forced: rows that forced replays have sent again, which are not received anew, in the same form as `tables`.
        spans: how many spans were counted.
        open_spans: how many of them are not settled.
    """

    tables: Mapping[tuple[str, str], Rows]
    unread: Unread
    spans: int = 0
    open_spans: int = 0
    forced: Mapping[tuple[str, str], Rows] = field(default_factory=dict)

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


@dataclass(slots=True)
class _Sums:
    tables: dict[tuple[str, str], Rows] = field(default_factory=dict)
    forced: dict[tuple[str, str], Rows] = field(default_factory=dict)
    spans: int = 0
    open_spans: int = 0

    def rows(self, group: str, *, forced: bool) -> Rows:
        owner, _, table = group.partition("/")
        tables = self.forced if forced else self.tables
        return tables.setdefault((owner.partition(":")[0], table), Rows())


class Accounting:
    """Takes balances.

    Args:
        dynamodb: a boto3-shaped client.
        table: the ledger's table.
        kinesis: a boto3-shaped client.
        stream_name: the stream.
        aside: the bucket of what is set aside.
        sqs: a boto3-shaped client.
        queue_url: the overflow queue.
        clock: paces the reading of the stream.
    """

    def __init__(
        self,
        *,
        dynamodb: Any,
        table: str,
        kinesis: Any,
        stream_name: str,
        aside: Aside,
        sqs: Any,
        queue_url: str,
        clock: Clock,
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._kinesis = kinesis
        self._stream_name = stream_name
        self._aside = aside
        self._sqs = sqs
        self._queue_url = queue_url
        self._clock = clock

    def take(
        self, since: float | None = None, until: float | None = None, *, seconds: float = 60.0
    ) -> Balance:
        """Return the balance of all that was ever received and is not forgotten, or of a span of time.

        The whole ledger is read, whatever the span of time: one read unit per 4 KB.

        Args:
            since: UNIX seconds; only what was planned then or later.
            until: UNIX seconds; only what was planned before.
            seconds: how long records that are unread may be counted.

        Raises:
            ClientError: DynamoDB, Kinesis or SQS refuses.
            BotoCoreError: one of them cannot be reached.
            AsideUnavailableError: S3 cannot be reached.
            ShardUnreadableError: Kinesis does not describe the stream.
        """
        ends = self._ends()
        sums = self._backed(ends, since, until)
        unread = self._unread(ends, self._clock.now() + seconds)
        return Balance(sums.tables, unread, sums.spans, sums.open_spans, sums.forced)

    def unread(self, *, seconds: float = 60.0) -> Unread:
        """Return what the worker has not planned yet; of the ledger only where each chain ends is read.

        Raises: as `take`.
        """
        return self._unread(self._ends(), self._clock.now() + seconds)

    def _ends(self) -> dict[str, tuple[str, Number]]:
        """Return for each chain that is a shard's the shard and the last sequence number planned."""
        shards = Shards(self._kinesis, self._stream_name, self._clock)
        ends = {}
        for described in list_shards(self._kinesis, self._stream_name):
            shard: str = described["ShardId"]
            chain = shards.chain(shard)
            answer = self._dynamodb.query(
                TableName=self._table,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": chain}},
                ScanIndexForward=False,
                Limit=1,
                ConsistentRead=True,
            )
            last = answer["Items"][0]["last"]["S"] if answer["Items"] else START
            ends[chain] = (shard, last)
        return ends

    # Rows

    def _backed(
        self, ends: Mapping[str, tuple[str, Number]], since: float | None, until: float | None
    ) -> _Sums:
        """Return the ledger's sums, compared with S3."""
        for _ in range(_LOOKS):
            sums = self._sum(ends, since, until)
            objects = self._objects()
            for place, rows in (*sums.tables.items(), *sums.forced.items()):
                rows.unbacked = max(0, rows.aside.total() - objects[place])
                objects[place] -= rows.aside.total()
            if not any(rows.unbacked for rows in (*sums.tables.values(), *sums.forced.values())):
                break
        return sums

    def _objects(self) -> Counter[tuple[str, str]]:
        """Return how many rows S3 has by account and table, by its objects' names."""
        rows: Counter[tuple[str, str]] = Counter()
        for kind in Kind:
            for listed in self._aside.listed(kind):
                rows[listed.account, listed.table] += listed.rows
        return rows

    def _sum(self, ends: Mapping[str, tuple[str, Number]], since: float | None, until: float | None) -> _Sums:
        sums = _Sums()
        for span in self._spans(since, until):
            end = ends.get(span.chain)
            if end is None or span.last <= end[1]:
                _add(sums, span)
        return sums

    def _spans(self, since: float | None, until: float | None) -> Iterator[Span]:
        condition, values = "attribute_exists(g)", {}
        for operator, name, moment in ((">=", ":since", since), ("<", ":until", until)):
            if moment is not None:
                condition += f" AND #at {operator} {name}"
                values[name] = {"N": str(round(moment * 1000))}
        request: dict[str, Any] = {"FilterExpression": condition}
        if values:
            request |= {"ExpressionAttributeNames": {"#at": "at"}, "ExpressionAttributeValues": values}
        while True:
            page = self._dynamodb.scan(TableName=self._table, ConsistentRead=True, **request)
            for item in page["Items"]:
                yield Span.from_item(item)
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    # Records

    def _unread(self, ends: Mapping[str, tuple[str, Number]], deadline: float) -> Unread:
        shards = {shard: self._unread_shard(shard, end, deadline) for shard, end in ends.values()}
        counts = self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=list(_QUEUE_COUNTS))
        in_queue = sum(int(counts["Attributes"][name]) for name in _QUEUE_COUNTS)
        return Unread(
            sum(shard.records for shard in shards.values()),
            all(shard.is_complete for shard in shards.values()),
            max((shard.behind_seconds for shard in shards.values()), default=0.0),
            in_queue,
            shards,
        )

    def _unread_shard(self, shard: str, end: Number, deadline: float) -> UnreadShard:
        records, behind = 0, 0.0
        for answer in self._read(shard, end, deadline):
            if answer is None:
                return UnreadShard(end, records, is_complete=False, behind_seconds=behind)
            records += len(answer["Records"])
            behind = max(behind, self._age(answer))
        return UnreadShard(end, records, behind_seconds=behind)

    def _age(self, answer: Mapping[str, Any]) -> float:
        records = answer["Records"]
        if not records:
            return 0.0
        arrived_at: float = records[0]["ApproximateArrivalTimestamp"].timestamp()
        return max(0.0, self._clock.now() - arrived_at)

    def _read(self, shard: str, end: Number, deadline: float) -> Iterator[Any]:
        """Yield the answers of GetRecords behind a sequence number; None when the time was up before the end."""
        start = {"ShardIteratorType": "TRIM_HORIZON"}
        if end != START:
            start = {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "StartingSequenceNumber": sequence_number(end),
            }
        iterator = self._kinesis.get_shard_iterator(StreamName=self._stream_name, ShardId=shard, **start)[
            "ShardIterator"
        ]
        while iterator is not None:
            if self._clock.now() >= deadline:
                yield None
                return
            try:
                answer = self._kinesis.get_records(ShardIterator=iterator)
            except ClientError as error:
                if error.response["Error"]["Code"] not in THROTTLED:
                    raise
                self._clock.sleep(1.0)
                continue
            yield answer
            if answer["MillisBehindLatest"] == 0:
                return
            iterator = answer.get("NextShardIterator")
            self._clock.sleep(SECONDS_BETWEEN_READS)


def _add(sums: _Sums, span: Span) -> None:
    """Add a span's rows: what was planned, and what became of it by the exceptions from the plan."""
    sums.spans += 1
    sums.open_spans += not span.done
    settled: Counter[str] = Counter()
    forced = FORCED in span.chain
    for key, entry in span.chunks.items():
        if entry.split or entry.state is State.PENDING:
            continue
        group = key.rpartition("/")[0]
        rows = sums.rows(group, forced=forced)
        settled[group] += entry.rows
        if entry.state is State.ASIDE:
            rows.aside[Kind(entry.kind)] += entry.rows
        else:
            rows.delivered += entry.rows
    for group, count in span.counts.items():
        rows = sums.rows(group, forced=forced)
        rows.received += count
        rest = count - settled[group]
        if span.done:
            rows.delivered += rest
        else:
            rows.in_flight += rest
