"""When an invocation must have settled."""

from dataclasses import dataclass

from shared.clock import Clock

SETTLE_SECONDS = 10.0
"""Kept back for what follows the last send: objects in S3 and the ledger."""
SETTLE_SHARE = 0.25
"""Of a short invocation, the share kept back instead."""
LEAST_SEND_SECONDS = 0.2
"""With less time left than this, nothing is sent."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time, in UNIX seconds, after which nothing more may be sent."""

    clock: Clock
    at: float

    @classmethod
    def of(cls, clock: Clock, remaining_ms: float) -> "Deadline":
        """Return the deadline of an invocation that times out after that many milliseconds."""
        remaining = remaining_ms / 1000
        return cls(clock, clock.now() + remaining - min(SETTLE_SECONDS, remaining * SETTLE_SHARE))

    def within(self, seconds: float) -> "Deadline":
        """Return the deadline of what may take that long, and no longer than this one allows."""
        return Deadline(self.clock, min(self.at, self.clock.now() + seconds))

    def left(self) -> float:
        """Return the seconds left, negative when it is past."""
        return self.at - self.clock.now()

    @property
    def near(self) -> bool:
        """Whether too little time is left for a send."""
        return self.left() < LEAST_SEND_SECONDS
