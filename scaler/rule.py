"""How many shards a stream should have, decided from what came in.

Kinesis allows ten changes of a stream in 24 hours, each to at most twice or at least half of what it has. So growing is never put
off, and halving is: it needs a day whose busiest minute leaves half of the smaller stream free, and a turn that comes four times a
day. That leaves six changes for growth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SHARD_RECORDS = 1000
"""Records that a shard accepts in a second."""
SHARD_BYTES = 1_000_000
"""Bytes that a shard accepts in a second; Kinesis counts MiB."""

FULL = 0.7
"""Share of a stream's capacity from which it grows: seconds are busier than their minute, and shards than their stream."""
SPARE = 0.5
"""Share of a stream's capacity that the busiest minute of a day uses at most."""
TRIES = 5
"""How often the ingest tries a put that is throttled; each try counts as a throttled record."""
RECENT_SECONDS = 600
"""Age of the oldest minute whose demand a stream must meet at once."""
TURN_SECONDS, TURNS_APART_SECONDS = 300, 6 * 3600
"""How long a turn to shrink lasts, and the time from one to the next."""


@dataclass(frozen=True, slots=True)
class Minute:
    """What a stream saw in one minute, as CloudWatch counted it.

    Attributes:
        records: that the stream accepted.
        size: bytes that it accepted.
        throttled: puts of records that it refused for want of capacity.
    """

    records: float = 0.0
    size: float = 0.0
    throttled: float = 0.0

    @property
    def shards(self) -> float:
        """How many shards all of that would have filled."""
        records = self.records + self.throttled / TRIES
        size = self.size * records / self.records if self.records else 0.0
        return max(records / SHARD_RECORDS, size / SHARD_BYTES) / 60


def target(shards: int, day: Sequence[Minute], recent: Sequence[Minute], now: float, most: int) -> int:
    """Return how many shards a stream should have.

    Args:
        shards: it has.
        day: its last 24 hours; minutes in which nothing came in may be missing.
        recent: those of them that are not older than RECENT_SECONDS.
        now: UNIX seconds.
        most: it may have.
    """
    needed = math.ceil(max((minute.shards for minute in day), default=0.0) / SPARE)
    wanted = math.ceil(max((minute.shards for minute in recent), default=0.0) / FULL)
    if any(minute.throttled for minute in recent) and shards < 2 * max(wanted, 1):
        # with twice of what is needed, one key is too hot for any shard, and more shards would not help
        wanted = max(wanted, 2 * shards)
    if wanted > shards:
        return max(shards, min(wanted, most))
    if needed <= shards // 2 and now % TURNS_APART_SECONDS < TURN_SECONDS:
        return math.ceil(shards / 2)
    return shards
