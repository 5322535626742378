"""The way of envelopes that the stream does not take at once: ingest, queue, drainer, worker, Treasure Data."""

import os
from collections.abc import Callable
from itertools import count
from typing import Any

import msgpack
from botocore.exceptions import ClientError, ReadTimeoutError

from doubles.clock import START, ManualClock
from doubles.iam import Authorized
from doubles.kinesis import HASH_KEYS, MemoryKinesis
from doubles.sqs import MemorySQS, QueueSource
from ingest.overflow import Overflow
from ingest.stream import Stream
from local.functions import DRAIN, INGEST
from local.roles import role_of
from shared.envelope import Envelope, TableRows
from tests.support import delivery
from tests.support.delivery import Delivery
from tests.support.telemetry import CollectedTelemetry
from worker.drain import Drain

STREAM = delivery.STREAM
KEY = "shop/1"
OLD = "old/"
"""How the partition keys of records begin that were put before a test, and that are nobody's."""


def refusal(code: str, operation: str) -> ClientError:
    """Return what boto3 raises for an error code."""
    response: Any = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    return ClientError(response, operation)


def throttled(times: int = 30) -> list[Exception]:
    """Return definite refusals of put_record, as a rule more than a put is repeated."""
    return [refusal("ProvisionedThroughputExceededException", "PutRecord") for _ in range(times)]


def timeout() -> ReadTimeoutError:
    """Return what boto3 raises when no answer came."""
    return ReadTimeoutError(endpoint_url="https://kinesis.invalid")


class WatchedKinesis:
    """A Kinesis client that writes down the calls and can be told to fail.

    Attributes:
        calls: `(operation, UNIX seconds, arguments)` of each call.
        faults: by operation, what to do instead of the next calls; an exception is raised, a callable is called
            with the arguments, a dictionary is the answer, None lets the call through.
        page: how many records GetRecords answers at most.
    """

    def __init__(self, kinesis: MemoryKinesis, clock: ManualClock, page: int = 10_000) -> None:
        self._kinesis = kinesis
        self._clock = clock
        self.calls: list[tuple[str, float, dict[str, Any]]] = []
        self.faults: dict[str, list[Any]] = {}
        self.page = page

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        """Return one of the client's calls."""

        def call(**arguments: Any) -> Any:
            self.calls.append((operation, self._clock.now(), arguments))
            fault = self.faults[operation].pop(0) if self.faults.get(operation) else None
            if isinstance(fault, Exception):
                raise fault
            if operation == "get_records":
                arguments |= {"Limit": self.page}
            if fault is not None:
                return fault(**arguments) if callable(fault) else fault
            return getattr(self._kinesis, operation)(**arguments)

        return call

    def called(self, operation: str) -> list[dict[str, Any]]:
        """Return the arguments of each call of an operation."""
        return [arguments for name, _, arguments in self.calls if name == operation]


def stream(clock: ManualClock, shards: int = 1) -> MemoryKinesis:
    """Return a client of an empty stream."""
    kinesis = MemoryKinesis(clock.now)
    kinesis.create_stream(StreamName=STREAM, ShardCount=shards)
    return kinesis


def put_old_records(kinesis: MemoryKinesis, clock: ManualClock) -> None:
    """Put a record of long ago on every open shard: a search needs one to start from."""
    now = clock.time
    clock.time -= 1000
    left = {
        shard["ShardId"]
        for shard in kinesis.list_shards(StreamName=STREAM)["Shards"]
        if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
    }
    for number in count():
        if not left:
            break
        put = kinesis.put_record(StreamName=STREAM, Data=b"", PartitionKey=f"{OLD}{number}")
        left.discard(put["ShardId"])
    clock.time = now


def an_envelope(
    request_id: str, *, account: str = "shop", claim: int = 0, at: float = START, rows: int = 1
) -> Envelope:
    """Return an envelope of one table, whose rows' ids are the request's and a number."""
    packed = [
        msgpack.packb({"time": int(at), "event_id": f"{request_id}-{number}", "received_at": int(at * 1000)})
        for number in range(rows)
    ]
    table = TableRows("pageviews", rows, b"".join(packed))
    return Envelope(account, "k1", int(at * 1000), request_id, claim, (table,))


