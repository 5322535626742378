"""A stream, a poller and a function, driven step by step on a clock that is moved by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from math import isfinite
from typing import Any

from doubles.event_source import FailureRecord, Invocation, Mapping, Outcome, StreamPoller
from doubles.kinesis import MemoryKinesis

STREAM_ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/s"


@dataclass
class Bench:
    """One stream `s` and a poller of it.

    Attributes:
        now: UNIX seconds.
        sent: what was invoked, as the data of each batch.
        failed: the batches that were given up.
    """

    shards: int = 1
    now: float = 1_764_000_000.0
    sent: list[list[str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    failed: list[FailureRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the stream."""
        self.client: Any = MemoryKinesis(lambda: self.now)
        self.client.create_stream(StreamName="s", ShardCount=self.shards)

    def poller(self, *, options: dict[str, Any] | None = None, **settings: Any) -> StreamPoller:
        """Return a new poller; `settings` are the mapping's."""
        ids = count(1)
        settings = {"starting_position": "TRIM_HORIZON", "event_source_arn": STREAM_ARN} | settings
        return StreamPoller(
            self.client,
            Mapping(**settings),
            on_failure=self.failed.append,
            new_id=lambda: f"id-{next(ids)}",
            **(options or {}),
        )

    def put(self, *texts: str, key: str = "a") -> list[str]:
        """Put records and return their sequence numbers."""
        return [
            self.client.put_record(StreamName="s", Data=text.encode(), PartitionKey=key)["SequenceNumber"]
            for text in texts
        ]

    def run(
        self, poller: StreamPoller, function: Callable[[Invocation], Outcome], *, until: float = float("inf")
    ) -> None:
        """Run the function on everything there is, moving the clock over each wait, but not past `until`."""
        while True:
            invocation = poller.poll(self.now)
            if invocation is not None:
                self.sent.append([record.data.decode() for record in invocation.records])
                self.times.append(self.now)
                poller.complete(invocation, function(invocation), self.now)
            elif self.now < poller.ready_at <= until and isfinite(poller.ready_at):
                self.now = poller.ready_at
            else:
                return
