"""`make simulate`: run the real worker over many shards in simulated time, at one or several request rates.

Puts envelopes on the stream as the ingest does. Lambda's event source, the ledger, the bucket, Redis and Treasure Data respond with
the latencies of the fault-injection tests. Counts every call by service and key, to show how many calls and how much time delivering
a row takes, and which key of each service is the busiest.
"""

import math
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, override
from zlib import crc32

import click
import msgpack
from rich.console import Console
from rich.table import Table

from chaos import clients
from chaos.effects import SandboxClock
from chaos.functions import Functions, Weakness
from chaos.pipeline import Pipeline
from chaos.platform import Handler, Sandbox
from chaos.schedule import START, Schedule, Setup
from chaos.traffic import TABLES
from chaos.world import STREAM, World
from doubles.redis import MemoryPipeline, MemoryRedis
from ingest.intake import PARTITION_KEYS
from local.functions import TEMPLATE, WORKER
from ops.cost.estimate import CORE_MB, WORKER_BATCH_CPU, WORKER_ROW_CPU
from scaler.rule import GROW_ABOVE, SHARD_RECORDS
from shared import envelope
from shared.envelope import Envelope, TableRows
from worker.markers import partition_key
from worker.shards import Shards
from worker.span import milliseconds

_ROW_FILLING = "x" * 300  # makes a row as large as that of a recorded page view
_PUTS_APART = 0.5  # seconds between two puts of the simulation; each has the requests since the last one
_FLAT = 1.05  # calls per row may grow by this factor, since full batches cannot save any more
_STEADY = ("put#", "waiting#", "dead#", "chains", "drained", "swept", "table", "forget")
_MOST_PUT = 500  # records in one PutRecords call


def default(parameter: str) -> int:
    """Return a template parameter's default."""
    return int(TEMPLATE.parameters({})[parameter])


@dataclass(frozen=True, slots=True)
class Load:
    """The load to simulate.

    Attributes:
        rate: requests per second, each with one event.
        shards: the stream's shards.
        accounts: the number of accounts; the n-th sends 1/n as much as the first.
        seconds: the duration.
    """

    rate: float
    shards: int
    accounts: int = 100
    seconds: float = 60.0


@dataclass(slots=True)
class Seen:
    """The calls to one service.

    Attributes:
        calls: calls by operation.
        keys: accesses by key and second.
    """

    calls: Counter[str] = field(default_factory=Counter)
    keys: Counter[tuple[str, int]] = field(default_factory=Counter)

    def hottest(self) -> tuple[str, int]:
        """Return the key with the most accesses in one second, and their number."""
        (key, _), count = max(self.keys.items(), key=lambda one: one[1], default=(("–", 0), 0))
        return key, count

    def share(self) -> float:
        """Return the busiest key's share of all accesses."""
        by_key: Counter[str] = Counter()
        for (key, _), count in self.keys.items():
            by_key[key] += count
        return max(by_key.values(), default=0) / max(1, by_key.total())


@dataclass(slots=True)
class Result:
    """The results of a simulation.

    Attributes:
        load: the simulated load.
        rows: distinct rows in Treasure Data.
        wrong: accepted rows that are not in Treasure Data exactly once.
        services: the calls to each service, by its name.
        imports: imports that Treasure Data received.
        batches: the worker's batches, by shard.
        records: by shard, the records in its busiest second.
        concurrency: the maximum number of concurrent worker invocations.
        p50: the median of the seconds from the request to Treasure Data.
        p99: their 99th percentile.
        backlog: shards with records left two minutes after the last request.
    """

    load: Load
    rows: int = 0
    wrong: int = 0
    services: dict[str, Seen] = field(default_factory=lambda: defaultdict(Seen))
    imports: int = 0
    batches: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    concurrency: int = 0
    p50: float = 0.0
    p99: float = 0.0
    backlog: int = 0

    def per_row(self, service: str) -> float:
        """Return the number of calls of a service per row."""
        return self.services[service].calls.total() / max(1, self.rows)

    @property
    def shared_keys(self) -> set[str]:
        """The ledger keys and bucket prefixes in use that belong to no single shard or request, except those that the sender reads every minute."""
        asked = {key for service in ("DynamoDB", "S3") for key, _ in self.services[service].keys}
        return {key for key in asked if "shardId-" not in key and not key.startswith(_STEADY)}

    @property
    def calls_per_row(self) -> float:
        """The number of calls of all services per row, after it was put on the stream."""
        return sum(map(self.per_row, list(self.services)))


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


