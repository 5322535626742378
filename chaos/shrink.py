"""Shrinks a failing schedule by removing windows of trouble, actions and requests as long as it still fails."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from chaos.schedule import Schedule

Fails = Callable[[Schedule], bool]


def shrink(schedule: Schedule, fails: Fails, *, attempts: int = 150, seconds: float = 60) -> Schedule:
    """Return a smaller schedule that still fails.

    Args:
        schedule: a schedule that fails.
        fails: runs a schedule and returns whether it fails.
        attempts: the maximum number of schedules to run.
        seconds: the time after which no further schedule is run.
    """
    tries = _Tries(fails, attempts, time.monotonic() + seconds)
    before = None
    while before != schedule and tries.left:
        before = schedule
        for part in ("windows", "acts", "sent"):
            schedule = _fewer(schedule, part, tries)
    return schedule


class _Tries:
    def __init__(self, fails: Fails, attempts: int, until: float) -> None:
        self._fails = fails
        self._attempts = attempts
        self._until = until

    @property
    def left(self) -> bool:
        return self._attempts > 0 and time.monotonic() < self._until

    def fails(self, schedule: Schedule) -> bool:
        if not self.left:
            return False
        self._attempts -= 1
        return self._fails(schedule)


def _fewer(schedule: Schedule, part: str, tries: _Tries) -> Schedule:
    """Remove pieces of one part, from all of it down to single items."""
    items: tuple[Any, ...] = getattr(schedule, part)
    size = len(items)
    while size and items:
        place = 0
        while place < len(items) and tries.left:
            fewer = items[:place] + items[place + size :]
            candidate = replace(schedule, **{part: fewer})  # type: ignore[arg-type]  # one of the parts
            if (fewer or part != "sent") and tries.fails(candidate):
                schedule, items = candidate, fewer
            else:
                place += size
        size //= 2
    return schedule
