"""A stream, a poller and a function, driven step by step with a manual clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from doubles.event_source import EventSourceMapping, Invocation, Outcome, Record
from doubles.event_source.pollers import StreamPoller
from doubles.kinesis import MemoryKinesis

STREAM_ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/s"
SHARD = "shardId-000000000000"


@dataclass
class Bench:
    """A stream `s` and its poller.

    Attributes:
        now: UNIX seconds.
        sent: the data of each batch that `run` sent to the function.
        expired: the data of the records that expired.
    """

    shards: int = 1
    now: float = 1_764_000_000.0
    sent: list[list[str]] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client: Any = MemoryKinesis(lambda: self.now)
        self.client.create_stream(StreamName="s", ShardCount=self.shards)

    def poller(self, **settings: Any) -> StreamPoller:
        """Return a new poller with these settings of the mapping."""

        def expire(records: Sequence[Record]) -> None:
            self.expired += [record.data.decode() for record in records]

        mapping = EventSourceMapping(event_source_arn=STREAM_ARN, on_expired=expire, **settings)
        return StreamPoller(self.client, mapping)

    def put(self, *texts: str, key: str = "a") -> list[str]:
        """Put records and return their sequence numbers."""
        return [
            self.client.put_record(StreamName="s", Data=text.encode(), PartitionKey=key)["SequenceNumber"]
            for text in texts
        ]

    def invoke(self, poller: StreamPoller) -> Invocation:
        """Return the invocation that is due now."""
        invocation = poller.poll(self.now)
        assert invocation is not None
        return invocation

    def run(self, poller: StreamPoller, function: Callable[[Invocation], Outcome], calls: int = 1000) -> None:
        """Call the function for every batch, at most `calls` times, advancing the clock over each wait."""
        while True:
            invocation = poller.poll(self.now)
            if invocation is not None:
                self.sent.append(data_of(invocation))
                poller.complete(invocation, function(invocation), self.now)
                calls -= 1
            elif self.now < poller.ready_at and isfinite(poller.ready_at):
                self.now = poller.ready_at
            else:
                return
            if not calls:
                return


def data_of(invocation: Invocation | None) -> list[str]:
    """Return the data of a batch; an empty list without a batch."""
    return [record.data.decode() for record in invocation.records] if invocation else []


def worker_mapping(function: str) -> dict[str, Any]:
    """Return the worker's event source mapping as Lambda shows it."""
    return {
        "UUID": "0f5e1c4a",
        "FunctionArn": f"arn:aws:lambda:us-east-1:123456789012:function:{function}",
        "EventSourceArn": "arn:aws:kinesis:us-east-1:123456789012:stream/events",
        "State": "Enabled",
        "MaximumRetryAttempts": -1,
        "MaximumRecordAgeInSeconds": -1,
        "BisectBatchOnFunctionError": False,
        "ParallelizationFactor": 1,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "LastProcessingResult": "OK",
    }