class _CountedRedis(MemoryRedis):
    """A Redis that counts each command by its key, and each round trip."""

    def __init__(self, server: MemoryRedis, world: World, count: Callable[[str], None]) -> None:
        super().__init__()
        self._server, self._world, self._count = server, world, count
        self.trips = 0

    @override
    def pipeline(self, *, transaction: bool = True) -> MemoryPipeline:
        """Return a pipeline that executes as one effect."""
        super().pipeline(transaction=transaction)
        return _RoundTrip(self)

    def once(self, action: Callable[[], Any]) -> Any:
        """Perform one round trip."""
        self.trips += 1
        return self._world.effects.perform("redis pipeline", action, 0.001)

    @override
    def _hash(self, name: str) -> dict[str, str]:
        self._count(name)
        return self._server.hashes.get(name, {})


class _RoundTrip(MemoryPipeline):
    def __init__(self, redis: _CountedRedis) -> None:
        super().__init__(redis)
        self._counted = redis

    @override
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        answers: list[Any] = self._counted.once(partial(super().execute, raise_on_error))
        return answers


class _Timed(Functions):
    """Functions whose worker takes the measured CPU time and counts its batches by shard."""

    def __init__(self, world: World, weakness: Weakness, result: Result) -> None:
        super().__init__(world, weakness)
        self._result = result
        self._running = 0

    @override
    def worker(self, sandbox: Sandbox) -> Handler:
        """Return the worker of a new sandbox."""
        handler, result, simulation = super().worker(sandbox), self._result, self.world.simulation

        def handle(event: Any, context: Any) -> Any:
            records = event["Records"]
            result.batches[records[0]["eventID"].partition(":")[0]] += 1
            self._running += 1
            result.concurrency = max(result.concurrency, self._running)
            cpu = WORKER_BATCH_CPU + len(records) * WORKER_ROW_CPU
            simulation.delay(cpu / min(1.0, WORKER.memory / CORE_MB))
            try:
                return handler(event, context)
            finally:
                self._running -= 1

        return handle


def simulate(load: Load) -> Result:
    """Simulate a load, and two more minutes."""
    names = [f"acct_{index:05}" for index in range(load.accounts)]
    setup = Setup(
        shards=load.shards,
        databases=tuple((name, f"db_{name}") for name in names),
        retention_hours=24,
        horizon=load.seconds + 120,
        batch_size=int(TEMPLATE.properties("WorkerFunction")["Events"]["Stream"]["Properties"]["BatchSize"]),
        worker_seconds=WORKER.timeout,
    )
    world, result = World(Schedule(1, setup, ())), Result(load)
    pipeline = Pipeline(world, _instrumented(world, result), batch_window=default("BatchWindowSeconds"))
    sender = _Sender(load, names, world, result)
    for shard in Shards(world.stream, STREAM, SandboxClock(world.effects)).all():  # type: ignore[arg-type]  # a double
        marker = envelope.marker(milliseconds(START))
        world.stream.put_record(StreamName=STREAM, Data=marker.encode(), PartitionKey=partition_key(shard))
    pipeline.begin()
    world.simulation.run(START + setup.horizon)
    result.backlog = len(pipeline.backlog())
    _measure(world, sender.sent, result)
    world.close()
    return result


def _instrumented(world: World, result: Result) -> Functions:
    """Return the functions with clients that count their calls."""
    simulation = world.simulation

    def counter(service: str, key: Callable[[str, Mapping[str, Any]], list[str]]) -> Callable[..., None]:
        seen = result.services[service]

        def count(operation: str, request: Mapping[str, Any]) -> None:
            seen.calls[operation] += 1
            seen.keys.update((one, int(simulation.now)) for one in key(operation, request))

        return count

    def asked(key: str) -> None:
        result.services["Redis"].keys[key, int(simulation.now)] += 1

    def trip(action: Callable[[], Any]) -> Any:
        result.services["Redis"].calls["pipeline"] += 1
        return once(action)

    world.dynamodb = clients.DynamoDB(
        _Counted(world.table, counter("DynamoDB", _partitions)),
        world.effects,
    )
    world.s3.client = _Counted(world.bucket, counter("S3", lambda _, request: _prefixes(request)))
    redis = _CountedRedis(world.redis_server, world, asked)
    once = redis.once
    redis.once = trip  # type: ignore[method-assign]  # counts round trips
    reads = _Counted(world.stream, counter("Kinesis", lambda operation, _: [operation]))
    kinesis = clients.Kinesis(reads, world.effects)
    return _Timed(world, Weakness(redis=lambda _: redis, kinesis=lambda _: kinesis), result)


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


def _prefixes(request: Mapping[str, Any]) -> list[str]:
    """Return the prefix of the object that a call accesses; none for a listing, which a function instance makes at most once."""
    return [str(request["Key"]).rpartition("/")[0]] if "Key" in request else []


