"""`make simulate`: run the real worker over many shards in simulated time, at one or several request rates.

Puts envelopes on the stream as the ingest does. Lambda's event source, the ledger, the bucket, Redis and Treasure Data respond with
the latencies of the fault-injection tests. Counts every call by service and key, to show how many calls and how much time delivering
a row takes, and whether shards share keys.
"""

import math
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, override
from zlib import crc32

import click
import msgpack
from rich.console import Console
from rich.table import Table

from chaos import clients
from chaos.effects import SandboxClock
from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.platform import Handler, Sandbox
from chaos.schedule import START, Schedule, Setup
from chaos.traffic import TABLES
from chaos.world import STREAM, World
from ingest.intake import PARTITION_KEYS
from local.functions import TEMPLATE, WORKER
from ops.cost.estimate import CORE_MB, WORKER_BATCH_CPU, WORKER_ROW_CPU
from scaler.rule import GROW_ABOVE, SHARD_RECORDS
from shared import envelope
from shared.envelope import Envelope, TableRows
from worker.shards import Shards
from worker.span import milliseconds

BATCH_SIZE = int(TEMPLATE.properties("WorkerFunction")["Events"]["Stream"]["Properties"]["BatchSize"])
BATCH_WINDOW = int(TEMPLATE.parameters({})["BatchWindowSeconds"])
_ROW_FILLING = "x" * 300  # makes a row as large as that of a recorded page view
_PUTS_APART = 0.5  # seconds between two puts of the simulation; each has the requests since the last one
_FLAT = 1.05  # calls per row may grow by this factor, since full batches cannot save any more
_STEADY = ("put#", "waiting#", "dead#", "chains", "drained", "swept", "table", "forget")
_MOST_PUT = 500  # records in one PutRecords call
_SERVICES = ("DynamoDB", "S3", "Treasure Data")


@dataclass(frozen=True, slots=True)
class Load:
    """The load to simulate: requests per second, each with one event, shards, accounts (the n-th sends 1/n as much as the first), and seconds."""

    rate: float
    shards: int
    accounts: int = 100
    seconds: float = 60.0


@dataclass(slots=True)
class Result:
    """The results of a simulation.

    Attributes:
        load: the simulated load.
        rows: distinct rows in Treasure Data.
        wrong: accepted rows that are not in Treasure Data exactly once.
        calls: the calls of each service; of Treasure Data, the imports.
        keys: by service, the accesses to each key.
        batches: the worker's batches, by shard.
        concurrency: the maximum number of concurrent worker invocations.
        delays: the seconds from each request to Treasure Data, in order.
        backlog: shards with records left two minutes after the last request.
    """

    load: Load
    rows: int = 0
    wrong: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    keys: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    batches: Counter[str] = field(default_factory=Counter)
    concurrency: int = 0
    delays: list[float] = field(default_factory=list)
    backlog: int = 0

    def per_row(self, service: str) -> float:
        """Return the number of calls of a service per row."""
        return self.calls[service] / max(1, self.rows)

    def share(self, service: str) -> float:
        """Return the busiest key's share of all accesses."""
        return max(self.keys[service].values(), default=0) / max(1, self.keys[service].total())

    @property
    def shared_keys(self) -> set[str]:
        """The ledger keys and bucket prefixes in use that belong to no single shard or request, except those that the sender reads every minute."""
        asked = {key for keys in self.keys.values() for key in keys}
        return {key for key in asked if "shardId-" not in key and not key.startswith(_STEADY)}

    @property
    def calls_per_row(self) -> float:
        """The number of calls of all services per row, after it was put on the stream."""
        return sum(map(self.per_row, self.calls))


class TimedFunctions(Functions):
    """Functions whose worker takes the measured CPU time.

    Attributes:
        began: called when a batch begins.
        ended: called with the event of a batch that the worker has answered.
        rows: of each record.
    """

    began: Callable[[Mapping[str, Any]], None] = staticmethod(lambda _event: None)
    ended: Callable[[Mapping[str, Any]], None] = staticmethod(lambda _event: None)
    rows = 1

    @override
    def worker(self, sandbox: Sandbox) -> Handler:
        """Return the worker of a new sandbox."""
        handler, simulation = super().worker(sandbox), self.world.simulation

        def handle(event: Any, context: Any) -> Any:
            self.began(event)
            cpu = WORKER_BATCH_CPU + len(event["Records"]) * self.rows * WORKER_ROW_CPU
            simulation.delay(cpu / min(1.0, WORKER.memory / CORE_MB))
            try:
                return handler(event, context)
            finally:
                self.ended(event)

        return handle


