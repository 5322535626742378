"""`make demo-outage`: Treasure Data was down last night, and later it lost an hour of rows.

Three hours of outage in simulated time. What flows, waits, drains and is replayed is counted to the row.
"""

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto import mock_aws
from redis import Redis
from rich.console import Console

from doubles.clock import ManualClock
from doubles.treasure_data import Fault, Kind, Settings, TreasureData
from local import valkey
from local.simulation import STREAM, Simulation
from ops import screen
from ops.replay import Replay, Stretch
from ops.stream import Border, Stream
from shared import rows
from shared.accounts import Account
from shared.envelope import Envelope, TableRows
from worker.forced import Forced
from worker.register import apply

ACCOUNTS = {"shop": Account("shop"), "news": Account("media")}
TABLES = {"shop": ("pageviews", "orders"), "news": ("pageviews",)}

_EVENING = 1_764_021_600.0  # 2025-11-24T22:00:00Z
_HOUR = 3600.0
_SECONDS_BETWEEN_REQUESTS = 6.0

_LOOK_SECONDS = 60.0
_BEHIND_SECONDS = 180.0

Place = tuple[str, str]


@dataclass(slots=True)
class _Heard:
    """What the worker counts."""

    counts: Counter[str] = field(default_factory=Counter)

    def count(self, metric: str, value: int = 1) -> None:
        self.counts[metric] += value

    def note(self, message: str, **fields: Any) -> None:
        pass

    def flush(self) -> None:
        pass


@dataclass(slots=True)
class Story:
    """Everything that the story is about, and the steps in which it happens.

    Attributes:
        clock: the simulated time.
        simulation: the delivery.
        td: Treasure Data.
        accepted: ids of accepted events by database and table.
    """

    clock: ManualClock
    simulation: Simulation
    td: TreasureData
    heard: _Heard
    accepted: dict[Place, set[str]] = field(default_factory=dict)
    _chance: random.Random = field(default_factory=lambda: random.Random(11))  # noqa: S311 -- traffic is no secret
    _requests: int = 0

    def open_gates(self, until: float) -> None:
        """Let requests come from now on, up to a time."""

        def arrive() -> None:
            self._accept()
            after = self.clock.now() + _SECONDS_BETWEEN_REQUESTS
            if after < until:
                self.clock.at(after, arrive)

        self.clock.at(self.clock.now(), arrive)

    def _accept(self) -> None:
        """Put one request's rows on the stream, as the ingest does."""
        now = self.clock.now()
        self._requests += 1
        account = self._chance.choice(list(ACCOUNTS))
        arrival = rows.Arrival(round(now * 1000))
        tables = []
        for table in TABLES[account]:
            ids = [f"{table}-{self._requests}-{index}" for index in range(self._chance.randint(1, 4))]
            encoded = [rows.encode({"event_id": event_id}, arrival, str) for event_id in ids]
            tables.append(TableRows(table, len(ids), b"".join(encoded)))
            self.accepted.setdefault((ACCOUNTS[account].database, table), set()).update(ids)
        request_id = f"request-{self._requests}"
        data = Envelope(account, "k1", round(now * 1000), request_id, 0, tuple(tables)).encode()
        self.simulation.put(data, f"{account}/{self._requests % 16}")

    def found(self) -> dict[Place, Counter[str]]:
        """Return how often each event stands in Treasure Data, by database and table."""
        return {place: Counter(row["event_id"] for row in self.td.rows(*place)) for place in self.accepted}

    def lose(self, begin: float, end: float) -> dict[Place, set[str]]:
        """Let Treasure Data lose the rows of a span of time, and return which."""
        before = self.found()
        for place in self.accepted:
            self.td.lose(*place, int(begin), int(end))
        after = self.found()
        return {place: set(before[place] - after[place]) for place in self.accepted}

    def replay(self, begin: float | None = None, end: float | None = None, tag: str | None = None) -> int:
        """Replay a stretch, as `sluice replay` does, and return how many records were settled."""
        stream = Stream(self.simulation.kinesis, STREAM, self.clock)
        replay = Replay(stream, self.simulation.invoke, self.clock)
        stretch = Stretch(Border(begin), Border(end), None if tag is None else Forced(tag))
        return sum(replay.shard(shard, stretch, lambda _: None).records for shard in stream.shards())


