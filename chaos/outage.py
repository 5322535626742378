"""`make demo-outage`: Treasure Data is down for three hours, a filter leaves out records, and an hour of rows is lost.

Runs in simulated time and counts, to the row, what is accepted, waits, is delivered and replayed.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.console import Console

from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.platform import Function
from chaos.schedule import Schedule, Setup
from chaos.traffic import Sent
from chaos.trouble import Kind, Window
from chaos.world import STREAM, World
from doubles.event_source import Returned
from ops import screen
from ops.books import planned_spans
from ops.books.replayed import Planned, Replayed
from ops.stream.reader import RangeEnd, StreamReader
from ops.stream.replayer import Replay, Stretch
from worker.membership import Membership
from worker.shards import Shards
from worker.states import State

ACCOUNTS = {"shop": "shop", "news": "media"}
TABLES = {"shop": ("pageviews", "orders"), "news": ("pageviews",)}

_HOUR = 3600.0
_SECONDS_BETWEEN_REQUESTS = 30.0
_LOOK_SECONDS = 60.0
_BEHIND_SECONDS = 60.0
_STEP_SECONDS = 0.5
_FILTER_SECONDS = 600.0

Place = tuple[str, str]


class _Clock:
    """An operator's clock: the pipeline runs while the operator waits, unless nobody does."""

    def __init__(self, pipeline: Pipeline, *, waits: bool = True) -> None:
        self._simulation = pipeline.world.simulation
        self._waits = waits

    def now(self) -> float:
        """Return UNIX seconds."""
        return self._simulation.now

    def sleep(self, seconds: float) -> None:
        """Let the pipeline run for that long."""
        if self._waits:
            self._simulation.run(self._simulation.now + seconds)


@dataclass(slots=True)
class Story:
    """The pipeline of the fault-injection tests, and what an operator does and sees."""

    pipeline: Pipeline  # ingest, stream, worker, sender and Treasure Data
    clock: _Clock  # the operator's clock
    # the numbers of accepted events, by database and table
    accepted: dict[Place, set[int]] = field(default_factory=dict)
    _chance: random.Random = field(default_factory=lambda: random.Random(11))
    _number: int = 0

    def open_gates(self, until: float, every: float = _SECONDS_BETWEEN_REQUESTS) -> None:
        """Send requests from now until a time, one in `every` seconds."""

        def arrive() -> None:
            self._send()
            after = self.clock.now() + every
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

    @property
    def waiting(self) -> int:
        """The number of rows that wait."""
        states = self.pipeline.audit.balance().total.states
        return states[State.WAITING] + states[State.AGAIN]

    def replay(self) -> Replayed:
        """Replay the whole stream as `sluice replay --wait` does."""
        moment, audit = _Clock(self.pipeline, waits=False), self.pipeline.audit
        stream = StreamReader(Shards(self.pipeline.world.stream, STREAM, moment), moment)  # type: ignore[arg-type]  # a double
        planned = Planned(Membership(audit.ledger, audit.objects))
        replay = Replay(stream, partial(self._invoke, self.pipeline.worker), self.clock, planned)
        stretch = Stretch(RangeEnd(), RangeEnd())
        rows = sum(replay.shard(name, stretch, lambda _: None).rows for name in stream.shards())
        while waiting := planned.waiting():
            chunks = [name for names in waiting.values() for name in names]
            self._invoke(self.pipeline.sender, {"chunks": chunks})
            planned.refresh(filter(None, map(audit.ledger.get, waiting)))
        return planned.replayed(rows)

    def force(self, begin: float, end: float, tag: str) -> dict[str, int]:
        """Send delivered rows that arrived in a time range again, as `sluice replay --force` does; return numbers of rows."""
        audit = self.pipeline.audit
        spans = planned_spans.spans(audit.ledger, audit.objects, begin, end)
        places = [[span.chain.name, span.after] for span in spans if not span.chain.is_forced]
        asked = {"tag": tag, "since": round(begin * 1000), "until": round(end * 1000), "places": places}
        answer = self._invoke(self.pipeline.sender, {"force": asked})
        self._invoke(self.pipeline.sender, {})
        return {name: sum(answer[name].values()) for name in ("appended", "repeated", "left_out")}

    def _invoke(self, function: Function, event: dict[str, Any]) -> dict[str, Any]:
        answers: list[Any] = []
        function.invoke(event, answers.append)
        while not answers:
            self.clock.sleep(_STEP_SECONDS)
        (outcome,) = answers
        return outcome.value if isinstance(outcome, Returned) else {}


