"""Run the real worker and sender under load in simulated time: `make simulate` over many shards, `make outage` with an outage of hours.

They run beside Lambda's event source and the sender's schedule; services respond with the latencies of the fault-injection tests. Rows are
counted, not encoded: an envelope says how many rows it has, and holds one. Each account has a database of its own, and in each batch an
envelope. In an outage Treasure Data hangs or refuses connections, or Redis is away; it begins with new function instances, which know no
account and no database. Every call is counted by service and key, to show how many calls a row takes, and whether shards share keys.
"""

import gc
import itertools
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, override

import click
import msgpack

from chaos import clients
from chaos.audit import Audit, unpacked
from chaos.effects import SandboxClock
from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.platform import Handler
from chaos.run import Pool
from chaos.schedule import START, Schedule, Setup
from chaos.traffic import TABLES
from chaos.trouble import Kind, Window
from chaos.world import STREAM, World
from local.functions import TEMPLATE, WORKER
from ops import screen
from ops.cost.estimate import CORE_MB, WORKER_BATCH_CPU, WORKER_ROW_CPU
from scaler.rule import GROW_ABOVE, SHARD_RECORDS
from shared.envelope import Envelope, TableRows
from worker.ledger import WORKLIST_KEYS
from worker.shards import Shards
from worker.states import State
from worker.turn import UNSETTLED_SECONDS

OUTAGES = ("hanging", "refusing", "redis")
_KINDS = {
    "hanging": Kind.TD_HANGING_DATABASE,
    "broken": Kind.TD_BROKEN_DATABASE,
    "slow": Kind.TD_SLOW_DATABASE,
    "refusing": Kind.TD_REFUSED,
    "redis": Kind.REDIS_DOWN,
}
LAG_SECONDS, ALARM_SECONDS, DRAIN_SECONDS = 60.0, 300.0, 3600.0
"""The stream's lag stays below the first; an alarm is raised, and all is delivered after the end, within the others."""

BATCH_SIZE = int(TEMPLATE.properties("WorkerFunction")["Events"]["Stream"]["Properties"]["BatchSize"])
BATCH_WINDOW = int(TEMPLATE.parameters({})["BatchWindowSeconds"])
_DRAINS_AT = 20  # chunks in a span, or fewer; the others' delivery is not waited for
_WARM, _FIRST, _REST = 330.0, 60.0, 360.0
_ALARM = TEMPLATE.properties("WaitingWarnAlarm")
_FLOOD_EVERY, _FLOOD_SECONDS = 300.0, 5.0
_FLAT = 1.05  # calls per row may grow by this factor, since full batches cannot save any more
# what the sender reads every minute
_STEADY = "put#", "waiting#", "dead#", "chains", "drained", "swept", "table", "forget"
_SERVICES = {"DynamoDB": "DynamoDB", "S3": "S3", "imports": "Treasure Data"}
_LEGEND = "left: rows that still wait; lag: the most seconds until a record was planned; "
_CALLS = "DynamoDB, S3, imports: calls per 1,000 rows; shared: keys in use that belong to no single shard"
_AFTER = "doubts: chunks in doubt, planned in the first minute + later; alarm, drained: seconds until it was raised, and from the end"


@dataclass(frozen=True)
class Case:
    """What to simulate: the kind of outage (none if empty), events a second, accounts, hours, and shards (0: as many as an AUTO stream has).

    The accounts are also the chunks of a span, one each. If only some databases fail, the first account now and then fills whole batches.
    """

    kind: str
    rate: float
    chunks: int
    hours: float
    fixed: int = 0
    failing: int = 0  # the first so many databases; 0 for all
    window: int = BATCH_WINDOW

    @cached_property
    def failing_databases(self) -> tuple[str, ...]:
        """The names of the databases that fail, if others do not."""
        return tuple(f"db_{number}" for number in range(self.failing))

    @cached_property
    def shards(self) -> int:
        """The stream's shards: as many as an AUTO stream grows to at this rate, by doubling."""
        return self.fixed or 1 << math.ceil(math.log2(max(1.0, self.rate / SHARD_RECORDS / GROW_ABOVE)))

    @cached_property
    def rows(self) -> int:
        """The rows of a record, so that a batch as large as Lambda makes it has a record for each chunk."""
        batch = min(BATCH_SIZE, self.rate / self.shards * self.window)
        return max(1, round(batch / self.chunks))


