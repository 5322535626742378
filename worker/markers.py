"""Puts a marker on each shard that has had no record lately, so that every shard has a record at which reading can begin.

A read proves what a shard does not hold only if it shows a record that is known to be there (`worker.search`). A shard without records,
because it is idle or new, would prove nothing. A marker is an envelope without rows: the worker plans it like any other.
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
"""How long ago a shard's last batch may have been planned; its records stay for half of the retention at least, 12 hours or more."""


class Markers:
    """Puts markers."""

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
        """Put a marker on each shard that needs one; what fails is left to the next run."""
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
        """Return whether the event source has delivered nothing of a shard lately; replays bring records that expire soon."""
        spans = self._ledger.latest(self._shards.chain(shard.shard_id), at_once=1)
        latest = next((span.planned_at / 1000 for span in spans if span.in_order), 0.0)
        return self._clock.now() - latest >= IDLE_SECONDS


def partition_key(shard: Shard) -> str:
    """Return a partition key that leads to a shard."""
    return next(key for number in count() if hash_key(key := f"{envelope.NOBODY}/{number}") in shard.keys)
