"""`make demo-outage`: Treasure Data is down for three hours, and later loses an hour of rows.

Runs in simulated time and counts, to the row, what is accepted, held, drained and replayed.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ops.stream.history import StreamHistory
from rich.console import Console

from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.schedule import Schedule, Setup
from chaos.traffic import Sent
from chaos.trouble import Kind, Window
from chaos.world import STREAM, World
from doubles.event_source import Returned
from ops import screen
from ops.books.accounting import Accounting
from ops.stream.reader import RangeEnd
from ops.stream.replayer import Replay, Stretch
from worker.forced_replay import ForcedReplay
from worker.shards import Shards

ACCOUNTS = {"shop": "shop", "news": "media"}
TABLES = {"shop": ("pageviews", "orders"), "news": ("pageviews",)}

_HOUR = 3600.0
_SECONDS_BETWEEN_REQUESTS = 6.0
_LOOK_SECONDS = 60.0
_BEHIND_SECONDS = 180.0
_STEP_SECONDS = 0.5

Place = tuple[str, str]


class _Operator:
    """An operator's clock: the pipeline runs while the operator waits."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._simulation = pipeline.world.simulation

    def now(self) -> float:
        """Return UNIX seconds."""
        return self._simulation.now

    def sleep(self, seconds: float) -> None:
        """Let the pipeline run for that long."""
        self._simulation.run(self._simulation.now + seconds)


@dataclass(slots=True)
class Story:
    """The pipeline of the fault-injection tests, and what an operator does and sees.

    Attributes:
        pipeline: ingest, stream, worker, redrive and Treasure Data.
        clock: the operator's clock.
        accounting: takes balances.
        accepted: the numbers of accepted events, by database and table.
    """

    pipeline: Pipeline
    clock: _Operator
    accounting: Accounting
    accepted: dict[Place, set[int]] = field(default_factory=dict)
    _chance: random.Random = field(default_factory=lambda: random.Random(11))
    _number: int = 0

    def open_gates(self, until: float) -> None:
        """Send requests from now until a time."""

        def arrive() -> None:
            self._send()
            after = self.clock.now() + _SECONDS_BETWEEN_REQUESTS
            if after < until:
                self.pipeline.world.simulation.at(after, arrive)

        self.pipeline.world.simulation.at(self.clock.now(), arrive)

    def _send(self) -> None:
        account = self._chance.choice(list(ACCOUNTS))
        events = []
        for table in TABLES[account]:
            for _ in range(self._chance.randint(1, 4)):
                self._number += 1
                events.append((self._number, table))
                self.accepted.setdefault((ACCOUNTS[account], table), set()).add(self._number)
        visitor = f"visitor-{self._number % 16}"
        self.pipeline.send(Sent(self.clock.now(), account, visitor, "events", tuple(events)))

    def found(self) -> dict[Place, Counter[int]]:
        """Count how often each event is in Treasure Data, by database and table."""
        td = self.pipeline.world.td
        return {place: Counter(int(row["n"]) for row in td.rows(*place)) for place in self.accepted}

    def lose(self, begin: float, end: float) -> dict[Place, set[int]]:
        """Delete the rows of a time range from Treasure Data, and return their events."""
        before = self.found()
        for place in self.accepted:
            self.pipeline.world.td.lose(*place, int(begin), int(end))
        after = self.found()
        return {place: set(before[place] - after[place]) for place in self.accepted}

    def replay(self, begin: float | None = None, end: float | None = None, tag: str | None = None) -> int:
        """Replay a time range as `sluice replay` does, and return how many records were settled."""
        shards = Shards(self.pipeline.world.stream, STREAM, self.clock)  # type: ignore[arg-type]  # a double
        history = StreamHistory(shards, STREAM, self.pipeline.audit.archive, 30, self.clock)
        replay = Replay(history, self._invoke, self.clock)
        stretch = Stretch(RangeEnd(begin), RangeEnd(end), None if tag is None else ForcedReplay(tag))
        names = history.names(stretch.start, stretch.end)
        return sum(replay.shard(name, stretch, lambda _: None).records for name in names)

    def _invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        answers: list[Any] = []
        self.pipeline.worker.invoke(event, answers.append)
        while not answers:
            self.clock.sleep(_STEP_SECONDS)
        (outcome,) = answers
        return outcome.value if isinstance(outcome, Returned) else {}