@dataclass(slots=True)
class Result:
    """What a simulation showed."""

    case: Case
    rows: int = 0
    lag: float = 0.0  # the longest time from a record's arrival until it was in a span, in seconds
    doubts: int = 0  # chunks in doubt at the end of the outage that were planned in its first minute
    later_doubts: int = 0  # chunks in doubt that were planned later
    alarm: float | None = None  # seconds from the beginning until the alarm
    # seconds from the end until nothing waited that had been planned before; None if that was not reached
    drained: float | None = None
    lost: int = 0  # rows that are neither in Treasure Data nor wait
    doubled: int = 0  # rows that are in Treasure Data more than once
    left: int = 0  # rows that wait at the end of the simulation
    # the calls of each service; of Treasure Data, the imports
    calls: Counter[str] = field(default_factory=Counter)
    # by service, the accesses to each key of the ledger or prefix of the bucket
    keys: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    batches: Counter[str] = field(default_factory=Counter)  # the worker's batches, by shard
    # the seconds from each record to Treasure Data, in order
    delays: list[float] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """The broken promises."""
        case = self.case
        found = {"lag": self.lag >= LAG_SECONDS, "lost": self.lost > 0, "doubled": self.doubled > 0}
        if case.failing:
            found |= {"left": self.left > 0}
        elif case.kind:
            drains = case.chunks <= _DRAINS_AT
            found |= {
                "doubts": self.doubts > case.chunks * case.shards,
                "later": self.later_doubts > 0,
                "alarm": self.alarm is None or self.alarm > ALARM_SECONDS,
                "delivered": drains and (self.drained is None or self.drained > DRAIN_SECONDS),
            }
        else:
            found |= {"left": self.left > 0, "shared keys": bool(self.shared_keys)}
        return [name for name, is_broken in found.items() if is_broken]

    def per_row(self, service: str) -> float:
        """Return the number of calls of a service per row."""
        return self.calls[service] / max(1, self.rows)

    def share(self, service: str) -> float:
        """Return the busiest key's share of all accesses."""
        return max(self.keys[service].values(), default=0) / max(1, self.keys[service].total())

    @property
    def shared_keys(self) -> set[str]:
        """The ledger keys and bucket prefixes in use that belong to no single shard."""
        asked = {key for keys in self.keys.values() for key in keys}
        return {key for key in asked if "shardId-" not in key and not key.startswith(_STEADY)}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values in order are."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class _Functions(Functions):
    """Functions whose worker takes the measured CPU time. They note its batches, and how far it lags."""

    def __init__(self, world: World, result: Result) -> None:
        super().__init__(world)
        self._result = result

    @override
    def worker(self) -> Handler:
        """Return the worker of a new sandbox."""
        handler, simulation, result = super().worker(), self.world.simulation, self._result

        def handle(event: Any, context: Any) -> Any:
            cpu = WORKER_BATCH_CPU + len(event["Records"]) * result.case.rows * WORKER_ROW_CPU
            simulation.delay(cpu / min(1.0, WORKER.memory / CORE_MB))
            try:
                return handler(event, context)
            finally:
                first = event["Records"][0]
                result.batches[first["eventID"].partition(":")[0]] += 1
                arrived = first["kinesis"]["approximateArrivalTimestamp"]
                result.lag = max(result.lag, simulation.now - arrived)

        return handle


def _counted(client: Any, service: str, result: Result) -> clients.Around:
    """Return a client that counts its calls."""

    def count(operation: str, request: dict[str, Any], call: Callable[[], Any]) -> Any:
        result.calls[service] += 1
        result.keys[service].update(_keys(operation, request))
        return call()

    return clients.Around(client, count)


