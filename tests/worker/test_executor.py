"""Threads that end with their invocation."""

import threading
import time
from unittest.mock import Mock

import pytest

from shared.telemetry import about, with_subject
from worker.executor import Threads, run_parallel


def test_wait_returns_the_results_of_all_jobs() -> None:
    """It returns None if no result is ready in time."""
    with Threads() as threads:
        for number in range(5):
            threads.submit(lambda number=number: number)
        assert [0, 1, 2, 3, 4] == sorted(threads.wait(60) for _ in range(5))
        assert threads.wait(0.01) is None


def test_errors_are_raised_by_wait() -> None:
    """A job's error is raised where its result is awaited, after all jobs have ended."""
    done = []
    fail = Mock(side_effect=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        run_parallel(Threads, [fail, lambda: done.append(time.sleep(0.05)) or 1])

    assert [None] == done


def test_run_parallel_keeps_order_and_limit() -> None:
    """Results come in the order of their jobs, and as many jobs as the limit, usually 16, run at once: they wait for each other."""
    under_way, most, three = [], [], threading.Barrier(3, timeout=60)

    def job(number: int) -> int:
        under_way.append(number)
        most.append(len(under_way))
        three.wait()
        time.sleep(0.002)
        under_way.remove(number)
        return number

    jobs = [lambda number=number: job(number) for number in range(21)]

    assert run_parallel(Threads, jobs, at_once=3) == list(range(21))
    assert 3 == max(most)
    assert set(range(16)) == set(run_parallel(Threads, [threading.Barrier(16, timeout=5).wait] * 16))
    assert [] == run_parallel(Threads, [])


def test_jobs_are_about_what_their_caller_is_about() -> None:
    """Their log lines carry the same fields, in whatever thread they run."""
    with Threads() as threads:
        with about(span="a"):
            threads.submit(lambda: with_subject({}))
        with about(span="b"):
            threads.submit(lambda: with_subject({}))
        found = [threads.wait(60), threads.wait(60)]

    assert [{"span": "a"}, {"span": "b"}] == sorted(found, key=str)
