"""The ingest as Lambda builds it, with its own AWS clients, against a server that fails at socket level."""

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from doubles.clock import ManualClock
from doubles.lambda_context import Context
from ingest import app, stream
from ingest.aws_client import KinesisClient
from ingest.credentials import Credentials
from ingest.overflow import Overflow
from ingest.stream import Stream
from local import functions
from local.resources import Resources
from shared import envelope, policy
from shared.envelope import Envelope, TableRows
from shared.policy import PolicyEntry
from tests.support import aws_server
from tests.support.ingest import (
    KEY,
    NOTICES_URL,
    SECRETS,
    START,
    Answer,
    Entropy,
    Queue,
    gzipped,
    http_event,
)
from tests.support.telemetry import CollectedTelemetry

NOT_ACKNOWLEDGED = "the stream did not acknowledge a put"
ENVIRONMENT = {
    "AWS_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
RESOURCES = Resources("", "http://127.0.0.1/queue", stream="events", write_key_secret="keys")
BAD_GATEWAY = aws_server.error(502, "BadGateway")


@pytest.fixture
def aws() -> Iterator[Any]:
    """Yield a server that stands in for AWS on the loopback interface."""
    with aws_server.aws_server(SECRETS) as server:
        yield server


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the variables of a Lambda sandbox, and unset all others that AWS clients read."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    variables = ENVIRONMENT | functions.variables(functions.INGEST, RESOURCES, {"Stage": "test"})
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    return variables


@pytest.fixture
def handler(aws: Any, environment: dict[str, str]) -> app.Handler:
    """Return the handler that Lambda would create."""
    return app.build(environment | {"AWS_ENDPOINT_URL": aws.url})


def send(handler: app.Handler, events: Any) -> Answer:
    """Post events with a valid key."""
    headers = {"authorization": f"Bearer {KEY}"}
    return Answer(
        handler(http_event("POST", "/v1/events", "", headers, gzipped(json.dumps(events).encode())), None)
    )


EVENT = {"table": "pageviews"}
LARGE = [{"table": "pageviews", "a": "x" * 200_000}] * 6


def test_a_request_makes_one_call(aws: Any, handler: app.Handler) -> None:
    """The ingest reads the secrets while the sandbox starts; after that each request is a single put, and a large one is counted."""
    assert ["GetSecretValue"] == [operation for operation, _ in aws.calls]

    assert (200, 200) == (send(handler, EVENT).status, send(handler, LARGE).status)
    assert ["GetSecretValue", "PutRecord", "UpdateItem", "PutRecords"] == [
        operation for operation, _ in aws.calls
    ]
    assert RESOURCES.counters_table == aws.calls[2][1]["TableName"]
    assert ("events", 2) == (aws.calls[3][1]["StreamName"], len(aws.calls[3][1]["Records"]))


@pytest.mark.parametrize(
    "fault",
    [
        aws_server.close,
        aws_server.reset,
        aws_server.hang,
        aws_server.garbage,
        aws_server.cut_short,
        aws_server.error(500, "InternalFailure"),
        aws_server.error(503, "ServiceUnavailable"),
        BAD_GATEWAY,
    ],
    ids=["close", "reset", "hang", "garbage", "cut short", "500", "503", "502"],
)
@pytest.mark.parametrize(("events", "operation"), [(EVENT, "PutRecord"), (LARGE, "PutRecords")])
def test_the_client_never_retries_a_put(
    aws: Any, handler: app.Handler, fault: Any, events: Any, operation: str
) -> None:
    """A put whose outcome is unknown is sent once; its envelopes go to the queue, after a notice."""
    aws.faults[operation] = [fault]

    answer = send(handler, events)

    assert (200, []) == (answer.status, answer.json["rejected"])
    assert (1, 2 if events is EVENT else 3) == (aws.count(operation), aws.count("SendMessage"))


def test_a_throttled_put_is_retried(aws: Any, handler: app.Handler) -> None:
    """The stream has definitely rejected a throttled put, so a second attempt cannot duplicate it."""
    aws.faults["PutRecord"] = [aws_server.error(400, "ProvisionedThroughputExceededException")] * 2

    assert 200 == send(handler, EVENT).status
    assert (3, 0) == (aws.count("PutRecord"), aws.count("SendMessage"))


def test_the_edge_policy_is_read_while_the_sandbox_starts(aws: Any, environment: dict[str, str]) -> None:
    """The read is signed, and the first request already obeys the policy."""
    document = policy.encode({"shop": PolicyEntry("disabled")}, 1)
    aws.objects[policy.KEY] = document
    handler = app.build(environment | {"AWS_ENDPOINT_URL": aws.url})

    [read] = aws.reads
    assert "/sluice-local-aside/edge/policy" == read["path"]
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date" in read["authorization"]
    assert "disabled_account" == send(handler, [{"table": "pageviews"}]).code


def test_throttled_entries_are_retried(aws: Any, handler: app.Handler) -> None:
    """If the stream rejects part of a put, only the throttled entries are sent again."""
    refused = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"}
    answer = {"FailedRecordCount": 1, "Records": [{"SequenceNumber": "1", "ShardId": "s"}, refused]}
    aws.faults["PutRecords"] = [lambda server: server.answer(200, answer)]

    assert 200 == send(handler, LARGE).status
    [(_, whole), (_, rest)] = aws.calls[2:]
    assert whole["Records"][1]["Data"] == rest["Data"]


def test_recovers_from_a_closed_connection(aws: Any, handler: app.Handler) -> None:
    """If the server has closed the connection since the last put, the next put opens a new one."""
    aws.faults["PutRecord"] = [aws_server.answer_and_close] * 3
    statuses = []
    for _ in range(3):
        statuses.append(send(handler, EVENT).status)
        aws.await_close()
    statuses.append(send(handler, EVENT).status)

    assert [200] * 4 == statuses
    assert (4, 0) == (aws.count("PutRecord"), aws.count("SendMessage"))


def test_the_queue_is_tried_twice(aws: Any, handler: app.Handler) -> None:
    """A failed message is sent once more, because duplicate messages are harmless."""
    aws.faults["PutRecord"] = [aws_server.close] * 2
    aws.faults["SendMessage"] = [None, aws_server.close, None, BAD_GATEWAY, BAD_GATEWAY]

    assert [200, 503] == [send(handler, EVENT).status for _ in range(2)]
    assert 5 == aws.count("SendMessage")


def test_a_failed_connection_is_a_definite_rejection() -> None:
    """If nothing listens, nothing was sent, so the put is retried until the time limit and then queued."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        clock, telemetry = ManualClock(START), CollectedTelemetry()
        client = KinesisClient(
            f"http://127.0.0.1:{nobody.getsockname()[1]}",
            "eu-west-1",
            lambda: Credentials("testing", "testing"),
            ca_bundle="",
            **stream.CLIENT_OPTIONS,
        )
        queue = Queue()
        overflow = Overflow(lambda: queue, "", NOTICES_URL, clock, telemetry)
        puts = Stream(client, "events", overflow, clock=clock, entropy=Entropy(), telemetry=telemetry)
        item = Envelope("shop", "k1", 1, "r1", 0, (TableRows("pageviews", 1, b"\x80"),))

        assert [True] == puts.put([item], "shop/1")

    assert 1 == len(queue.messages)
    assert telemetry.total(NOT_ACKNOWLEDGED, "refused") > 3
    assert 0 == telemetry.total(NOT_ACKNOWLEDGED, "doubtful")


def test_a_sandbox_starts_without_secrets(aws: Any, environment: dict[str, str]) -> None:
    """If Secrets Manager is unavailable, the sandbox starts and answers 503."""
    aws.faults["GetSecretValue"] = [BAD_GATEWAY]
    handler = app.build(environment | {"AWS_ENDPOINT_URL": aws.url})

    assert 503 == send(handler, EVENT).status
    assert 1 == aws.count("GetSecretValue")


def test_the_handler_reports_each_invocation(
    aws: Any, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Log lines carry the invocation's request id, and metrics are written before the sandbox can be frozen."""
    # A service name of its own: Python caches loggers by name, and Powertools keeps a logger's first output.
    own = {"AWS_ENDPOINT_URL": aws.url, "POWERTOOLS_SERVICE_NAME": "ingest-that-reports"}
    aws.faults["GetSecretValue"] = [BAD_GATEWAY]
    handler = app.build(environment | own)
    context = Context(function_name="IngestFunction", deadline=0, now=lambda: 0)
    handler(EVENT, context)

    *log, metrics, failed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ("refused", context.aws_request_id) == (log[-1]["message"], log[-1]["function_request_id"])
    assert ([1], "test", "ingest-that-reports") == (
        metrics["DependencyFailures"],
        metrics["stage"],
        metrics["service"],
    )
    assert ([1], "none") == (failed["RequestsFailed"], failed["version"])


def test_a_success_writes_nothing(
    aws: Any, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A successful request writes no log line and no metrics: API Gateway and Kinesis already count it."""
    own = {"AWS_ENDPOINT_URL": aws.url, "POWERTOOLS_SERVICE_NAME": "ingest-that-is-silent"}
    handler = app.build(environment | own)

    assert 200 == send(handler, EVENT).status
    assert "" == capsys.readouterr().out


def test_lambda_finds_the_handler(
    aws: Any, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module creates `handler` when the runtime first asks for it, and returns the same one afterwards."""
    del environment
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    monkeypatch.delitem(vars(app), "handler", raising=False)

    first = app.handler

    assert first is app.handler
    assert 200 == send(first, EVENT).status
    monkeypatch.delitem(vars(app), "handler")
    with pytest.raises(AttributeError):
        _ = app.handlr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from moto's dependencies
def test_moto_accepts_the_requests(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Moto's stream stores the records; once the stream is deleted, moto's queue stores a message."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("MOTO_PORT", str(port))
        kinesis, sqs, secrets = (
            boto3.client(name, region_name="eu-west-1") for name in ("kinesis", "sqs", "secretsmanager")
        )
        kinesis.create_stream(StreamName="events", ShardCount=1)
        url, notices = (
            sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("overflow", "overflow-notices")
        )
        secrets.create_secret(Name="keys", SecretString=json.dumps(SECRETS))
        handler = app.build(
            environment
            | {"OVERFLOW_QUEUE_URL": url, "OVERFLOW_NOTICES_URL": notices, "AWS_ENDPOINT_URL": endpoint}
        )

        assert [200, 200] == [send(handler, events).status for events in (EVENT, LARGE)]
        shard = kinesis.list_shards(StreamName="events")["Shards"][0]["ShardId"]
        iterator = kinesis.get_shard_iterator(
            StreamName="events", ShardId=shard, ShardIteratorType="TRIM_HORIZON"
        )
        records = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
        assert [1, 3, 3] == [envelope.decode(record["Data"]).row_count for record in records]

        kinesis.delete_stream(StreamName="events")
        assert 200 == send(handler, EVENT).status
        [message] = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
        assert {"partition_key"} == set(message["MessageAttributes"])
    finally:
        server.stop()
