"""Runs jobs in parallel: the effect, its threads, and a function over it.

Only the caller decides, in its own thread. Jobs have effects and return results, so nothing else needs a lock.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self


class Executor(Protocol):
    """What runs jobs side by side."""

    def submit(self, job: Callable[[], Any]) -> None:
        """Start the job; it returns something other than None."""
        ...

    def wait(self, seconds: float) -> Any | None:
        """Return what the next finished job returned, or None after that many seconds; raise what it raised."""
        ...


Executors = Callable[[], AbstractContextManager[Executor]]
"""Makes an executor whose jobs have all ended when its context is left."""


class InlineExecutor:
    """Runs each job in the caller's thread, when its result is waited for."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._jobs:
            self._jobs.popleft()()

    def submit(self, job: Callable[[], Any]) -> None:
        """Put the job at the end of the line."""
        self._jobs.append(job)

    def wait(self, seconds: float) -> Any | None:  # noqa: ARG002 -- the executor's signature
        """Run the job at the head of the line and return what it returns."""
        return self._jobs.popleft()() if self._jobs else None


class Threads:
    """Threads that live as long as the context: none outlives an invocation."""

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
        """Start the job, in a new thread if all are busy."""
        self._unfinished += 1
        if self._unfinished > len(self._threads):
            thread = threading.Thread(target=self._work, name="sluice", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def wait(self, seconds: float) -> Any | None:
        """Return what the next finished job returned, or None after that many seconds."""
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
            except Exception as error:  # noqa: BLE001 -- handed to whoever waits
                self._results.put((None, error))


def run_parallel(executors: Executors, jobs: Iterable[Callable[[], Any]], at_once: int = 16) -> list[Any]:
    """Run all jobs, at most `at_once` in parallel, and return their results in order; one alone runs right here.

    Raises:
        Exception: the first that a job raised, after all that were started have ended.
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
