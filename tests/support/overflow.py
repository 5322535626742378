"""The path of envelopes that the stream does not accept at once: ingest, queue, drainer, worker, Treasure Data."""

import os
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ReadTimeoutError

from doubles.aws_errors import client_error
from doubles.clock import START, ManualClock
from doubles.iam import Authorized
from doubles.sqs import MemorySQS, pass_on
from ingest.overflow import Overflow
from ingest.stream import Stream
from local.functions import DRAIN, INGEST
from local.roles import role_of
from shared import envelope
from shared.envelope import Envelope
from tests.support import delivery
from tests.support.delivery import Delivery
from tests.support.ingest import Faults
from tests.support.telemetry import CollectedTelemetry
from worker.drain import Drain
from worker.record import NOBODY

STREAM = delivery.STREAM
KEY = "shop/1"


def throttled(times: int = 30) -> list[Exception]:
    """Return definite rejections of put_record, by default more than a put is retried."""
    return [client_error("ProvisionedThroughputExceededException", "PutRecord") for _ in range(times)]


def timeout() -> ReadTimeoutError:
    """Return the exception that boto3 raises without a response."""
    return ReadTimeoutError(endpoint_url="https://kinesis.invalid")


def an_envelope(
    request_id: str, *, account: str = "shop", claim: int = 0, at: float = START, rows: int = 1
) -> Envelope:
    """Return an envelope with rows of one table. Their ids are the request's id and a number."""
    stamp = int(at * 1000)
    made = [delivery.row(f"{request_id}-{number}", int(at), received_at=stamp) for number in range(rows)]
    named = {"request_id": request_id, "claim": claim, "received_at": stamp}
    return envelope.decode(delivery.envelope(account, {"pageviews": made}, **named))


class Way:
    """Everything from the ingest's `stream` to Treasure Data, in memory. `kinesis`, its client and the drainer's, can fail; `telemetry` is the last drainer's."""

    def __init__(self) -> None:
        self.delivery = Delivery()
        self.delivery.kinesis.increase_stream_retention_period(StreamName=STREAM, RetentionPeriodHours=168)
        self.delivery.map(shop="shop_db")
        self.clock: ManualClock = self.delivery.clock
        self.kinesis = Faults(self.delivery.kinesis, self.clock)
        self.kinesis.faults = {}
        self.sqs: Any = MemorySQS(self.clock.now)
        hidden = {"VisibilityTimeout": "360"}
        self.queue_url: str = self.sqs.create_queue(QueueName="overflow", Attributes=hidden)["QueueUrl"]
        self.notices_url: str = self.sqs.create_queue(QueueName="overflow-notices")["QueueUrl"]
        self.telemetry = CollectedTelemetry()
        role, told = role_of(INGEST, delivery.RESOURCES), CollectedTelemetry()
        queue: Any = Authorized("sqs", self.sqs, role)
        client: Any = Authorized("kinesis", self.kinesis, role)
        overflow = Overflow(queue, self.queue_url, self.notices_url, self.clock, told)
        self.stream = Stream(client, STREAM, overflow, clock=self.clock, entropy=os.urandom, telemetry=told)

    def collect(self, *request_ids: str, key: str = KEY, rows: int = 1, claim: int = 0) -> bool:
        """Put an envelope for each request id, as the ingest does. Return whether all are durable."""
        return all(
            all(self.stream.put([an_envelope(name, at=self.clock.now(), rows=rows, claim=claim)], key))
            for name in request_ids
        )

    def drainer(self) -> Drain:
        """Return the drainer of a new sandbox."""
        self.telemetry = CollectedTelemetry()
        clients = {"kinesis": self.kinesis, "sqs": self.sqs, "telemetry": self.telemetry}
        return self.delivery.wiring_of(DRAIN, **clients).drain

    def drain(self, remaining_ms: float = 60_000) -> int:
        """Invoke the drainer with the visible messages. Return how many were deleted."""

        def invoke(event: dict[str, Any]) -> Any:
            return self.drainer().run(event, self.delivery.deadline(remaining_ms))

        arn = "arn:aws:sqs:us-east-1:123456789012:overflow"
        return pass_on(self.sqs, self.queue_url, arn, invoke, 1000)

    def deliver(self, *shards: str) -> None:
        """Invoke the worker with everything on the stream, or on some shards, from the beginning, shard by shard."""
        assert [] == self.delivery.deliver_all(shards)

    def settle(self) -> None:
        """Let the sender decide and send everything, while the worker delivers what it marks."""
        for seconds in (0, 700, 1, 1):
            self.wait(seconds)
            self.delivery.send()
            self.deliver()
            self.delivery.send()

    def ids(self) -> list[str]:
        """Return the ids of the rows in Treasure Data, sorted."""
        return sorted(self.delivery.ids("shop_db", "pageviews"))

    def waiting(self) -> int:
        """Return how many messages the queue holds."""
        return len(self.sqs.messages(self.queue_url))

    def records(self) -> int:
        """Return how many records the stream has accepted from the ingest and the drainer."""
        found = [record for records in self.delivery.by_shard().values() for record in records]
        return sum(not record["PartitionKey"].startswith(f"{NOBODY}/") for record in found)

    # Faults of put_record

    def landing_unheard(self, **record: Any) -> Any:
        """Put the record, and lose the response."""
        self.delivery.kinesis.put_record(**record)
        raise timeout()

    def landing_late(self, seconds: float) -> Callable[..., Any]:
        """Return a fault: the response is lost, and the record lands `seconds` later."""

        def put_record(**record: Any) -> Any:
            self.clock.at(self.clock.now() + seconds, lambda: self.delivery.kinesis.put_record(**record))
            raise timeout()

        return put_record

    def wait(self, seconds: float = 0) -> None:
        """Let time pass, and let late records land when they are due."""
        self.clock.sleep(seconds)
