"""Takes watermarks throughout a schedule. None may ever turn out to have been wrong.

The observer has its own random source and its own trouble, so that it does not change what it observes.
"""

import random
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from chaos import clients
from chaos.audit import Audit
from chaos.effects import Effects, SandboxClock
from chaos.platform import Function, Handler
from chaos.trouble import Trouble
from chaos.world import STREAM, TABLE, World
from shared.errors import UnavailableError
from shared.telemetry import NullTelemetry
from worker.app import MARKED_SECONDS
from worker.ledger import Ledger
from worker.passing import CLOCK_SECONDS, Passing
from worker.shards import Shards
from worker.span import milliseconds
from worker.states import State
from worker.watermark import Completeness, Watermarks

_SEED = 1 << 40
TIMEOUT_SECONDS = 120.0
_TAKE_SECONDS = 60.0
_HOURS_AFTERWARDS = 6
_EVERY = (20.0, 60.0, 300.0, 1200.0)
# The factor for pauses in two of three schedules: otherwise watermarks would take half of the CPU time.
_SELDOM = 8


@dataclass(frozen=True, slots=True)
class Given:
    """A watermark: when it was given (UNIX seconds), what it says, and the events whose rows were dead at the time."""

    at: float
    completeness: Completeness
    dead: frozenset[int]

    def denies(self, account: str, table: str, received_at: int) -> bool:
        """Return whether it says that no row of a table received at `received_at` (UNIX milliseconds) is still to come."""
        before = self.completeness.before(account, table)
        return before is not None and received_at < before


class Observer:
    """Takes watermarks during a schedule."""

    def __init__(self, world: World, audit: Audit, kind: type[Watermarks] = Watermarks) -> None:
        seed = world.schedule.seed + _SEED
        self._world = world
        self._audit = audit
        self._kind = kind
        self._chance = random.Random(seed)
        self._slowness = self._chance.choice((1, _SELDOM, _SELDOM))
        self.trouble = Trouble(world.simulation, list(world.schedule.windows), seed)
        self._effects = Effects(world.simulation, self.trouble, seed)
        self.function = Function(
            self._effects, "M", self._build, TIMEOUT_SECONDS, self._chance.getrandbits(32), overruns=False
        )
        self._answers: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
        self.given: list[Given] = []  # the watermarks given, in order

    def answered(self, numbers: tuple[int, ...], since: float) -> None:
        """Record events that a response accepts now, to a request made at `since` (UNIX seconds)."""
        for number in numbers:
            self._answers[number].append((since, self._world.simulation.now))

    def look(self) -> None:
        """Take a watermark."""
        if not self._world.holds:  # nor does the sender
            self.function.invoke({})

    def overlooked(self, number: int, account: str, table: str, received_at: int, arrived_at: float) -> bool:
        """Return whether a row reached Treasure Data after a watermark had counted it as delivered or dead."""
        slack = milliseconds(CLOCK_SECONDS)
        if not any(
            milliseconds(since) - slack <= received_at <= milliseconds(until) + slack
            for since, until in self._answers[number]
        ):
            return False  # nobody was told that this row was accepted
        return any(
            given.at < arrived_at
            and given.denies(account, table, received_at)
            and not (number in given.dead and given.completeness.dead.get((account, table)))
            for given in self.given
        )

    def _look(self) -> None:
        self.look()
        if self._world.simulation.now < self._world.schedule.end + _HOURS_AFTERWARDS * 3600:
            self.begin()

    def begin(self) -> None:
        """Take watermarks from now on, until hours after the schedule has ended."""
        setup = self._world.schedule.setup
        pause = self._slowness * self._chance.choice((*_EVERY, setup.horizon / 8))
        self._world.simulation.at(self._world.simulation.now + (setup.watch_every or pause), self._look)

    def _build(self) -> Handler:
        world, effects = self._world, self._effects
        clock = SandboxClock(effects)
        ledger = Ledger(clients.DynamoDB(world.table, effects), TABLE, clock, bytes, NullTelemetry())  # type: ignore[arg-type]  # a double
        kinesis: Any = clients.Kinesis(world.stream, effects)
        shards = Shards(kinesis, STREAM, clock)
        passing = Passing(shards, ledger, clock, NullTelemetry())
        sqs: Any = clients.SQS(world.queue, effects)
        watermarks = self._kind(passing, shards, ledger, sqs, world.queue_url, world.notices_url, clock)

        def take(_event: Any, _context: Any) -> None:
            with suppress(UnavailableError, ClientError, BotoCoreError):  # none can be proved then
                passing.mark(milliseconds(clock.now() - MARKED_SECONDS))
                watermarks.note()
                self._note(watermarks.take(_TAKE_SECONDS))

        return take

    def _note(self, completeness: Completeness) -> None:
        if completeness.horizon is None:
            return
        dead = frozenset(
            int(row["n"])
            for one in (self._audit.held() if completeness.dead else ())
            if one.entry.state is State.DEAD and not one.key.group.code
            for row in one.values or ()
        )
        self.given.append(Given(self._world.simulation.now, completeness, dead))
