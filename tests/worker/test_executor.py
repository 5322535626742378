"""Threads that end with their invocation."""

import threading
import time

import pytest

from worker.executor import Threads, run_parallel


def test_results_come_back() -> None:
    """Every job's result comes back, and None when none is ready in time."""
    with Threads() as threads:
        for number in range(5):
            threads.submit(lambda number=number: number)
        assert [0, 1, 2, 3, 4] == sorted(threads.wait(5) for _ in range(5))
        assert threads.wait(0.01) is None


def test_jobs_run_side_by_side() -> None:
    """Jobs that wait for each other end."""
    barrier = threading.Barrier(8, timeout=5)

    assert sorted(run_parallel(Threads, [barrier.wait] * 8)) == list(range(8))


def test_no_thread_outlives_the_context() -> None:
    """When the context is left all threads have ended, those that were still at work too."""
    before = threading.active_count()
    done = []
    with Threads() as threads:
        threads.submit(lambda: done.append(time.sleep(0.05)) or 1)

    assert [None] == done
    assert threading.active_count() == before


def test_errors_are_raised_by_wait() -> None:
    """What a job raises is raised where its result is waited for, after all jobs have ended."""
    done = []

    def fail() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_parallel(Threads, [fail, lambda: done.append(time.sleep(0.05)) or 1])

    assert [None] == done


def test_run_parallel_keeps_order_and_limit() -> None:
    """Results come in the order of their jobs, and no more than the limit are under way."""
    under_way, most = [], []

    def job(number: int) -> int:
        under_way.append(number)
        most.append(len(under_way))
        time.sleep(0.002)
        under_way.remove(number)
        return number

    jobs = [lambda number=number: job(number) for number in range(20)]

    assert run_parallel(Threads, jobs, at_once=3) == list(range(20))
    assert max(most) <= 3
    assert [] == run_parallel(Threads, [])