def _keys(operation: str, request: Mapping[str, Any]) -> list[str]:
    """Return the ledger's partition keys, or the prefix of the object, that a call accesses; none for a listing."""
    if "Bucket" in request:
        return [str(request["Key"]).rpartition("/")[0]] if "Key" in request else []
    if operation == "batch_execute_statement":
        return [str(statement["Parameters"][0]["S"]) for statement in request["Statements"]]
    if operation == "batch_get_item":
        return [str(key["pk"]["S"]) for wanted in request["RequestItems"].values() for key in wanted["Keys"]]
    key = request.get("Key") or request.get("Item")
    if key is not None:
        return [str(key["pk"]["S"])]
    if operation == "describe_table":
        return []
    values = request["ExpressionAttributeValues"]
    return [str(values.get(":pk", values.get(":key", {"S": operation}))["S"])]


class _Traffic:
    """Puts records on each shard at a constant rate, until a time."""

    def __init__(self, world: World, case: Case, until: float) -> None:
        self.sent = 0  # how many so far
        self.until = until  # UNIX seconds
        self._world, self._case = world, case
        shards = Shards(world.stream, STREAM, SandboxClock(world.effects)).all()  # type: ignore[arg-type]  # a double
        self._keys = [str(shard.keys.start) for shard in shards]
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
        is_flood = self._case.failing and (now - START) % _FLOOD_EVERY < _FLOOD_SECONDS
        account = 0 if is_flood else self._turn % self._case.chunks
        envelope = Envelope(f"acct_{account}", "k1", received, name, 0, rows)
        self.sent += 1
        return {"Data": envelope.encode(), "PartitionKey": "-", "ExplicitHashKey": key}


def simulate(case: Case) -> Result:
    """Simulate a load."""
    result, begin = Result(case), START + (_WARM if case.kind else 0.0)
    end = begin + case.hours * 3600
    setup = Setup(
        shards=case.shards,
        databases=tuple((f"acct_{number}", f"db_{number}") for number in range(case.chunks)),
        retention_hours=1,
        horizon=end - START,
        batch_size=case.chunks if case.rows > 1 else BATCH_SIZE,
        worker_seconds=WORKER.timeout,
    )
    world = World(Schedule(1, setup, ()))
    world.dynamodb = clients.DynamoDB(_counted(world.table, "DynamoDB", result), world.effects)
    world.s3.client = _counted(world.bucket, "S3", result)
    pipeline = Pipeline(world, _Functions(world, result), batch_window=case.window)
    for target in (case.failing_databases or ("",)) if case.kind else ():
        world.open(Window(_KINDS[case.kind], begin, end, target=target))
    traffic, simulation = _Traffic(world, case, end + DRAIN_SECONDS), world.simulation

    def alarm(metric: str, value: float) -> None:
        """Note when the alarm is raised: at the end of the first period with a value that reaches its threshold."""
        if metric == _ALARM["MetricName"] and value >= _ALARM["Threshold"] and result.alarm is None:
            period = _ALARM["Period"]
            result.alarm = math.ceil(simulation.now / period) * period - begin

    world.on_gauge = alarm
    pipeline.begin()
    simulation.run(begin)
    for function in (pipeline.worker, pipeline.sender):
        function.deploy()
    simulation.run(end)
    _count_doubts(pipeline.audit, result, begin, end)
    drains = case.chunks <= _DRAINS_AT and not case.failing
    while drains and simulation.now < end + DRAIN_SECONDS and result.drained is None:
        simulation.run(simulation.now + 30)
        parts = (pipeline.audit.ledger.work("waiting", number) for number in range(WORKLIST_KEYS))
        if all(span.planned_at > end * 1000 for part in parts for span in itertools.islice(part, 1)):
            result.drained = simulation.now - end
    traffic.until = simulation.now
    simulation.run(simulation.now + _REST)
    _balance(pipeline, traffic.sent, result)
    return result


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
        result.calls["Treasure Data"] += 1
        for row in taken.rows:
            times[row["n"]] = min(2, times[row["n"]] + 1)
            if taken.database not in result.case.failing_databases:
                result.delays.append(taken.at - row["received_at"] / 1000)
    result.delays.sort()
    objects = pipeline.audit.objects  # which remembers a span's index for all of its chunks
    for span in pipeline.audit.ledger.spans():
        for key, entry in span.all_leaves():
            if entry.state is State.WAITING:
                result.left += span.rows(key)
                for row in unpacked(objects.payload(span, key)):
                    waits[row["n"]] = 1
    rows = result.case.rows
    result.rows = sent * rows
    result.doubled = times.count(2) * rows
    result.lost = sum(not there and not waiting for there, waiting in zip(times, waits, strict=True)) * rows


