"""The single point that every effect passes through. It adds latency, kills and pauses."""

import random
from collections.abc import Callable
from typing import Any, NoReturn

from botocore.exceptions import ClientError

from chaos.simulation import Killed, Process, Simulation
from chaos.trouble import Kind, Trouble


class Effects:
    """Performs effects for the running process."""

    def __init__(self, simulation: Simulation, trouble: Trouble, seed: int) -> None:
        self.simulation = simulation
        self.trouble = trouble
        self.chance = random.Random(f"{seed}/latency")

    def perform(self, what: str, action: Callable[[], Any], seconds: float) -> Any:
        """Perform an effect that takes so many seconds. Other processes may run before it happens and before it returns."""
        process = self.begin(what)
        lead = self.chance.random() * seconds
        self.simulation.delay(lead)
        self.simulation.note(what)
        try:
            return action()
        finally:
            if not process.dead:
                self.simulation.delay(seconds - lead)
                self.end(process, what)

    def begin(self, what: str) -> Process:
        """Kill or pause the process before an effect, if a fault says so."""
        process = self.simulation.alive().process
        if self.trouble.strike(Kind.KILL):
            self._kill(process, f"killed before {what}")
        if not process.overruns and (chances := self.trouble.strike(Kind.PAUSE)):
            self.simulation.delay(chances.choice((0.5, 3.0, 20.0, 60.0, 200.0)))
        return process

    def end(self, process: Process, what: str) -> None:
        """Kill the process after an effect, if a fault says so."""
        if self.trouble.strike(Kind.KILL):
            self._kill(process, f"killed after {what}")

    def land(self, what: str, action: Callable[[], Any], seconds: float, process: Process) -> None:
        """Perform an effect of a process later, whatever has happened to that."""

        def land() -> None:
            self.simulation.note(f"{what} lands late")
            self.simulation.behalf = process
            try:
                action()
            except ClientError as error:
                self.simulation.note(f"{what} is refused: {error}")
            self.simulation.behalf = None

        self.simulation.at(self.simulation.now + seconds, land)

    def fail(self, what: str, error: Exception, seconds: float) -> NoReturn:
        """Fail an effect after a delay, without performing it."""
        process = self.begin(what)
        self.simulation.delay(seconds)
        self.simulation.note(f"{what}: {type(error).__name__}")
        self.end(process, what)
        raise error

    def _kill(self, process: Process, how: str) -> NoReturn:
        self.simulation.note(how)
        self.simulation.kill(process)
        raise Killed


class SandboxClock:
    """A sandbox's clock. It may be slightly wrong, and time may pass whenever it is read."""

    def __init__(self, effects: Effects) -> None:
        self._effects = effects
        self._skew = 0.0  # seconds that it is ahead

    def now(self) -> float:
        """Return UNIX seconds by the sandbox's clock."""
        simulation = self._effects.simulation
        task = simulation.alive()
        # An invocation that runs on past its time-out may sleep for hours before it reads the clock. After reading it,
        # it continues at once: only Lambda, by ending the sandbox in time, protects against a sleep between the read
        # and the send.
        if task.process.overruns and task.looked_at != simulation.now:
            if chances := self._effects.trouble.strike(Kind.PAUSE):
                simulation.delay(chances.choice((3.0, 60.0, 600.0, 4000.0, 20000.0)))
            task.looked_at = simulation.now
        if chances := self._effects.trouble.strike(Kind.SKEW):
            self._skew = chances.uniform(-20, 20)
        return self._effects.simulation.now + self._skew

    def sleep(self, seconds: float) -> None:
        """Let this much time pass."""
        self._effects.begin("sleep")
        self._effects.simulation.delay(max(0.0, seconds))