class _Sender:
    """Puts envelopes on the stream as the ingest does.

    Attributes:
        sent: the number of envelopes put so far.
    """

    def __init__(self, load: Load, names: list[str], world: World, result: Result) -> None:
        self.sent = 0
        self._load, self._names, self._world, self._result = load, names, world, result
        self._shares = list(accumulate(1 / (1 + index) for index in range(len(names))))
        self._chance = random.Random(f"{load}")
        for step in range(math.ceil(load.seconds / _PUTS_APART)):
            world.simulation.at(START + (step + 1) * _PUTS_APART, self._put)

    def _put(self) -> None:
        now, load = self._world.simulation.now, self._load
        due = min(round((now - START) * load.rate), round(load.seconds * load.rate)) - self.sent
        records = [self._record(now) for _ in range(due)]
        for first in range(0, len(records), _MOST_PUT):
            part = records[first : first + _MOST_PUT]
            answer = self._world.stream.put_records(StreamName=STREAM, Records=part)
            seconds: Counter[str] = Counter(entry["ShardId"] for entry in answer["Records"])
            for shard, count in seconds.items():
                self._result.services["stream"].keys[shard, int(now - START - 1e-6)] += count

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


def _measure(world: World, sent: int, result: Result) -> None:
    """Count the rows in Treasure Data and their delays, and the records by shard."""
    times: Counter[int] = Counter()
    delays = []
    imported = result.services["Treasure Data"]
    for one in world.td.imports():
        imported.calls["import"] += 1
        imported.keys[f"{one.database}.{one.table}", int(one.at)] += 1
        for row in one.rows:
            times[row["n"]] += 1
            delays.append(one.at - row["received_at"] / 1000)
    delays.sort()
    result.rows, result.imports = len(times), imported.calls.total()
    result.wrong = sum(times[number] != 1 for number in range(sent))
    if delays:
        result.p50, result.p99 = (delays[int(len(delays) * share)] for share in (0.5, 0.99))
    stream = result.services.pop("stream", Seen())
    for (shard, _), count in stream.keys.items():
        result.records[shard] = max(result.records[shard], count)


def shards_for(rate: float) -> int:
    """Return the number of shards to which an AUTO stream grows, by doubling, at a request rate."""
    return 1 << math.ceil(math.log2(max(1.0, rate / SHARD_RECORDS / GROW_ABOVE)))


_BUSIEST = {
    "DynamoDB": "DynamoDB partition key",
    "S3": "S3 prefix",
    "Redis": "Redis key",
    "Treasure Data": "table's imports",
}


def _calls_per_row(service: str) -> Callable[[Result], str]:
    return lambda one: f"{one.per_row(service):.4f}"


def _busiest(service: str) -> Callable[[Result], str]:
    return lambda one: f"{one.services[service].hottest()[1]}, {one.services[service].share():.1%}"


_ROWS: dict[str, Callable[[Result], str]] = {
    "requests a second": lambda one: f"{one.load.rate:,g}",
    "shards": lambda one: f"{one.load.shards}",
    "rows": lambda one: f"{one.rows:,}",
    "rows not there exactly once": lambda one: f"{one.wrong}",
    "time to row, p50": lambda one: f"{one.p50:.1f} s",
    "time to row, p99": lambda one: f"{one.p99:.1f} s",
    "rows per batch": lambda one: f"{one.rows / max(1, one.batches.total()):,.0f}",
    "rows per import": lambda one: f"{one.rows / max(1, one.imports):,.1f}",
    **{f"{name} calls per row": _calls_per_row(name) for name in _BUSIEST},
    "all of these per row": lambda one: f"{one.calls_per_row:.4f}",
    "batches of a shard, least": lambda one: f"{min(one.batches.values(), default=0)}",
    "batches of a shard, most": lambda one: f"{max(one.batches.values(), default=0)}",
    "records/s, busiest shard": lambda one: f"{max(one.records.values(), default=0)}",
    "workers at once": lambda one: f"{one.concurrency}",
    **{f"busiest {name}, a second, share": _busiest(of) for of, name in _BUSIEST.items()},
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
    click.echo("The busiest keys at the highest rate:")
    for service, name in _BUSIEST.items():
        key, count = results[-1].services[service].hottest()
        click.echo(f"  {name}: {key}, {count} in a second")
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
        if (busiest := max(one.records.values(), default=0)) > SHARD_RECORDS:
            found.append(
                f"{told}a shard gets {busiest:,} records in a second and takes {SHARD_RECORDS:,}: add shards"
            )
    if any(later.calls_per_row > _FLAT * earlier.calls_per_row for earlier, later in pairwise(results)):
        found.append("calls per row grow with the load")
    return found


if __name__ == "__main__":
    main()