@contextmanager
def story() -> Iterator[Story]:
    """Build everything, and take it down afterwards."""
    clock = ManualClock(_EVENING)
    with tempfile.TemporaryDirectory(prefix="sluice-outage-") as folder, mock_aws():
        server, port = valkey.start(Path(folder), is_quiet=True)
        try:
            with Redis(port=port, decode_responses=True) as redis:
                apply(redis, ACCOUNTS, clock.now())
                td = TreasureData(clock=clock, settings=Settings(query_delay=60.0))
                for account, tables in TABLES.items():
                    for table in tables:
                        td.create(ACCOUNTS[account].database, table)
                heard = _Heard()
                yield Story(clock, Simulation(clock, redis, td, heard), td, heard)
        finally:
            server.terminate()
            server.wait()


def tell(told: Story, say: Callable[[str], None]) -> bool:
    """Let the story happen, say what is seen, and return whether every count is right."""
    clock, simulation, start = told.clock, told.simulation, told.clock.now()
    verdicts = []

    def check(what: str, *, right: bool) -> None:
        verdicts.append(right)
        say(f"  {'✓' if right else '✗'} {what}")

    def total(counted: dict[Place, Any]) -> int:
        return sum(one.total() if isinstance(one, Counter) else len(one) for one in counted.values())

    def complete() -> bool:
        return told.found() == {place: Counter(ids) for place, ids in told.accepted.items()}

    down, up = start + _HOUR, start + 4 * _HOUR
    told.td.faults.add(Fault(kind=Kind.STATUS, status=503, begin=down, end=up))
    told.open_gates(until=start + 5 * _HOUR)

    say(f"{screen.utc(start)}  Events flow.")
    simulation.run(down)
    say(
        f"{screen.utc(clock.now())}  Treasure Data goes down. {total(told.accepted):,} rows accepted, {total(told.found()):,} there."
    )
    simulation.run(up)
    balance = simulation.accounting.take()
    behind = screen.lasting(balance.unread.behind_seconds)
    say(
        f"{screen.utc(clock.now())}  It is back. {total(told.accepted):,} rows accepted, {total(told.found()):,} there, "
        f"{balance.total.aside.total():,} set aside; the stream is behind by {behind}."
    )
    while simulation.accounting.unread().behind_seconds > _BEHIND_SECONDS:
        simulation.run(clock.now() + _LOOK_SECONDS)
    say(f"{screen.utc(clock.now())}  The backlog has drained by itself.")
    while simulation.accounting.take().total.aside.total():
        simulation.run(clock.now() + _LOOK_SECONDS)
    say(f"{screen.utc(clock.now())}  What was set aside in doubt was asked for, and is there.")
    simulation.run(start + 7 * _HOUR)
    balance = simulation.accounting.take()
    check(f"{total(told.accepted):,} rows accepted, each of them there once", right=complete())
    check(
        f"the books agree: {balance.total.received:,} received, {balance.total.delivered:,} delivered",
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
            else f"exactly the {total(lost):,} lost rows are back: {total(told.found()):,} in all",
            right=complete(),
        )
    told.replay()
    balance = simulation.accounting.take()
    check("a replay without --force over everything changes nothing", right=complete())
    sent_again = sum(one.delivered for one in balance.forced.values())
    check(
        f"the books agree: {balance.total.received:,} received, {sent_again:,} sent again by force",
        right=balance.adds_up
        and sent_again == total(lost)
        and balance.total.received == total(told.accepted),
    )
    return all(verdicts)


def main() -> None:
    """Tell the story; the exit status says whether it is true."""
    console = Console(highlight=False, soft_wrap=True)
    with story() as told:
        is_right = tell(told, lambda line: console.print(line, markup=False))
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
