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
    until = time.monotonic() + seconds
    left = attempts

    def still_fails(candidate: Schedule) -> bool:
        nonlocal left
        left -= 1
        return fails(candidate)

    before = None
    while before != schedule:
        before = schedule
        for part in ("windows", "acts", "sent"):
            items: tuple[Any, ...] = getattr(schedule, part)
            size = len(items)  # of the pieces that are removed: from all of them down to single items
            while size and items:
                place = 0
                while place < len(items):
                    if left <= 0 or time.monotonic() >= until:
                        return schedule
                    fewer = items[:place] + items[place + size :]
                    candidate = replace(schedule, **{part: fewer})  # type: ignore[arg-type]  # one of the parts
                    if (fewer or part != "sent") and still_fails(candidate):
                        schedule, items = candidate, fewer
                    else:
                        place += size
                size //= 2
    return schedule
