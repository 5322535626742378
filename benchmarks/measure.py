"""Process CPU time of contenders, in turn, so that a machine that slows down slows them all."""

import time
from collections.abc import Callable, Mapping
from statistics import median


def cpu_seconds(
    contenders: Mapping[str, Callable[[], object]], rounds: int, repeats: int
) -> dict[str, float]:
    """Return the median CPU seconds of one call of each contender.

    Args:
        contenders: by name, what is called; each does the same work whenever it is called.
        rounds: how often each is measured, in turn with the others, after one round that does not count.
        repeats: calls of one measurement.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, call in contenders.items():
            begin = time.process_time()
            for _ in range(repeats):
                call()
            times[name].append((time.process_time() - begin) / repeats)
    return {name: median(measured[1:]) for name, measured in times.items()}
