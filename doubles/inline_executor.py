"""What the worker does side by side, done one after the other: for clocks that know one thread alone."""

from collections import deque
from collections.abc import Callable
from typing import Any, Self


class InlineExecutor:
    """An executor that does each job when its result is waited for."""

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
        """Do the job at the head of the line and return what it returns."""
        return self._jobs.popleft()() if self._jobs else None
