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
    """Runs jobs in threads that end with the context, so none outlives an invocation.

    There is a thread for each job under way. ThreadPoolExecutor does not promise that: a send could wait for one to another database.
    """

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
