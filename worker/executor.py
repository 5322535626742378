"""Runs jobs in parallel.

Results and errors come back in the caller's thread, so who decides only there needs no lock. What jobs change themselves, they must guard.
"""

import queue
import sys
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, Self


class Executor(Protocol):
    """Runs jobs in parallel."""

    def submit(self, job: Callable[[], Any]) -> None:
        """Start the job, which must not return None."""
        ...

    def wait(self, seconds: float) -> Any | None:
        """Return the result of the next job that finishes, or raise its error; return None after that many seconds."""
        ...


Executors = Callable[[], AbstractContextManager[Executor]]
"""Creates an executor; leaving its context waits until all its jobs have ended."""


class InlineExecutor:
    """Runs each job in the caller's thread, when the caller waits for its result."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._jobs:
            self._jobs.popleft()()

    def submit(self, job: Callable[[], Any]) -> None:
        """Append the job to the queue."""
        self._jobs.append(job)

    def wait(self, seconds: float) -> Any | None:  # noqa: ARG002 -- the executor's signature
        """Run the first job of the queue and return its result; return None if there is none."""
        return self._jobs.popleft()() if self._jobs else None


class Threads:
    """Runs jobs in threads that end with the context, so none outlives an invocation."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(sys.maxsize, "sluice")  # who submits jobs limits how many run at once
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def submit(self, job: Callable[[], Any]) -> None:
        """Start the job. Its log lines are about what the caller's are about."""
        self._pool.submit(copy_context().run, job).add_done_callback(self._ended.put)

    def wait(self, seconds: float) -> Any | None:
        """Return the result of the next job that finishes, or raise its error; return None after that many seconds."""
        try:
            ended = self._ended.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        return ended.result()


def run_parallel(executors: Executors, jobs: Iterable[Callable[[], Any]], at_once: int = 16) -> list[Any]:
    """Run all jobs, at most `at_once` in parallel, and return their results in order; a single job runs in the caller's thread.

    Raises:
        Exception: the first that a job raised, after all jobs that were started have ended.
    """
    found, results = list(jobs), dict[int, Any]()
    if len(found) <= 1:
        return [job() for job in found]
    with executors() as executor:
        for number, job in enumerate(found):
            if number >= at_once:
                results |= _await(executor)
            executor.submit(partial(_numbered, number, job))
        while len(results) < len(found):
            results |= _await(executor)
    return [results[number] for number in range(len(found))]


def _numbered(number: int, job: Callable[[], Any]) -> dict[int, Any]:
    return {number: job()}


def _await(executor: Executor) -> Any:
    while (finished := executor.wait(60)) is None:
        pass
    return finished
