"""Runs jobs in parallel.

Results and errors come back in the caller's thread, so who decides only there needs no lock. What jobs change themselves, they must guard.
"""

import queue
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, override


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

_MOST_THREADS = 1000  # more than anybody has under way, so that no job waits for another


class Threads(AbstractContextManager["Threads"]):
    """Runs jobs in threads that end with the context, so none outlives an invocation."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MOST_THREADS, "sluice")
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    @override
    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def submit(self, job: Callable[[], Any]) -> None:
        """Start the job. Its log lines are about what the caller's are about."""
        self._pool.submit(copy_context().run, job).add_done_callback(self._done.put)

    def wait(self, seconds: float) -> Any | None:
        """Return the result of the next job that finishes, or raise its error; return None after that many seconds."""
        try:
            done = self._done.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        return done.result()


def run_parallel(executors: Executors, jobs: Iterable[Callable[[], Any]], at_once: int = 16) -> list[Any]:
    """Run all jobs, at most `at_once` in parallel, and return their results in order; a single job runs in the caller's thread.

    If jobs raise exceptions, all jobs that were started still end; then this raises the first of these.
    """
    left = list(enumerate(jobs))
    if len(left) <= 1:
        return [job() for _, job in left]
    results: dict[int, Any] = {}
    with executors() as executor:
        for begun, (number, job) in enumerate(left):
            while begun - len(results) >= at_once:
                results |= executor.wait(60) or {}
            executor.submit(partial(lambda number, job: {number: job()}, number, job))
        while len(results) < len(left):
            results |= executor.wait(60) or {}
    return [results[number] for number in range(len(left))]