def story() -> Story:
    """Return the story at its start."""
    setup = Setup(
        shards=2, databases=tuple(ACCOUNTS.items()), retention_hours=24, horizon=0.0, batch_size=5000
    )
    world = World(Schedule(1, setup, ()))
    pipeline = Pipeline(world, Functions(world))
    for account, tables in TABLES.items():
        for table in tables:
            world.td.create(ACCOUNTS[account], table)
    pipeline.begin()
    clock = _Operator(pipeline)
    accounting = Accounting(
        ledger=pipeline.audit.ledger,
        shards=Shards(world.stream, STREAM, clock),  # type: ignore[arg-type]  # a double
        store=pipeline.audit.store,
        archive=pipeline.audit.archive,
        sqs=world.queue,  # type: ignore[arg-type]  # a double
        queue_url=world.queue_url,
        clock=clock,
    )
    return Story(pipeline, clock, accounting)


def tell(told: Story, say: Callable[[str], None]) -> bool:
    """Play the story, print what happens, and return whether every count is right."""
    clock, simulation, start = told.clock, told.pipeline.world.simulation, told.clock.now()
    verdicts = []

    def check(what: str, *, right: bool) -> None:
        verdicts.append(right)
        say(f"  {'✓' if right else '✗'} {what}")

    def total(counted: dict[Place, Any]) -> int:
        return sum(one.total() if isinstance(one, Counter) else len(one) for one in counted.values())

    def complete() -> bool:
        return told.found() == {place: Counter(ids) for place, ids in told.accepted.items()}

    down, up = start + _HOUR, start + 4 * _HOUR
    told.pipeline.world.open(Window(Kind.TD_OUTAGE, down, up))
    told.open_gates(until=start + 5 * _HOUR)

    say(f"{screen.utc(start)}  Events are arriving.")
    simulation.run(down)
    say(
        f"{screen.utc(clock.now())}  Treasure Data goes down. {total(told.accepted):,} rows accepted, {total(told.found()):,} delivered."
    )
    simulation.run(up)
    balance = told.accounting.take()
    behind = screen.lasting(balance.unread.behind_seconds)
    say(
        f"{screen.utc(clock.now())}  It is back. {total(told.accepted):,} rows accepted, {total(told.found()):,} delivered, "
        f"{balance.total.aside.total():,} set aside; the stream is behind by {behind}."
    )
    while told.accounting.unread().behind_seconds > _BEHIND_SECONDS:
        simulation.run(clock.now() + _LOOK_SECONDS)
    say(f"{screen.utc(clock.now())}  The backlog has drained on its own.")
    while told.accounting.take().total.aside.total():
        simulation.run(clock.now() + _LOOK_SECONDS)
    say(f"{screen.utc(clock.now())}  All set-aside rows have been delivered.")
    simulation.run(start + 7 * _HOUR)
    balance = told.accounting.take()
    check(f"{total(told.accepted):,} rows accepted, each delivered once", right=complete())
    check(
        f"reconciled: {balance.total.received:,} received, {balance.total.delivered:,} delivered",
        right=balance.adds_up and balance.total.delivered == total(told.accepted),
    )

    begin, end = start + 1800, start + 5400
    simulation.run(start + 36 * _HOUR)
    lost = told.lose(begin, end)
    say(
        f"{screen.utc(clock.now())}  Treasure Data loses {screen.utc(begin)} to {screen.utc(end)}: {total(lost):,} rows."
    )
    after = told.found()
    say(f"  sluice replay: {told.replay():,} records read")
    check("a replay without --force changes nothing", right=total(lost) > 0 and told.found() == after)
    for again in ("", " again"):
        records = told.replay(begin, end, "lost-hour")
        say(
            f"  sluice replay --force --from {screen.utc(begin)} --to {screen.utc(end)}{again}: {records:,} records read"
        )
        check(
            "nothing changes"
            if again
            else f"exactly the {total(lost):,} lost rows are restored: {total(told.found()):,} in total",
            right=complete(),
        )
    told.replay()
    balance = told.accounting.take()
    check("a replay without --force over everything changes nothing", right=complete())
    sent_again = sum(one.delivered for one in balance.forced.values())
    check(
        f"reconciled: {balance.total.received:,} received, {sent_again:,} sent again by force",
        right=balance.adds_up
        and sent_again == total(lost)
        and balance.total.received == total(told.accepted),
    )
    return all(verdicts)


def main() -> None:
    """Play the story, and exit with status 1 if any count was wrong."""
    console = Console(highlight=False, soft_wrap=True)
    is_right = tell(story(), lambda line: console.print(line, markup=False))
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
