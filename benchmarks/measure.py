"""Measures the CPU time of several functions, interleaved so that a slowdown of the machine affects all of them."""

import time
from collections.abc import Callable, Mapping
from statistics import median


def cpu_seconds(
    contenders: Mapping[str, Callable[[], object]], rounds: int, repeats: int
) -> dict[str, float]:
    """Return the median CPU seconds of one call of each contender.

    Args:
        contenders: functions by name; each does the same work on every call.
        rounds: the number of measurements of each, after one that is discarded.
        repeats: the number of calls in each measurement.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, call in contenders.items():
            begin = time.process_time()
            for _ in range(repeats):
                call()
            times[name].append((time.process_time() - begin) / repeats)
    return {name: median(measured[1:]) for name, measured in times.items()}
