"""Simulates time and processes. At each effect of a process, others may run, time may pass, or the process may die.

A process is one invocation of a function: a main greenlet and those that its executor started. Only one greenlet runs
at a time, and it yields only in `delay` and `wait`, so a run depends on nothing but its seed.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any, Self

from greenlet import getcurrent, greenlet

_FOREVER = float("inf")


class Killed(BaseException):
    """The process is dead. Every effect that it attempts raises this, and every wait, even in `finally` blocks."""


@dataclass(eq=False, slots=True)
class Task:
    """One greenlet of a process."""

    process: "Process"
    greenlet: greenlet
    ended: bool = False
    looked_at: float = float("-inf")  # when it last looked at its clock
    waits: int = 0  # counts its waits, so that a wake-up for an earlier wait is ignored


class Process:
    """One invocation."""

    def __init__(self, simulation: "Simulation", name: str) -> None:
        self.name = self.by = name  # in the trace; and for the judge: its sandbox and itself
        self.dead = False  # it performs no more effects
        self.overruns = False  # it is not killed at its time-out
        self.born = simulation.now  # simulated UNIX seconds
        self.tasks: list[Task] = []


class Simulation:
    """A clock and a scheduler."""

    def __init__(self, start: float, *, traced: bool = False) -> None:
        self.now = start
        self.trace: list[str] | None = [] if traced else None
        self.current: Task | None = None
        self.behalf: Process | None = None  # whose write lands late, outside all processes
        self._start = start
        self._until = _FOREVER
        self._serial = count()
        self._due: list[tuple[float, int, Any, int]] = []
        self._hub = getcurrent()

    def note(self, line: str) -> None:
        """Write a line to the trace, if it is kept."""
        if self.trace is not None:
            name = self.current.process.name if self.current is not None else "-"
            self.trace.append(f"{self.now - self._start:11.3f} {name:>5} {line}")

    def at(self, when: float, call: Callable[[], object]) -> None:
        """Schedule a call outside all processes at a time, UNIX seconds."""
        self._push(max(when, self.now), call, 0)

    def spawn(
        self, process: Process, call: Callable[[], Any], ended: Callable[[Any, BaseException | None], None]
    ) -> Task:
        """Start a greenlet of a process. `ended` is called with what it returned or raised, including Killed."""

        def run() -> None:
            value: Any = None
            error: BaseException | None = Killed() if process.dead else None
            try:
                if error is None:
                    value = call()
            except (Exception, SystemExit, Killed) as caught:  # noqa: BLE001 -- reported to the waiting greenlet; not Ctrl-C
                error = caught
            task.ended = True
            process.tasks.remove(task)
            ended(value, error)

        task = Task(process, greenlet(run, self._hub))
        process.tasks.append(task)
        self._push(self.now, task, task.waits)
        return task

    def delay(self, seconds: float) -> None:
        """Let time pass for the running greenlet while others run."""
        task = self.alive()
        when = self.now + seconds
        if when < self._until and (not self._due or when < self._due[0][0]):
            self.now = when
            return
        self._give_way(task, when)

    def wait(self, timeout: float | None = None) -> None:
        """Let others run until the running greenlet is woken or the time-out has passed."""
        self._give_way(self.alive(), None if timeout is None else self.now + timeout)

    def alive(self) -> Task:
        """Return the running greenlet."""
        task = self.current
        if task is None:
            raise RuntimeError("an effect outside all processes")
        if task.process.dead:
            raise Killed
        return task

    def _give_way(self, task: Task, until: float | None) -> None:
        """Let others run until a time, or until the greenlet is woken."""
        task.waits += 1
        if until is not None:
            self._push(until, task, task.waits)
        self._hub.switch()
        if task.process.dead:
            raise Killed

    def wake(self, task: Task) -> None:
        """Resume a waiting greenlet."""
        self._push(self.now, task, task.waits)

    def kill(self, process: Process) -> None:
        """Kill a process: none of its greenlets performs another effect."""
        if process.dead:
            return
        process.dead = True
        self.at(self.now, lambda: self._reap(process))

    def run(self, until: float = _FOREVER) -> None:
        """Run what is due, until a time or until nothing is left."""
        self._until = until
        while self._due:
            when = self._due[0][0]
            if when > until:
                break
            _, _, item, waits = heappop(self._due)
            self.now = max(self.now, when)
            if not isinstance(item, Task):
                item()
            elif not item.ended and item.waits == waits:
                self._resume(item)
        if until < _FOREVER:
            self.now = max(self.now, until)

    def _resume(self, task: Task) -> None:
        self.current = task
        try:
            task.greenlet.switch()
        finally:
            self.current = None

    def _reap(self, process: Process) -> None:
        for task in list(process.tasks):
            self._resume(task)  # even one that has not begun, so that it ends with Killed and reports its end

    def _push(self, when: float, item: Any, waits: int) -> None:
        heappush(self._due, (when, next(self._serial), item, waits))


class Greenlets:
    """A process's threads as greenlets, with the interface of the worker's executor. None outlives the context."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._running = 0
        self._results: deque[tuple[Any, BaseException | None]] = deque()
        self._waiter: Task | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        while self._running:
            self._await(None)

    def submit(self, job: Callable[[], Any]) -> None:
        """Start the job in a greenlet of the running process."""
        task = self._simulation.current
        if task is None:
            raise RuntimeError("an executor outside all processes")
        self._running += 1
        self._simulation.spawn(task.process, job, self._ended)

    def wait(self, seconds: float) -> Any | None:
        """Return what the next finished job returned, or None after that many seconds; raise what it raised."""
        if not self._results:
            self._await(max(0.0, seconds))
        if not self._results:
            return None
        value, error = self._results.popleft()
        if error is not None:
            raise error
        return value

    def _await(self, seconds: float | None) -> None:
        self._waiter = self._simulation.current
        try:
            self._simulation.wait(seconds)
        finally:
            self._waiter = None

    def _ended(self, value: Any, error: BaseException | None) -> None:
        self._running -= 1
        self._results.append((value, error))
        if self._waiter is not None:
            self._simulation.wake(self._waiter)
