"""Jobs that nobody waits for longer than they may take."""

import threading
from itertools import count

import pytest

from ops.background import in_order, within


def test_a_job_that_hangs_is_left() -> None:
    """It goes on in the background. A result or an error in time is passed on."""
    release, done = threading.Event(), threading.Event()

    assert within(0, lambda: release.wait(60) and done.set()) is None
    release.set()
    assert done.wait(60)
    assert 7 == within(60, lambda: 7)
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 // 0)


def test_results_come_in_the_order_of_the_work() -> None:
    """However long each takes: here the first one ends last. Little is done ahead of who uses them. An error is raised in its place."""
    last, taken = threading.Event(), count()

    def work(number: int) -> int:
        if number == 0:
            last.wait(60)
        if number == 9:
            last.set()
        return number

    assert list(range(10)) == list(in_order(work, range(10)))
    found = in_order(lambda number: number, (next(taken) for _ in range(1000)))
    next(found)
    assert next(taken) < 100
    found.close()
    failing = in_order(lambda number: 6 // (3 - number), range(5))
    assert [2, 3, 6] == [next(failing) for _ in range(3)]
    with pytest.raises(ZeroDivisionError):
        next(failing)


def test_who_stops_early_waits_for_nothing() -> None:
    """A call that hangs does not keep a command from ending."""
    release = threading.Event()
    found = in_order(lambda number: number == 0 or release.wait(60), range(5))

    assert next(found)
    found.close()
    assert not release.is_set()
    release.set()
