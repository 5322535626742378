"""The clock, passed in so that tests control time."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and sleeps."""

    def now(self) -> float:
        """Return UNIX seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for that many seconds."""
        ...


class SystemClock:
    """The system clock."""

    now = staticmethod(time.time)
    sleep = staticmethod(time.sleep)
