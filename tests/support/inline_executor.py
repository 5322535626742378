"""An executor without threads."""

from collections import deque
from collections.abc import Callable
from typing import Any, Self


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
