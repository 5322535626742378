"""Simulates Lambda: functions, sandboxes, time-outs, and invocations that outlive their caller."""

import json
import random
from collections.abc import Callable
from typing import Any

from chaos.effects import Effects
from chaos.simulation import Killed, Process, Simulation
from chaos.trouble import Kind, Trouble
from doubles.event_source import Outcome, Raised, Returned, TimedOut
from doubles.lambda_context import Context

LONGEST_OVERRUN = 8 * 3600.0
"""Seconds after which even an invocation that runs on past its time-out is killed."""

Handler = Callable[[Any, Any], Any]
Done = Callable[[Outcome], None]


class Sandbox:
    """One execution environment, with the state that its handler keeps between invocations."""

    def __init__(self, number: int = 0) -> None:
        self.number = number  # its number among the function's
        self.handler: Handler | None = None  # the function's handler
        # an invocation that returned while some of its greenlets were still running; they are frozen
        self.leftover: Process | None = None


class Function:
    """A Lambda function.

    Args:
        effects: provides time, processes and trouble.
        name: one letter that prefixes its invocations' names.
        build: makes the handler of a new sandbox.
        timeout: seconds.
        seed: decides which sandbox serves an invocation.
        overruns: whether invocations may run on past their time-out, which functions that check their deadline must survive.
    """

    def __init__(
        self,
        effects: Effects,
        name: str,
        build: Callable[[Sandbox], Handler],
        timeout: float,
        seed: int,
        *,
        overruns: bool = True,
    ) -> None:
        self.timeout = timeout
        self.running: dict[Process, None] = {}  # a set would have an order of its own in each run
        self.invocations = 0
        self.left_behind = 0
        self.errors: list[tuple[str, str]] = []
        self.timed_out: dict[str, float] = {}  # when invocations began that did not end in time
        self._effects = effects
        self._simulation: Simulation = effects.simulation
        self._trouble: Trouble = effects.trouble
        self._name = name
        self._overruns = overruns
        self._build = build
        self._idle: list[Sandbox] = []
        self._chance = random.Random(f"{seed}/{name}")
        self._sandboxes = 0
        self.told: Callable[[Any, Outcome], None] = lambda _event, _outcome: (
            None
        )  # what the caller of an invocation is told

    def deploy(self) -> None:
        """Use new sandboxes for every later invocation."""
        self._idle.clear()

    def invoke(self, event: Any, done: Done) -> None:
        """Start an invocation; `done` is called once with its result."""
        self.invocations += 1
        process = Process(self._simulation, f"{self._name}{self.invocations}")
        process.overruns = self._overruns and self._trouble.strike(Kind.OVERRUN) is not None
        self.running[process] = None
        sandbox = self._sandbox()
        process.by = f"{'replay ' if 'replay' in event else ''}{self._name} {sandbox.number}/{process.name}"
        _Invocation(self, self._effects, process, sandbox, done).begin(event)

    def end(self, sandbox: Sandbox, process: Process, *, alive: bool) -> None:
        """End an invocation. Unless its sandbox died, the sandbox is frozen until the next one."""
        self.running.pop(process, None)
        if not alive or self._simulation.now - process.born >= self.timeout:
            return
        if sandbox.leftover is not None and not sandbox.leftover.idle:
            sandbox.leftover.frozen = True
        elif not process.idle:
            self.left_behind += len(process.tasks)
            process.frozen = True
            sandbox.leftover = process
        else:
            sandbox.leftover = None
        self._idle.append(sandbox)

    def _sandbox(self) -> Sandbox:
        if self._trouble.strike(Kind.COLD):
            self._idle.clear()
        if self._idle:
            return self._idle.pop(self._chance.randrange(len(self._idle)))
        self._sandboxes += 1
        sandbox = Sandbox(self._sandboxes)
        sandbox.handler = self._build(sandbox)
        return sandbox


class _Invocation:
    """One invocation, until its caller has the result and its process has ended."""

    def __init__(
        self, function: Function, effects: Effects, process: Process, sandbox: Sandbox, done: Done
    ) -> None:
        self._function = function
        self._effects = effects
        self._simulation = effects.simulation
        self._process = process
        self._sandbox = sandbox
        self._done: Done | None = done
        self._event: Any = None

    def begin(self, event: Any) -> None:
        self._event = event
        simulation, handler, timeout = self._simulation, self._sandbox.handler, self._function.timeout
        if handler is None:
            raise RuntimeError("a sandbox without a handler")
        context = Context(
            function_name=self._process.name[0],
            deadline=simulation.now + timeout,
            now=lambda: simulation.now,
            aws_request_id=self._process.name,
        )
        if self._sandbox.leftover is not None:
            simulation.thaw(self._sandbox.leftover)
        simulation.spawn(self._process, lambda: handler(event, context), self._ended)
        simulation.at(context.deadline, self._time_out)
        if chances := self._effects.trouble.strike(Kind.ABANDON):
            simulation.at(simulation.now + chances.random() * timeout, lambda: self._tell(TimedOut()))

    def _tell(self, outcome: Outcome) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._function.told(self._event, outcome)
            done(outcome)

    def _ended(self, value: Any, error: BaseException | None) -> None:
        process = self._process
        self._function.end(self._sandbox, process, alive=not isinstance(error, Killed))
        if isinstance(error, Killed):
            self._tell(Raised("Runtime.ExitError"))
        elif error is not None:
            self._function.errors.append((type(error).__name__, f"{process.name}: {error!r}"))
            self._simulation.note(f"raised {error!r}")
            self._tell(Raised(type(error).__name__, str(error)))
        else:
            self._tell(Returned(json.loads(json.dumps(value))))

    def _time_out(self) -> None:
        simulation, process = self._simulation, self._process
        if process in self._function.running and self._done is not None:
            self._effects.trouble.count(Kind.TIMEOUT)
            self._function.timed_out[process.name] = process.born
            self._tell(TimedOut())
        if process.overruns:
            simulation.at(process.born + LONGEST_OVERRUN, lambda: simulation.kill(process))
        else:
            simulation.kill(process)
