"""`make demo-outage`: Treasure Data is down for three hours, a filter leaves out records, and an hour of rows is lost.

Runs in simulated time and counts, to the row, what is accepted, waits, is delivered and replayed.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable
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
from doubles.clock import ManualClock
from doubles.event_source import Outcome, Returned
from ops import screen
from ops.books import planned_spans
from ops.books.replayed import Planned, Replayed
from ops.stream.readable_shards import ReadableShards
from ops.stream.reader import RangeEnd, StreamReader
from ops.stream.replayer import Replay
from worker.membership import Membership
from worker.states import State

ACCOUNTS = {"shop": "shop", "news": "media"}
"""The accounts, each with its database."""
TABLE = "pageviews"

_HOUR, _FILTER_SECONDS, _BEHIND_SECONDS = 3600.0, 600.0, 60.0


class Story:
    """The pipeline of the fault-injection tests, and what an operator does and sees. While the operator waits, it runs."""

    def __init__(self) -> None:
        setup = Setup(2, tuple(ACCOUNTS.items()), 168, 0.0, batch_size=5000, archive_days=30)
        self.world = World(Schedule(1, setup, ()))
        self.pipeline = Pipeline(self.world, Functions(self.world), batch_window=10)
        self.sent = 0  # rows that were accepted
        self._chance = random.Random(11)
        for database in ACCOUNTS.values():
            self.world.td.create(database, TABLE)
        self.pipeline.begin()

    def now(self) -> float:
        """Return UNIX seconds."""
        return self.world.simulation.now

    def sleep(self, seconds: float) -> None:
        """Let the pipeline run for that long."""
        self.world.simulation.run(self.now() + seconds)

    def open_gates(self, until: float, every: float) -> None:
        """Send requests from now until a time, one in `every` seconds."""
        numbers = range(self.sent, self.sent + self._chance.randint(1, 8))
        self.sent, events = numbers.stop, tuple((number, TABLE) for number in numbers)
        account = self._chance.choice(list(ACCOUNTS))
        self.pipeline.send(Sent(self.now(), account, f"visitor-{self.sent % 16}", "events", events))
        if self.now() + every < until:
            self.world.simulation.at(self.now() + every, partial(self.open_gates, until, every))

    def found(self) -> Counter[int]:
        """Count how often each event is in Treasure Data."""
        rows = (row for database in ACCOUNTS.values() for row in self.world.td.rows(database, TABLE))
        return Counter(int(row["n"]) for row in rows)

    @property
    def delivered(self) -> int:
        """The number of rows in Treasure Data."""
        return self.found().total()

    @property
    def is_complete(self) -> bool:
        """Whether each accepted event is in Treasure Data once."""
        return self.found() == Counter(range(self.sent))

    def lose(self, begin: float, end: float) -> None:
        """Delete the rows of a time range from Treasure Data."""
        for database in ACCOUNTS.values():
            self.world.td.lose(database, TABLE, int(begin), int(end))

    @property
    def waiting(self) -> int:
        """The number of rows that wait."""
        states = self.pipeline.audit.balance().total.states
        return states[State.WAITING] + states[State.AGAIN]

    def replay(self) -> Replayed:
        """Replay the whole stream as `sluice replay --wait` does."""
        moment, audit = ManualClock(self.now()), self.pipeline.audit  # nothing runs while it reads
        stream = StreamReader(ReadableShards(self.world.stream, STREAM, moment), moment)  # type: ignore[arg-type]  # a double
        planned = Planned(Membership(audit.ledger, audit.objects))
        replay = Replay(stream, partial(self._invoke, self.pipeline.worker), self, planned)
        whole = RangeEnd(), RangeEnd()
        rows = sum(replay.shard(name, *whole, lambda _: None).rows for name in stream.shards())
        while waiting := planned.waiting():
            chunks = [name for names in waiting.values() for name in names]
            self._invoke(self.pipeline.sender, {"chunks": chunks})
            planned.refresh(filter(None, map(audit.ledger.get, waiting)))
        return planned.replayed(rows)

    def force(self, begin: float, end: float) -> tuple[int, int]:
        """Send delivered rows that arrived in a time range again, as `sluice replay --force` does; return how many, and how many were before."""
        audit = self.pipeline.audit
        spans = planned_spans.spans(audit.ledger, audit.objects, begin, end)
        places = [[span.chain.name, span.after] for span in spans if not span.chain.is_forced]
        asked = {"tag": "lost", "since": round(begin * 1000), "until": round(end * 1000), "places": places}
        answer = self._invoke(self.pipeline.sender, {"force": asked})
        self._invoke(self.pipeline.sender, {})
        return sum(answer["appended"].values()), sum(answer["repeated"].values())

    def _invoke(self, function: Function, event: dict[str, Any]) -> dict[str, Any]:
        answers = list[Outcome]()
        function.invoke(event, answers.append)
        while not answers:
            self.sleep(0.5)
        return answers[0].value if isinstance(answers[0], Returned) else {}


def tell(told: Story, say: Callable[[str], None]) -> bool:
    """Play the story, print what happens, and return whether every count is right."""
    start, verdicts, balance = told.now(), [], told.pipeline.audit.balance

    def check(what: str, *, right: bool) -> None:
        verdicts.append(right)
        say(f"  {'✓' if right else '✗'} {what}")

    def note(what: str) -> None:
        say(f"{screen.utc(told.now())}  {what}")

    told.world.open(Window(Kind.TD_OUTAGE, start + _HOUR, start + 4 * _HOUR))
    told.open_gates(until=start + 5 * _HOUR, every=30.0)
    note("Events are arriving.")
    told.sleep(_HOUR)
    note(f"Treasure Data goes down. {told.sent:,} rows accepted, {told.delivered:,} delivered.")
    told.sleep(3 * _HOUR)
    note(f"It is back. {told.sent:,} rows accepted, {told.delivered:,} delivered, {told.waiting:,} wait.")
    behind = balance().unread.behind_seconds
    text = f"the stream is behind by {screen.lasting(behind)}: the outage has not held it"
    check(text, right=behind <= _BEHIND_SECONDS)
    while told.waiting:
        told.sleep(60)
    note("All rows that waited have been delivered.")
    told.sleep(start + 7 * _HOUR - told.now())
    check(f"{told.sent:,} rows accepted, each delivered once", right=told.is_complete)
    books = balance()
    text = f"reconciled: {books.total.received:,} received, {books.total.delivered:,} delivered"
    check(text, right=books.adds_up and books.total.delivered == told.sent)

    told.world.open(Window(Kind.FILTERED, told.now(), told.now() + _FILTER_SECONDS))
    told.open_gates(until=told.now() + 2 * _FILTER_SECONDS, every=5.0)
    told.sleep(3 * _FILTER_SECONDS)
    left_out = told.sent - told.delivered
    note(f"A filter of the event source has left out records: {left_out:,} rows.")
    replayed = told.replay()
    say(f"  sluice replay --wait: {replayed.sent:,} rows sent, {replayed.passed_over:,} skipped")
    text = f"exactly the {left_out:,} rows that were left out are delivered"
    check(text, right=told.is_complete and 0 < left_out == replayed.sent)

    begin, end = start + 1800, start + 5400
    told.sleep(start + 36 * _HOUR - told.now())
    told.lose(begin, end)
    lost = told.sent - told.delivered
    note(f"Treasure Data loses {screen.utc(begin)} to {screen.utc(end)}: {lost:,} rows.")
    command = f"sluice replay --force --from {screen.utc(begin)} --to {screen.utc(end)}"
    for again in ("", " again"):
        sent, before = told.force(begin, end)
        say(f"  {command}{again}: {sent:,} rows sent, {before:,} sent before")
        text = "nothing changes" if again else f"exactly the {lost:,} lost rows are restored"
        check(f"{text}: {told.delivered:,} in total", right=told.is_complete and lost > 0)
    books = balance()
    forced = sum(one.delivered for one in books.forced.values())
    text = f"reconciled: {books.total.received:,} received, {forced:,} sent again by force"
    check(text, right=books.adds_up and forced == lost and books.total.received == told.sent)
    return all(verdicts)


def main() -> None:
    """Play the story, and exit with status 1 if any count was wrong."""
    console = Console(highlight=False, soft_wrap=True)
    sys.exit(not tell(Story(), partial(console.print, markup=False)))


if __name__ == "__main__":
    main()
