"""`python -m chaos.exhaustive`: try every interleaving of two invocations of small scenarios, with at most one fault.

The real delivery functions run against in-memory services and a minimal Treasure Data. Each call to DynamoDB, S3 or
Treasure Data is a step. Before a step, the other invocation may run instead, or an hour may pass. The invocation may be killed
before or after the call, and the call may fail or take effect without a response. Afterwards all faults end, and redrives and
redeliveries run until everything settles. Then every row must be in Treasure Data exactly once. After every step, every chunk that
the ledger calls set aside must have its object.
"""

import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, override

import click
import msgpack
import requests
from botocore.exceptions import ReadTimeoutError
from rich.console import Console
from rich.table import Table
from worker.delivery import ASIDE, Presence, State
from worker.guards import NONE, Guard, Without

from chaos.interleavings import Choice, Clock, Decisions, Exploration, FaultKind, Scheduler
from chaos.run import pool_of
from doubles.dynamodb import MemoryDynamoDB
from doubles.iam import Authorized
from doubles.kinesis import MemoryKinesis
from doubles.redis import MemoryRedis
from doubles.s3 import MemoryS3
from local.functions import REDRIVE, WORKER, Function
from local.resources import LEDGER, Resources
from local.roles import role_of
from shared.accounts import Account, AccountKeys
from shared.envelope import Envelope, TableRows
from shared.errors import InvalidObjectError
from shared.settings import WorkerSettings
from shared.telemetry import NullTelemetry
from worker.app import redrive_with
from worker.deadline import Deadline
from worker.executor import InlineExecutor
from worker.span import ChunkKey, Group, Owner
from worker.treasure_data import ACCEPTED, Meaning, Reply, TreasureDataClient
from worker.wiring import Effects, Wiring

_START = 1_700_000_000.0
_MEMORY_SECONDS = 3600.0
_STREAM, _TABLE, _BUCKET, _SHARD = "events", "ledger", "aside", "shardId-000000000000"
_RESOURCES = Resources(
    "", "https://sqs.invalid/0/overflow", stream=_STREAM, ledger_table=_TABLE, aside_bucket=_BUCKET
)
_SESSION = requests.Session()
_UNHEARD = ReadTimeoutError(endpoint_url="https://service.invalid")
_GUARD_SECONDS = 15.0
_REJECTS = 4  # rows for the table `views`, which Treasure Data may reject until everything heals


class _Stepped:
    """A client whose calls are steps. The queries of an index that is split over several keys count as one step."""

    def __init__(self, client: Any, hub: Scheduler) -> None:
        self._client = client
        self._hub = hub

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)

        def stepped(**request: Any) -> Any:
            keys = request["ExpressionAttributeValues"] if "IndexName" in request else {}
            if any(not value["S"].endswith("#0") for value in keys.values()):
                answer = call(**request)
                self._hub.note(answer)
                return answer
            return self._hub.step(lambda: call(**request), _UNHEARD)

        return stepped


@dataclass
class _Warehouse:
    """Treasure Data: its rows, and how it responds.

    Attributes:
        rows: how often each event is stored.
        ids: when each unique_id was last imported, UNIX seconds.
        answers: by table, how imports are answered until everything heals: `ok`, `reject`, `large` (rejected if more than one
            row), `fail`, `unheard` (accepted without a response) or `changes` (the first is accepted without a response, a
            repetition is rejected).
    """

    clock: Clock
    rows: Counter[str] = field(default_factory=Counter)
    ids: dict[str, float] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    healed: bool = False

    def accept(self, unique_id: str, names: list[str]) -> None:
        seen = self.ids.get(unique_id)
        if seen is None or self.clock.time - seen > _MEMORY_SECONDS:
            self.rows.update(names)
        self.ids[unique_id] = self.clock.time


