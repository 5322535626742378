"""Puts a marker on each shard that has received nothing lately, so that every shard has a record at which reading can begin.

A read proves that a record is missing only if it shows another one that is known to be there (`worker.search`). A shard without any,
because it is idle or new, would prove nothing. A marker is an envelope without rows, and the worker plans it like any other.
"""

from itertools import count
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from shared import envelope
from shared.errors import UnavailableError
from worker.execution import Delivery
from worker.shards import Shard, Shards, hash_key
from worker.span import milliseconds

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

IDLE_SECONDS = 6 * 3600.0
"""A shard counts as idle this long after its last batch was planned. The stream keeps that batch's records for longer: for 12 hours or more."""


class Markers:
    """Puts markers on idle shards."""

    def __init__(
        self, delivery: Delivery, shards: Shards, kinesis: "KinesisClient", stream_name: str
    ) -> None:
        self._ledger = delivery.ledger
        self._clock = delivery.clock
        self._telemetry = delivery.telemetry
        self._shards = shards
        self._kinesis = kinesis
        self._stream_name = stream_name

    def put(self) -> None:
        """Put a marker on each idle shard. If Kinesis or the ledger fails, the next run puts the remaining ones."""
        try:
            for shard in self._shards.all():
                if shard.is_open and self._is_idle(shard):
                    self._kinesis.put_record(
                        StreamName=self._stream_name,
                        Data=envelope.marker(milliseconds(self._clock.now())).encode(),
                        PartitionKey=partition_key(shard),
                    )
        except (UnavailableError, ClientError, BotoCoreError) as error:
            self._telemetry.warning("a marker was not put", error=type(error).__name__)

    def _is_idle(self, shard: Shard) -> bool:
        """Return whether the event source has delivered nothing of a shard lately. Replays do not count: their records expire soon."""
        spans = self._ledger.latest(self._shards.chain(shard.shard_id), at_once=1)
        latest = next((span.planned_at / 1000 for span in spans if span.in_order), 0.0)
        return self._clock.now() - latest >= IDLE_SECONDS


def partition_key(shard: Shard) -> str:
    """Return a partition key that Kinesis maps to this shard."""
    return next(key for number in count() if hash_key(key := f"{envelope.NOBODY}/{number}") in shard.keys)
