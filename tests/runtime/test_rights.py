"""Each role allows exactly what its function does: built ones run in Lambda's runtime, on every path that calls AWS, and their calls are recorded."""

import gzip
import json
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from copy import replace
from itertools import count
from typing import Any

import msgpack
import pytest
import redis

from doubles.treasure_data import Fault, Kind, TreasureData
from local import functions
from local.accounts import KEYS
from local.functions import Function
from local.lambda_runtime import LambdaRuntime
from local.resources import Resources
from shared import envelope, policy
from shared.accounts import Account, AccountKeys
from shared.policy import PolicyEntry
from shared.write_key import FORGET_KEY
from tests.support.aws_calls import Call, CallRecorder
from tests.support.ingest import http_event
from tests.support.rights import granted
from tests.support.sandboxes import Start, an_envelope, dead, ledger_of, message, recorded, stream_event
from worker.chain import ChainId, Owner

pytestmark = pytest.mark.xdist_group("runtime")

# Lambda itself uses a function's role to write logs and to read event sources.
LOGS: set[Call] = {("logs:CreateLogStream", "Logs"), ("logs:PutLogEvents", "Logs")}
BY_LAMBDA: dict[str, set[Call]] = {
    "WorkerRole": {
        *((f"kinesis:{name}", "Stream") for name in ("GetRecords", "GetShardIterator", "ListShards")),
        *((f"kinesis:{name}", "Stream") for name in ("DescribeStream", "DescribeStreamSummary")),
        ("s3:ListBucket", "DataBucket"),  # for the destination of the event source mapping
        ("s3:PutObject", "DataBucket/aws/lambda/*"),
    },
    "DrainRole": {
        (f"sqs:{name}", "OverflowQueue") for name in ("DeleteMessage", "GetQueueAttributes", "ReceiveMessage")
    },
}

SCHEDULED = {"version": "0", "source": "aws.events", "account": "123456789012"}  # what EventBridge sends


class Recorded:
    """Starts functions and records their calls to AWS."""

    def __init__(self, start: Start, aws: Resources, parts: ExitStack) -> None:
        self._start = start
        self._parts = parts
        secrets = {
            aws.write_key_secret: "WriteKeySecret",
            aws.td_api_key_secret: "TdApiKeySecret",
            aws.redis_url_secret: "RedisUrlSecret",
        }
        self._recorder = parts.enter_context(CallRecorder(aws.endpoint, secrets))

    def start(self, function: Function) -> LambdaRuntime:
        """Start a function."""
        return self._start(function, endpoint=self._recorder.url)

    def hide_claims_once(self) -> None:
        """Answer the first look at claims as if there were none, as when another worker makes them just afterwards."""
        looks = count(1)

        def change(call: Call, content: bytes) -> bytes:
            if call == ("dynamodb:BatchGetItem", "Ledger") and next(looks) == 1:
                return json.dumps({"Responses": {}, "UnprocessedKeys": {}}).encode()
            return content

        self._recorder.change = change

    def check(self, role: str) -> None:
        """Compare the recorded calls, and those that Lambda makes itself, with the role's permissions."""
        allowed = {(action, place) for place, actions in granted(role).items() for action in actions}
        assert self._recorder.calls | BY_LAMBDA.get(role, set()) | LOGS == allowed


@pytest.fixture
def made(start: Start, aws: Resources) -> Iterator[Recorded]:
    """Yield functions whose calls are recorded."""
    with ExitStack() as parts:
        yield Recorded(start, aws, parts)


def test_the_ingests_role_matches_its_calls(made: Recorded, aws: Resources) -> None:
    """It describes the stream, reads the edge policy, puts one or several envelopes, and sends them to the queue."""
    ingest = made.start(functions.INGEST)
    assert 200 == ingest.invoke(http_event("GET", "/health/ready"))["statusCode"]
    large = [{"table": "pages", "text": "x" * 200_000, "number": number} for number in range(4)]
    headers = {"content-type": "application/json", "x-write-key": KEYS["shop"]}
    post = http_event("POST", "/v1/events", "", headers, json.dumps({"events": large}).encode())
    for event in (recorded("http")["pixel"], post):
        assert 200 == ingest.invoke(event)["statusCode"]
    aws.client("kinesis").delete_stream(StreamName=aws.stream)
    assert 200 == ingest.invoke(recorded("http")["pixel"])["statusCode"]

    made.check("IngestRole")


def test_the_workers_role_matches_its_calls(
    made: Recorded, aws: Resources, treasure_data: TreasureData
) -> None:
    """It stores and appends spans, reads earlier ones, claims what was put twice, uploads, and settles."""
    worker = made.start(functions.WORKER)
    wrong = envelope.RejectedEvent(0, "invalid_table", "", b'{"table": "7"}')
    first = envelope.decode(an_envelope("r-1", "/one"))._replace(rejected=(wrong,)).encode()
    event = stream_event(aws, first, an_envelope("r-2", "/two"), b"poison", an_envelope("r-3", "/three"))
    passed_over = {"Records": [one for one in event["Records"] if one is not event["Records"][1]]}
    treasure_data.faults.add(Fault(kind=Kind.STATUS, status=401))
    assert {"batchItemFailures": []} == worker.invoke(passed_over)
    treasure_data.faults.clear()
    copy = envelope.decode(an_envelope("r-2", "/two"))._replace(claim=1).encode()
    assert {"batchItemFailures": []} == worker.invoke(stream_event(aws, copy))
    worker = made.start(functions.WORKER)  # a new process must look up which records are in a span
    made.hide_claims_once()
    assert {"batchItemFailures": []} == worker.invoke(event)
    assert dead(aws)

    made.check("WorkerRole")


