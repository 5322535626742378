"""The ingest as Lambda builds it, with its own AWS clients, against a server that fails at socket level."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from doubles.lambda_context import Context
from ingest import app
from local import functions
from local.resources import Resources
from shared import policy
from shared.policy import PolicyEntry
from tests.support import aws_server
from tests.support.ingest import KEY, SECRETS, Answer, gzipped, http_event

RESOURCES = Resources("", "http://127.0.0.1/queue", stream="events", write_key_secret="keys")
BAD_GATEWAY = aws_server.error(502, "BadGateway")


@pytest.fixture
def aws() -> Iterator[Any]:
    """Yield a server that stands in for AWS on the loopback interface."""
    with aws_server.AwsServer(SECRETS) as server:
        yield server


@pytest.fixture
def environment(aws: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the variables of a Lambda sandbox, and unset all others that AWS clients read."""
    keys = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    variables = keys | functions.variables(functions.INGEST, RESOURCES, {"Stage": "test"})
    variables |= aws_server.unset_variables(monkeypatch) | {"AWS_ENDPOINT_URL": aws.url}
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    return variables


@pytest.fixture
def handler(environment: dict[str, str]) -> app.Handler:
    """Return the handler that Lambda would create."""
    return app.build(environment)


def send(handler: app.Handler, events: Any) -> Answer:
    """Post events with a valid key."""
    body = gzipped(json.dumps(events).encode())
    return Answer(handler(http_event("POST", "/v1/events", "", {"x-write-key": KEY}, body), None))


EVENT = {"table": "pageviews"}
LARGE = [{"table": "pageviews", "a": "x" * 200_000}] * 6


def test_a_request_makes_one_call(aws: Any, handler: app.Handler) -> None:
    """The ingest reads the secrets while the sandbox starts; after that each request is a single put, and a large one is counted."""
    assert ["GetSecretValue"] == [operation for operation, _ in aws.calls]

    assert (200, 200) == (send(handler, EVENT).status, send(handler, LARGE).status)
    assert ["GetSecretValue", "PutRecord", "UpdateItem", "PutRecords"] == [name for name, _ in aws.calls]
    assert RESOURCES.counters_table == aws.calls[2][1]["TableName"]
    assert ("events", 2) == (aws.calls[3][1]["StreamName"], len(aws.calls[3][1]["Records"]))


@pytest.mark.parametrize("fault", [aws_server.close, BAD_GATEWAY], ids=["close", "502"])
@pytest.mark.parametrize(("events", "operation"), [(EVENT, "PutRecord"), (LARGE, "PutRecords")])
def test_no_put_is_retried(aws: Any, handler: app.Handler, fault: Any, events: Any, operation: str) -> None:
    """A put whose outcome is unknown is sent once; its envelopes go to the queue, after a notice."""
    aws.faults[operation] = [fault]

    answer = send(handler, events)

    assert (200, []) == (answer.status, answer.json["rejected"])
    assert (1, 2 if events is EVENT else 3) == (aws.count(operation), aws.count("SendMessage"))


def test_the_edge_policy_is_read_while_the_sandbox_starts(aws: Any, environment: dict[str, str]) -> None:
    """The read is signed, and the first request already obeys the policy."""
    aws.objects[policy.KEY] = policy.encode({"shop": PolicyEntry("disabled")}, 1)
    handler = app.build(environment)

    [read] = aws.reads
    assert "/sluice-local-aside/edge/policy" == read["path"]
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date" in read["authorization"]
    assert "disabled_account" == send(handler, EVENT).code


def test_each_failure_is_reported(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Log lines have its request id, and metrics are written before the sandbox can be frozen. A success writes nothing."""
    # A service name of its own: Python caches loggers by name, and Powertools keeps a logger's first output.
    handler = app.build(environment | {"POWERTOOLS_SERVICE_NAME": "ingest-that-reports"})
    context = Context(function_name="IngestFunction", deadline=0, now=lambda: 0)
    assert 200 == send(handler, EVENT).status
    assert "" == capsys.readouterr().out

    handler(EVENT, context)

    *log, attention, failed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ("refused", context.aws_request_id) == (log[-1]["message"], log[-1]["function_request_id"])
    about = {"stage": "test", "service": "ingest-that-reports", "UnforeseenErrors": 1}
    assert about.items() <= attention.items()
    assert (about | {"RequestsFailed": [1], "version": "none"}).items() <= failed.items()


def test_lambda_finds_the_handler(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The module creates `handler` when the runtime first asks for it, and returns the same one afterwards."""
    del environment
    monkeypatch.delitem(vars(app), "handler", raising=False)

    first = app.handler

    assert first is app.handler
    assert 200 == send(first, EVENT).status
    monkeypatch.delitem(vars(app), "handler")
    with pytest.raises(AttributeError):
        _ = app.handlr
