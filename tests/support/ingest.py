"""An ingest over in-memory parts, and the events that API Gateway would send to it."""

import base64
import gzip
import json
from collections.abc import Iterator, Mapping
from itertools import count
from types import SimpleNamespace
from typing import Any

import msgpack

from doubles.background import at_once
from doubles.clock import ManualClock
from doubles.dynamodb import MemoryDynamoDB
from doubles.gateway import event_of
from doubles.http_server import Request
from doubles.iam import Authorized
from doubles.kinesis import MemoryKinesis
from doubles.s3 import MemoryS3
from ingest.app import Ingest, IngestEffects
from local.functions import INGEST
from local.resources import COUNTERS as COUNTERS_SCHEMA
from local.resources import Resources
from local.roles import role_of
from shared import envelope, policy, write_key
from shared.envelope import Envelope, RejectedEvent
from shared.policy import PolicyEntry
from shared.settings import IngestSettings
from tests.support.telemetry import CollectedTelemetry

START = 1_764_000_000.0
"""The start of the manual clock, UNIX seconds."""
STREAM = "events"
QUEUE_URL = "https://queue.invalid/overflow"
BUCKET = "aside"
_RESOURCES = Resources("", QUEUE_URL, stream=STREAM, data_bucket=BUCKET, write_key_secret="keys")
NOTICES_URL = _RESOURCES.notices_url
COUNTERS = _RESOURCES.counters_table
SECRETS = {"k1": "first secret", "k2": "second secret"}
KEY = write_key.sign("shop", "k1", SECRETS["k1"])
ORIGIN = "https://www.shop.example"


class Faults:
    """A client whose next calls raise, call or return `faults`, in turn, of all operations or by operation; None lets one through. `sticky`: the last lasts."""

    def __init__(self, client: Any, clock: ManualClock) -> None:
        self._client = client
        self._clock = clock
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.faults: Any = []
        self.sticky = False
        self.seconds = 0.0

    def __getattr__(self, operation: str) -> Any:
        """Return one of the client's calls."""

        def call(**arguments: Any) -> Any:
            self.calls.append((operation, arguments))
            self._clock.time += self.seconds
            fault = None
            if next_ := self.faults.get(operation) if isinstance(self.faults, dict) else self.faults:
                fault = next_[0] if self.sticky and len(next_) == 1 else next_.pop(0)
            if isinstance(fault, Exception):
                raise fault
            if callable(fault):
                return fault(**arguments)
            return getattr(self._client, operation)(**arguments) if fault is None else fault

        return call


class Queue:
    """An SQS client that keeps the messages and notices sent to it."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.notices: list[dict[str, Any]] = []

    def send_message(self, **message: Any) -> dict[str, str]:
        """Keep a message."""
        kept = self.notices if message["QueueUrl"] == NOTICES_URL else self.messages
        kept.append(message)
        return {"MessageId": str(len(kept))}


class Answer:
    """The function's response, decoded. The names of its headers are in lower case."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        assert set(payload) - {"cookies"} == {"statusCode", "headers", "body", "isBase64Encoded"}
        self.status: int = payload["statusCode"]
        self.headers: dict[str, str] = payload["headers"]
        assert all(name == name.lower() and isinstance(text, str) for name, text in self.headers.items())
        self.cookies: list[str] = payload.get("cookies", [])
        text: str = payload["body"]
        self.body = base64.b64decode(text, validate=True) if payload["isBase64Encoded"] else text.encode()

    @property
    def json(self) -> Any:
        """The body, parsed as JSON."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The error code in the response's header, if any."""
        return self.headers.get("x-sluice-error")


