"""A clock that advances only when somebody sleeps, so that hours pass in an instant."""

import heapq
from collections.abc import Callable
from itertools import count

START = 1_700_000_000.0
"""The default start of a clock, UNIX seconds."""


class ManualClock:
    """A single-threaded clock. It advances when someone sleeps on it or sets its `time` (UNIX seconds)."""

    def __init__(self, time: float = START) -> None:
        self.time = time
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def now(self) -> float:
        """Return UNIX seconds."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let time pass, and run each call that falls due at its time."""
        end = self.time + max(0.0, seconds)
        while self._due and self._due[0][0] <= end:
            moment, _, happen = heapq.heappop(self._due)
            self.time = max(self.time, moment)
            happen()
        self.time = max(self.time, end)

    def at(self, moment: float, happen: Callable[[], None]) -> None:
        """Schedule a call at a time, UNIX seconds. The call must not sleep."""
        heapq.heappush(self._due, (moment, next(self._order), happen))