def _client_of(warehouse: _Warehouse, hub: Scheduler) -> type[TreasureDataClient]:  # noqa: C901 -- a class of small methods
    class Client(TreasureDataClient):
        @override
        def send(self, _database: str, table: str, unique_id: str, body: bytes, _seconds: float) -> Reply:
            names = _names(body)
            unheard = Reply(Meaning.TEMPORARY, "timeout")
            answer = "ok" if warehouse.healed else warehouse.answers.get(table, "ok")

            def act() -> Reply:
                if answer == "reject" or (answer == "changes" and unique_id in warehouse.ids):
                    return Reply(Meaning.REFUSED, "http_415", definitely_not_delivered=True)
                if answer == "large" and len(names) > 1:
                    return Reply(Meaning.TOO_LARGE, "http_413", definitely_not_delivered=True)
                if answer == "fail":
                    return Reply(Meaning.TEMPORARY, "http_429", definitely_not_delivered=True)
                warehouse.accept(unique_id, names)
                return unheard if answer in ("unheard", "changes") else ACCEPTED

            try:
                reply: Reply = hub.step(act, TimeoutError(), is_send=True)
            except TimeoutError:
                return unheard
            return reply

        @override
        def ask(
            self, _database: str, _table: str, rows: Any, _deadline: Deadline, _not_before: float = 0.0
        ) -> Presence:
            there = [bool(warehouse.rows[row["event_id"]]) for row in rows]
            hub.note(there)
            try:
                hub.step(lambda: None, TimeoutError())
            except TimeoutError:
                return Presence.UNDECIDED
            return Presence.PRESENT if all(there) else Presence.UNDECIDED if any(there) else Presence.ABSENT

        @override
        def answers(self) -> bool:
            return True

        @override
        def knows_key(self) -> bool:
            return True

    return Client


def _names(body: bytes) -> list[str]:
    import zlib

    unpacker = msgpack.Unpacker()
    unpacker.feed(zlib.decompress(body, wbits=31))
    return [row["event_id"] for row in unpacker]


@dataclass(frozen=True)
class Scenario:
    """A situation, and the two invocations that meet in it.

    Attributes:
        name: a description.
        actors: the invocations: `worker`, `schedule`, `hand`, `edit` or `sweep`.
        before: invocations that ran earlier, one after the other, with `answers_before`.
        answers_before: by table, how Treasure Data answered the earlier invocations.
        answers: by table, how Treasure Data answers now.
    """

    name: str
    actors: tuple[str, ...]
    before: tuple[str, ...] = ("worker",)
    answers_before: Mapping[str, str] = MappingProxyType({})
    answers: Mapping[str, str] = MappingProxyType({})


_REJECTED = MappingProxyType({"views": "reject"})
_LARGE = MappingProxyType({"views": "large"})
_FAILING = MappingProxyType({"views": "fail", "clicks": "fail"})
SCENARIOS = (
    Scenario(
        "two redrives of a dead letter that is rejected again",
        ("hand", "hand"),
        answers_before=_REJECTED,
        answers=_REJECTED,
    ),
    Scenario(
        "two redrives of a dead letter that is accepted now", ("hand", "hand"), answers_before=_REJECTED
    ),
    Scenario(
        "a redrive by hand beside the schedule, parked rows", ("hand", "schedule"), answers_before=_FAILING
    ),
    Scenario(
        "a redrive by hand beside the schedule, answers are lost",
        ("hand", "schedule"),
        answers_before=_FAILING,
        answers=MappingProxyType({"views": "unheard"}),
    ),
    Scenario(
        "two redrives, an answer is lost, then the rows are rejected",
        ("hand", "hand"),
        answers_before=_FAILING,
        answers=MappingProxyType({"views": "changes"}),
    ),
    Scenario(
        "two redrives of rows that must be halved", ("hand", "hand"), answers_before=_FAILING, answers=_LARGE
    ),
    Scenario(
        "a redrive beside a redelivery",
        ("hand", "worker"),
        before=("killed worker",),
        answers_before=_REJECTED,
        answers=_REJECTED,
    ),
    Scenario(
        "two workers of one batch, rows are rejected", ("worker", "worker"), before=(), answers=_REJECTED
    ),
    Scenario(
        "two workers of one batch, rows must be halved", ("worker", "worker"), before=(), answers=_LARGE
    ),
    Scenario(
        "an edit beside a redrive by hand", ("edit", "hand"), answers_before=_REJECTED, answers=_REJECTED
    ),
    Scenario("two edits of one dead letter", ("edit", "edit"), answers_before=_REJECTED, answers=_REJECTED),
    Scenario("the sweeper beside a redrive", ("sweep", "hand"), answers_before=_REJECTED),
    Scenario(
        "the sweeper beside a redelivery",
        ("sweep", "worker"),
        before=("killed worker",),
        answers_before=_REJECTED,
    ),
)