class Way:
    """Everything from the ingest's put to Treasure Data, in memory unless clients of stream and queue are given.

    Attributes:
        delivery: stream, worker, redrive, ledger, bucket and Treasure Data.
        clock: passes by hand.
        kinesis: the client of ingest and drainer; can fail.
        sqs: the queue's client.
        queue_url: the overflow queue.
        telemetry: what the last drainer reported.
    """

    def __init__(self, retention: float = 7 * 86_400, kinesis: Any = None, sqs: Any = None) -> None:
        self.delivery = Delivery(retention=retention)
        if kinesis is not None:
            kinesis.create_stream(StreamName=STREAM, ShardCount=3)
            self.delivery.kinesis.client = kinesis
        self.delivery.kinesis.increase_stream_retention_period(
            StreamName=STREAM, RetentionPeriodHours=round(retention / 3600)
        )
        self.delivery.map(shop="shop_db")
        self.clock: ManualClock = self.delivery.clock
        if kinesis is None:
            put_old_records(self.delivery.kinesis, self.clock)
        self.kinesis = WatchedKinesis(self.delivery.kinesis, self.clock)
        self.sqs: Any = sqs or MemorySQS(self.clock.now, visibility_seconds=360)
        self._batch_size = 1000 if sqs is None else 10
        self.queue_url: str = self.sqs.create_queue(QueueName="overflow")["QueueUrl"]
        self.notices_url: str = self.sqs.create_queue(QueueName="overflow-notices")["QueueUrl"]
        self.telemetry = CollectedTelemetry()
        self._landings: list[tuple[float, dict[str, Any]]] = []
        self._settled: dict[str, str] = {}  # by shard, the last record that the worker was given
        ingest = role_of(INGEST, delivery.RESOURCES)
        sqs_of_ingest = Authorized("sqs", self.sqs, ingest)
        self.stream = Stream(
            Authorized("kinesis", self.kinesis, ingest),
            STREAM,
            Overflow(
                lambda: sqs_of_ingest, self.queue_url, self.notices_url, self.clock, CollectedTelemetry()
            ),
            clock=self.clock,
            entropy=os.urandom,
            telemetry=CollectedTelemetry(),
        )

    def collect(self, *request_ids: str, key: str = KEY, rows: int = 1, claim: int = 0) -> bool:
        """Put one envelope each, as the ingest does; return whether all are durable."""
        return all(
            all(self.stream.put([an_envelope(name, at=self.clock.now(), rows=rows, claim=claim)], key))
            for name in request_ids
        )

    def drainer(self) -> Drain:
        """Return the drainer of a fresh sandbox."""
        self.telemetry = CollectedTelemetry()
        clients = {"kinesis": self.kinesis, "sqs": self.sqs, "telemetry": self.telemetry}
        return self.delivery.wiring_of(DRAIN, **clients).drain

    def drain(self, remaining_ms: float = 60_000) -> int:
        """Hand the drainer what the queue shows; return how many messages were deleted."""
        return self._source(
            lambda event: self.drainer().run(event, self.delivery.deadline(remaining_ms))
        ).poll()

    def crash_draining(self) -> None:
        """Let the drainer do its work, and be killed before it can say so."""

        def invoke(event: dict[str, Any]) -> None:
            self.drainer().run(event, self.delivery.deadline(60_000))
            raise InterruptedError

        self._source(invoke).poll()

    def kill_draining(self) -> None:
        """Let the drainer work until something kills it."""
        killed = False

        def invoke(event: dict[str, Any]) -> None:
            nonlocal killed
            try:
                self.drainer().run(event, self.delivery.deadline(60_000))
            except delivery.KilledError:
                killed = True
            raise InterruptedError

        self._source(invoke).poll()
        assert killed

    def _source(self, invoke: Callable[[dict[str, Any]], Any]) -> QueueSource:
        arn = "arn:aws:sqs:us-east-1:123456789012:overflow"
        return QueueSource(self.sqs, self.queue_url, arn, invoke, self._batch_size)

    def handled(self) -> dict[str, int]:
        """Return what became of messages, as the last invocation's log line counts them."""
        [fields] = self.telemetry.said("drained")
        known = {"messages", "left", "oldest_seconds", "shards", "reads", "records"}
        return {name: count for name, count in fields.items() if name not in known}

    def deliver(self, *shards: str) -> None:
        """Hand the worker everything on the stream, or on some shards, from the beginning, shard by shard.

        A settled span whose first records have expired is held for up to half of the retention: where that is met, the worker
        goes on where it was.
        """
        for name in shards or self._shards():
            if not (records := self._records(name)):
                continue
            new = [record for record in records if record["SequenceNumber"] > self._settled.get(name, "")]
            if self._is_held(name, records):
                assert not self._is_held(name, new)
            self._settled[name] = records[-1]["SequenceNumber"]

    def _is_held(self, shard: str, records: list[dict[str, Any]]) -> bool:
        event = {"Records": [delivery.member(record, shard) for record in records]}
        return bool(self.delivery.run(event, 60_000)["batchItemFailures"])

    def split(self, shard: str = delivery.SHARD) -> None:
        """Split a shard in the middle of all hash keys."""
        self.delivery.kinesis.split_shard(
            StreamName=STREAM, ShardToSplit=shard, NewStartingHashKey=str(HASH_KEYS // 2)
        )

    def ids(self) -> list[str]:
        """Return the ids of the rows in Treasure Data, sorted."""
        return sorted(self.delivery.ids("shop_db", "pageviews"))

    def waiting(self) -> int:
        """Return how many messages the queue holds."""
        return len(self.sqs.messages(self.queue_url))

    def records(self) -> int:
        """Return how many records were put, by the ingest or by the drainer, and taken."""
        return sum(len(self._records(shard)) for shard in self._shards())

    def _shards(self) -> list[str]:
        shards = self.delivery.kinesis.list_shards(StreamName=STREAM)["Shards"]
        return [shard["ShardId"] for shard in shards]

    def _records(self, shard: str) -> list[dict[str, Any]]:
        kinesis = self.delivery.kinesis
        iterator = kinesis.get_shard_iterator(
            StreamName=STREAM, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records: list[dict[str, Any]] = kinesis.get_records(ShardIterator=iterator)["Records"]
        return [record for record in records if not record["PartitionKey"].startswith(OLD)]

    # What can become of a put

    def landing_unheard(self, **record: Any) -> Any:
        """A fault of put_record: it lands, and its answer is lost."""
        self.delivery.kinesis.put_record(**record)
        raise timeout()

    def landing_late(self, seconds: float) -> Callable[..., Any]:
        """Return a fault of put_record: the answer is lost, and the record lands so much later."""

        def put_record(**record: Any) -> Any:
            self._landings.append((self.clock.now() + seconds, record))
            raise timeout()

        return put_record

    def wait(self, seconds: float = 0) -> None:
        """Let time pass, and records land when they do."""
        end = self.clock.now() + seconds
        for due, record in sorted(self._landings, key=lambda landing: landing[0]):
            if due <= end:
                self.clock.time = max(self.clock.time, due)
                self.delivery.kinesis.put_record(**record)
                self._landings.remove((due, record))
        self.clock.time = end
