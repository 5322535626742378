"""`make demo-outage`: Treasure Data is down for three hours, a filter leaves out records, and an hour of rows is lost.

Runs in simulated time and counts, to the row, what is accepted, waits, is delivered and replayed.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.platform import Function
from chaos.schedule import START, Schedule, Setup
from chaos.traffic import TABLES, Sent
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

ACCOUNTS = {"shop": "shop", "news": "media"}
"""The accounts, each with its database."""
_HOUR, _FILTER, _BEHIND = 3600, 600, 60  # seconds


def _requests() -> Iterator[Sent]:
    """Yield a request every half a minute for five hours, and more of them while there is a filter."""
    chance, first = random.Random(11), 0
    for at in (*range(0, 5 * _HOUR, 30), *range(7 * _HOUR + 5, 7 * _HOUR + 2 * _FILTER, 5)):
        numbers = range(first, first + chance.randint(1, 8))
        first, events = numbers.stop, tuple((number, TABLES[0]) for number in numbers)
        yield Sent(START + at, chance.choice([*ACCOUNTS]), f"visitor-{first % 16}", "events", events)


class Story(Pipeline):
    """The pipeline, and what an operator does and sees. While the operator waits, it runs."""

    def __init__(self) -> None:
        setup = Setup(2, tuple(ACCOUNTS.items()), 168, 0.0, batch_size=5000, archive_days=30)
        world = World(Schedule(1, setup, tuple(_requests())))
        super().__init__(world, Functions(world), batch_window=10)
        self.begin()

    def wait_until(self, seconds: float) -> None:
        """Let the pipeline run until so many seconds after the start."""
        self.world.simulation.run(START + seconds)

    @property
    def delivered(self) -> list[int]:
        """The events in Treasure Data, one for each row."""
        return [int(row["n"]) for taken in self.world.td.imports() for row in taken.rows]

    @property
    def is_complete(self) -> bool:
        """Whether each event that was sent is in Treasure Data once."""
        return Counter(self.delivered) == Counter(self.sent.keys())

    def replay(self) -> Replayed:
        """Replay the whole stream as `sluice replay` does, until nothing waits."""
        clock, audit = ManualClock(self.world.simulation.now), self.audit  # nothing runs while it reads
        stream = StreamReader(ReadableShards(self.world.stream, STREAM, clock), clock)  # type: ignore[arg-type]  # a double
        planned = Planned(Membership(audit.ledger, audit.objects))
        replay = Replay(stream, partial(self._result, self.worker), clock, planned)
        shards = [replay.shard(name, RangeEnd(), RangeEnd(), lambda _: None) for name in stream.shards()]
        while waiting := planned.waiting():
            self._result(self.sender, {"chunks": [name for names in waiting.values() for name in names]})
            planned.refresh(audit.ledger.get_all(waiting).values())
        return planned.replayed(sum(shard.rows for shard in shards))

    def force(self, since: float, until: float) -> tuple[int, int]:
        """Send delivered rows that arrived in a time range again, as `sluice replay --force` does; return how many, and how many were before."""
        spans = planned_spans.spans(self.audit.ledger, self.audit.objects, since, until)
        places = [[span.chain.name, span.after] for span in spans if not span.chain.is_forced]
        asked = {"tag": "lost", "since": round(since * 1000), "until": round(until * 1000), "places": places}
        result = self._result(self.sender, {"force": asked})
        self._result(self.sender, {})
        return sum(result["appended"].values()), sum(result["repeated"].values())

    def _result(self, function: Function, event: dict[str, Any]) -> dict[str, Any]:
        outcomes = list[Outcome]()
        function.invoke(event, outcomes.append)
        while not outcomes:
            self._wait(0.5)
        return outcomes[0].value if isinstance(outcomes[0], Returned) else {}


def tell(story: Story, say: Callable[[str], None]) -> bool:
    """Play the story, print what happens, and return whether every count is right."""
    verdicts, world, sent, balance = list[bool](), story.world, story.sent, story.audit.balance

    def note(what: str) -> None:
        say(f"{screen.utc(world.simulation.now)}  {what}")

    def check(what: str, *, right: bool) -> None:
        verdicts.append(right)
        say(f"  {'✓' if right else '✗'} {what}")

    world.open(Window(Kind.TD_OUTAGE, START + _HOUR, START + 4 * _HOUR))
    note("Events are arriving.")
    story.wait_until(_HOUR)
    left = f"{len(sent) - len(story.delivered):,} on the way"
    note(f"Treasure Data goes down. {len(sent):,} rows accepted, {len(story.delivered):,} delivered, {left}.")
    story.wait_until(4 * _HOUR)
    books = balance()
    waiting, behind = books.total.waiting, books.unread.behind_seconds
    left = f"{waiting:,} wait, {len(sent) - len(story.delivered) - waiting:,} on the way"
    note(f"It is back. {len(sent):,} rows accepted, {len(story.delivered):,} delivered, {left}.")
    text = f"the stream is behind by {screen.lasting(behind)}: the outage has not held it"
    check(text, right=behind <= _BEHIND)
    while balance().total.waiting:
        story.wait_until(world.simulation.now - START + 60)
    note("All rows that waited have been delivered.")
    story.wait_until(7 * _HOUR)
    check(f"{len(sent):,} rows accepted, each delivered once", right=story.is_complete)
    books = balance()
    text = f"reconciled: {books.total.received:,} received, {books.total.delivered:,} delivered"
    check(text, right=books.adds_up and books.total.delivered == len(sent))

    world.open(Window(Kind.FILTERED, START + 7 * _HOUR, START + 7 * _HOUR + _FILTER))
    story.wait_until(7 * _HOUR + 3 * _FILTER)
    left_out = len(sent) - len(story.delivered)
    note(f"A filter of the event source has left out records: {left_out:,} rows.")
    replayed = story.replay()
    say(f"  sluice replay: {replayed.sent:,} rows sent, {replayed.passed_over:,} skipped")
    text = f"exactly the {left_out:,} rows that were left out are delivered"
    check(text, right=story.is_complete and 0 < left_out == replayed.sent)

    story.wait_until(36 * _HOUR)
    since, until = (START + _HOUR / 2, START + _HOUR * 3 / 2)
    lost = sum(world.td.lose(one, TABLES[0], int(since), int(until)) for one in ACCOUNTS.values())
    begin, end = screen.utc(since), screen.utc(until)
    note(f"Treasure Data loses {begin} to {end}: {lost:,} rows.")
    for again in ("", " again"):
        forced, before = story.force(since, until)
        command = f"sluice replay --force --from {begin} --to {end}{again}"
        say(f"  {command}: {forced:,} rows sent, {before:,} sent before")
        text = "nothing changes" if again else f"exactly the {lost:,} lost rows are restored"
        check(f"{text}: {len(story.delivered):,} in total", right=story.is_complete and lost > 0)
    books = balance()
    forced = sum(one.delivered for one in books.forced.values())
    text = f"reconciled: {books.total.received:,} received, {forced:,} sent again by force"
    check(text, right=books.adds_up and forced == lost and books.total.received == len(sent))
    return all(verdicts)


def main() -> None:
    """Play the story."""
    sys.exit(not tell(Story(), screen.say))
