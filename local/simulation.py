"""The whole delivery in one process, in simulated time: stream, event source, worker, redrive and Treasure Data.

The worker, its redrive, the event source and the stand-in are those of the local stack. Kinesis is in memory, and the
ledger, the bucket and the queue are moto's, without a server. Redis is a real one.
"""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
import requests

from doubles.clock import ManualClock
from doubles.event_source import EventSourceMapping, Returned, StreamPoller
from doubles.inline_executor import InlineExecutor
from doubles.kinesis import MemoryKinesis
from doubles.treasure_data import API_KEY, InProcess, TreasureData
from local.functions import REDRIVE, WORKER
from local.resources import ACCOUNT_ID, LEDGER, REGION
from ops.accounting import Accounting
from shared.settings import WorkerSettings
from worker.accounts import Directory
from worker.aside import Aside
from worker.breaker import Breakers
from worker.deadline import Deadline
from worker.execution import Means, Rules
from worker.journal import Journal
from worker.ledger import Ledger
from worker.redrive import Redrive
from worker.resending import ResendRules
from worker.secret import Secret
from worker.sender import Sender
from worker.shard import Shards
from worker.span import Cut
from worker.treasure_data import TreasureData as Client
from worker.upload import Limits, Uploader
from worker.worker import Worker

STREAM = "simulated"
TABLE = "simulated-ledger"
BUCKET = "simulated-aside"

_SETTINGS = WorkerSettings.from_environment(
    dict.fromkeys(
        (
            "STREAM_NAME",
            "OVERFLOW_QUEUE_URL",
            "LEDGER_TABLE",
            "ASIDE_BUCKET",
            "REDIS_URL_SECRET",
            "TD_API_KEY_SECRET",
        ),
        "-",
    )
)
_HELD_AT_MOST = _SETTINGS.retention_hours * 3600 / 2
_LIMITS = Limits(
    threads=_SETTINGS.upload_threads,
    per_database=_SETTINGS.uploads_per_database,
    park_after=_SETTINGS.park_after_seconds,
    held_at_most=_HELD_AT_MOST,
)
_RULES = Rules(
    cut=Cut(_SETTINGS.chunk_max_rows, _SETTINGS.chunk_max_bytes),
    memory_seconds=_SETTINGS.td_memory_minutes * 60,
    held_at_most=_HELD_AT_MOST,
)
_REDRIVE_SECONDS = 300.0
_REST_SECONDS = 1.0
_WINDOW_SECONDS = 60  # fewer and larger batches than by default: moments instead of a minute


@dataclass(frozen=True, slots=True)
class _OneSecret:
    """Secrets Manager with Treasure Data's key."""

    text: str

    def get_secret_value(self, **_: Any) -> Mapping[str, str]:
        """Return it, whatever is asked for."""
        return {"SecretString": self.text}


class Simulation:
    """A delivery; to be made inside moto's `mock_aws`.

    Args:
        clock: lets time pass.
        redis: a client, filled with accounts.
        td: Treasure Data, with the same clock.
        journal: hears what the worker notes.
        shards: of the stream.

    Attributes:
        kinesis: the stream's client.
        accounting: counts what became of what was put there.
    """

    def __init__(
        self, clock: ManualClock, redis: Any, td: TreasureData, journal: Journal, shards: int = 2
    ) -> None:
        self._clock = clock
        self.kinesis = MemoryKinesis(clock.now)
        self.kinesis.create_stream(StreamName=STREAM, ShardCount=shards)
        self.kinesis.increase_stream_retention_period(
            StreamName=STREAM, RetentionPeriodHours=_SETTINGS.retention_hours
        )
        dynamodb = boto3.client("dynamodb", REGION)
        s3 = boto3.client("s3", REGION)
        sqs = boto3.client("sqs", REGION)
        dynamodb.create_table(TableName=TABLE, **LEDGER)
        s3.create_bucket(Bucket=BUCKET)
        queue = sqs.create_queue(QueueName="simulated-overflow")["QueueUrl"]
        entropy = itertools.count(1)
        ledger = Ledger(dynamodb, TABLE, clock, lambda size: next(entropy).to_bytes(size, "big"), journal)
        directory = Directory(lambda: redis, clock, journal)
        aside = Aside(s3, BUCKET)
        breakers = Breakers(ledger, clock, journal)
        uploader = Uploader(
            sender=Sender(_client(td, clock), directory),
            breakers=breakers,
            clock=clock,
            chance=lambda: 0.5,
            limits=_LIMITS,
            journal=journal,
        )
        means = Means(
            ledger=ledger,
            uploader=uploader,
            aside=aside,
            executors=InlineExecutor,
            rules=_RULES,
            clock=clock,
            journal=journal,
        )
        self._worker = Worker(Shards(self.kinesis, STREAM, clock), directory, means)
        self._redrive = Redrive(
            means=means,
            directory=directory,
            breakers=breakers,
            rules=ResendRules(
                query_delay=_SETTINGS.td_query_delay_minutes * 60,
                sends_unasked=_SETTINGS.unaskable_doubt == "send",
                parked_max_seconds=_SETTINGS.parked_max_days * 86_400,
            ),
        )
        self._redriven_at = clock.now()
        mapping = EventSourceMapping(
            event_source_arn=f"arn:aws:kinesis:{REGION}:{ACCOUNT_ID}:stream/{STREAM}",
            batch_size=5000,
            maximum_batching_window_seconds=_WINDOW_SECONDS,
        )
        self._poller = StreamPoller(self.kinesis, mapping)
        self.accounting = Accounting(
            dynamodb=dynamodb,
            table=TABLE,
            kinesis=self.kinesis,
            stream_name=STREAM,
            aside=aside,
            sqs=sqs,
            queue_url=queue,
            clock=clock,
        )

    def put(self, data: bytes, partition_key: str) -> None:
        """Put a record on the stream."""
        self.kinesis.put_record(StreamName=STREAM, Data=data, PartitionKey=partition_key)

    def invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        """Invoke the worker, as Lambda does: what goes in and comes out is JSON."""
        answer = self._worker.run(json.loads(json.dumps(event)), WORKER.timeout * 1000)
        result: dict[str, Any] = json.loads(json.dumps(answer))
        return result

    def run(self, until: float) -> None:
        """Let everything happen that happens by itself, up to a time, UNIX seconds."""
        while self._clock.now() < until:
            if self._clock.now() - self._redriven_at >= _REDRIVE_SECONDS:
                self._redriven_at = self._clock.now()
                self._redrive.run(Deadline.of(self._clock, REDRIVE.timeout * 1000))
            invocation = self._poller.poll(self._clock.now())
            if invocation is None:
                self._clock.sleep(_REST_SECONDS)
            else:
                outcome = Returned(self.invoke(invocation.event))
                self._poller.complete(invocation, outcome, self._clock.now())


def _client(td: TreasureData, clock: ManualClock) -> Client:
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", InProcess(td.handle, clock))
    key = Secret(_OneSecret(API_KEY), "-", clock)
    return Client(session, _SETTINGS.td_import_endpoint, _SETTINGS.td_api_endpoint, key, clock)
