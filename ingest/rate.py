"""What one write key may send to one function instance: a token bucket for events and one for bytes.

A request is admitted while both buckets hold something, and pays afterwards, when its rows are known. So any request that the
other limits allow is admitted, however small the rate, and a sender above the rate waits for as long as it has overdrawn.
"""

from dataclasses import dataclass

from ingest.refusal import Refused
from shared.clock import Clock
from shared.policy import AccountLimits
from shared.write_key import WriteKey

BURST_SECONDS = 10.0
"""A key that was idle may send this many seconds' worth at once."""
BYTES_PER_EVENT = 1024
"""The rate in bytes, for each event of the rate."""

_MAX_KEYS = 10_000


@dataclass(slots=True)
class Bucket:
    """What a key may send now."""

    at: float
    events: float
    bytes: float

    def charge(self, events: int, size: int) -> None:
        """Count a request that was admitted: its events, and the bytes of its rows."""
        self.events -= events
        self.bytes -= size


class Rate:
    """Counts what keys send.

    Args:
        events_per_second: what a key may send in the long run, unless its account has another limit.
        clock: refills the buckets.
    """

    def __init__(self, events_per_second: float, clock: Clock) -> None:
        self._rate = events_per_second
        self._clock = clock
        self._buckets: dict[WriteKey, Bucket] = {}

    def bucket(self, key: WriteKey, limits: AccountLimits) -> Bucket:
        """Return what a key under its account's limits may send, refilled.

        Raises:
            Refused: `rate_exceeded`: it has sent too much.
        """
        events = limits.events_per_second or self._rate
        size = limits.bytes_per_second or events * BYTES_PER_EVENT
        now = self._clock.now()
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= _MAX_KEYS:
                self._buckets.clear()
            bucket = self._buckets[key] = Bucket(now, BURST_SECONDS * events, BURST_SECONDS * size)
        elapsed = max(0.0, now - bucket.at)  # clocks can be set back
        bucket.at = now
        bucket.events = min(BURST_SECONDS * events, bucket.events + elapsed * events)
        bucket.bytes = min(BURST_SECONDS * size, bucket.bytes + elapsed * size)
        if bucket.events <= 0 or bucket.bytes <= 0:
            raise Refused("rate_exceeded")
        return bucket