class Site:
    """An ingest and everything around it. Its clients can fail, and at first there is no edge policy."""

    def __init__(self, allowed_origins: tuple[str, ...] = ("*",), **settings: Any) -> None:
        self.clock = ManualClock(START)
        self._memory = MemoryKinesis(self.clock.now)
        self._memory.create_stream(StreamName=STREAM, ShardCount=1)
        self.kinesis = Faults(self._memory, self.clock)
        self.queue = Queue()
        self.sqs = Faults(self.queue, self.clock)
        self.secret = SimpleNamespace(text=json.dumps(SECRETS))
        held = SimpleNamespace(get_secret_value=lambda **_: {"SecretString": self.secret.text})
        self.secrets = Faults(held, self.clock)
        self.bucket = MemoryS3(self.clock.now)
        self.bucket.create_bucket(Bucket=BUCKET)
        self.s3 = Faults(self.bucket, self.clock)
        self.counters = MemoryDynamoDB(self.clock.now)
        self.counters.create_table(TableName=COUNTERS, **COUNTERS_SCHEMA)
        self.dynamodb = Faults(self.counters, self.clock)
        self.telemetry = CollectedTelemetry()
        role = role_of(INGEST, _RESOURCES)
        numbers = count(1)  # so that bytes never repeat within a run, and are the same in every run
        effects = IngestEffects(
            kinesis=Authorized("kinesis", self.kinesis, role),
            sqs=Authorized("sqs", self.sqs, role),
            dynamodb=Authorized("dynamodb", self.dynamodb, role),
            secrets=Authorized("secretsmanager", self.secrets, role),
            s3=Authorized("s3", self.s3, role),
            clock=self.clock,
            entropy=lambda size: (next(numbers) * 0x9E3779B97F4A7C15F39C % (1 << 80)).to_bytes(10)[-size:],
            telemetry=self.telemetry,
            start=at_once,
        )
        places = (STREAM, QUEUE_URL, BUCKET, "keys", NOTICES_URL, COUNTERS)
        self.handler = Ingest(IngestSettings(*places, allowed_origins, **settings), effects)
        self.stream, self.keyring = self.handler.stream, self.handler.keyring

    def publish(self, **entries: PolicyEntry) -> None:
        """Publish an edge policy. The ingest reads it when its own is a minute old."""
        data = policy.encode(entries, int(self.clock.now() * 1000))
        self.bucket.put_object(Bucket=BUCKET, Key=policy.KEY, Body=data)

    def send(self, event: Mapping[str, Any]) -> Answer:
        """Send an event to the handler."""
        return Answer(self.handler(event, None))

    def get(self, path: str, query: str = "", **headers: str) -> Answer:
        """Send a GET request. Header names are written with `_` for `-`."""
        return self.send(http_event("GET", path, query, named(headers)))

    def pixel(self, query: str, **headers: str) -> Answer:
        """Request the pixel with a valid key and a table."""
        return self.get("/pixel.gif", f"k={KEY}&t=pageviews&{query}", **headers)

    def post(self, body: Any, query: str = "", **headers: str) -> Answer:
        """Post a body, as JSON unless it is bytes, to the events API; `key` replaces the valid key, and an empty one omits it."""
        key = headers.pop("key", KEY)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = named(headers) | ({"authorization": f"Bearer {key}"} if key else {})
        return self.send(http_event("POST", "/v1/events", query, sent, data))

    def envelopes(self) -> list[Envelope]:
        """Return the envelopes on the stream."""
        return [envelope.decode(record["Data"]) for record in self.records()]

    def records(self) -> list[dict[str, Any]]:
        """Return the stream's records."""
        return self._memory.records(STREAM, "shardId-000000000000")

    def queued(self) -> list[Envelope]:
        """Return the envelopes in the overflow queue."""
        return [envelope.decode(base64.b64decode(message["MessageBody"])) for message in self.queue.messages]

    def rejected(self) -> list[RejectedEvent]:
        """Return the rejected events on the stream."""
        return [event for item in self.envelopes() for event in item.rejected]

    def rows(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the rows on the stream with their tables."""
        return [row for item in self.envelopes() for row in rows_of(item)]

    def row(self) -> dict[str, Any]:
        """Return the only row on the stream."""
        [(_, row)] = self.rows()
        return row


def rows_of(item: Envelope) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield an envelope's rows with their tables."""
    for table in item.tables:
        unpacker = msgpack.Unpacker()
        unpacker.feed(table.rows)
        found = list(unpacker)
        assert len(found) == table.row_count
        yield from ((table.table, row) for row in found)


def named(headers: Mapping[str, str]) -> dict[str, str]:
    """Convert Python names of headers to header names."""
    return {name.replace("_", "-"): text for name, text in headers.items()}


def http_event(
    method: str,
    path: str,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> dict[str, Any]:
    """Return the payload 2.0 event of a request from 192.0.2.7, with the body in base64."""
    event = event_of(Request(method, "/", (), b"", "192.0.2.7"), request_id="JKJaXmPLvHcESHA=", now=START)
    event["requestContext"]["http"]["path"] = path
    event |= {"rawPath": path, "rawQueryString": query}
    event["headers"] = {"host": "collect.example", **(headers or {})}
    if body is not None:
        event |= {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    return event


def gzipped(text: bytes) -> bytes:
    """Compress reproducibly with gzip."""
    return gzip.compress(text, mtime=0)
