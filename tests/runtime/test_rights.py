"""Each function's role allows exactly what the function does.

The built functions run in Lambda's runtime, on every path that calls AWS, and their calls are recorded.
"""

import gzip
import json
import os
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import msgpack
import pytest
import redis
from ops.books.set_aside import chunks
from worker.delivery import State

from doubles.treasure_data import Action, Fault, Kind, TreasureData
from local import functions
from local.accounts import KEYS
from local.functions import Function
from local.lambda_runtime import LambdaRuntime
from local.resources import Resources
from shared import envelope
from shared.accounts import Account, AccountKeys
from shared.clock import SystemClock
from shared.telemetry import NullTelemetry
from tests.support.aws_calls import Call, CallRecorder
from tests.support.rights import granted
from tests.support.sandboxes import Start, an_envelope, aside, recorded, stream_event
from worker.ledger import Ledger
from worker.selection import Selection

pytestmark = pytest.mark.xdist_group("runtime")

# Lambda itself uses a function's role to write logs and to read event sources.
LOGS = {"logs:CreateLogStream", "logs:PutLogEvents"}
BY_LAMBDA: dict[str, set[Call]] = {
    "WorkerRole": {
        ("kinesis:DescribeStream", "Stream"),
        ("kinesis:DescribeStreamSummary", "Stream"),
        ("kinesis:ListShards", "Stream"),
        ("s3:ListBucket", "AsideBucket"),  # for the destination of the event source mapping
    },
    "DrainRole": {
        ("sqs:DeleteMessage", "OverflowQueue"),
        ("sqs:GetQueueAttributes", "OverflowQueue"),
        ("sqs:ReceiveMessage", "OverflowQueue"),
    },
}


class Recorded:
    """Starts functions and records their calls to AWS."""

    def __init__(self, start: Start, aws: Resources, parts: ExitStack) -> None:
        self._start = start
        self._parts = parts
        self._recorder = parts.enter_context(
            CallRecorder(
                aws.endpoint,
                {
                    aws.write_key_secret: "WriteKeySecret",
                    aws.td_api_key_secret: "TdApiKeySecret",
                    aws.redis_url_secret: "RedisUrlSecret",
                },
            )
        )

    def start(self, function: Function) -> LambdaRuntime:
        """Start a function."""
        return self._start(function, endpoint=self._recorder.url)

    def age_stream(self) -> None:
        """Make the stream appear to be years old."""

        def change(call: Call, content: bytes) -> bytes:
            if call != ("kinesis:DescribeStreamSummary", "Stream"):
                return content
            answer = json.loads(content)
            answer["StreamDescriptionSummary"]["StreamCreationTimestamp"] = 1_700_000_000
            return json.dumps(answer).encode()

        self._recorder.change = change

    def lose_answer(self, lost: Call, number: int) -> None:
        """Carry out a call's numbered occurrence, counted from 1, but close the connection instead of answering."""
        before, calls = self._recorder.change, count(1)

        def change(call: Call, content: bytes) -> bytes:
            if call == lost and next(calls) == number:
                raise ConnectionAbortedError
            return before(call, content)

        self._recorder.change = change

    def check(self, role: str) -> None:
        """Compare the recorded calls, and those that Lambda makes itself, with the role's permissions."""
        allowed = {
            (action, resource)
            for resource, actions in granted(role).items()
            for action in actions
            if not (action in LOGS and resource == "Logs")
        }
        assert self._recorder.calls | BY_LAMBDA.get(role, set()) == allowed


@pytest.fixture
def made(start: Start, aws: Resources) -> Iterator[Recorded]:
    """Yield functions whose calls are recorded."""
    with ExitStack() as parts:
        yield Recorded(start, aws, parts)