def _told(one: Result) -> dict[str, str]:
    """Return what a simulation showed, by column."""
    case = one.case
    told = {"outage": case.kind} if case.kind else {}
    told |= {"rate": f"{case.rate:,g}", "chunks": f"{case.chunks}", "shards": f"{case.shards}"}
    told |= {"rows": screen.short(one.rows), "lost": f"{one.lost}", "doubled": f"{one.doubled}"}
    told |= {"left": f"{one.left}", "lag": f"{one.lag:.0f}"}
    if not case.kind:
        told |= {name: screen.short(1000 * one.per_row(of)) for name, of in _SERVICES.items()}
        return told | {"shared": f"{len(one.shared_keys)}"}
    after = {"alarm": one.alarm, "drained": one.drained}
    told["doubts"] = f"{one.doubts}+{one.later_doubts}"
    return told | {name: "–" if at is None else f"{at:.0f}" for name, at in after.items()}


def grows(results: Iterable[Result]) -> bool:
    """Return whether a row takes more calls at a higher rate, of simulations without an outage in the order of their rates."""
    calls = [sum(map(one.per_row, one.calls)) for one in results if not one.case.kind]
    return any(later > _FLAT * earlier for earlier, later in itertools.pairwise(calls))


@click.command(help=__doc__)
@click.option("--outage", type=click.Choice([*OUTAGES, "none"]), multiple=True, help="Repeat it for several.")
@click.option(
    "--rate", type=click.FloatRange(0.001), multiple=True, default=(1000, 10_000), show_default=True
)
@click.option("--chunks", type=click.IntRange(1), multiple=True, default=(1, 20, 500), show_default=True)
@click.option("--hours", type=click.FloatRange(0.01), default=6.0, show_default=True)
@click.option("--shards", type=click.IntRange(0), default=0, help="0 for as many as an AUTO stream has.")
def main(
    *, outage: tuple[str, ...], rate: tuple[float, ...], chunks: tuple[int, ...], hours: float, shards: int
) -> None:
    """Simulate, print the results, and exit with status 1 if a promise is broken."""
    kinds = ["" if one == "none" else one for one in outage or OUTAGES]
    cases = [Case(*one, hours, shards) for one in itertools.product(kinds, sorted(rate), chunks)]
    with Pool(max_tasks_per_child=1, initializer=gc.disable) as pool:  # it needs all it has
        results = list(pool.map(simulate, cases))
    for is_outage, some in itertools.groupby(results, lambda one: bool(one.case.kind)):
        told = [_told(one) for one in some]
        rows = [list(told[0]), *(list(one.values()) for one in told)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        click.echo("\n".join(" ".join(map(str.rjust, row, widths)) for row in rows))
        click.echo(click.wrap_text(_LEGEND + (_AFTER if is_outage else _CALLS)))
    for one in filter(lambda one: one.broken, results):
        case, keys = one.case, sorted(one.shared_keys if "shared keys" in one.broken else ())
        what = f"{case.kind or 'no outage'}, {case.rate:,g} events/s, {case.chunks} chunks"
        click.echo(f"✗ {what}: {', '.join([*one.broken, *keys])}")
    if grown := len(chunks) == 1 and grows(results):
        click.echo("✗ calls per row grow with the load")
    sys.exit(grown or any(one.broken for one in results))
