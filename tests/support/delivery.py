"""The worker over in-memory doubles, with a clock that advances only when someone waits."""

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import msgpack
from botocore.exceptions import ConnectionClosedError

from doubles.clock import ManualClock
from doubles.dynamodb import MemoryDynamoDB
from doubles.event_source import EventSourceMapping
from doubles.iam import Authorized
from doubles.kinesis import MemoryKinesis
from doubles.redis import MemoryRedis
from doubles.s3 import MemoryS3
from doubles.treasure_data import API_KEY, Action, Fault, InProcess, Kind, TreasureData
from doubles.treasure_data import Settings as TreasureDataSettings
from local.functions import SENDER, WORKER, Function
from local.resources import LEDGER, Resources
from local.roles import role_of
from shared import policy
from shared.accounts import Account, AccountKeys
from shared.envelope import Envelope, TableRows
from shared.policy import PolicyEntry
from shared.settings import WorkerSettings
from tests.support.inline_executor import InlineExecutor
from tests.support.telemetry import CollectedTelemetry
from worker.app import send_with
from worker.bucket import Bucket
from worker.deadline import Deadline
from worker.ledger import Ledger, _decode
from worker.plan import Cut
from worker.rejected_events import PREFIX as REJECTED
from worker.selection import Selection
from worker.sender import Report
from worker.span import Span
from worker.span_object import PREFIX, SpanObjects
from worker.states import State
from worker.wiring import Effects, Wiring

STREAM = "events"
TABLE = "ledger"
BUCKET = "aside"
KEYS = AccountKeys(TABLE)
SHARD = "shardId-000000000000"
INVOCATION_MS = 120_000
TD_KEY_SECRET = "td"
WRITE_KEY_SECRET = "write-keys"
HASH_KEY = "hash-key"
RESOURCES = Resources(
    endpoint="",
    queue_url="https://sqs.invalid/000000000000/overflow",
    stream=STREAM,
    ledger_table=TABLE,
    data_bucket=BUCKET,
    td_api_key_secret=TD_KEY_SECRET,
    write_key_secret=WRITE_KEY_SECRET,
)
MAPPING = EventSourceMapping(event_source_arn=RESOURCES.stream_arn)


class KilledError(BaseException):
    """The function was killed."""


class Meddled:
    """A client that notes its `calls`. By call, a hook runs `before` it, and may prevent it, or `after` it took effect, with the request."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.calls: list[str] = []
        self.before: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.after: dict[str, Callable[[dict[str, Any]], Any]] = {}

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)
        if not callable(call):
            return call

        def meddled(*args: Any, **request: Any) -> Any:
            self.calls.append(name)
            if name in self.before:
                self.before[name](request)
            result = call(*args, **request)
            if name in self.after:
                self.after[name](request)
            return result

        return meddled


def once(
    act: Callable[[], Any], when: Callable[[dict[str, Any]], bool] = lambda _: True
) -> Callable[..., None]:
    """Return a hook that acts once, on the first call whose request satisfies `when`."""
    left = [act]

    def hook(request: dict[str, Any]) -> None:
        if left and when(request):
            left.pop()()

    return hook


def kill() -> None:
    """Kill the function."""
    raise KilledError


def lose_answer() -> None:
    """Fail as a client that loses the response to a call."""
    raise ConnectionClosedError(endpoint_url="http://aws")


def is_settling(request: dict[str, Any]) -> bool:
    """Return whether an update of the ledger settles a span."""
    members = request.get("ExpressionAttributeValues", {}).get(":g")
    return members is not None and _decode(members["B"]).settled


class StaticSecrets:
    """Secrets Manager with fixed values."""

    def __init__(self, **values: str) -> None:
        self.values = values

    def get_secret_value(self, *, SecretId: str) -> dict[str, str]:  # noqa: N803 -- boto3's name
        """Return the value."""
        return {"SecretString": self.values[SecretId]}


def row(event_id: str, time: int = 1_700_000_000, **columns: Any) -> dict[str, Any]:
    """Return a row as the ingest creates it."""
    return {"time": time, "event_id": event_id, "received_at": time * 1000, **columns}


def envelope(
    account: str,
    tables: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    key_id: str = "k1",
    request_id: str = "r",
    claim: int = 0,
    received_at: int = 1_700_000_000_000,
    counted: int | None = None,
) -> bytes:
    """Return an envelope with these rows by table, perhaps with a wrong number of each table's rows."""
    packed = []
    for table, rows in tables.items():
        maps = [msgpack.packb(one) for one in rows]
        packed.append(TableRows(table, len(maps) if counted is None else counted, b"".join(maps)))
    return Envelope(account, key_id, received_at, request_id, claim, tuple(packed)).encode()