def _post(key: str, body: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(json.dumps(recorded("http")["pixel"]))
    event["rawPath"], event["rawQueryString"] = "/v1/events", ""
    event["requestContext"]["http"] |= {"method": "POST", "path": "/v1/events"}
    event["headers"] = {"content-type": "application/json", "x-write-key": key}
    event["body"], event["isBase64Encoded"] = json.dumps(body), False
    return event


def _health() -> dict[str, Any]:
    event: dict[str, Any] = json.loads(json.dumps(recorded("http")["pixel"]))
    event["rawPath"], event["rawQueryString"] = "/health/ready", ""
    event["requestContext"]["http"]["path"] = "/health/ready"
    return event


def test_the_ingests_role_matches_its_calls(made: Recorded, aws: Resources) -> None:
    """It describes the stream, reads the edge policy, puts one or several envelopes, and sends them to the queue."""
    ingest = made.start(functions.INGEST)
    assert 200 == ingest.invoke(_health())["statusCode"]
    large = [{"table": "pages", "text": "x" * 200_000, "number": number} for number in range(4)]
    for event in (recorded("http")["pixel"], _post(KEYS["shop"], {"events": large})):
        assert 200 == ingest.invoke(event)["statusCode"]
    aws.client("kinesis").delete_stream(StreamName=aws.stream)
    assert 200 == ingest.invoke(recorded("http")["pixel"])["statusCode"]

    made.check("IngestRole")


def test_the_workers_role_matches_its_calls(
    made: Recorded, aws: Resources, treasure_data: TreasureData
) -> None:
    """It plans, uploads, archives, sets aside, reads what an open span lacks, and claims what was put twice."""
    worker = made.start(functions.WORKER)
    event = stream_event(aws, an_envelope("r-1", "/one"), an_envelope("r-2", "/two"), b"poison")
    treasure_data.faults.add(Fault(kind=Kind.STATUS, status=401))
    assert worker.invoke(event)["batchItemFailures"]
    treasure_data.faults.clear()
    worker = made.start(functions.WORKER)  # a new process checks whether the archive has the span
    assert {"batchItemFailures": []} == worker.invoke({"Records": event["Records"][:1]})
    assert {"batchItemFailures": []} == worker.invoke(event)
    twice = envelope.decode(an_envelope("r-3", "/three"))._replace(claim=1).encode()
    for _ in range(2):
        assert {"batchItemFailures": []} == worker.invoke(stream_event(aws, twice))
    assert aside(aws)

    made.check("WorkerRole")


def test_the_redrives_role_matches_its_calls(
    made: Recorded, start: Start, aws: Resources, treasure_data: TreasureData, redis_url: str
) -> None:
    """It finds, reads, edits, repairs, sends, sweeps and deletes set-aside objects, and closes breakers."""
    now = int(time.time())
    row = msgpack.packb({"time": now, "event_id": "r-5", "received_at": now * 1000})
    (stray,) = envelope.divide([("pageviews", row)], "stray", "demo", now * 1000, "r-5")
    wrong = envelope.RejectedEvent(0, "invalid_table", "", b'{"table": "7"}')
    start(functions.WORKER).invoke(stream_event(aws, stray._replace(rejected=(wrong,)).encode()))
    assert 1 == len(aside(aws))
    ledger = Ledger(
        aws.client("dynamodb"),
        aws.ledger_table,
        clock=SystemClock(),
        entropy=os.urandom,
        telemetry=NullTelemetry(),
    )
    ledger.open_breaker("stray", "http_503")
    keys = AccountKeys(aws.ledger_table)
    with redis.Redis.from_url(redis_url) as client:
        client.hset(keys.of("stray"), mapping=Account("stray").to_fields())
        redrive = made.start(functions.REDRIVE)
        treasure_data.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=422, count=1))
        redrive.invoke({"kinds": ["dead_letter"]})
        (chunk,) = chunks(ledger, Selection((State.DEAD_LETTER,)))
        assert 0 == redrive.invoke({"sweep": True})["deleted"]
        place = {"chain": chunk.span.chain.name, "after": chunk.span.after, "chunk": chunk.key.name}
        edited = b64encode(gzip.compress(row)).decode()
        assert 1 == redrive.invoke({"edit": {**place, "rows": edited}})["delivered"]
        (repaired,) = [
            {"chain": span.chain.name, "after": span.after, "chunk": key.name}
            for span in ledger.spans()
            for key, entry in span.entries.items()
            if entry.state is State.REJECTED
        ]
        events = b64encode(gzip.compress(msgpack.packb([[now * 1000, '{"table": "pageviews"}']]))).decode()
        assert {"repaired": 1} == redrive.invoke({"repair": {**repaired, "events": events}})
        client.delete(keys.of("stray"))
    assert 1 == len(aside(aws))  # the rows before the edit, which the sweep will delete
    assert [] == list(ledger.breakers())

    made.check("RedriveRole")


def test_the_drainers_role_matches_its_calls(made: Recorded, aws: Resources) -> None:
    """It searches the stream, puts missing envelopes, archives, sets aside, and returns the rest to the queue."""
    now = int(time.time() * 1000)
    ages_ago = now - 10 * 86_400_000

    def message(number: int, body: str, sent_at: int, **texts: str) -> dict[str, Any]:
        return {
            "messageId": str(number),
            "receiptHandle": str(number),
            "body": body,
            "attributes": {"SentTimestamp": str(sent_at), "ApproximateReceiveCount": "1"},
            "messageAttributes": {
                "partition_key": {"dataType": "String", "stringValue": "shop/1"},
                "received_at": {"dataType": "Number", "stringValue": str(sent_at)},
                "request_id": {"dataType": "String", "stringValue": f"r-{number}"},
                **{name: {"dataType": "String", "stringValue": text} for name, text in texts.items()},
            },
        }

    old = b64encode(an_envelope("r-1", "/one")).decode()
    young = b64encode(an_envelope("r-2", "/two")).decode()
    expired = b64encode(an_envelope("r-4", "/four")).decode()
    refused = [b64encode(an_envelope(f"r-{number}", "/refused")).decode() for number in (5, 6)]
    records = [
        message(1, old, now - 7_200_000),  # an empty shard proves nothing for an hour
        message(2, young, now),
        message(3, "poison", now - 600_000),
        message(4, expired, ages_ago),
        *(message(5 + index, several, now, refused="true") for index, several in enumerate(refused)),
    ]
    made.age_stream()
    made.lose_answer(
        ("s3:PutObject", "AsideBucket/*"), 2
    )  # so that the drainer checks whether the archive has the span
    drain = made.start(functions.DRAIN)
    drain.invoke({"Records": records[3:4]})
    answers = [drain.invoke({"Records": one}) for one in (records, records[3:4])]

    assert [{"batchItemFailures": [{"itemIdentifier": "2"}]}, {"batchItemFailures": []}] == answers
    assert aside(aws)
    made.check("DrainRole")


def test_the_admin_functions_role_matches_its_calls(made: Recorded) -> None:
    """It reads the secrets for Redis and for Treasure Data, and publishes the edge policy."""
    admin = made.start(functions.ADMIN)
    answers = [admin.invoke({"do": do}) for do in ("check", "publish")]

    assert answers[0]["treasure_data"]["answers"]
    assert "error" not in answers[1]
    made.check("AdminRole")
