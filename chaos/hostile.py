"""`make hostile`: let one sender with write keys do its worst beside 49 ordinary accounts, in simulated time.

First it sends 500 requests a second of 2 MiB, compressed to a few kilobytes, with one key and with a thousand keys of one account; this
measures how much is stored and who is refused. An honest peak follows: the account's visitors send ten times as much as usual. Last, fifty
requests a second with 500 events each for tables and columns most of which are new: how long do the others' rows take, what is stored?
The stream has the capacity of its shards, and the scaler's rules give it more and say when the overflow queue holds too much.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from gzip import compress
from hashlib import md5
from itertools import count
from json import dumps
from math import ceil
from typing import Any, override

import click

from chaos.functions import Functions
from chaos.isolation import BOUND
from chaos.load import percentile
from chaos.pipeline import Pipeline
from chaos.platform import Handler
from chaos.schedule import START, Schedule, Setup
from chaos.traffic import SECRETS, TABLES, Sent
from chaos.world import BUCKET, STREAM, World
from doubles.aws_errors import client_error
from doubles.event_source import Outcome, Returned
from doubles.gateway import event_of
from doubles.http_server import Request
from local.functions import INGEST
from ops.cost.estimate import CORE_MB
from scaler.backlog import Backlog
from scaler.rule import RECENT_SECONDS, SHARD_BYTES, SHARD_RECORDS, Minute, target
from shared import write_key
from shared.published_policy import PublishedPolicy
from shared.telemetry import NullTelemetry

STORED_A_MINUTE = 26
"""How many bodies of the flood may be stored in a minute."""
MOST_SHARDS = 4
"""How far the flood may let the stream grow."""
COLUMNS, COLUMNS_LIMIT = 5000, 512
"""The number of different columns that the hostile sender names, and the maximum of one event."""
TABLES_LIMIT = 200
"""The default number of tables of an account."""

_TABLES_PER_REQUEST = 500
_ACCOUNTS = [f"acct_{number:02}" for number in range(50)]
_OTHERS_PER_SECOND, _VISITORS_PER_SECOND = 5, 20
_BEGINS, _AFTERWARDS = 20.0, 60.0
"""Seconds before and after the hostile requests; the first is at a full minute."""
_RUNTIME_SECONDS = 0.002  # what Lambda's own runtime takes for a request
_EXCEEDED = "ProvisionedThroughputExceededException"
_STORED_CPU, _REFUSED_CPU, _SMALL_CPU = 0.012, 0.0003, 0.00015
"""Seconds of a core for a large body that is stored, one that is refused, and a small request, as measured."""

type Body = tuple[bytes, tuple[tuple[str, str], ...]]
"""A request's body and its headers."""


@dataclass(frozen=True)
class Attack:
    """What somebody with write keys of the first account sends, for so many seconds."""

    seconds: int
    rate: int = 0  # requests a second
    body: Callable[[int], Body] = lambda _number: (b"", ())  # of a request
    keys: int = 1
    visitors: int = 0  # requests that the account's visitors send a second


@dataclass(frozen=True, slots=True)
class Suffered:
    """What became of it."""

    p99: float  # seconds from acceptance to Treasure Data, of the other accounts' rows
    wrong: int  # their rows that are not there exactly once
    refused: tuple[int, int]  # requests of the account's visitors, and of others
    statuses: Counter[int]  # of the responses to the hostile sender
    tables: int  # new ones that it has created
    columns: int  # of its widest table
    stored: int  # bytes in the bucket
    objects: int
    shards: int  # of the stream at the end


def new_tables(number: int) -> Body:
    """Return a request with rows for hundreds of tables."""
    events = []
    for one in range(number * _TABLES_PER_REQUEST, (number + 1) * _TABLES_PER_REQUEST):
        table = f"new_table_{one}" if one % 2 else f"old_table_{one % 400}"
        events.append({"table": table, f"column_{one % COLUMNS}": 1})
    return dumps(events).encode(), ()


@cache
def large() -> Body:
    """Return a request of a few kilobytes that become 2 MiB."""
    body = dumps([{"table": "pageviews", "text": "x" * 4100}] * 500)[: 2 * 2**20]
    return compress(body.encode(), mtime=0), (("content-encoding", "gzip"),)


