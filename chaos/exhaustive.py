"""`python -m chaos.exhaustive`: try every interleaving of two invocations of small scenarios, with at most one fault.

The real delivery functions run against in-memory services and a minimal Treasure Data. Each call to DynamoDB, S3 or
Treasure Data is a step. Before a step, the other invocation may run instead, or an hour may pass. The invocation may be killed
before or after the call, and the call may fail, take effect without a response, or take effect when both have ended. Afterwards all
faults end, and senders and redeliveries run until everything settles. Then every row must be in Treasure Data exactly once, or as often as an operator wanted. After
every step, every chunk that somebody still needs must have its rows in the bucket.

Before that, it tries every interleaving of the actors of `chaos.specification_actors`, which follow the specification.
"""

import itertools
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, NamedTuple, override

import click
import msgpack
import requests
from botocore.exceptions import ReadTimeoutError
from rich.console import Console
from rich.table import Table

from chaos.audit import HELD
from chaos.defences import ALL, Defence
from chaos.interleavings import Choice, Clock, Decisions, Exploration, FaultKind, Scheduler
from chaos.run import pool_of
from chaos.specification_actors import LEFT_OUT
from chaos.specification_actors import NAMED as SCENES_BY_NAME
from chaos.specification_explorer import Explorer
from doubles.dynamodb import MemoryDynamoDB
from doubles.iam import Authorized
from doubles.kinesis import MemoryKinesis
from doubles.redis import MemoryRedis
from doubles.s3 import MemoryS3, StoredObject
from local.functions import SENDER, WORKER, Function
from local.resources import LEDGER, Resources
from local.roles import role_of
from shared.accounts import Account, AccountKeys
from shared.envelope import Envelope, TableRows
from shared.errors import InvalidObjectError
from shared.settings import WorkerSettings
from shared.telemetry import NullTelemetry
from worker.app import send_with
from worker.bucket import Bucket
from worker.deadline import Deadline
from worker.executor import InlineExecutor
from worker.health import PROBE_TABLE
from worker.ledger import WORKLIST_KEYS
from worker.restored import RestoreGuard
from worker.rows import compress
from worker.span import ChunkKey, Group, RowSender
from worker.span_object import SpanObjects
from worker.states import Presence, State
from worker.treasure_data import ACCEPTED, Meaning, Reply, TreasureDataClient
from worker.wiring import Effects, Wiring

_START = 1_700_000_000.0
_AGAIN = int(_START) * 1000
_DAY = 86_400.0
_MEMORY_SECONDS = 3600.0
_STREAM, _TABLE, _BUCKET, _SHARD = "events", "ledger", "aside", "shardId-000000000000"
_RESOURCES = Resources(
    "", "https://sqs.invalid/0/overflow", stream=_STREAM, ledger_table=_TABLE, data_bucket=_BUCKET
)
_SESSION = requests.Session()
_UNHEARD = ReadTimeoutError(endpoint_url="https://service.invalid")
_DEFENCE_RUNS = 3000
_READS = {"get_item", "batch_get_item", "query", "get_object", "list_objects_v2"}
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
            return self._hub.step(lambda: call(**request), _UNHEARD, is_read=name in _READS)

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


def _client_of(warehouse: _Warehouse, hub: Scheduler) -> type[TreasureDataClient]:
    class Client(TreasureDataClient):
        @override
        def send(self, _database: str, table: str, unique_id: str, body: bytes, _seconds: float) -> Reply:
            names = _names(body)
            unheard = Reply(Meaning.TEMPORARY, "timeout")
            answer = "ok" if warehouse.healed or table == PROBE_TABLE else warehouse.answers.get(table, "ok")

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
            self, _database: str, _table: str, chunks: Any, _deadline: Deadline, _not_before: float = 0.0
        ) -> list[Presence]:
            there = [[bool(warehouse.rows[row["event_id"]]) for row in rows] for rows in chunks]
            hub.note(there)
            try:
                hub.step(lambda: None, TimeoutError(), is_read=True)
            except TimeoutError:
                return [Presence.UNDECIDED for _ in chunks]
            return [
                Presence.PRESENT if all(one) else Presence.UNDECIDED if any(one) else Presence.ABSENT
                for one in there
            ]

    return Client