def story() -> Story:
    """Return the story at its start."""
    setup = Setup(
        shards=2,
        databases=tuple(ACCOUNTS.items()),
        retention_hours=168,
        horizon=0.0,
        batch_size=5000,
        archive_days=30,
    )
    world = World(Schedule(1, setup, ()))
    pipeline = Pipeline(world, Functions(world), batch_window=10)
    for account, tables in TABLES.items():
        for table in tables:
            world.td.create(ACCOUNTS[account], table)
    pipeline.begin()
    return Story(pipeline, _Clock(pipeline))


def tell(told: Story, say: Callable[[str], None]) -> bool:
    """Play the story, print what happens, and return whether every count is right."""
    clock, simulation, start = told.clock, told.pipeline.world.simulation, told.clock.now()
    verdicts = []

    def check(what: str, *, right: bool) -> None:
        verdicts.append(right)
        say(f"  {'✓' if right else '✗'} {what}")

    def note(what: str) -> None:
        say(f"{screen.utc(clock.now())}  {what}")

    def total(counted: dict[Place, Any]) -> int:
        return sum(one.total() if isinstance(one, Counter) else len(one) for one in counted.values())

    def complete() -> bool:
        return told.found() == {place: Counter(ids) for place, ids in told.accepted.items()}

    down, up = start + _HOUR, start + 4 * _HOUR
    told.pipeline.world.open(Window(Kind.TD_OUTAGE, down, up))
    told.open_gates(until=start + 5 * _HOUR)

    note("Events are arriving.")
    simulation.run(down)
    note(
        f"Treasure Data goes down. {total(told.accepted):,} rows accepted, {total(told.found()):,} delivered."
    )
    simulation.run(up)
    behind = told.pipeline.audit.balance().unread.behind_seconds
    note(
        f"It is back. {total(told.accepted):,} rows accepted, {total(told.found()):,} delivered, "
        f"{told.waiting:,} wait."
    )
    check(
        f"the stream is behind by {screen.lasting(behind)}: the outage has not held it",
        right=behind <= _BEHIND_SECONDS,
    )
    while told.waiting:
        simulation.run(clock.now() + _LOOK_SECONDS)
    note("All rows that waited have been delivered.")
    simulation.run(start + 7 * _HOUR)
    balance = told.pipeline.audit.balance()
    check(f"{total(told.accepted):,} rows accepted, each delivered once", right=complete())
    check(
        f"reconciled: {balance.total.received:,} received, {balance.total.delivered:,} delivered",
        right=balance.adds_up and balance.total.delivered == total(told.accepted),
    )

    told.pipeline.world.open(Window(Kind.FILTERED, clock.now(), clock.now() + _FILTER_SECONDS))
    told.open_gates(until=clock.now() + 2 * _FILTER_SECONDS, every=5.0)
    simulation.run(clock.now() + 3 * _FILTER_SECONDS)
    passed_over = total(told.accepted) - total(told.found())
    note(f"A filter of the event source has left out records: {passed_over:,} rows.")
    replayed = told.replay()
    say(f"  sluice replay --wait: {replayed.sent:,} rows sent, {replayed.passed_over:,} skipped")
    check(
        f"exactly the {passed_over:,} rows that were left out are delivered",
        right=complete() and 0 < passed_over == replayed.sent,
    )

    begin, end = start + 1800, start + 5400
    simulation.run(start + 36 * _HOUR)
    lost = told.lose(begin, end)
    note(f"Treasure Data loses {screen.utc(begin)} to {screen.utc(end)}: {total(lost):,} rows.")
    after = told.found()
    say(f"  sluice replay: {told.replay().sent:,} rows sent")
    check("a replay without --force changes nothing", right=total(lost) > 0 and told.found() == after)
    for again in ("", " again"):
        rows = told.force(begin, end, "lost-hour")
        say(
            f"  sluice replay --force --from {screen.utc(begin)} --to {screen.utc(end)}{again}: "
            f"{rows['appended']:,} rows sent, {rows['repeated']:,} sent before"
        )
        check(
            "nothing changes"
            if again
            else f"exactly the {total(lost):,} lost rows are restored: {total(told.found()):,} in total",
            right=complete(),
        )
    balance = told.pipeline.audit.balance()
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
