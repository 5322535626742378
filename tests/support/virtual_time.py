"""Concurrent jobs in virtual time: while one sleeps the others run, and the clock advances when all sleep."""

from collections import deque
from collections.abc import Callable
from typing import Any, Self

from greenlet import getcurrent, greenlet

from doubles.clock import ManualClock

_TICK = 1e-6  # seconds, so that whoever wakes at the same time goes first


class VirtualClock(ManualClock):
    """A clock shared by the invocation and its jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[greenlet, float] = {}  # sleeping jobs, with the time at which they wake
        self.waiting: set[greenlet] = set()  # jobs that wait for jobs of their own

    def sleep(self, seconds: float) -> None:
        """Sleep. When the invocation itself sleeps, its jobs run meanwhile."""
        job = getcurrent()
        if job in self.jobs:
            self.jobs[job] = self.time + seconds
            job.parent.switch()
        else:
            self.run_until(self.time + seconds, lambda: False)

    def run_until(self, moment: float, enough: Callable[[], bool]) -> None:
        """Run jobs until a time, or until `enough` returns True. A job that waits for jobs of its own lets the others go on."""
        current = getcurrent()
        if current in self.jobs:
            self.waiting.add(current)
            while self.time < moment and not enough():
                busy = [at for job, at in self.jobs.items() if job not in self.waiting]
                self.sleep(min([*busy, moment]) - self.time + _TICK)
            self.waiting.discard(current)
            return
        while not enough():
            job = min(self.jobs, key=self.jobs.__getitem__, default=None)
            if job is None or self.jobs[job] > moment:
                self.time = max(self.time, moment) if moment < float("inf") else self.time
                return
            self.time = max(self.time, self.jobs[job])
            try:
                job.switch()
            finally:
                if job.dead:
                    del self.jobs[job]


class SideBySide:
    """An executor whose jobs run concurrently on a virtual clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._results: deque[Any] = deque()
        self._unfinished = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Exception):  # the function was killed with its threads
            self._clock.jobs.clear()
            return
        self._clock.run_until(float("inf"), lambda: len(self._results) == self._unfinished)

    def submit(self, job: Callable[[], Any]) -> None:
        """Start the job at once."""
        self._unfinished += 1
        main = getcurrent()
        while main.parent is not None:
            main = main.parent
        self._clock.jobs[greenlet(lambda: self._results.append(job()), main)] = self._clock.time

    def wait(self, seconds: float) -> Any | None:
        """Return the next result, or None after that many seconds."""
        self._clock.run_until(self._clock.time + seconds, lambda: bool(self._results))
        if not self._results:
            return None
        self._unfinished -= 1
        return self._results.popleft()
