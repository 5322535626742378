"""Simulates Lambda: functions, sandboxes, time-outs, and invocations that outlive their caller."""

import json
import random
from collections.abc import Callable
from typing import Any

from chaos.effects import Effects
from chaos.simulation import Killed, Process, Simulation
from chaos.trouble import Kind, Trouble
from doubles.event_source import Failed, Outcome, Returned
from doubles.lambda_context import Context

LONGEST_OVERRUN = 8 * 3600.0
"""Seconds after which even an invocation that runs on past its time-out is killed."""

Handler = Callable[[Any, Any], Any]
Done = Callable[[Outcome], None]


type Sandbox = tuple[int, Handler]
"""One execution environment: its number among the function's, and a handler, which keeps state between invocations."""


class Function:
    """A Lambda function. Its invocations' names begin with `name`; they may run on past their time-out if it `overruns`."""

    def __init__(
        self,
        effects: Effects,
        name: str,
        build: Callable[[], Handler],
        timeout: float,
        seed: int,
        *,
        overruns: bool = True,
    ) -> None:
        self.timeout = timeout
        self.running: dict[Process, None] = {}  # a set would have an order of its own in each run
        self.invocations = 0
        self.errors: list[tuple[str, str]] = []
        self.timed_out: dict[str, float] = {}  # when invocations began that did not end in time
        # is told what the caller of an invocation is
        self.told: Callable[[Any, Outcome], None] = lambda _event, _outcome: None
        self._simulation: Simulation = effects.simulation
        self._trouble: Trouble = effects.trouble
        self._name = name
        self._overruns = overruns
        self._build = build
        self._idle: list[Sandbox] = []
        self._chance = random.Random(f"{seed}/{name}")
        self._sandboxes = 0

    def deploy(self) -> None:
        """Use new sandboxes for every later invocation."""
        self._idle.clear()

    def invoke(self, event: Any, done: Done = lambda _outcome: None) -> None:
        """Start an invocation; `done` is called once with its result."""
        self.invocations += 1
        simulation = self._simulation
        process = Process(simulation, f"{self._name}{self.invocations}")
        process.overruns = self._overruns and self._trouble.strike(Kind.OVERRUN) is not None
        self.running[process] = None
        sandbox = self._sandbox()
        process.by = f"{'replay ' if 'replay' in event else ''}{self._name} {sandbox[0]}/{process.name}"
        waiting = [done]  # until the caller has the result

        def tell(outcome: Outcome) -> None:
            if waiting:
                self.told(event, outcome)
                waiting.pop()(outcome)

        def ended(value: Any, error: BaseException | None) -> None:
            self._end(sandbox, process, alive=not isinstance(error, Killed))
            if isinstance(error, Killed):
                tell(Failed())
            elif error is not None:
                self.errors.append((type(error).__name__, f"{process.name}: {error!r}"))
                simulation.note(f"raised {error!r}")
                tell(Failed())
            else:
                tell(Returned(json.loads(json.dumps(value))))

        def time_out() -> None:
            if process in self.running and waiting:
                self._trouble.count(Kind.TIMEOUT)
                self.timed_out[process.name] = process.born
                tell(Failed())
            if process.overruns:
                simulation.at(process.born + LONGEST_OVERRUN, lambda: simulation.kill(process))
            else:
                simulation.kill(process)

        context = Context(
            function_name=self._name,
            deadline=simulation.now + self.timeout,
            now=lambda: simulation.now,
            aws_request_id=process.name,
        )
        simulation.spawn(process, lambda: sandbox[1](event, context), ended)
        simulation.at(context.deadline, time_out)
        if chances := self._trouble.strike(Kind.ABANDON):
            simulation.at(simulation.now + chances.random() * self.timeout, lambda: tell(Failed()))

    def _end(self, sandbox: Sandbox, process: Process, *, alive: bool) -> None:
        """End an invocation. The next one may have its sandbox, unless that died."""
        self.running.pop(process, None)
        if alive and self._simulation.now - process.born < self.timeout:
            self._idle.append(sandbox)

    def _sandbox(self) -> Sandbox:
        if self._trouble.strike(Kind.COLD):
            self._idle.clear()
        if self._idle:
            return self._idle.pop(self._chance.randrange(len(self._idle)))
        self._sandboxes += 1
        return self._sandboxes, self._build()