@dataclass(kw_only=True)
class Delivery:
    """A worker and everything around it, in memory. `start` creates new sandboxes, with the template's permissions; `ledger` and `objects` have all."""

    clock: ManualClock = field(default_factory=ManualClock)
    cut: Cut = field(default_factory=lambda: Cut(50_000, 16 << 20))
    memory: float = 3600.0
    query_delay: float = 600.0
    unaskable_doubt: str = "send"
    archive_days: int = 30
    executors: Callable[[], Any] = InlineExecutor
    replaced: Mapping[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Create the services."""
        self.kinesis: Any = Meddled(MemoryKinesis(self.clock.now))
        self.kinesis.create_stream(StreamName=STREAM, ShardCount=1)
        self.dynamodb: Any = Meddled(MemoryDynamoDB(self.clock.now))
        self.dynamodb.create_table(TableName=TABLE, **LEDGER)
        self.s3: Any = Meddled(MemoryS3(self.clock.now))
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        self.redis: Any = MemoryRedis()
        self.redis.hset(KEYS.sentinel, mapping={"at": "now", "count": "0"})
        settings = TreasureDataSettings(id_memory=self.memory, query_delay=self.query_delay)
        self.td = TreasureData(clock=self.clock, settings=settings)
        members = json.dumps({"k1": "signing", ".forget": "forget-key", ".hash": HASH_KEY})
        self.secrets = StaticSecrets(**{TD_KEY_SECRET: API_KEY, WRITE_KEY_SECRET: members})
        self.entropy = itertools.count(1)
        self.read: list[dict[str, Any]] = []
        self.start()

    def start(self) -> "Delivery":
        """Create new sandboxes, which remember nothing."""
        self.telemetry = CollectedTelemetry()
        self.ledger = Ledger(self.dynamodb, TABLE, self.clock, self._entropy, self.telemetry)
        self.objects = SpanObjects(Bucket(self.s3, BUCKET))
        self.wiring = self.wiring_of(WORKER)
        self.sender_wiring = self.wiring_of(SENDER)
        self.worker = self.wiring.worker
        return self

    def wiring_of(self, function: Function, **clients: Any) -> Wiring:
        """Return the parts of a new sandbox of a function. `clients` replace the delivery's own."""
        settings = WorkerSettings(
            stream_name=STREAM,
            overflow_queue_url=RESOURCES.queue_url,
            overflow_notices_url=RESOURCES.notices_url,
            ledger_table=TABLE,
            data_bucket=BUCKET,
            redis_url_secret="",
            td_api_key_secret=TD_KEY_SECRET,
            write_key_secret=WRITE_KEY_SECRET,
            td_import_endpoint="http://import.td",
            td_api_endpoint="http://api.td",
            archive_days=self.archive_days,
            td_memory_minutes=self.memory / 60,  # type: ignore[arg-type]  # fractions are for tests
            td_query_delay_minutes=self.query_delay / 60,  # type: ignore[arg-type]
            unaskable_doubt=self.unaskable_doubt,
            chunk_max_rows=self.cut.rows,
            chunk_max_bytes=self.cut.bytes,
        )
        role = role_of(function, RESOURCES)

        def authorized(service: str, client: Any) -> Any:
            return Authorized(service, client, role)

        effects = Effects(
            kinesis=authorized("kinesis", clients.get("kinesis", self.kinesis)),
            dynamodb=authorized("dynamodb", self.dynamodb),
            s3=authorized("s3", self.s3),
            sqs=authorized("sqs", clients.get("sqs")),
            secrets=authorized("secretsmanager", self.secrets),
            redis=lambda: self.redis,
            http=InProcess(self.td.handle, self.clock),
            clock=self.clock,
            entropy=self._entropy,
            executors=self.executors,
            telemetry=clients.get("telemetry", self.telemetry),
        )
        return Wiring(settings, effects, self.replaced)

    def _entropy(self, size: int) -> bytes:
        return next(self.entropy).to_bytes(size, "big")

    def map(self, **accounts: str | Account) -> Self:
        """Apply accounts, beside those that there are: whole ones, or the databases of active ones."""
        for name, one in accounts.items():
            account = one if isinstance(one, Account) else Account(one)
            self.redis.hset(KEYS.of(name), mapping=account.to_fields())
        names = [key.removeprefix(KEYS.of("")) for key in self.redis.scan_iter(match=KEYS.of("*"))]
        document = policy.encode({name: PolicyEntry() for name in names if name != ".applied"}, 1)
        self.s3.client.put_object(Bucket=BUCKET, Key=policy.KEY, Body=document)
        return self

    def put(self, *data: bytes) -> list[str]:
        """Put records on the stream, and return their sequence numbers."""
        puts = [self.kinesis.put_record(StreamName=STREAM, Data=one, PartitionKey="k") for one in data]
        return [put["SequenceNumber"] for put in puts]

    def records(self) -> list[dict[str, Any]]:
        """Return everything that was ever put on the shard, as GetRecords does."""
        start: dict[str, str] = {"ShardIteratorType": "TRIM_HORIZON"}
        if self.read:
            last = self.read[-1]["SequenceNumber"]
            start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": last}
        client = self.kinesis.client
        iterator = client.get_shard_iterator(StreamName=STREAM, ShardId=SHARD, **start)["ShardIterator"]
        while (answer := client.get_records(ShardIterator=iterator))["Records"]:
            self.read += answer["Records"]
            iterator = answer["NextShardIterator"]
        return self.read

    def event(self, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        """Return a Lambda event with the shard's records from one position to another."""
        return {"Records": [member(record) for record in self.records()[begin:end]]}

    def deliver(
        self, begin: int = 0, end: int | None = None, remaining_ms: float = INVOCATION_MS
    ) -> str | None:
        """Invoke the worker with records by their positions, and return the sequence number that it reports as failed."""
        failures = self.run(self.event(begin, end), remaining_ms)["batchItemFailures"]
        return failures[0]["itemIdentifier"] if failures else None

    def deliver_each(self, *data: bytes) -> None:
        """Put records, and deliver each in a batch of its own."""
        for one in data:
            self.put(one)
            assert self.deliver(-1) is None

    def by_shard(self) -> dict[str, list[dict[str, Any]]]:
        """Return everything that is on the stream, by shard."""
        client = self.kinesis.client
        names = [shard["ShardId"] for shard in client.list_shards(StreamName=STREAM)["Shards"]]
        return {name: client.records(STREAM, name) for name in names}

    def deliver_all(self, shards: Collection[str] = ()) -> list[Any]:
        """Invoke the worker with all records of each shard, or of some; return what it reports as failed."""
        failures = []
        for name, records in self.by_shard().items():
            if records and (not shards or name in shards):
                event = {"Records": [member(one, name) for one in records]}
                failures += self.run(event)["batchItemFailures"]
        return failures

    def split(self) -> None:
        """Split the first shard in half."""
        self.kinesis.split_shard(StreamName=STREAM, ShardToSplit=SHARD, NewStartingHashKey=str(1 << 127))

    def fail(self, status: int, **members: Any) -> None:
        """Have imports answered with a status."""
        self.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=status, **members))

    def run(self, event: dict[str, Any], remaining_ms: float = INVOCATION_MS) -> dict[str, Any]:
        """Invoke the worker with an event, and return its response."""
        return self.worker.run(event, self.deadline(remaining_ms))

    def deadline(self, remaining_ms: float = INVOCATION_MS) -> Deadline:
        """Return the deadline of an invocation that begins now."""
        return Deadline.of(self.clock, remaining_ms)

    def send(self, *states: State, **selected: Any) -> Report:
        """Run the sender for chunks in these states, by default those that the schedule selects."""
        selection = Selection(states or Selection().states, **selected)
        return self.sender_wiring.sender.run(self.deadline(), selection)

    def invoke_sender(self, event: dict[str, Any]) -> dict[str, Any]:
        """Invoke the sender's function."""
        return send_with(self.sender_wiring, event, self.deadline())

    def spans(self) -> list[Span]:
        """Return all spans of the ledger, ordered by chain and place."""
        return sorted(self.ledger.spans(), key=lambda span: (span.chain.name, span.after))

    def chunks(self, *states: State) -> dict[str, tuple[str, str, int]]:
        """Return the state, reason and number of rows of each chunk in one of the states (by default, all but delivered), by its name."""
        return {
            key.name: (entry.state.value, entry.reason, span.rows(key))
            for span in self.spans()
            for key, entry in span.all_leaves()
            if (entry.state in states if states else entry.state is not State.DELIVERED)
        }

    def ids(self, database: str, table: str) -> list[str]:
        """Return the event ids in Treasure Data, in the order of their import."""
        return [one["event_id"] for one in self.td.rows(database, table)]

    def span_objects(self) -> list[str]:
        """Return the names of the span objects."""
        return sorted(name for name in self.s3.objects(BUCKET) if name.startswith(PREFIX))

    def rejected_objects(self) -> list[str]:
        """Return the names of the objects with rejected events."""
        return sorted(name for name in self.s3.objects(BUCKET) if name.startswith(REJECTED))


def shops(*data: bytes, **changes: Any) -> Delivery:
    """Return a delivery with these records and two accounts, whose databases have a table `views`."""
    made = Delivery(**changes).map(shop="shop_db", blog="blog_db")
    for database in ("shop_db", "blog_db"):
        made.td.create(database, "views")
    made.put(*data)
    return made


def stored(status: int, *data: bytes, lands: float | None = None, **changes: Any) -> Delivery:
    """Return a delivery of these records whose imports were answered with a status, and may have landed; from now on they succeed."""
    made = shops(*data, **changes)
    made.fail(status, lands=lands)
    assert made.deliver() is None
    made.td.faults.clear()
    return made.start()


def other_sandbox(made: Delivery) -> Delivery:
    """Return the same delivery with a worker in another sandbox, whose calls trigger no hooks."""
    other = Delivery.__new__(Delivery)
    other.__dict__.update(made.__dict__)
    other.dynamodb, other.s3 = made.dynamodb.client, made.s3.client
    return other.start()


def member(record: Mapping[str, Any], shard: str = SHARD) -> dict[str, Any]:
    """Return a record as it appears in a Lambda event."""
    return json.loads(MAPPING.record(shard, dict(record)).text)
