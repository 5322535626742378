"""Until when an invocation may send: what it has sent must be settled before it times out."""

from dataclasses import dataclass

from shared.clock import Clock

SETTLE_SECONDS = 10.0
"""The time reserved for the writes to S3 and the ledger that follow the last send."""
SETTLE_SHARE = 0.25
"""The share of a short invocation that is reserved instead."""
LEAST_SEND_SECONDS = 0.2
"""With less time left than this, nothing is sent."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time, in UNIX seconds, after which nothing more may be sent."""

    clock: Clock
    at: float

    @classmethod
    def of(cls, clock: Clock, remaining_ms: float) -> "Deadline":
        """Return the deadline of an invocation that times out in `remaining_ms` milliseconds."""
        remaining = remaining_ms / 1000
        return cls(clock, clock.now() + remaining - min(SETTLE_SECONDS, remaining * SETTLE_SHARE))

    def within(self, seconds: float) -> "Deadline":
        """Return a deadline that is this many seconds from now, or this one if that is earlier."""
        return Deadline(self.clock, min(self.at, self.clock.now() + seconds))

    def left(self) -> float:
        """Return the seconds left; negative after the deadline."""
        return self.at - self.clock.now()

    def left_for(self, seconds: float) -> float:
        """Return the seconds left for a request that may take this many: at least LEAST_SEND_SECONDS."""
        return max(LEAST_SEND_SECONDS, min(seconds, self.left()))

    @property
    def near(self) -> bool:
        """Whether too little time is left for a send."""
        return self.left() < LEAST_SEND_SECONDS