class _Counted:
    """A client that counts its calls."""

    def __init__(self, client: Any, count: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._client = client
        self._count = count

    def __getattr__(self, operation: str) -> Any:
        """Return an operation that counts itself."""
        method = getattr(self._client, operation)

        def call(**request: Any) -> Any:
            self._count(operation, request)
            return method(**request)

        return call


def simulate(load: Load) -> Result:
    """Simulate a load, and two more minutes."""
    names = [f"acct_{index:05}" for index in range(load.accounts)]
    setup = Setup(
        shards=load.shards,
        databases=tuple((name, f"db_{name}") for name in names),
        retention_hours=24,
        horizon=load.seconds + 120,
        batch_size=BATCH_SIZE,
        worker_seconds=WORKER.timeout,
    )
    world, result = World(Schedule(1, setup, ())), Result(load)
    pipeline = Pipeline(world, _counting(world, result), batch_window=BATCH_WINDOW)
    sender = _Sender(load, names, world)
    for key in keys_of_shards(world):
        marker = envelope.marker(milliseconds(START))
        world.stream.put_record(
            StreamName=STREAM, Data=marker.encode(), PartitionKey="-", ExplicitHashKey=key
        )
    pipeline.begin()
    world.simulation.run(START + setup.horizon)
    result.backlog = len(pipeline.backlog())
    times: Counter[int] = Counter()
    for one in world.td.imports():
        result.calls["Treasure Data"] += 1
        times.update(row["n"] for row in one.rows)
        result.delays += [one.at - row["received_at"] / 1000 for row in one.rows]
    result.delays.sort()
    result.rows = len(times)
    result.wrong = sum(times[number] != 1 for number in range(sender.sent))
    world.close()
    return result


def keys_of_shards(world: World) -> list[str]:
    """Return a hash key for each shard."""
    shards = Shards(world.stream, STREAM, SandboxClock(world.effects)).all()  # type: ignore[arg-type]  # a double
    return [str(shard.keys.start) for shard in shards]


def _counting(world: World, result: Result) -> Functions:
    """Return the functions, with clients that count their calls, and batches that are counted."""

    def counter(
        service: str, keys_of: Callable[[str, Mapping[str, Any]], list[str]]
    ) -> Callable[[str, Mapping[str, Any]], None]:
        def count(operation: str, request: Mapping[str, Any]) -> None:
            result.calls[service] += 1
            result.keys[service].update(keys_of(operation, request))

        return count

    world.dynamodb = clients.DynamoDB(_Counted(world.table, counter("DynamoDB", _partitions)), world.effects)
    world.s3.client = _Counted(world.bucket, counter("S3", _prefixes))
    functions = TimedFunctions(world)
    running = set[int]()

    def began(event: Mapping[str, Any]) -> None:
        result.batches[event["Records"][0]["eventID"].partition(":")[0]] += 1
        running.add(id(event))
        result.concurrency = max(result.concurrency, len(running))

    functions.began = began
    functions.ended = lambda event: running.discard(id(event))
    return functions


def _partitions(operation: str, request: Mapping[str, Any]) -> list[str]:
    """Return the ledger's partition keys that a call accesses."""
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


def _prefixes(_operation: str, request: Mapping[str, Any]) -> list[str]:
    """Return the prefix of the object that a call accesses; none for a listing, which a function instance makes at most once."""
    return [str(request["Key"]).rpartition("/")[0]] if "Key" in request else []


class _Sender:
    """Puts envelopes on the stream as the ingest does.

    Attributes:
        sent: the number of envelopes put so far.
    """

    def __init__(self, load: Load, names: list[str], world: World) -> None:
        self.sent = 0
        self._load, self._names, self._world = load, names, world
        self._shares = list(accumulate(1 / (1 + index) for index in range(len(names))))
        self._chance = random.Random(f"{load}")
        for step in range(math.ceil(load.seconds / _PUTS_APART)):
            world.simulation.at(START + (step + 1) * _PUTS_APART, self._put)

    def _put(self) -> None:
        now, load = self._world.simulation.now, self._load
        due = min(round((now - START) * load.rate), round(load.seconds * load.rate)) - self.sent
        records = [self._record(now) for _ in range(due)]
        for first in range(0, len(records), _MOST_PUT):
            self._world.stream.put_records(StreamName=STREAM, Records=records[first : first + _MOST_PUT])

    def _record(self, now: float) -> dict[str, Any]:
        chance, number = self._chance, self.sent
        self.sent += 1
        account = chance.choices(self._names, cum_weights=self._shares)[0]
        received = int((now - chance.random() * _PUTS_APART) * 1000)
        request = f"{chance.getrandbits(128):032x}"
        row = {"time": received // 1000, "received_at": received, "n": number, "event_id": request}
        packed: bytes = msgpack.packb(row | {"td_url": _ROW_FILLING})
        rows = (TableRows(TABLES[number % len(TABLES)], 1, packed),)
        envelope = Envelope(account, "k1", received, request, 0, rows)
        bucket = crc32(chance.randbytes(8)) % PARTITION_KEYS
        return {"Data": envelope.encode(), "PartitionKey": f"{account}/{bucket}"}


def shards_for(rate: float) -> int:
    """Return the number of shards to which an AUTO stream grows, by doubling, at a request rate."""
    return 1 << math.ceil(math.log2(max(1.0, rate / SHARD_RECORDS / GROW_ABOVE)))


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which a share of the values in order are."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


_ROWS: dict[str, Callable[[Result], str]] = {
    "requests a second": lambda one: f"{one.load.rate:,g}",
    "shards": lambda one: f"{one.load.shards}",
    "rows": lambda one: f"{one.rows:,}",
    "rows not there exactly once": lambda one: f"{one.wrong}",
    "time to row, p50": lambda one: f"{percentile(one.delays, 0.5):.1f} s",
    "time to row, p99": lambda one: f"{percentile(one.delays, 0.99):.1f} s",
    "rows per batch": lambda one: f"{one.rows / max(1, one.batches.total()):,.0f}",
    **{f"{name} calls per row": lambda one, name=name: f"{one.per_row(name):.4f}" for name in _SERVICES},  # type: ignore[misc]  # a default binds it
    "workers at once": lambda one: f"{one.concurrency}",
    "keys and prefixes that shards share": lambda one: f"{len(one.shared_keys)}",
}


@click.command(help=__doc__)
@click.option("--rate", type=float, multiple=True, help="Requests per second; repeat it to compare rates.")
@click.option("--shards", type=click.IntRange(1), help="The stream's shards.  [default: as many as AUTO has]")
@click.option("--accounts", type=click.IntRange(1, 99_999), default=100, show_default=True)
@click.option("--seconds", type=click.FloatRange(1, 3600), default=60.0, show_default=True)
def main(rate: tuple[float, ...], shards: int | None, accounts: int, seconds: float) -> None:
    """Simulate, print the results and exit."""
    began = time.perf_counter()
    rates = sorted(rate or (1, 100, 1000, 10_000))
    results = [simulate(Load(each, shards or shards_for(each), accounts, seconds)) for each in rates]
    table = Table(title=f"{accounts:,} accounts, {seconds:g} simulated seconds", show_header=False)
    for name, cell in _ROWS.items():
        table.add_row(name, *map(cell, results))
    Console().print(table)
    for problem in (found := problems(results)):
        click.echo(f"✗ {problem}")
    click.echo(f"\nTook {time.perf_counter() - began:.0f} s.")
    sys.exit(bool(found))


def problems(results: list[Result]) -> list[str]:
    """Return the problems that simulations show."""
    found = []
    for one in results:
        told = f"at {one.load.rate:,g} requests a second, "
        if one.wrong or one.backlog:
            found.append(
                f"{told}{one.wrong} rows are not there exactly once, {one.backlog} shards have a backlog"
            )
        if one.shared_keys:
            found.append(f"{told}shards share {', '.join(sorted(one.shared_keys))}")
    if any(later.calls_per_row > _FLAT * earlier.calls_per_row for earlier, later in pairwise(results)):
        found.append("calls per row grow with the load")
    return found


if __name__ == "__main__":
    main()
