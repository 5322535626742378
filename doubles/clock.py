"""Time that passes only when somebody waits, so that hours take moments."""

import heapq
from collections.abc import Callable
from itertools import count


class SimulatedClock:
    """A clock of a single thread.

    Args:
        now: UNIX seconds at which it begins.
    """

    def __init__(self, now: float) -> None:
        self._now = now
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def now(self) -> float:
        """Return UNIX seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass, and what is due meanwhile happen at its moment."""
        end = self._now + max(0.0, seconds)
        while self._due and self._due[0][0] <= end:
            moment, _, happen = heapq.heappop(self._due)
            self._now = max(self._now, moment)
            happen()
        self._now = max(self._now, end)

    def at(self, moment: float, happen: Callable[[], None]) -> None:
        """Let something happen at a time, UNIX seconds; it must not wait itself."""
        heapq.heappush(self._due, (moment, next(self._order), happen))
