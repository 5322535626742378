"""The product's handlers, built from its own parts over one world's clients.

Each sandbox has parts of its own: a clock, chance, memory. What a defence is made of can be replaced here by
overriding a method; see `defences`.
"""

import random
from typing import Any

from ingest.app import Ingest
from ingest.keyring import Keyring
from ingest.overflow import Overflow
from ingest.stream import Stream
from shared.settings import IngestSettings
from tests.chaos.effects import SandboxClock
from tests.chaos.platform import Handler, Sandbox
from tests.chaos.simulation import Greenlets
from tests.chaos.world import (
    BUCKET,
    STREAM,
    TABLE,
    TD_KEY_SECRET,
    TD_MEMORY_SECONDS,
    TD_QUERY_DELAY_SECONDS,
    WRITE_KEY_SECRET,
    World,
)
from worker.accounts import Directory
from worker.aside import Aside
from worker.breaker import Breakers
from worker.deadline import Deadline
from worker.drain import Drain
from worker.execution import Means, Rules
from worker.ledger import Ledger
from worker.redrive import Redrive, Selection
from worker.resending import ResendRules
from worker.search import Search
from worker.secret import Secret
from worker.sender import Sender
from worker.shard import Shards
from worker.span import Cut
from worker.treasure_data import TreasureData
from worker.unplaced import Unplaced
from worker.upload import Limits, Uploader
from worker.worker import Worker


class _Telemetry:
    """What the ingest reports to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.count = world.count

    def note(self, *kind: object, **fields: object) -> None:
        """Do nothing."""

    def warn(self, *kind: object, **fields: object) -> None:
        """Do nothing."""

    def fail(self, kind: str, error: BaseException) -> None:
        """Write to the trace."""
        self._world.simulation.note(f"{kind}: {type(error).__name__}: {error}")

    def flush(self) -> None:
        """Do nothing."""


class _Journal:
    """What the delivery functions report to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.count = world.count

    def note(self, message: str, **fields: Any) -> None:
        """Write to the trace."""
        if self._world.simulation.trace is not None:
            told = " ".join(f"{name}={value}" for name, value in fields.items())
            self._world.simulation.note(f"{message}: {told}")

    def flush(self) -> None:
        """Do nothing."""


class Parts:
    """The parts of one sandbox of a delivery function.

    Args:
        world: the services.

    Attributes:
        held_share: of the retention, for which rows may be held.
        memory_seconds: how long Treasure Data is believed to remember ids.
        query_delay: how long it is believed to take until a query finds rows.
        park_after: for how long a failing database is tried.
        threads: uploads at once.
        per_database: of these, for one database.
    """

    held_share = 0.5
    memory_seconds = TD_MEMORY_SECONDS
    query_delay = TD_QUERY_DELAY_SECONDS
    park_after = 20.0
    threads = 16
    per_database = 4

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = SandboxClock(world.effects)
        self.entropy = world.entropy()
        self.chance = random.Random(self.entropy(8)).random
        self.journal = _Journal(world)
        self.held_at_most = world.schedule.setup.retention_hours * 3600 * self.held_share
        self.ledger = Ledger(world.dynamodb, TABLE, self.clock, self.entropy, self.journal)
        self.shards = Shards(world.kinesis, STREAM, self.clock)
        self.directory = Directory(lambda: world.redis, self.clock, self.journal)
        self.aside = Aside(world.s3, BUCKET)
        self.breakers = Breakers(self.ledger, self.clock, self.journal)
        self.treasure_data = TreasureData(
            world.session,
            "https://api-import.td.invalid",
            "https://api.td.invalid",
            Secret(world.secrets, TD_KEY_SECRET, self.clock),
            self.clock,
        )
        self.rules = Rules(
            cut=Cut(*world.cut), memory_seconds=self.memory_seconds, held_at_most=self.held_at_most
        )
        self.resend_rules = ResendRules(
            query_delay=self.query_delay, sends_unasked=True, parked_max_seconds=14 * 86_400.0
        )
        self.limits = Limits(
            threads=self.threads,
            per_database=self.per_database,
            park_after=self.park_after,
            held_at_most=self.held_at_most,
        )
        self.means = Means(
            ledger=self.ledger,
            uploader=Uploader(
                sender=Sender(self.treasure_data, self.directory),
                breakers=self.breakers,
                clock=self.clock,
                chance=self.chance,
                limits=self.limits,
                journal=self.journal,
            ),
            aside=self.aside,
            executors=lambda: Greenlets(world.simulation),
            rules=self.rules,
            clock=self.clock,
            journal=self.journal,
        )


class Functions:
    """Builds handlers.

    Args:
        world: the services.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def parts(self) -> Parts:
        """Return the parts of a new sandbox."""
        return Parts(self.world)

    def worker(self, _sandbox: Sandbox) -> Handler:
        """Return the worker of a new sandbox."""
        parts = self.parts()
        worker = Worker(parts.shards, parts.directory, parts.means)
        return lambda event, context: worker.run(event, context.get_remaining_time_in_millis())

    def drain(self, _sandbox: Sandbox) -> Handler:
        """Return the drainer of a new sandbox."""
        parts, world = self.parts(), self.world
        drain = Drain(
            kinesis=world.kinesis,
            stream_name=STREAM,
            search=Search(world.kinesis, STREAM, parts.clock),
            sqs=world.sqs,
            queue_url=world.queue_url,
            unplaced=Unplaced(parts.ledger, parts.aside, parts.clock),
            clock=parts.clock,
            chance=parts.chance,
            retention_seconds=world.schedule.setup.retention_hours * 3600,
            journal=parts.journal,
        )
        return lambda event, context: drain.run(event, context.get_remaining_time_in_millis())

    def redrive(self, _sandbox: Sandbox) -> Handler:
        """Return the redrive of a new sandbox."""
        parts = self.parts()
        redrive = Redrive(
            means=parts.means, directory=parts.directory, breakers=parts.breakers, rules=parts.resend_rules
        )

        def handle(event: Any, context: Any) -> dict[str, Any]:
            deadline = Deadline.of(parts.clock, context.get_remaining_time_in_millis())
            report = redrive.run(deadline, Selection.from_event(event))
            return {"delivered": report.delivered}

        return handle

    def ingest(self, _sandbox: Sandbox) -> Handler:
        """Return the ingest of a new sandbox."""
        world, entropy = self.world, self.world.entropy()
        clock, telemetry = SandboxClock(world.effects), _Telemetry(world)
        settings = IngestSettings(
            stream_name=STREAM,
            overflow_queue_url=world.queue_url,
            write_key_secret=WRITE_KEY_SECRET,
            partition_buckets=4,
        )
        keyring = Keyring(world.secrets, settings.write_key_secret, clock, telemetry)
        overflow = Overflow(lambda: world.sqs, settings.overflow_queue_url, telemetry)
        stream = Stream(
            world.kinesis,
            settings.stream_name,
            overflow,
            clock=clock,
            entropy=entropy,
            journal=telemetry,
        )
        return Ingest(settings, keyring, stream, clock=clock, entropy=entropy, journal=telemetry)
