"""The worker over in-memory doubles, with a clock that moves only when someone waits."""

import itertools
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
import requests
from botocore.exceptions import ConnectionClosedError

from doubles.clock import ManualClock
from doubles.dynamodb import MemoryDynamoDB
from doubles.inline_executor import InlineExecutor
from doubles.kinesis import MemoryKinesis
from doubles.redis import MemoryRedis
from doubles.s3 import MemoryS3
from doubles.treasure_data import API_KEY, InProcess, TreasureData
from doubles.treasure_data.settings import Settings as TreasureDataSettings
from shared import accounts
from shared.accounts import Account
from shared.envelope import Envelope, TableRows
from worker.accounts import Directory
from worker.aside import Aside
from worker.breaker import Breakers
from worker.deadline import Deadline
from worker.execution import Means, Rules
from worker.journal import METRICS
from worker.ledger import Ledger
from worker.redrive import Redrive, Report, Selection
from worker.resending import ResendRules
from worker.secret import Secret
from worker.sender import Sender
from worker.shard import Shards
from worker.span import Cut, Kind
from worker.treasure_data import TreasureData as TreasureDataClient
from worker.upload import Limits, Uploader
from worker.worker import Worker

STREAM = "events"
TABLE = "ledger"
BUCKET = "aside"
SHARD = "shardId-000000000000"
INVOCATION_MS = 120_000


