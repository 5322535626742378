"""Puts markers: envelopes without rows, which the worker plans like any other.

A shard's chain shows that the shard has passed a time only once a record that arrived later is in a span. An idle shard shows that with
a marker.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from shared import envelope
from shared.clock import Clock
from shared.telemetry import Telemetry
from worker.shards import Shard
from worker.span import milliseconds

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

EVERY_SECONDS = 60.0
"""A shard gets at most one marker in this time."""


@dataclass(eq=False)
class Markers:
    """Puts markers on shards."""

    _kinesis: "KinesisClient"
    _stream_name: str
    _clock: Clock
    _telemetry: Telemetry
    _put_at: dict[str, float] = field(default_factory=dict, init=False)

    def put(self, shard: Shard) -> None:
        """Put a marker on an open shard, unless it got one a moment ago. If Kinesis fails, the next run puts it.

        Where Kinesis distributes records itself, the marker may land on another shard; then it takes several.
        """
        now = self._clock.now()
        if 0 <= now - self._put_at.get(shard.shard_id, float("-inf")) < EVERY_SECONDS:
            return
        self._put_at[shard.shard_id] = now
        try:
            self._kinesis.put_record(
                StreamName=self._stream_name,
                Data=envelope.marker(milliseconds(now)).encode(),
                PartitionKey=envelope.NOBODY,
                ExplicitHashKey=str(shard.keys.start),
            )
        except (ClientError, BotoCoreError) as error:
            self._telemetry.warning("a marker was not put", error=type(error).__name__)
