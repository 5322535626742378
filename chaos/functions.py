"""Builds the product's handlers with its own composition roots, over one world's clients.

Each sandbox has its own clock, random source and memory. A weakness says which defences the handlers lack.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, override

from chaos.access import RESOURCES, Limited
from chaos.effects import SandboxClock
from chaos.platform import Handler
from chaos.simulation import Greenlets
from chaos.world import World
from doubles.background import at_once
from ingest.app import Ingest, IngestEffects
from local.functions import DRAIN, INGEST, SENDER, WORKER, Function, variables
from ops.books.ledger_repair import LedgerRepair
from shared.settings import IngestSettings, WorkerSettings
from shared.telemetry import NullTelemetry, with_subject
from worker.app import send_with
from worker.watermark import Watermarks
from worker.wiring import Effects, Wiring


@dataclass(frozen=True)
class Weakness:
    """Which defences the functions lack."""

    settings: Mapping[str, Any] = field(default_factory=dict)  # settings to change
    replaced: Mapping[Any, Any] = field(default_factory=dict)  # by class, what to build in its place
    changes: Callable[[World], None] = lambda _world: None  # changes the clients


SOUND = Weakness()
_WORKER = WorkerSettings.from_environment(variables(WORKER, RESOURCES, {}))
_INGEST = IngestSettings.from_environment(variables(INGEST, RESOURCES, {}))


class _Telemetry(NullTelemetry):
    """Adds up metrics, and writes log lines to the trace."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.count = world.count  # type: ignore[assignment, method-assign]  # the world's
        self.gauge = world.on_gauge  # type: ignore[assignment, method-assign]  # the world's

    @override
    def info(self, *told: object, **fields: object) -> None:
        if self._world.simulation.trace is not None:
            about = " ".join(f"{name}={value}" for name, value in with_subject(fields).items())
            self._world.simulation.note(f"{' '.join(map(str, told))}: {about}")

    warning = error = info


class Functions:
    """Builds handlers."""

    def __init__(self, world: World, weakness: Weakness = SOUND) -> None:
        self.world = world
        self._weakness = weakness
        self._cuts = itertools.count()
        # the classes that take watermarks and repair a restored ledger
        self.watermarks: type[Watermarks] = weakness.replaced.get(Watermarks, Watermarks)
        self.repair: type[LedgerRepair] = weakness.replaced.get(LedgerRepair, LedgerRepair)
        weakness.changes(world)

    def wiring(self, function: Function) -> Wiring:
        """Return the parts of a new sandbox of a delivery function, with the permissions that the template grants."""
        world, weakness = self.world, self._weakness
        access: Callable[[str, Any], Any] = partial(Limited, function, world.effects)
        entropy = world.entropy()
        rows, size = world.cuts[next(self._cuts) % len(world.cuts)]
        days = world.schedule.setup.archive_days
        settings = replace(_WORKER, archive_days=days, chunk_max_rows=rows, chunk_max_bytes=size)
        effects = Effects(
            kinesis=access("kinesis", world.kinesis),
            dynamodb=access("dynamodb", world.dynamodb),
            s3=access("s3", world.s3),
            sqs=access("sqs", world.sqs),
            secrets=access("secretsmanager", world.secrets),
            redis=lambda: world.redis,
            http=world.http,
            clock=SandboxClock(world.effects),
            entropy=entropy,
            executors=lambda: Greenlets(world.simulation),
            telemetry=_Telemetry(world),
        )
        return Wiring(replace(settings, **weakness.settings), effects, weakness.replaced)

    def worker(self) -> Handler:
        """Return the worker of a new sandbox."""
        wiring = self.wiring(WORKER)
        return lambda event, context: wiring.worker.run(event, wiring.deadline(context))

    def drain(self) -> Handler:
        """Return the drainer of a new sandbox."""
        wiring = self.wiring(DRAIN)
        return lambda event, context: wiring.drain.run(event, wiring.deadline(context))

    def sender(self) -> Handler:
        """Return the sender of a new sandbox."""
        wiring = self.wiring(SENDER)
        return lambda event, context: send_with(wiring, event, wiring.deadline(context))

    def ingest(self) -> Handler:
        """Return the ingest of a new sandbox."""
        world = self.world
        access: Callable[[str, Any], Any] = partial(Limited, INGEST, world.effects)
        effects = IngestEffects(
            kinesis=access("kinesis", world.kinesis),
            sqs=access("sqs", world.sqs),
            dynamodb=access("dynamodb", world.dynamodb),
            secrets=access("secretsmanager", world.secrets),
            s3=access("s3", world.s3),
            clock=SandboxClock(world.effects),
            entropy=world.entropy(),
            telemetry=_Telemetry(world),
            start=at_once,  # a simulated sandbox is a single process
        )
        return Ingest(_INGEST, effects, self._weakness.replaced)