class CollectedJournal:
    """Keeps what is counted and noted."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.notes: list[tuple[str, dict[str, Any]]] = []

    def count(self, metric: str, value: int = 1) -> None:
        """Add to one of METRICS."""
        if metric not in METRICS:
            raise KeyError(metric)
        self.counts[metric] += value

    def note(self, message: str, **fields: Any) -> None:
        """Keep a line."""
        self.notes.append((message, fields))

    def flush(self) -> None:
        """Keep what was counted."""


class KilledError(BaseException):
    """The function was killed."""


class Meddled:
    """A client whose calls can be watched, prevented, or made to fail after they took effect.

    Attributes:
        calls: names of the calls made, in order.
        before: by call, what happens before it.
        after: by call, what happens after it took effect; it is handed the result.
    """

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
    """Return a hook that acts at the first call that `when` is true of."""
    done: list[bool] = []

    def hook(request: dict[str, Any]) -> None:
        if not done and when(request):
            done.append(True)
            act()

    return hook


def kill() -> None:
    """Kill the function."""
    raise KilledError


def lose_answer() -> None:
    """Let a client lose the answer to a call."""
    raise ConnectionClosedError(endpoint_url="http://aws")


def is_settling(request: dict[str, Any]) -> bool:
    """Tell whether an update of the ledger settles a span."""
    values = request.get("ExpressionAttributeValues", {})
    return bool(values.get(":state") == {"S": "done"})


class StaticSecrets:
    """Secrets Manager with fixed values."""

    def __init__(self, **values: str) -> None:
        self.values = values

    def get_secret_value(self, *, SecretId: str) -> dict[str, str]:  # noqa: N803 -- boto3's name
        """Return the value."""
        return {"SecretString": self.values[SecretId]}


def row(event_id: str, time: int = 1_700_000_000, **columns: Any) -> dict[str, Any]:
    """Return a row as the ingest makes it."""
    return {"time": time, "event_id": event_id, "received_at": time * 1000, **columns}


def envelope(
    account: str,
    tables: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    key_id: str = "k1",
    request_id: str = "r",
    attempt: int = 0,
) -> bytes:
    """Return an envelope with these rows by table."""
    packed = []
    for table, rows in tables.items():
        maps = [msgpack.packb(one) for one in rows]
        packed.append(TableRows(table, len(maps), b"".join(maps)))
    return Envelope(account, key_id, 1_700_000_000_000, request_id, attempt, tuple(packed)).encode()


@dataclass(kw_only=True)
class Delivery:
    """Everything around a worker: stream, accounts, ledger, bucket and Treasure Data, in memory.

    Attributes are what a test may change before it calls `start`, which makes a fresh sandbox.
    """

    clock: ManualClock = field(default_factory=ManualClock)
    cut: Cut = field(default_factory=lambda: Cut(50_000, 16 << 20))
    park_after: float = 20.0
    threads: int = 16
    retention: float = 7 * 86_400.0
    memory: float = 3600.0
    query_delay: float = 600.0
    unaskable_doubt: str = "send"
    parked_max_days: float = 14.0
    executors: Callable[[], Any] = InlineExecutor

    def __post_init__(self) -> None:
        """Make the services."""
        self.kinesis: Any = Meddled(MemoryKinesis(self.clock.now))
        self.kinesis.create_stream(StreamName=STREAM, ShardCount=1)
        self.dynamodb: Any = Meddled(MemoryDynamoDB())
        self.dynamodb.create_table(
            TableName=TABLE,
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
        )
        self.s3: Any = Meddled(MemoryS3(self.clock.now))
        self.s3.create_bucket(Bucket=BUCKET)
        self.redis: Any = MemoryRedis()
        self.redis.hset(accounts.SENTINEL, mapping={"at": "now", "count": "0"})
        settings = TreasureDataSettings(id_memory=self.memory, query_delay=self.query_delay)
        self.td = TreasureData(clock=self.clock, settings=settings)
        self.secrets = StaticSecrets(td=API_KEY)
        self.entropy = itertools.count(1)
        self.read: list[dict[str, Any]] = []
        self.start()

    def start(self) -> "Delivery":
        """Make a fresh sandbox: a worker and a redrive that remember nothing."""
        clock = self.clock
        self.journal = journal = CollectedJournal()
        ledger = Ledger(self.dynamodb, TABLE, clock, lambda n: next(self.entropy).to_bytes(n, "big"), journal)
        directory = Directory(lambda: self.redis, clock, journal)
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", InProcess(self.td.handle, clock))
        key = Secret(self.secrets, "td", clock)
        client = TreasureDataClient(session, "http://import.td", "http://api.td", key, clock)
        self.breakers = Breakers(ledger, clock, journal)
        held_at_most = self.retention / 2
        limits = Limits(
            threads=self.threads, per_database=4, park_after=self.park_after, held_at_most=held_at_most
        )
        uploader = Uploader(
            sender=Sender(client, directory),
            breakers=self.breakers,
            clock=clock,
            chance=lambda: 0.5,
            limits=limits,
            journal=journal,
        )
        self.aside = Aside(self.s3, BUCKET)
        self.ledger = ledger
        self.means = Means(
            ledger=ledger,
            uploader=uploader,
            aside=self.aside,
            executors=self.executors,
            rules=Rules(cut=self.cut, memory_seconds=self.memory, held_at_most=held_at_most),
            clock=clock,
            journal=journal,
        )
        self.shards = Shards(self.kinesis, STREAM, clock)
        self.worker = Worker(self.shards, directory, self.means)
        self.redrive = Redrive(
            means=self.means,
            directory=directory,
            breakers=self.breakers,
            rules=ResendRules(
                query_delay=self.query_delay,
                sends_unasked=self.unaskable_doubt == "send",
                parked_max_seconds=self.parked_max_days * 86_400,
            ),
        )
        return self

    def map(self, **databases: str) -> None:
        """Let accounts' rows go to these databases."""
        for account, database in databases.items():
            self.redis.hset(accounts.redis_key(account), mapping=Account(database).to_fields())

    def put(self, *data: bytes) -> list[str]:
        """Put records on the stream; return their sequence numbers."""
        return [
            self.kinesis.put_record(StreamName=STREAM, Data=one, PartitionKey="k")["SequenceNumber"]
            for one in data
        ]

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
        """Return Lambda's event with the shard's records from one position to another."""
        return {"Records": [member(record) for record in self.records()[begin:end]]}

    def deliver(
        self, begin: int = 0, end: int | None = None, remaining_ms: float = INVOCATION_MS
    ) -> str | None:
        """Invoke the worker with records by their position; return the sequence number that it reports."""
        answer = self.worker.run(self.event(begin, end), remaining_ms)
        failures = answer["batchItemFailures"]
        return failures[0]["itemIdentifier"] if failures else None

    def send_aside(self, *kinds: Kind) -> Report:
        """Run the redrive, of these kinds or as by schedule."""
        deadline = Deadline.of(self.clock, INVOCATION_MS)
        return self.redrive.run(deadline, Selection(kinds) if kinds else None)

    def ids(self, database: str, table: str) -> list[str]:
        """Return the event ids in Treasure Data, in the order of their import."""
        return [one["event_id"] for one in self.td.rows(database, table)]

    def objects(self) -> list[str]:
        """Return the names of the objects that are set aside."""
        return sorted(self.s3.objects(BUCKET))


def member(record: Mapping[str, Any], shard: str = SHARD) -> dict[str, Any]:
    """Return a record as it stands in Lambda's event."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "data": b64encode(record["Data"]).decode(),
            "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
        },
        "eventSource": "aws:kinesis",
        "eventID": f"{shard}:{record['SequenceNumber']}",
    }
