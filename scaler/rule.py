"""Decides how many shards a stream should have, from what it was sent.

Kinesis allows ten changes of a stream in 24 hours, each to at most twice or at least half of its shards. Growing is immediate.
Shrinking waits for one of four windows a day, and for a day whose busiest minute would fill at most half of the smaller stream. This
leaves six of the ten changes for growth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SHARD_RECORDS = 1000
"""Records per second that a shard accepts."""
SHARD_BYTES = 1_000_000
"""Bytes per second that a shard accepts; Kinesis's own limit is 1 MiB."""

GROW_ABOVE = 0.7
"""A stream grows above this share of its capacity, because single seconds and single shards are busier than the average."""
SHRINK_BELOW = 0.5
"""A stream shrinks if the busiest minute of the day would fill at most this share of the smaller one."""
TRIES = 5
"""How often the ingest tries a put that is throttled; each try counts as a throttled record."""
RECENT_SECONDS = 600
"""Maximum age of a minute whose demand the stream must meet at once."""
SHRINK_WINDOW_SECONDS, WINDOWS_APART_SECONDS = 300, 6 * 3600
"""How long a window for shrinking is open, and the time from one to the next."""


@dataclass(frozen=True, slots=True)
class Minute:
    """What a stream saw in one minute, as CloudWatch counted it.

    Attributes:
        records: records that the stream accepted.
        size: bytes that the stream accepted.
        throttled: records that the stream throttled, counted once per try.
    """

    records: float = 0.0
    size: float = 0.0
    throttled: float = 0.0

    @property
    def shards(self) -> float:
        """How many shards this minute's demand would have filled."""
        records = self.records + self.throttled / TRIES
        size = self.size * records / self.records if self.records else 0.0
        return max(records / SHARD_RECORDS, size / SHARD_BYTES) / 60


def target(shards: int, day: Sequence[Minute], recent: Sequence[Minute], now: float) -> int:
    """Return how many shards a stream should have, whatever its limit is.

    Args:
        shards: current number of shards.
        day: the last 24 hours; minutes without traffic may be missing.
        recent: those of them that are at most RECENT_SECONDS old.
        now: UNIX seconds.
    """
    needed = math.ceil(max((minute.shards for minute in day), default=0.0) / SHRINK_BELOW)
    wanted = math.ceil(max((minute.shards for minute in recent), default=0.0) / GROW_ABOVE)
    if any(minute.throttled for minute in recent):
        # at twice the size that is needed, one key is too hot for any shard, and more shards would not help
        wanted *= 2
    if wanted >= shards:
        return wanted
    if needed <= shards // 2 and now % WINDOWS_APART_SECONDS < SHRINK_WINDOW_SECONDS:
        return math.ceil(shards / 2)
    return shards