class _Stream:
    """The stream, whose shards accept so many records and bytes a second."""

    def __init__(self, world: World) -> None:
        self._stream, self._simulation = world.stream, world.simulation
        self._seconds: defaultdict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
        self.minutes: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])

    def __getattr__(self, operation: str) -> Any:
        """Return an operation without a limit."""
        return getattr(self._stream, operation)

    @property
    def shards(self) -> int:
        """How many are open."""
        summary = self._stream.describe_stream_summary(StreamName=STREAM)
        return int(summary["StreamDescriptionSummary"]["OpenShardCount"])

    def _takes(self, data: bytes, key: str) -> bool:
        now = int(self._simulation.now)
        shard = int.from_bytes(md5(key.encode(), usedforsecurity=False).digest()) * self.shards >> 128
        used, minute = self._seconds[now, shard], self.minutes[now // 60]
        if used[0] + 1 > SHARD_RECORDS or used[1] + len(data) > SHARD_BYTES:
            minute[2] += 1
            return False
        for counts in (used, minute):
            counts[0] += 1
            counts[1] += len(data)
        return True

    def put_record(self, **record: Any) -> dict[str, Any]:
        """Put one record."""
        if not self._takes(record["Data"], record["PartitionKey"]):
            raise client_error(_EXCEEDED, "PutRecord")
        return self._stream.put_record(**record)

    def put_records(self, **request: Any) -> dict[str, Any]:
        """Put several records, each for itself."""
        answers = []
        for one in request["Records"]:
            takes = self._takes(one["Data"], one["PartitionKey"])
            put = partial(self._stream.put_record, StreamName=STREAM, **one)
            answers.append(put() if takes else {"ErrorCode": _EXCEEDED, "ErrorMessage": ""})
        return {"FailedRecordCount": sum("ErrorCode" in one for one in answers), "Records": answers}


class _Functions(Functions):
    """Functions whose ingest takes the measured CPU time."""

    @override
    def ingest(self) -> Handler:
        handler, simulation = super().ingest(), self.world.simulation

        def handle(event: Any, context: Any) -> Any:
            answer = handler(event, context)
            large_cpu = _STORED_CPU if answer["statusCode"] == 200 else _REFUSED_CPU
            cpu = large_cpu if "content-encoding" in event["headers"] else _SMALL_CPU
            simulation.delay(_RUNTIME_SECONDS + cpu * CORE_MB / INGEST.memory)
            return answer

        return handle


class _Run:
    """A pipeline under attack."""

    def __init__(self, attack: Attack) -> None:
        databases = tuple((name, f"db_{name}") for name in _ACCOUNTS)
        horizon = _BEGINS + attack.seconds + _AFTERWARDS
        world = self.world = World(Schedule(1, Setup(2, databases, 168, horizon), ()))
        self.stream = world.kinesis.client = _Stream(world)
        self.pipeline = Pipeline(world, _Functions(world), 15)
        published = PublishedPolicy(world.bucket, BUCKET)  # type: ignore[arg-type]  # a double
        self.backlog = Backlog(world.queue, world.queue_url, published, world.clock, NullTelemetry())  # type: ignore[arg-type]  # a double
        self.statuses: Counter[int] = Counter()
        self._attack = attack
        self._keys = [write_key.sign(_ACCOUNTS[0], f"k1-{one}", SECRETS["k1"]) for one in range(attack.keys)]
        at, numbers = world.simulation.at, count()
        for index in range(attack.seconds * attack.rate):
            at(START + _BEGINS + index / attack.rate, partial(self._attack_once, index))
        for names, rate in ((_ACCOUNTS[1:], _OTHERS_PER_SECOND), (_ACCOUNTS[:1], attack.visitors)):
            for index in range(int((_BEGINS + attack.seconds) * rate)):
                event = ((next(numbers), TABLES[index % 3]),)
                sent = Sent(START + index / rate, names[index % len(names)], f"v{index % 97}", "pixel", event)
                at(sent.at, partial(self.pipeline.send, sent))
        for minute in range(1, ceil(horizon / 60)):
            at(START + 60 * minute, self._scale)

    def _attack_once(self, number: int) -> None:
        body, more = self._attack.body(number)
        key = self._keys[number % len(self._keys)]
        headers = (("x-write-key", key), ("content-type", "application/json"), *more)
        request, now = Request("POST", "/v1/events", headers, body), self.world.simulation.now
        event = event_of(request, request_id=f"hostile {number}", now=now)
        self.pipeline.ingest.invoke(event, self._answered)

    def _answered(self, outcome: Outcome) -> None:
        self.statuses[outcome.value["statusCode"] if isinstance(outcome, Returned) else 0] += 1

    def _scale(self) -> None:
        """Do what the scaler does every minute."""
        world, now = self.world, self.world.simulation.now
        minutes = {at * 60: Minute(*map(float, of)) for at, of in self.stream.minutes.items()}
        recent = [minute for at, minute in minutes.items() if at >= now - RECENT_SECONDS]
        shards = self.stream.shards
        wanted = min(target(shards, list(minutes.values()), recent, now + 3600), 16, 2 * shards)
        if wanted != shards:
            kind = "UNIFORM_SCALING"
            world.stream.update_shard_count(StreamName=STREAM, TargetShardCount=wanted, ScalingType=kind)
        self.backlog.run()


def suffer(attack: Attack) -> Suffered:
    """Let an attack meet ordinary traffic; return what became of both."""
    run = _Run(attack)
    pipeline, world = run.pipeline, run.world
    pipeline.begin()
    world.simulation.run(world.schedule.end)
    pipeline.rest(hours=2)
    times: dict[int, list[float]] = {}
    columns: dict[str, set[str]] = {}
    for one in world.td.imports():
        for row in one.rows:
            if "n" in row:
                times.setdefault(int(row["n"]), []).append(one.at)
            else:
                columns.setdefault(one.table, set()).update(row)
    others = [number for number, sent in pipeline.sent.items() if sent.account != _ACCOUNTS[0]]
    delays = sorted(times[number][0] - pipeline.accepted[number] for number in others if number in times)
    refused = Counter(one.sent.account == _ACCOUNTS[0] for one in pipeline.answers if one.status != 200)
    objects = world.bucket.objects(BUCKET)
    return Suffered(
        p99=percentile(delays, 0.99),
        wrong=sum(len(times.get(number, ())) != 1 for number in others),
        refused=(refused[True], refused[False]),
        statuses=run.statuses,
        tables=len(columns.keys() - set(TABLES)),
        columns=max(map(len, columns.values()), default=0),
        stored=sum(len(one.body) for one in objects.values()),
        objects=len(objects),
        shards=run.stream.shards,
    )


def table_checks(seconds: int) -> dict[str, bool]:
    """Return what holds while somebody names new tables and columns for so many seconds."""
    usual, found = suffer(Attack(seconds)), suffer(Attack(seconds, 50, new_tables))
    stored = (found.stored - usual.stored) * 3600 / seconds
    objects = (found.objects - usual.objects) * 3600 / seconds
    delays = f"{usual.p99:.1f} s without it, {found.p99:.1f} s with it"
    growth = f"{stored / 2**20:,.0f} MB and {objects:,.0f} objects"
    return {
        f"others' 99th percentile: {delays}": found.p99 <= BOUND * usual.p99,
        f"others' rows not delivered exactly once: {found.wrong}": not found.wrong,
        f"tables created: {found.tables:,} of at most {TABLES_LIMIT}": 0 < found.tables <= TABLES_LIMIT,
        f"columns of a table: {found.columns:,} of at most {COLUMNS_LIMIT}": found.columns <= COLUMNS_LIMIT,
        f"bucket growth in an hour: {growth}": stored < 2**30 and objects < 20_000,
    }


def flood_checks(seconds: int) -> dict[str, bool]:
    """Return what holds during floods of large bodies and during an honest peak, each of so many seconds."""
    usual = suffer(Attack(seconds, visitors=_VISITORS_PER_SECOND))
    checks: dict[str, bool] = {}
    for keys in (1, 1000):
        found = suffer(Attack(seconds, 500, lambda _: large(), keys, _VISITORS_PER_SECOND))
        stored = found.statuses[200]
        checks |= {
            f"{keys:,} keys: {stored} stored": stored <= STORED_A_MINUTE * ceil(seconds / 60),
            f"{keys:,} keys: {found.shards} shards": found.shards <= MOST_SHARDS,
            f"{keys:,} keys: others' 99th percentile: {found.p99:.1f} s": found.p99 <= BOUND * usual.p99,
            f"{keys:,} keys: own visitors and others refused: {found.refused}": not any(found.refused),
        }
    peak = suffer(Attack(seconds, visitors=10 * _VISITORS_PER_SECOND))
    return checks | {f"an honest peak: {sum(peak.refused)} requests refused": not any(peak.refused)}


@click.command(help=__doc__)
@click.option("--attacked", type=click.FloatRange(0.1), default=10.0, help="Simulated minutes of new tables.")
@click.option("--flooded", type=click.FloatRange(0.1), default=5.0, help="Simulated minutes of large bodies.")
def main(attacked: float, flooded: float) -> None:
    """Measure, print the results and exit."""
    checks = flood_checks(int(flooded * 60)) | table_checks(int(attacked * 60))
    for told, holds in checks.items():
        click.echo(f"{'✓' if holds else '✗'} {told}")
    sys.exit(not all(checks.values()))
