"""An executor for clocks that know a single thread: what the worker does in parallel happens in sequence."""

from collections import deque
from collections.abc import Callable
from typing import Any, Self


class InlineExecutor:
    """An executor that runs each job when its result is waited for."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._jobs:
            self._jobs.popleft()()

    def submit(self, job: Callable[[], Any]) -> None:
        """Queue a job."""
        self._jobs.append(job)

    def wait(self, seconds: float) -> Any | None:  # noqa: ARG002 -- the executor's signature
        """Run the next job and return its result."""
        return self._jobs.popleft()() if self._jobs else None
