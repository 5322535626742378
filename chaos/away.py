"""`make outage`: Treasure Data hangs or refuses connections, or Redis is away, for hours under load.

The real worker and sender run in simulated time, beside Lambda's event source and the sender's schedule. Rows are counted, not encoded:
an envelope says how many rows it has, and holds one. Each chunk of a span goes to a database of its own. When the outage begins, Lambda
starts new function instances, which know no account and no database.
"""

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing import get_context
from typing import Any, NamedTuple
from urllib.parse import urlencode

import click
import msgpack
import requests
from rich.console import Console
from rich.table import Table
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import MaxRetryError, NewConnectionError

from chaos import clients
from chaos.audit import Audit
from chaos.pipeline import Pipeline
from chaos.scale import BATCH_SIZE, BATCH_WINDOW, TimedFunctions, keys_of_shards, shards_for
from chaos.schedule import START, Schedule, Setup
from chaos.traffic import TABLES
from chaos.trouble import Kind, Window
from chaos.world import STREAM, World
from doubles.http_server import Drop, Request
from local.functions import TEMPLATE, WORKER
from shared.envelope import Envelope, TableRows
from worker.ledger import WORKLIST_KEYS
from worker.sender import UNSETTLED_SECONDS
from worker.states import State

OUTAGES = {
    "hanging": Kind.TD_HANGING_DATABASE,
    "refusing": Kind.TD_LONG_OUTAGE,
    "redis": Kind.REDIS_LONG_OUTAGE,
}
LAG_SECONDS, ALARM_SECONDS, DRAIN_SECONDS = 60.0, 300.0, 3600.0
"""The stream's lag stays below the first; an alarm is raised, and all is delivered after the end, within the others."""

_DRAINS_AT = 20  # chunks in a span, or fewer; the others' delivery is not waited for
_WARM, _FIRST, _REST = 330.0, 60.0, 360.0
_ALARM = TEMPLATE.properties("WaitingWarnAlarm")
_SHOWN_EVERY = 1800.0
_COLUMNS = (
    *("outage", "events/s", "chunks a span", "spans", "lag", "doubts", "later", "alarm after"),
    *("delivered after", "queries", "rows", "lost", "doubled", "broken"),
)


@dataclass(frozen=True)
class Case:
    """An outage to simulate: its kind, events a second, chunks in a span, and hours."""

    kind: str
    rate: float
    chunks: int
    hours: float

    @cached_property
    def shards(self) -> int:
        """The shards that an AUTO stream has at this rate."""
        return shards_for(self.rate)

    @cached_property
    def rows(self) -> int:
        """The rows of a record, so that a batch as large as Lambda makes it has a record for each chunk."""
        batch = min(BATCH_SIZE, self.rate / self.shards * BATCH_WINDOW)
        return max(1, round(batch / self.chunks))


@dataclass(slots=True)
class Result:
    """What a simulation showed.

    Attributes:
        lag: the longest time from a record's arrival until it was in a span, in seconds.
        doubts: chunks in doubt at the end of the outage that were planned in its first minute.
        later_doubts: chunks in doubt that were planned later.
        alarm: seconds from the beginning until the alarm.
        drained: seconds from the end until nothing waited that had been planned before; None if that was not reached.
        lost: rows that are neither in Treasure Data nor wait.
        doubled: rows that are in Treasure Data more than once.
        left: rows that wait at the end of the simulation.
    """

    case: Case
    spans: int = 0
    rows: int = 0
    lag: float = 0.0
    doubts: int = 0
    later_doubts: int = 0
    alarm: float | None = None
    drained: float | None = None
    queries: int = 0
    lost: int = 0
    doubled: int = 0
    left: int = 0

    @property
    def broken(self) -> list[str]:
        """The broken promises."""
        drains = self.case.chunks <= _DRAINS_AT
        found = {
            "lag": self.lag >= LAG_SECONDS,
            "doubts": self.doubts > self.case.chunks * self.case.shards,
            "later": self.later_doubts > 0,
            "alarm": self.alarm is None or self.alarm > ALARM_SECONDS,
            "delivered": drains and (self.drained is None or self.drained > DRAIN_SECONDS),
            "lost": self.lost > 0,
            "doubled": self.doubled > 0,
        }
        return [name for name, is_broken in found.items() if is_broken]