class _World:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, decisions: Decisions, without: Without) -> None:
        self.scenario = scenario
        self.without = without
        self.clock = Clock(_START)
        self.hub = Scheduler(decisions, self.clock, self.digest, self.check)
        self.td = _Warehouse(self.clock)
        self.client = _client_of(self.td, self.hub)
        self.kinesis = MemoryKinesis(self.clock.now)
        self.kinesis.create_stream(StreamName=_STREAM, ShardCount=1)
        self.dynamodb = MemoryDynamoDB(self.clock.now)
        self.dynamodb.create_table(TableName=_TABLE, **LEDGER)
        self.s3 = MemoryS3(self.clock.now)
        self.s3.create_bucket(Bucket=_BUCKET)
        self.redis = MemoryRedis()
        self.redis.hset(AccountKeys(_TABLE).sentinel, mapping={"at": "now", "count": "1"})
        self.redis.hset(AccountKeys(_TABLE).of("shop"), mapping=Account("shop_db").to_fields())
        self.faults: list[str] = []
        self._seen: Any = None
        self._sandboxes = itertools.count(1)
        self._inspector = self.wiring()
        self._put()

    def wiring(self, function: Function | None = None) -> Wiring:
        """Return the parts of a new sandbox.

        Its calls are steps, limited to the function's role. Without a function its calls are not steps and have every permission.
        """
        sandbox, serial = next(self._sandboxes), itertools.count(1)
        settings = WorkerSettings(
            stream_name=_STREAM,
            overflow_queue_url=_RESOURCES.queue_url,
            overflow_notices_url=_RESOURCES.notices_url,
            ledger_table=_TABLE,
            aside_bucket=_BUCKET,
            archive_days=0,
            redis_url_secret="",
            td_api_key_secret="",
        )

        def client(service: str, double: Any) -> Any:
            stepped = double if service == "kinesis" else _Stepped(double, self.hub)
            return Authorized(service, stepped, role_of(function, _RESOURCES)) if function else double

        effects = Effects(
            kinesis=client("kinesis", self.kinesis),
            dynamodb=client("dynamodb", self.dynamodb),
            s3=client("s3", self.s3),
            sqs=None,  # type: ignore[arg-type]
            secrets=None,  # type: ignore[arg-type]
            redis=lambda: self.redis,  # type: ignore[arg-type, return-value]
            session=_SESSION,
            clock=self.clock,
            entropy=lambda size: (sandbox << 16 | next(serial)).to_bytes(size, "big"),
            chance=lambda: 0.5,
            executors=InlineExecutor,
            telemetry=NullTelemetry(),
        )
        return Wiring(settings, effects, self.without, {TreasureDataClient: self.client})

    def _put(self) -> None:
        blocks = []
        for table, count in (("views", _REJECTS), ("clicks", 1)):
            rows = [
                {"time": int(_START), "event_id": f"{table}-{n}", "received_at": int(_START) * 1000}
                for n in range(count)
            ]
            blocks.append(TableRows(table, count, b"".join(map(msgpack.packb, rows))))
        data = Envelope("shop", "k1", int(_START) * 1000, "r", 0, tuple(blocks)).encode()
        self.kinesis.put_record(StreamName=_STREAM, Data=data, PartitionKey="k")

    def actor(self, name: str) -> Callable[[], Any]:
        """Return an invocation by its name."""
        wiring = self.wiring(WORKER if name == "worker" else REDRIVE)
        deadline = Deadline(self.clock, self.clock.now() + 100_000)
        events: dict[str, dict[str, Any]] = {
            "schedule": {},
            "hand": {"kinds": ["parked", "in_doubt", "dead_letter"]},
            "sweep": {"sweep": True},
        }
        if name in events:
            return lambda: _quietly(lambda: redrive_with(wiring, events[name], deadline))
        if name == "edit":
            return lambda: _quietly(lambda: self._edit(wiring))
        return lambda: self._deliver(wiring)

    def _edit(self, wiring: Wiring) -> None:
        key = ChunkKey(Group(Owner("shop"), "views"), 0)
        place = next(iter(self._inspector.ledger.worklist(dead=True)), None)
        if place is None:
            return
        rows = [
            {
                "time": int(_START),
                "event_id": f"views-{n}",
                "received_at": int(_START) * 1000,
                "edited": wiring.effects.entropy(4).hex(),
            }
            for n in range(_REJECTS)
        ]
        wiring.edits.make(place, key, b"".join(map(msgpack.packb, rows)))

    def _deliver(self, wiring: Wiring) -> bool:
        from base64 import b64encode

        iterator = self.kinesis.get_shard_iterator(
            StreamName=_STREAM, ShardId=_SHARD, ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        members = [
            {
                "kinesis": {
                    "sequenceNumber": one["SequenceNumber"],
                    "data": b64encode(one["Data"]).decode(),
                    "approximateArrivalTimestamp": one["ApproximateArrivalTimestamp"].timestamp(),
                },
                "eventID": f"{_SHARD}:{one['SequenceNumber']}",
            }
            for one in self.kinesis.get_records(ShardIterator=iterator)["Records"]
        ]
        return not wiring.worker.run({"Records": members}, Deadline.of(self.clock, 100_000))[
            "batchItemFailures"
        ]

    def check(self) -> None:
        """Record set-aside chunks without their object, if anything has changed since the last check."""
        versions = {(item["pk"]["S"], item["sk"]["S"]): item.get("v") for item in self.dynamodb.items(_TABLE)}
        seen = versions, self.s3.objects(_BUCKET)
        if seen == self._seen:
            return
        self._seen = seen
        for span in self._inspector.ledger.spans():
            for key, entry in span.entries.items():
                if entry.state in ASIDE:
                    try:
                        chunk = self._inspector.store.get(span, key, entry.edit, entry.digest)
                    except InvalidObjectError:
                        self.faults.append(f"{key.name} has no object")
                        continue
                    if chunk.digest != entry.digest:
                        self.faults.append(f"{key.name} has the object of another edit")
                    if chunk.rows != _REJECTS and key.group.table == "views":
                        self.faults.append(f"{key.name} has an object of {chunk.rows} rows")

    def digest(self) -> bytes:
        """Return a digest of the time and the state of every service."""
        items = sorted((item["pk"]["S"], item["sk"]["S"], repr(item)) for item in self.dynamodb.items(_TABLE))
        objects = sorted((name, one.modified, one.body) for name, one in self.s3.objects(_BUCKET).items())
        td = sorted(self.td.rows.items()), sorted(self.td.ids.items())
        return blake2b(repr((self.clock.time, items, objects, td)).encode(), digest_size=16).digest()

    def play(self) -> bool:
        """Run the scenario until its invocations end. Return whether the run was cut."""
        scenario = self.scenario
        self.hub.free = True
        self.td.answers = scenario.answers_before
        for name in scenario.before:
            if name == "killed worker":
                self._killed_worker()
            else:
                self.actor(name)()
        self.td.answers = scenario.answers
        self.clock.time += 4000  # the sweeper leaves younger objects alone
        self.hub.free = False
        self.hub.run([self.actor(name) for name in scenario.actors])
        self.hub.free = True
        return self.hub.is_cut

    def heal(self) -> list[str]:
        """End all faults, let everything settle, and return what is wrong."""
        self._heal()
        return self._wrong()

    def _killed_worker(self) -> None:
        """Run a worker that is killed after it has written an object and before it writes the ledger."""
        self.hub.free = False
        decisions, self.hub.decisions = self.hub.decisions, Choice(fault_at=(4, FaultKind.KILLED_BEFORE))
        self.hub.run([self.actor("worker")])
        self.hub.decisions, self.hub.steps, self.hub.free = decisions, 0, True

    def _heal(self) -> None:
        for healed in (False, True):
            self.td.healed = healed
            for _ in range(5):
                self.clock.time += 6000
                for name in ("worker", "schedule") if not healed else ("worker", "schedule", "hand"):
                    self.actor(name)()
                if self._is_at_rest(dead_letters=not healed):
                    break
        self.clock.time += 6000
        self.actor("sweep")()

    def _is_at_rest(self, *, dead_letters: bool) -> bool:
        marks = [(item.get("wk") or {"S": ""})["S"] for item in self.dynamodb.items(_TABLE) if "g" in item]
        is_open = any(item["st"]["S"] == "open" for item in self.dynamodb.items(_TABLE) if "g" in item)
        return not is_open and not any(
            mark.startswith("aside") or (mark and not dead_letters) for mark in marks
        )

    def _wrong(self) -> list[str]:
        wrong = []
        expected = [*(f"views-{n}" for n in range(_REJECTS)), "clicks-0"]
        wrong += [
            f"{name} is stored {self.td.rows[name]} times" for name in expected if self.td.rows[name] != 1
        ]
        for span in self._inspector.ledger.spans():
            wrong += [
                f"{key.name} is {entry.state.value}"
                for key, entry in span.entries.items()
                if entry.state in ASIDE or entry.state is State.PENDING
            ]
            wrong += [] if span.done else ["a span is open"]
        return wrong + [f"{name} is left over" for name in self.s3.objects(_BUCKET)]


def _quietly(job: Callable[[], Any]) -> None:
    """Run a job, ignoring errors: an invocation may raise them, and an edit may be rejected."""
    from shared.errors import SluiceError

    try:
        job()
    except SluiceError:
        return


def steps_of(scenario: Scenario) -> int:
    """Return the number of steps of a scenario without preemptions and faults."""
    world = _World(scenario, Choice(), NONE)
    world.play()
    return world.hub.steps


def run(scenario: Scenario, choice: Choice, without: Without = NONE) -> list[str]:
    """Run one interleaving and return what is wrong."""
    world = _World(scenario, choice, without)
    world.play()
    return world.faults + world.heal()


@dataclass(frozen=True, slots=True)
class Explored:
    """The result of exploring a scenario.

    Attributes:
        interleavings: how many are covered.
        runs: how many were run; the others lead to a state that an earlier run had reached.
        complete: whether all interleavings are covered.
        wrong: by interleaving, what is wrong.
    """

    interleavings: int
    runs: int
    complete: bool
    wrong: Mapping[Choice, list[str]]


def explore(
    scenario: Scenario,
    preemptions: int | None,
    *,
    faults: int = 1,
    seconds: float = float("inf"),
    without: Without = NONE,
    most_wrong: int = 5,
) -> Explored:
    """Go through a scenario's interleavings until all are covered, `most_wrong` are wrong, or `seconds` have passed."""
    exploration, until = Exploration(preemptions, faults), time.monotonic() + seconds
    verdicts: dict[bytes, list[str]] = {}
    wrong: dict[Choice, list[str]] = {}
    more = True
    while more and time.monotonic() < until and len(wrong) < most_wrong:
        exploration.begin()
        world = _World(scenario, exploration, without)
        found = world.faults
        if not world.play():
            state = world.digest()
            if state not in verdicts:
                verdicts[state] = world.heal()
            found = found + verdicts[state]
        if found:
            wrong[exploration.choice] = found
        more = exploration.end()
    return Explored(exploration.counted, exploration.runs, not more, wrong)


def _explore(name: str, preemptions: int | None, seconds: float) -> Explored:
    """Explore the scenario with this name, in a worker process."""
    return explore(next(one for one in SCENARIOS if one.name == name), preemptions, seconds=seconds)


GUARDS = (
    Guard.CONDITIONAL_PLAN,
    Guard.FENCE,
    Guard.IF_VERSION,
    Guard.OBJECT_FIRST,
    Guard.OWN_DOUBT,
    Guard.DOUBTED_REFUSAL,
    Guard.FENCED_IN_DOUBT,
    Guard.DIGEST_IN_NAME,
    Guard.FINAL_DELETE,
)
"""The guards that two invocations and one fault show to be needed."""


def noticing(guard: Guard) -> tuple[str, Choice] | None:
    """Return a scenario and an interleaving that break something without a guard; None if there is none."""
    for preemptions, faults in ((None, 0), (1, 1), (2, 1)):
        for scenario in SCENARIOS:
            done = explore(
                scenario, preemptions, faults=faults, seconds=_GUARD_SECONDS, without={guard}, most_wrong=1
            )
            for choice in done.wrong:
                return scenario.name, choice
    return None


@click.command(help=__doc__)
@click.option("--preemptions", type=int, help="Maximum in one run.  [default: no limit]")
@click.option("--seconds", default=600.0, show_default=True, help="Time limit for each scenario.")
@click.option(
    "--only", default="", help="Explore only scenarios whose name contains this, and leave out no guards."
)
def main(preemptions: int | None, seconds: float, only: str) -> None:
    """Explore all scenarios, then leave out each guard."""
    scenarios = [scenario for scenario in SCENARIOS if only in scenario.name]
    most = "any number of" if preemptions is None else f"up to {preemptions}"
    table = Table(title=f"Interleavings with {most} preemptions and one fault")
    for name in ("scenario", "interleavings", "runs", "all of them", "violations"):
        table.add_column(name, justify="left" if name == "scenario" else "right")
    left_out = Table("guard left out", "noticed in", title="Guards")
    total, failed, progress = 0, False, Console(stderr=True)
    with pool_of() as pool:
        jobs = [pool.submit(_explore, one.name, preemptions, seconds) for one in scenarios]
        checks = [] if only else [(guard, pool.submit(noticing, guard)) for guard in GUARDS]
        for scenario, job in zip(scenarios, jobs, strict=True):
            done = job.result()
            progress.print(f"{scenario.name}: {done.interleavings:,} interleavings")
            total, failed = total + done.interleavings, failed or bool(done.wrong)
            complete = "yes" if done.complete else "no"
            row = f"{done.interleavings:,}", f"{done.runs:,}", complete, str(len(done.wrong))
            table.add_row(scenario.name, *row)
            for choice, found in done.wrong.items():
                progress.print(f"{scenario.name}: {choice}: {found}")
        for guard, check in checks:
            noticed = check.result()
            left_out.add_row(guard.name, noticed[0] if noticed else "nothing")
            failed = failed or noticed is None
    Console().print(table)
    if checks:
        Console().print(left_out)
    Console().print(f"{total:,} interleavings")
    sys.exit(failed)


if __name__ == "__main__":
    main()
