"""What one write key may send to one function instance: a token bucket for events and one for bytes.

A request is admitted if neither bucket is empty, and is charged afterwards, when its rows are known. A bucket can go below zero, so
even a request larger than the rate is admitted, but its sender must then wait until the bucket has refilled.
"""

from dataclasses import dataclass

from ingest.refusal import Refused
from shared.clock import Clock
from shared.policy import AccountLimits
from shared.write_key import WriteKey

BURST_SECONDS = 10.0
"""A key that was idle may send this many seconds' worth at once."""
BYTES_PER_EVENT = 1024
"""The byte rate is this many times the event rate."""

_MAX_KEYS = 10_000


@dataclass(slots=True)
class Allowance:
    """What a key may send; `at` is when it was last refilled (UNIX seconds)."""

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
        self._allowances: dict[WriteKey, Allowance] = {}

    def allowance(self, key: WriteKey, limits: AccountLimits) -> Allowance:
        """Refill and return the allowance of a key whose account has these limits.

        Raises:
            Refused: `rate_exceeded`.
        """
        events = limits.events_per_second or self._rate
        size = limits.bytes_per_second or events * BYTES_PER_EVENT
        now = self._clock.now()
        allowance = self._allowances.get(key)
        if allowance is None:
            if len(self._allowances) >= _MAX_KEYS:
                self._allowances.clear()
            allowance = self._allowances[key] = Allowance(now, BURST_SECONDS * events, BURST_SECONDS * size)
        elapsed = max(0.0, now - allowance.at)  # clocks can be set back
        allowance.at = now
        allowance.events = min(BURST_SECONDS * events, allowance.events + elapsed * events)
        allowance.bytes = min(BURST_SECONDS * size, allowance.bytes + elapsed * size)
        if allowance.events <= 0 or allowance.bytes <= 0:
            raise Refused("rate_exceeded")
        return allowance