def _names(body: bytes) -> list[str]:
    import zlib

    unpacker = msgpack.Unpacker()
    unpacker.feed(zlib.decompress(body, wbits=31))
    return [row["event_id"] for row in unpacker]


class Put(NamedTuple):
    """A record on the stream.

    Attributes:
        request: the request of which it holds a copy. `r` has four rows for `views` and one for `clicks`, others have the one.
        claim: the envelope's; `_AGAIN` if it was put again.
        after: seconds from the request until it arrived.
    """

    request: str = "r"
    claim: int = 0
    after: float = 0.0

    @property
    def rows(self) -> dict[str, list[str]]:
        """The rows' names, by table."""
        if self.request == "r":
            return {"views": [f"views-{n}" for n in range(_REJECTS)], "clicks": ["clicks-0"]}
        return {"clicks": [f"clicks-{self.request}"]}


class _Past(NamedTuple):
    """What a scenario's earlier invocations have left, and what states that runs have reached since lack."""

    time: float
    items: list[dict[str, Any]]
    objects: dict[str, StoredObject]
    rows: Counter[str]
    ids: dict[str, float]
    sandboxes: int
    seen: dict[Any, list[str]]


@dataclass(frozen=True)
class Scenario:
    """A situation, and the two invocations that meet in it.

    Attributes:
        name: a description.
        actors: the invocations: `worker`, `replay`, `schedule`, `hand`, `edit`, `drop`, `force` or `sweep`. A worker or a replay may be
            followed by the numbers of the records that it gets; a `small` worker is of a release that cuts chunks of two rows.
        before: invocations that ran earlier, one after the other, with `answers_before`.
        answers_before: by table, how Treasure Data answered the earlier invocations.
        answers: by table, how Treasure Data answers now.
        records: what is on the stream.
        seconds: how long ago the earlier invocations ran.
        left: the numbers of the records that are redelivered at the end; all without any.
    """

    name: str
    actors: tuple[str, ...]
    before: tuple[str, ...] = ("worker",)
    answers_before: Mapping[str, str] = MappingProxyType({})
    answers: Mapping[str, str] = MappingProxyType({})
    records: tuple[Put, ...] = (Put(),)
    seconds: float = 4000.0
    left: str = ""


_REJECTED = MappingProxyType({"views": "reject"})
_LARGE = MappingProxyType({"views": "large"})
_FAILING = MappingProxyType({"views": "fail", "clicks": "fail"})
_UNHEARD_ROWS = MappingProxyType({"views": "unheard"})
_CHANGES = MappingProxyType({"views": "changes"})
SCENARIOS = (
    Scenario("two senders of dead rows that are rejected again", ("hand", "hand"), answers_before=_REJECTED, answers=_REJECTED),
    Scenario("two senders of dead rows that are accepted now", ("hand", "hand"), answers_before=_REJECTED),
    Scenario("two senders of waiting rows", ("schedule", "schedule"), answers_before=_FAILING),
    Scenario("two senders, answers are lost", ("schedule", "schedule"), answers_before=_FAILING, answers=_UNHEARD_ROWS),
    Scenario("two senders, an answer is lost, then the rows are rejected", ("hand", "hand"), answers_before=_FAILING, answers=_CHANGES),
    Scenario("two senders of rows that must be halved", ("hand", "hand"), answers_before=_FAILING, answers=_LARGE),
    Scenario("a sender beside the worker's own sends", ("worker", "schedule"), before=(), answers=_CHANGES, seconds=0.0),
    Scenario("a sender beside a redelivery", ("schedule", "worker"), before=("killed worker",), answers=_REJECTED),
    Scenario("two workers of one batch, rows are rejected", ("worker", "worker"), before=(), answers=_REJECTED),
    Scenario("two workers of one batch, rows must be halved", ("worker", "worker"), before=(), answers=_LARGE),
    Scenario("a worker of two copies beside a sender, one copy was put again", ("worker", "schedule"), before=(), records=(Put(), Put(claim=_AGAIN))),
    Scenario("two senders of rows that were put again", ("schedule", "schedule"), records=(Put(claim=_AGAIN),)),
    Scenario("a sender decides while a first copy that landed late is planned", ("worker 1 2", "schedule"), before=("worker 0",), records=(Put(claim=_AGAIN), Put(after=100), Put("z", after=1300)), seconds=1400.0),
    Scenario("a sender decides while a first copy that is too late is planned", ("worker 1 2", "schedule"), before=("worker 0",), records=(Put(claim=_AGAIN), Put(after=1000), Put("z", after=1300)), seconds=1400.0),
    Scenario("two releases cut one batch", ("worker", "small worker"), before=(), answers=_UNHEARD_ROWS, seconds=0.0),
    Scenario("a redelivery beside a replay of what was left out in the middle", ("worker", "replay 1"), before=("worker 0 2",), records=(Put("p"), Put("q"), Put("z"))),
    Scenario("copies of a request, in a gap and live", ("replay 0", "worker 2"), before=("worker 1",), records=(Put("q", 1), Put("z"), Put("q", 1))),
    Scenario("a copy beside a replay of the one that was passed over with the claim", ("worker 2", "replay 0"), before=("killed worker 0", "worker 1"), records=(Put("q", 1), Put("z"), Put("q", 1)), left="1 2"),
    Scenario("an edit beside a sender by hand", ("edit", "hand"), answers_before=_REJECTED, answers=_REJECTED),
    Scenario("two edits of dead rows", ("edit", "edit"), answers_before=_REJECTED, answers=_REJECTED),
    Scenario("a drop beside a sender", ("drop", "hand"), answers_before=_REJECTED, answers=_UNHEARD_ROWS),
    Scenario("a drop of rows in doubt", ("drop", "schedule"), answers_before=_UNHEARD_ROWS),
    Scenario("two forced replays with one tag", ("force", "force")),
    Scenario("a forced replay beside a sender", ("force", "schedule"), answers_before=_FAILING),
    Scenario("the sweep beside a sender", ("sweep", "hand"), answers_before=_REJECTED, seconds=30 * _DAY),
    Scenario("the sweep beside a redelivery", ("sweep", "worker"), before=("killed worker",), seconds=2 * _DAY),
)  # fmt: skip  # a table
NAMED = {one.name: one for one in SCENARIOS}


