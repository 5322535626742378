"""Time that passes only when somebody waits, so that hours take moments."""

import heapq
from collections.abc import Callable
from itertools import count

START = 1_700_000_000.0
"""When a clock starts unless told otherwise, UNIX seconds."""


class ManualClock:
    """A clock of a single thread that moves when someone sleeps on it, or when its `time`, UNIX seconds, is set."""

    def __init__(self, time: float = START) -> None:
        self.time = time
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def now(self) -> float:
        """Return UNIX seconds."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let time pass; whatever is due meanwhile happens at its moment."""
        end = self.time + max(0.0, seconds)
        while self._due and self._due[0][0] <= end:
            moment, _, happen = heapq.heappop(self._due)
            self.time = max(self.time, moment)
            happen()
        self.time = max(self.time, end)

    def at(self, moment: float, happen: Callable[[], None]) -> None:
        """Let something happen at a time, UNIX seconds; it must not sleep itself."""
        heapq.heappush(self._due, (moment, next(self._order), happen))