class _Session:
    """Carries requests to Treasure Data as `requests.Session` does, in a fifth of the time."""

    def __init__(self, world: World) -> None:
        self._transport = clients.TreasureDataTransport(world.td.handle, world.effects)
        self._clock = world.clock

    @contextmanager
    def request(
        self, method: str, url: str, *, headers: dict[str, str | None], data: Any, timeout: Any, **_: object
    ) -> Iterator["_Answer"]:
        """Send a request."""
        body = urlencode(data).encode() if isinstance(data, dict) else data or b""
        path = url.partition("://")[2].partition("/")
        sent = tuple((name, value) for name, value in headers.items() if value is not None)
        answer = self._transport(Request(method, "/" + path[2], sent, body))
        if answer.drop == Drop.REFUSE:
            refused = NewConnectionError(HTTPConnection("td"), "Connection refused")
            raise requests.ConnectionError(MaxRetryError(HTTPConnectionPool("td"), url, refused))
        if answer.delay:
            self._clock.sleep(min(answer.delay, timeout.read_timeout))
        if answer.delay >= timeout.read_timeout:
            raise requests.ReadTimeout
        yield _Answer(answer.status, dict(answer.headers), answer.body)


class _Answer(NamedTuple):
    status_code: int
    headers: dict[str, str]
    body: bytes

    def iter_content(self, _size: int) -> tuple[bytes, ...]:
        """Return the body's pieces."""
        return (self.body,)