class _Trusting(RestoreGuard):
    """Takes the ledger's table for the right one without a look: in no scenario is it restored."""

    @override
    def check(self) -> bool:
        return False


class _World:
    """One run of a scenario."""

    def __init__(
        self, scenario: Scenario, decisions: Decisions, replaced: Mapping[Any, Any], past: _Past | None = None
    ) -> None:
        self.scenario = scenario
        self._earlier = past
        self.clock = Clock(_START)
        self.hub = Scheduler(decisions, self.clock, self.digest, self.check)
        self.td = _Warehouse(self.clock)
        self.replaced = {TreasureDataClient: _client_of(self.td, self.hub), RestoreGuard: _Trusting} | dict(
            replaced
        )
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
        self._seen = {} if past is None else past.seen
        self._sandboxes = itertools.count(1)
        self._lateness: dict[str, float] = {}
        self._inspector = self.wiring()
        self._put()

    def wiring(self, function: Function | None = None, *, is_small: bool = False) -> Wiring:
        """Return the parts of a new sandbox.

        Its calls are steps, limited to the function's role. Without a function its calls are not steps and have every permission.
        """
        sandbox, serial = next(self._sandboxes), itertools.count(1)
        settings = WorkerSettings(
            stream_name=_STREAM,
            overflow_queue_url=_RESOURCES.queue_url,
            overflow_notices_url=_RESOURCES.notices_url,
            ledger_table=_TABLE,
            data_bucket=_BUCKET,
            archive_days=2,
            redis_url_secret="",
            td_api_key_secret="",
            write_key_secret="",
            chunk_max_rows=2 if is_small else 50_000,
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
        return Wiring(settings, effects, self.replaced)

    def _put(self) -> None:
        for put in self.scenario.records:
            blocks = tuple(
                TableRows(table, len(names), b"".join(msgpack.packb(_row(name)) for name in names))
                for table, names in put.rows.items()
            )
            data = Envelope("shop", "k1", int(_START) * 1000, put.request, put.claim, blocks).encode()
            number = self.kinesis.put_record(StreamName=_STREAM, Data=data, PartitionKey="k")[
                "SequenceNumber"
            ]
            self._lateness[number] = put.after

    def actor(self, name: str) -> Callable[[], Any]:
        """Return an invocation by its name."""
        is_worker = "worker" in name or "replay" in name
        wiring = self.wiring(WORKER if is_worker else SENDER, is_small=name.startswith("small"))
        deadline = Deadline(self.clock, self.clock.now() + 100_000)
        events: dict[str, dict[str, Any]] = {
            "schedule": {},
            "hand": {"kinds": ["waiting", "again", "dead"]},
            "drop": {"kinds": ["waiting", "dead"], "decision": "drop", "table": "views"},
            "sweep": {"sweep": True},
        }
        if name in events:
            return lambda: _quietly(lambda: send_with(wiring, events[name], deadline))
        if name in {"edit", "force"}:
            event = self._edit if name == "edit" else self._force
            return lambda: _quietly(lambda: send_with(wiring, event(wiring), deadline))
        wanted = [int(one) for one in name.split() if one.isdigit()]
        return lambda: self._deliver(wiring, wanted, is_replay="replay" in name)

    def _force(self, _wiring: Wiring) -> dict[str, Any]:
        places = [[span.chain.name, span.after] for span in self._inspector.ledger.spans()]
        return {"force": {"tag": "again", "places": places}}

    def _edit(self, wiring: Wiring) -> dict[str, Any]:
        dead = [
            one for number in range(WORKLIST_KEYS) for one in self._inspector.ledger.worklist("dead", number)
        ]
        if not dead:
            return {}
        _, place = dead[0]
        key = ChunkKey(Group(RowSender("shop"), "views"), 0)
        rows = [_row(f"views-{n}") | {"edited": wiring.effects.entropy(4).hex()} for n in range(_REJECTS)]
        body = b64encode(compress(b"".join(map(msgpack.packb, rows)))).decode()
        return {"edit": {"chain": place.chain.name, "after": place.after, "chunk": key.name, "rows": body}}

    def _deliver(self, wiring: Wiring, wanted: list[int], *, is_replay: bool) -> bool:
        iterator = self.kinesis.get_shard_iterator(
            StreamName=_STREAM, ShardId=_SHARD, ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        members = [
            {
                "kinesis": {
                    "sequenceNumber": one["SequenceNumber"],
                    "data": b64encode(one["Data"]).decode(),
                    "approximateArrivalTimestamp": one["ApproximateArrivalTimestamp"].timestamp()
                    + self._lateness.get(one["SequenceNumber"], 0.0),
                },
                "eventID": f"{_SHARD}:{one['SequenceNumber']}",
            }
            for one in self.kinesis.get_records(ShardIterator=iterator)["Records"]
        ]
        if not members:
            return True
        records = [members[number] for number in wanted] or members
        event = {"Records": records} | ({"replay": True} if is_replay else {})
        return not wiring.worker.run(event, Deadline.of(self.clock, 100_000))["batchItemFailures"]

    def check(self) -> None:
        """Record chunks that lack rows which somebody needs."""
        items = self.dynamodb.items(_TABLE)
        versions = tuple((one["pk"]["S"], one["sk"]["S"], one["v"]["N"]) for one in items if "v" in one)
        seen = versions, *self.s3.objects(_BUCKET)  # an object's name has its digest
        if seen not in self._seen:
            self._seen[seen] = list(self._lacking())
        self.faults += self._seen[seen]

    def _lacking(self) -> Iterator[str]:
        inspector, objects = self._inspector, SpanObjects(Bucket(self.s3, _BUCKET))  # type: ignore[arg-type]  # a double
        for span in inspector.ledger.spans():
            for key, entry in span.all_leaves():
                if entry.state in HELD:
                    try:
                        objects.body(span, key)
                    except InvalidObjectError as error:
                        yield f"{key.name} has no rows: {error}"

    def digest(self) -> bytes:
        """Return a digest of the time and the state of every service."""
        items = sorted((item["pk"]["S"], item["sk"]["S"], repr(item)) for item in self.dynamodb.items(_TABLE))
        objects = sorted((name, one.modified, one.body) for name, one in self.s3.objects(_BUCKET).items())
        td = sorted(self.td.rows.items()), sorted(self.td.ids.items()), len(list(self.kinesis.data()))
        return blake2b(repr((self.clock.time, items, objects, td)).encode(), digest_size=16).digest()

    def play(self) -> bool:
        """Run the scenario until its invocations end. Return whether the run was cut."""
        scenario = self.scenario
        self.hub.free = True
        self._restore(self._earlier or self.past())
        self.td.answers = scenario.answers
        self.clock.time += scenario.seconds
        self.hub.free = False
        self.hub.run([self.actor(name) for name in scenario.actors])
        self.hub.free = True
        return self.hub.is_cut

    def past(self) -> _Past:
        """Run the earlier invocations, and return what they leave."""
        self.hub.free = True
        self.td.answers = self.scenario.answers_before
        for name in self.scenario.before:
            if name.startswith("killed"):
                self._killed(name.removeprefix("killed "))
            else:
                self.actor(name)()
        return _Past(
            self.clock.time,
            list(self.dynamodb.items(_TABLE)),
            self.s3.objects(_BUCKET),
            self.td.rows,
            self.td.ids,
            next(self._sandboxes),
            {},
        )

    def _restore(self, past: _Past) -> None:
        self.clock.time, self._sandboxes = past.time, itertools.count(past.sandboxes)
        if past is self._earlier:
            self.td.rows, self.td.ids = past.rows.copy(), past.ids.copy()
            for item in past.items:
                self.dynamodb.put_item(TableName=_TABLE, Item=item)
            for name, one in past.objects.items():
                self.s3.put_object(Bucket=_BUCKET, Key=name, Body=one.body)

    def heal(self) -> list[str]:
        """End all faults, let everything settle, and return what is wrong."""
        self._heal()
        return self._wrong()

    def _killed(self, name: str) -> None:
        """Run a worker that is killed before it writes the ledger."""
        self.hub.free = False
        decisions, self.hub.decisions = self.hub.decisions, Choice(fault_at=(4, FaultKind.KILLED_BEFORE))
        self.hub.run([self.actor(name)])
        self.hub.decisions, self.hub.steps, self.hub.free = decisions, 0, True

    def _heal(self) -> None:
        for healed in (False, True):
            self.td.healed = healed
            for _ in range(6):
                self.clock.time += 6000
                for name in (f"worker {self.scenario.left}", "schedule", *(["hand"] if healed else [])):
                    self.actor(name)()
                if self._is_at_rest(dead=not healed):
                    break

    def _is_at_rest(self, *, dead: bool) -> bool:
        marks = [(item.get("wk") or {"S": ""})["S"] for item in self.dynamodb.items(_TABLE) if "g" in item]
        return not any(mark.startswith("waiting") or (mark and not dead) for mark in marks)

    def _wrong(self) -> list[str]:
        spans = list(self._inspector.ledger.spans())
        states = [(span, key, entry.state) for span in spans for key, entry in span.all_leaves()]
        wrong = [f"{key.name} is {state.value}" for _, key, state in states if state in HELD]
        forced = any(span.chain.is_forced for span in spans)
        is_dropped = {key.group.table for _, key, state in states if state is State.DROPPED}
        rows = dict.fromkeys(
            name for put in self.scenario.records for names in put.rows.values() for name in names
        )
        for name in rows:
            least = name.partition("-")[0] not in is_dropped
            if not least <= self.td.rows[name] <= least + forced:
                wrong.append(f"{name} is stored {self.td.rows[name]} times")
        if not wrong:
            self.clock.time += 60 * _DAY
            for _ in range(2):
                self.actor("sweep")()
                self.clock.time += 2 * _DAY
            wrong += [f"{name} is left over" for name in self.s3.objects(_BUCKET)]
        return wrong


def _row(event_id: str) -> dict[str, Any]:
    return {"time": int(_START), "event_id": event_id, "received_at": int(_START) * 1000}


def _quietly(job: Callable[[], Any]) -> None:
    """Run a job, ignoring errors: an invocation may raise them, and an edit may be rejected."""
    from shared.errors import SluiceError

    try:
        job()
    except SluiceError:
        return


def steps_of(scenario: Scenario) -> int:
    """Return the number of steps of a scenario without preemptions and faults."""
    world = _World(scenario, Choice(), {})
    world.play()
    return world.hub.steps


def run(scenario: Scenario, choice: Choice, defence: Defence | None = None) -> list[str]:
    """Run one interleaving, perhaps without a defence, and return what is wrong."""
    world = _World(scenario, choice, _parts(defence))
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
    runs: float = float("inf"),
    defence: Defence | None = None,
    most_wrong: int = 5,
) -> Explored:
    """Go through a scenario's interleavings until all are covered, `most_wrong` are wrong, or so many were run."""
    exploration, replaced = Exploration(preemptions, faults), _parts(defence)
    past = _World(scenario, Choice(), replaced).past()
    verdicts: dict[bytes, list[str]] = {}
    wrong: dict[Choice, list[str]] = {}
    more = True
    while more and exploration.runs < runs and len(wrong) < most_wrong:
        exploration.begin()
        world = _World(scenario, exploration, replaced, past)
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


def _parts(defence: Defence | None) -> Mapping[Any, Any]:
    """Return what to build without a defence; its parts do not depend on the world of the schedules."""
    return {} if defence is None else defence.weakness.replaced(None)  # type: ignore[arg-type]


def _explore(name: str, preemptions: int | None, runs: int) -> Explored:
    """Explore the scenario with this name, in a worker process."""
    return explore(NAMED[name], preemptions, runs=runs)


def follow(name: str, out: str = "") -> tuple[int, str]:
    """Explore a scene of the specification, perhaps without a rule; return the number of interleavings, and what is wrong."""
    explorer = Explorer(SCENES_BY_NAME[name], frozenset({out} - {""}), judge_every=0 if out else 100)
    return explorer.run(), explorer.wrong


def noticing(number: int) -> str:
    """Return a scenario that shows what breaks without the defence with this number in `ALL`, and where; empty if there is none."""
    for preemptions, faults in ((None, 0), (1, 1), (2, 1)):
        for scenario in SCENARIOS:
            done = explore(
                scenario, preemptions, faults=faults, runs=_DEFENCE_RUNS, defence=ALL[number], most_wrong=1
            )
            for choice in done.wrong:
                return f"{scenario.name}: {choice}"
    return ""


@click.command(help=__doc__)
@click.option("--preemptions", type=int, help="Maximum in one run.  [default: no limit]")
@click.option("--runs", default=100_000, show_default=True, help="Most runs of each scenario.")
@click.option("--only", default="", help="Only scenarios and defences whose name contains this.")
@click.option("--processes", default=0, help="Scenarios to explore in parallel; 0 for one per core.")
def main(preemptions: int | None, runs: int, only: str, processes: int) -> None:
    """Explore all scenarios, then leave out each defence that schedules seldom need."""
    scenarios = [scenario for scenario in SCENARIOS if only in scenario.name]
    numbers = [number for number, one in enumerate(ALL) if one.meets and only in one.name]
    most = "any number of" if preemptions is None else f"up to {preemptions}"
    table = Table(title=f"Interleavings with {most} preemptions and one fault")
    for name in ("scenario", "interleavings", "runs", "all of them", "violations"):
        table.add_column(name, justify="left" if name == "scenario" else "right")
    total, failed, progress, began = 0, False, Console(stderr=True), time.monotonic()
    with pool_of(processes) as pool:
        scenes = [(name, "") for name in SCENES_BY_NAME if only in name]
        scenes += [one for one in LEFT_OUT if not only]
        for (name, rule), scene in [(one, pool.submit(follow, *one)) for one in scenes]:
            count, wrong = scene.result()
            total, failed = total + count, failed or bool(wrong) != bool(rule)
            without = f" without {rule!r}" if rule else ""
            progress.print(f"specification: {name}{without}: {wrong or f'{count:,} interleavings'}")
        jobs = [pool.submit(_explore, one.name, preemptions, runs) for one in scenarios]
        checks = [(ALL[number].name, pool.submit(noticing, number)) for number in numbers]
        for scenario, job in zip(scenarios, jobs, strict=True):
            done = job.result()
            progress.print(
                f"{time.monotonic() - began:.0f} s: {scenario.name}: {done.interleavings:,} interleavings"
            )
            total, failed = total + done.interleavings, failed or bool(done.wrong)
            complete = "yes" if done.complete else "no"
            row = f"{done.interleavings:,}", f"{done.runs:,}", complete, str(len(done.wrong))
            table.add_row(scenario.name, *row)
            for choice, found in done.wrong.items():
                progress.print(f"{scenario.name}: {choice}: {found}")
        Console().print(table)
        for name, check in checks:
            where = check.result()
            failed |= not where
            Console().print(f"left out: {name}: {where or 'NOTHING NOTICES'}", soft_wrap=True)
    Console().print(f"{total:,} interleavings in {time.monotonic() - began:.0f} s")
    sys.exit(failed)


if __name__ == "__main__":
    main()
