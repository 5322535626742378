"""Runs jobs in parallel.

Results and errors come back in the caller's thread, so who decides only there needs no lock. What jobs change themselves, they must guard.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
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
        self._jobs: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, job: Callable[[], Any]) -> None:
        """Start the job, in a new thread if all others are busy. Its log lines are about what the caller's are about."""
        self._unfinished += 1
        if self._unfinished > len(self._threads):
            thread = threading.Thread(target=self._work, name="sluice", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(partial(copy_context().run, job))

    def wait(self, seconds: float) -> Any | None:
        """Return the result of the next job that finishes, or raise its error; return None after that many seconds."""
        try:
            result, error = self._results.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        self._unfinished -= 1
        if error is not None:
            raise error
        return result

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._results.put((job(), None))
            except Exception as error:  # noqa: BLE001 -- raised again by `wait`
                self._results.put((None, error))


def run_parallel(executors: Executors, jobs: Iterable[Callable[[], Any]], at_once: int = 16) -> list[Any]:
    """Run all jobs, at most `at_once` in parallel, and return their results in order; a single job runs in the caller's thread.

    Raises:
        Exception: the first that a job raised, after all jobs that were started have ended.
    """
    waiting = list(enumerate(jobs))
    if len(waiting) <= 1:
        return [job() for _, job in waiting]
    results: dict[int, Any] = {}
    waiting.reverse()
    with executors() as executor:
        under_way = 0
        while waiting or under_way:
            while waiting and under_way < at_once:
                executor.submit(_numbered(*waiting.pop()))
                under_way += 1
            finished = executor.wait(60)
            if finished is not None:
                number, result = finished
                results[number] = result
                under_way -= 1
    return [results[number] for number in sorted(results)]


def _numbered(number: int, job: Callable[[], Any]) -> Callable[[], tuple[int, Any]]:
    return lambda: (number, job())