class _Traffic:
    """Puts records on each shard at a constant rate, until a time.

    Attributes:
        sent: how many so far.
        until: UNIX seconds.
    """

    def __init__(self, world: World, case: Case, until: float) -> None:
        self.sent = 0
        self.until = until
        self._world, self._case = world, case
        self._keys = keys_of_shards(world)
        self._every = case.rows * case.shards / case.rate  # seconds between two records of a shard
        self._turn = 0
        world.simulation.at(START, self._put)

    def _put(self) -> None:
        now = self._world.simulation.now
        due = math.ceil((now - START) / self._every) - self._turn
        for _ in range(due):
            records = [self._record(now, key) for key in self._keys]
            self._world.stream.put_records(StreamName=STREAM, Records=records)
            self._turn += 1
        if now < self.until:
            self._world.simulation.at(now + max(1.0, self._every), self._put)

    def _record(self, now: float, key: str) -> dict[str, Any]:
        name = f"{self.sent:x}"
        received = round(now * 1000)
        row = {"time": received // 1000, "received_at": received, "event_id": name, "n": self.sent}
        rows = (TableRows(TABLES[0], self._case.rows, msgpack.packb(row)),)
        envelope = Envelope(f"acct_{self._turn % self._case.chunks}", "k1", received, name, 0, rows)
        self.sent += 1
        return {"Data": envelope.encode(), "PartitionKey": "-", "ExplicitHashKey": key}


def simulate(case: Case, say: Callable[[str], None] | None = None) -> Result:
    """Simulate an outage; `say` is told how far it is."""
    took, result = time.perf_counter(), Result(case)
    begin = START + _WARM
    end = begin + case.hours * 3600

    def show(what: str) -> None:
        if say is not None:
            name = f"{case.kind}, {case.rate:,g} a second, {case.chunks} chunks"
            say(f"{name}: {what} ({time.perf_counter() - took:.0f} s)")

    setup = Setup(
        shards=case.shards,
        databases=tuple((f"acct_{number}", f"db_{number}") for number in range(case.chunks)),
        retention_hours=1,
        horizon=end - START,
        batch_size=case.chunks if case.rows > 1 else BATCH_SIZE,
        worker_seconds=WORKER.timeout,
    )
    world = World(Schedule(1, setup, ()))
    world.session = _Session(world)  # type: ignore[assignment]  # the part of it that the client uses
    functions = TimedFunctions(world)
    functions.rows = case.rows
    functions.ended = lambda event: _note_lag(event, result, world)
    pipeline = Pipeline(world, functions, batch_window=BATCH_WINDOW)
    world.open(Window(OUTAGES[case.kind], begin, end))
    world.on_gauge = _alarm(result, world, begin)
    traffic, simulation = _Traffic(world, case, end + DRAIN_SECONDS), world.simulation
    pipeline.begin()
    simulation.run(begin)
    for function in (pipeline.worker, pipeline.sender):
        function.deploy()
    while simulation.now < end:
        simulation.run(min(simulation.now + _SHOWN_EVERY, end))
        show(f"{(simulation.now - begin) / 3600:.1f} h, lag {result.lag:.0f} s")
    _count_doubts(pipeline.audit, result, begin, end)
    show(f"{result.doubts:,} doubts, {result.later_doubts:,} later, alarm after {result.alarm} s")
    drains = case.chunks <= _DRAINS_AT
    while drains and simulation.now < end + DRAIN_SECONDS and result.drained is None:
        simulation.run(simulation.now + 30)
        parts = (pipeline.audit.ledger.worklist("waiting", number) for number in range(WORKLIST_KEYS))
        if all(at > end * 1000 for part in parts for at, _ in itertools.islice(part, 1)):
            result.drained = simulation.now - end
    show(f"drained after {result.drained} s")
    traffic.until = simulation.now
    simulation.run(simulation.now + _REST)
    _balance(pipeline, traffic.sent, result)
    world.close()
    return result


def _say(line: str) -> None:
    click.echo(line, err=True)


def _note_lag(event: Mapping[str, Any], result: Result, world: World) -> None:
    arrived = event["Records"][0]["kinesis"]["approximateArrivalTimestamp"]
    result.lag = max(result.lag, world.simulation.now - arrived)


def _alarm(result: Result, world: World, begin: float) -> Callable[[str, float], None]:
    """Return what notes when the alarm is raised: at the end of the first period with a value that reaches its threshold."""

    def note(metric: str, value: float) -> None:
        now, period = world.simulation.now, _ALARM["Period"]
        if metric == _ALARM["MetricName"] and value >= _ALARM["Threshold"] and result.alarm is None:
            result.alarm = math.ceil(now / period) * period - begin

    return note


def _count_doubts(audit: Audit, result: Result, begin: float, end: float) -> None:
    """Count the chunks in doubt; those of spans whose worker is still at work do not count."""
    for span in audit.ledger.spans():
        if not span.settled and span.planned_at / 1000 > end - UNSETTLED_SECONDS:
            continue
        doubts = sum(entry.since is not None for _, entry in span.all_leaves())
        if span.planned_at / 1000 < begin + _FIRST:
            result.doubts += doubts
        else:
            result.later_doubts += doubts


def _balance(pipeline: Pipeline, sent: int, result: Result) -> None:
    """Count the rows that are lost, doubled, or left."""
    times, waits = bytearray(sent), bytearray(sent)
    for taken in pipeline.world.td.imports():
        for row in taken.rows:
            times[row["n"]] = min(2, times[row["n"]] + 1)
    audit = pipeline.audit
    for span in audit.ledger.spans():
        result.spans += 1
        for key, entry in span.all_leaves():
            if entry.state is State.WAITING:
                result.left += span.rows(key)
                for number in audit.numbers(span, key):
                    waits[number] = 1
    rows = result.case.rows
    result.rows = sent * rows
    result.doubled = times.count(2) * rows
    result.lost = sum(not there and not waiting for there, waiting in zip(times, waits, strict=True)) * rows
    result.queries = pipeline.world.td.queries


def _table(results: list[Result]) -> Table:
    table = Table()
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for one in results:
        case = one.case
        cells = [
            *(case.kind, f"{case.rate:,g}", f"{case.chunks}", f"{one.spans:,}", f"{one.lag:.0f} s"),
            f"{one.doubts:,} ≤ {case.chunks * case.shards:,}",
            f"{one.later_doubts:,}",
            "–" if one.alarm is None else f"{one.alarm:.0f} s",
            f"{one.left:,} rows left" if one.drained is None else f"{one.drained / 60:.1f} min",
            *(f"{one.queries:,}", f"{one.rows:,}", f"{one.lost:,}", f"{one.doubled:,}"),
            ", ".join(one.broken) or "–",
        ]
        table.add_row(*cells)
    return table


@click.command(help=__doc__)
@click.option("--outage", type=click.Choice([*OUTAGES]), multiple=True, help="Repeat it for several.")
@click.option("--rate", type=float, multiple=True, default=(1000, 10_000), show_default=True)
@click.option("--chunks", type=click.IntRange(1), multiple=True, default=(1, 20, 500), show_default=True)
@click.option("--hours", type=click.FloatRange(0.05), default=6.0, show_default=True)
@click.option("--processes", default=0, help="Simulations at once; 0 for one per core.")
def main(
    outage: tuple[str, ...], rate: tuple[float, ...], chunks: tuple[int, ...], hours: float, processes: int
) -> None:
    """Simulate, print the results, and exit with status 1 if a promise is broken."""
    cases = [Case(*one, hours) for one in itertools.product(outage or tuple(OUTAGES), rate, chunks)]
    with ProcessPoolExecutor(processes or None, get_context("spawn"), max_tasks_per_child=1) as pool:
        results = list(pool.map(partial(simulate, say=_say), cases))
    Console(width=250).print(_table(results))
    sys.exit(any(one.broken for one in results))


if __name__ == "__main__":
    main()
