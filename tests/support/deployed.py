"""Presents the local stack as one in AWS. All calls of a command pass through here: tests see which permissions it needs, and can deny any of them."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

from click.testing import CliRunner, Result

from doubles.http_server import HttpServer, Request, Response
from doubles.iam import REGION
from local import resources
from local.stack import LocalStack
from ops.cli import main
from ops.stack import described
from tests.support.aws_calls import OBJECT_ACTIONS, forwarded, service_of
from tests.support.aws_server import answer as in_json
from tests.support.event_source import worker_mapping

NAME = "sluice-dev"

_FUNCTION = re.compile(r"/2015-03-31/functions/([^/]+)/(\w+)")
_XML = ("cloudformation", "s3")
_PREFIXES = {"monitoring": "cloudwatch"}


class Deployed(HttpServer):
    """Runs the command on a stack that appears to be deployed.

    Attributes:
        calls: the actions called, named as in IAM, for example `kinesis:GetRecords`. If a stack has several resources for an
            action, the output that names the resource follows.
        refusals: by action, or by service, the status and code to answer; the local stack answers everything else.
        answers: responses to give in place of functions, by the outputs that name them.
        age: seconds by which to make the stream appear older.
        log: lines that the functions have just logged, each with the name of its log stream. The first page of each search is
            empty, as CloudWatch Logs may answer.
    """

    def __init__(self, stack: LocalStack, outputs: Mapping[str, str]) -> None:
        self.outputs = outputs
        self.answers: dict[str, dict[str, Any]] = {}
        self.age = 0.0
        self.log: list[tuple[str, str]] = []
        self.calls: list[str] = []
        self.refusals: dict[str, tuple[int, str]] = {}
        self._stack = stack
        super().__init__(self._respond)
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "SLUICE_STACK": "",
        }

    def run(self, line: list[str], answer: str = "", stack: str = NAME) -> Result:
        """Run a command line on the stack, answering its prompt."""
        arguments = [*line, "--stack", stack, "--region", REGION]
        terminal = CliRunner(mix_stderr=False, env=self.environment)
        return terminal.invoke(main, arguments, input=answer, prog_name="sluice")

    def refusing(self, what: str, status: int, code: str) -> AbstractContextManager[Any]:
        """Reject calls of an action or service for the duration of the block."""
        return patch.dict(self.refusals, {what: (status, code)})

    def answering(self, function: str, answer: dict[str, Any]) -> AbstractContextManager[Any]:
        """Answer in a function's place for the duration of the block."""
        return patch.dict(self.answers, {function: answer})

    def _respond(self, request: Request) -> Response:
        service, path = service_of(request), urlsplit(request.target).path
        operation = f"{_PREFIXES.get(service, service)}:{_operation(service, path, request)}"
        of = self._output(service, path, request)
        self.calls.append(f"{operation} {of}" if of else operation)
        refusal = self.refusals.get(operation, self.refusals.get(service))
        if refusal is not None:
            return _refused(service, *refusal)
        if service == "lambda":
            return self._answer_for_lambda(request)
        if service == "logs":
            return self._page_of_log(json.loads(request.body))
        answer = forwarded(request, self._stack.resources.endpoint)
        if self.age and b"StreamCreationTimestamp" in answer.body:
            summary = json.loads(answer.body)
            summary["StreamDescriptionSummary"]["StreamCreationTimestamp"] -= self.age
            return replace(answer, body=json.dumps(summary).encode())
        return answer

    def _output(self, service: str, path: str, request: Request) -> str:
        """Return the index, or the output that names the bucket, secret or function; an empty string for other calls."""
        match service:
            case "s3":
                value = path.strip("/").partition("/")[0]
            case "dynamodb":
                asked = json.loads(request.body)
                if asked.get("TableName") == self.outputs["CountersTable"]:
                    return "counters"
                return str(asked.get("IndexName", ""))
            case "secretsmanager":
                value = json.loads(request.body)["SecretId"]
            case "lambda" if request.method == "POST":
                value = path.split("/")[3]
            case _:
                return ""
        return next((name for name, output in self.outputs.items() if output == value), value)

    def _answer_for_lambda(self, request: Request) -> Response:
        named = _FUNCTION.match(request.target)
        if named is None:
            return in_json(200, {"EventSourceMappings": [worker_mapping(self.outputs["WorkerFunction"])]})
        if named[1] in self.answers:
            return in_json(200, self.answers[named[1]])
        if named[2] == "invocations":
            return forwarded(request, self._stack.addresses.functions[named[1]])
        return in_json(200, {"LoggingConfig": {"LogGroup": "/sluice"}})

    def _page_of_log(self, asked: Mapping[str, Any]) -> Response:
        if "nextToken" not in asked:
            return in_json(200, {"events": [], "nextToken": "second"})
        is_latest = asked.get("endTime", float("inf")) > time.time() * 1000
        shown = self.log if is_latest else ()
        return in_json(200, {"events": [{"logStreamName": name, "message": line} for name, line in shown]})


@contextmanager
def deployed(stack: LocalStack, **more: str) -> Iterator[Deployed]:
    """Present a local stack as a deployed one, with additional outputs."""
    outputs = {**described(stack.describe()).outputs, **more}
    cloudformation = resources.client("cloudformation", stack.resources.endpoint)
    endpoint = stack.addresses.treasure_data
    parameters = {"TdImportEndpoint": endpoint, "TdApiEndpoint": endpoint, "Stage": "dev"}
    template = {
        "Parameters": {name: {"Type": "String"} for name in parameters},
        "Resources": {"Nothing": {"Type": "AWS::CloudFormation::WaitConditionHandle"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    cloudformation.create_stack(StackName=NAME, TemplateBody=json.dumps(template), Parameters=given)

    try:
        with Deployed(stack, outputs) as shown:
            yield shown
    finally:
        cloudformation.delete_stack(StackName=NAME)


def _operation(service: str, path: str, request: Request) -> str:
    target = request.header("x-amz-target")
    if target:
        return target.rpartition(".")[2]
    if service == "lambda":
        if request.method == "POST":
            return "InvokeFunction"
        return "GetFunctionConfiguration" if "/functions/" in path else "ListEventSourceMappings"
    if service == "s3":
        has_key = bool(path.strip("/").partition("/")[2])
        return OBJECT_ACTIONS[request.method] if has_key else "ListBucket"
    if "/operation/" in path:
        return path.rpartition("/")[2]
    return parse_qs(request.body.decode())["Action"][0]


def _refused(service: str, status: int, code: str) -> Response:
    message = "it is not for you"
    if service not in _XML:
        refusal = in_json(status, {"__type": code, "message": message})
        return replace(refusal, headers=(*refusal.headers, ("x-amzn-errortype", code)))
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    body = error if service == "s3" else f"<ErrorResponse>{error}</ErrorResponse>"
    return Response(status, body.encode(), (("content-type", "text/xml"),))
