"""A deployed stack over in-memory doubles, for commands that read its state: anything about it may be broken."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import boto3
import requests
from click.testing import CliRunner, Result
from requests.adapters import HTTPAdapter

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from doubles.http_server import Request, Response
from doubles.sqs import MemorySQS
from doubles.treasure_data import InProcess
from local.functions import ADMIN
from local.resources import COUNTERS
from ops.cli import main
from ops.stack import Stack
from ops.template import sluice_template
from shared.clock import SystemClock
from tests.support.delivery import BUCKET, KEYS, RESOURCES, STREAM, TABLE, Delivery, Meddled
from tests.support.event_source import worker_mapping

NAME = "sluice-dev"
AGO = 900.0
"""How many seconds ago the story of a stack begins."""


class _Api:
    """The API: answers by path with a status, and perhaps a code; an exception is raised. It refuses keys whose ids are in `revoked`, and keeps the `bodies`."""

    def __init__(self) -> None:
        self.answers: dict[str, int | Exception] = {"/health": 200, "/v1/events": 400}
        self.code = ""
        self.late = 0.0
        self.revoked: set[str] = set()
        self.bodies: list[str] = []

    def handle(self, request: Request) -> Response:
        self.bodies.append(request.body.decode())
        answer = self.answers[request.target]
        if isinstance(answer, Exception):
            raise answer
        is_revoked = (request.header("x-write-key") or "..").split(".")[1] in self.revoked
        date = formatdate(SystemClock().now() - self.late, usegmt=True)
        headers = [("Date", date), *([("x-sluice-error", self.code)] if self.code else [])]
        return Response(403 if is_revoked else answer, headers=headers)


class FaultyStack(Stack):
    """A stack. Commands take it as the context's object. `alarms` are those that are on, `off` the schedules that are not; Redis raises `redis_failure`."""

    def __init__(self) -> None:
        clock = ManualClock(SystemClock().now() - AGO)
        made, sqs = Delivery(clock=clock), MemorySQS(clock.now)
        for url in (RESOURCES.queue_url, RESOURCES.notices_url):
            sqs.create_queue(QueueName=url.rpartition("/")[2])
        made.dynamodb.create_table(TableName="counters", **COUNTERS)
        made.secrets.values["keys"] = json.dumps({"k1": "s" * 40})
        made.redis.hset(KEYS.sentinel, mapping={"at": "1", "count": "0"})
        outputs = {
            "ApiUrl": "http://api.invalid",
            "StreamName": STREAM,
            "OverflowQueueUrl": RESOURCES.queue_url,
            "OverflowNoticesUrl": RESOURCES.notices_url,
            "LedgerTable": TABLE,
            "CountersTable": "counters",
            "DataBucket": BUCKET,
            "WriteKeySecret": "keys",
            "WorkerFunction": "worker",
            "AlarmTopic": "topic",
        }
        super().__init__(NAME, outputs, boto3.Session("key", "secret", region_name="us-east-1"))
        self.break_(made=made, api=_Api(), alarms=[], off=set(), redis_failure=None)
        self.break_(sqs=Meddled(sqs), mapping=worker_mapping("worker"))

    made: Delivery
    api: _Api
    alarms: list[str]
    off: set[str]
    redis_failure: Exception | None
    sqs: Any
    mapping: dict[str, Any]

    def break_(self, **values: Any) -> None:
        """Set attributes."""
        for name, value in values.items():
            object.__setattr__(self, name, value)  # a stack is frozen

    def run(self, line: str, answer: str = "") -> Result:
        """Run a command line on the stack, answering its prompt."""
        return CliRunner(mix_stderr=False).invoke(main, shlex.split(line), obj=self, input=answer)

    def json(self, line: str) -> Any:
        """Run a command line with --json, and return what it prints."""
        return json.loads(self.run(f"{line} --json").stdout)

    def client(self, service: str, read_timeout: float = 60) -> Any:  # type: ignore[override]  # noqa: ARG002
        """Return the double of a service."""
        made = self.made
        found = {"kinesis": made.kinesis, "dynamodb": made.dynamodb, "s3": made.s3, "sqs": self.sqs}
        return found.get(service) or self._stubs()[service]

    def _stubs(self) -> dict[str, Any]:
        shown = [{"AlarmName": f"{NAME}-{alarm}"} for alarm in self.alarms]
        mappings = {"EventSourceMappings": [self.mapping] if self.mapping else []}
        others = {"eu-SenderFunctionSchedule", "SenderFunctionWatermarks"}  # without WatermarkTable
        rules = sluice_template().schedules({}) | others
        states = {rule: "DISABLED" if rule in self.off | others else "ENABLED" for rule in rules}
        named = [{"Name": f"{NAME}-{rule}-1ABC", "State": state} for rule, state in states.items()]
        return {
            "cloudwatch": _paged(MetricAlarms=shown, MetricDataResults=[]),
            "events": _paged(Rules=named),
            "sns": _paged(Subscriptions=[{"SubscriptionArn": "arn"}]),
            "secretsmanager": self.made.secrets,
            "logs": SimpleNamespace(filter_log_events=lambda **_: {"events": list(self._log())}),
            "lambda": SimpleNamespace(
                list_event_source_mappings=lambda **_: {**mappings},
                get_function_configuration=lambda **_: {"LoggingConfig": {"LogGroup": "/sluice"}},
            ),
        }

    def _log(self) -> Iterator[dict[str, str]]:
        for level, message, fields in self.made.telemetry.lines:
            at = datetime.fromtimestamp(self.made.clock.now(), UTC).isoformat()
            said = {"level": level, "message": message, "timestamp": at, "service": "worker", **fields}
            yield {"logStreamName": "worker", "message": json.dumps(said, default=str)}

    def http(self) -> requests.Session:
        """Return what calls the API."""
        session = requests.Session()
        adapter = HTTPAdapter()
        adapter.poolmanager = InProcess(self.api.handle, self.made.clock)
        session.mount("http://", adapter)
        return session

    def invoke(self, output: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """Invoke AdminFunction, or the sender's function."""
        if output == "SenderFunction":
            return self.made.invoke_sender(json.loads(json.dumps(event)))
        assert output == "AdminFunction"
        wiring = self.made.wiring_of(ADMIN)
        if self.redis_failure is not None:
            wiring.admin._connect = Mock(side_effect=self.redis_failure)
        return wiring.admin.run(event, self.made.deadline())


def _paged(**page: Any) -> Any:
    return SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=lambda **_: [page]))


def gone(code: str = "ResourceNotFoundException") -> Callable[[Any], None]:
    """Return a hook for calls to something that does not exist."""
    return Mock(side_effect=client_error(code, "Describe", "not found"))