def test_the_senders_role_matches_its_calls(
    made: Recorded, start: Start, aws: Resources, redis_url: str
) -> None:
    """It finds, reads, edits, repairs, forgets and sends what waits, decides about what was put again, marks idle shards, and sweeps."""
    now = int(time.time())
    secrets = aws.client("secretsmanager")
    secret = json.loads(secrets.get_secret_value(SecretId=aws.write_key_secret)["SecretString"])
    members = json.dumps({**secret, FORGET_KEY: "key"})
    secrets.put_secret_value(SecretId=aws.write_key_secret, SecretString=members)
    sender = made.start(functions.SENDER)
    sender.invoke({"mark": True})
    row = msgpack.packb({"time": now, "event_id": "r-5", "received_at": now * 1000})
    (stray,) = envelope.divide([("pageviews", row)], "stray", "demo", now * 1000, "r-5")
    wrong = envelope.RejectedEvent(0, "invalid_table", "", b'{"table": "7"}')
    hour_ago = (now - 3600) * 1000
    again = envelope.decode(an_envelope("r-6", "/six"))._replace(claim=hour_ago, received_at=hour_ago)
    records = (stray._replace(rejected=(wrong,)).encode(), again.encode())
    start(functions.WORKER).invoke(stream_event(aws, *records))
    (chunk,) = dead(aws)
    place = {"chain": chunk.span.chain.name, "after": chunk.span.after}
    old = "spans/2020-01-01T00/overflow%23x/0-0-0011223344556677.gz"
    aws.client("s3").put_object(Bucket=aws.data_bucket, Key=old, Body=b"old")
    keys = AccountKeys(aws.ledger_table)
    with redis.Redis.from_url(redis_url) as client:
        client.hset(keys.of("stray"), mapping=Account("stray").to_fields())
        assert 1 == sender.invoke({"sweep": True})["deleted"]
        # a record that does not count, because another one, which is in no span yet, has the claim
        copies = {"r-7": Owner(chunk.span.chain, "056" + "9" * 56)}
        copy = replace(chunk.span, chain=ChainId.overflow("copy"), chunks={}, object=None, copies=copies)
        ledger_of(aws).append(copy)
        assert 1 == sender.invoke(SCHEDULED)["delivered"]
        edited = b64encode(gzip.compress(row)).decode()
        assert 1 == sender.invoke({"edit": {**place, "chunk": chunk.key.name, "rows": edited}})["delivered"]
        (rejected,) = [key.name for key in chunk.span.chunks if key.group.is_rejected]
        events = b64encode(gzip.compress(msgpack.packb([[now * 1000, '{"table": "pageviews"}']]))).decode()
        repaired = sender.invoke({"repair": {**place, "chunk": rejected, "events": events}})
        assert 1 == repaired["delivered"]
        client.delete(keys.of("stray"))
    assert [] == dead(aws)
    _forget_a_row(sender, start, aws, now)

    made.check("SenderRole")


def _forget_a_row(sender: LambdaRuntime, start: Start, aws: Resources, now: int) -> None:
    """Forget a person who has a dead row and a rejected event."""
    person = {"account": "stray", "column": "email", "values": ["a@example.com"]}
    row = {"time": now, "event_id": "r-8", "received_at": now * 1000, "email": "a@example.com"}
    (mine,) = envelope.divide([("pageviews", msgpack.packb(row))], "stray", "demo", now * 1000, "r-8")
    wrong = tuple(
        envelope.RejectedEvent(index, code, "", json.dumps({"email": f"{name}@example.com"}).encode())
        for index, (code, name) in enumerate([("invalid_table", "a"), ("no_table", "a"), ("no_table", "b")])
    )
    start(functions.WORKER).invoke(stream_event(aws, mine._replace(rejected=wrong).encode()))

    def ask(do: str, **more: Any) -> Any:
        return sender.invoke({"forget": {"do": do, **person, **more}})

    document = policy.encode({"stray": PolicyEntry()}, now * 1000)
    aws.client("s3").put_object(Bucket=aws.data_bucket, Key=policy.KEY, Body=document)
    ask("note", refuse=True)
    searched = [ask("forget", prefix=prefix, after="") for prefix in ("spans/", "rejected/stray/")]
    assert [{"dead": 1}, {"rejected": 2}] == [one["rows"] for one in searched]


def test_the_drainers_role_matches_its_calls(made: Recorded, aws: Resources) -> None:
    """It puts envelopes on the stream, stores what is none, and returns the rest to the queue."""
    now = time.time()
    bodies = [an_envelope(f"r-{number}", "/again") for number in range(4)]
    drain = made.start(functions.DRAIN)
    one, *several = (message(number, body, now) for number, body in enumerate(bodies[:3]))
    poison = message(4, b"poison", now)
    answers = [drain.invoke({"Records": records}) for records in ([one], several, [poison])]
    aws.client("kinesis").delete_stream(StreamName=aws.stream)
    answers.append(drain.invoke({"Records": [message(5, bodies[3], now, refused="true")]}))

    assert [{"batchItemFailures": []}] * 3 == answers[:3]
    assert {"batchItemFailures": [{"itemIdentifier": "5"}]} == answers[3]
    assert ["undecodable"] == [one.reason for one in dead(aws)]
    made.check("DrainRole")


def test_the_admin_functions_role_matches_its_calls(made: Recorded) -> None:
    """It reads the secrets for Redis and for Treasure Data, and publishes the edge policy."""
    admin = made.start(functions.ADMIN)
    answers = [admin.invoke({"do": do}) for do in ("check", "publish")]

    assert answers[0]["treasure_data"]["knows_key"]
    assert "error" not in answers[1]
    made.check("AdminRole")
