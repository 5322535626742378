"""Presents the local stack as a stack deployed in AWS, found through CloudFormation and called with the operator's permissions.

All of the command's calls to AWS pass through here, so that tests see which permissions a command needs, and can deny any of
them.
"""

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from click.testing import CliRunner, Result

from doubles.iam import REGION
from local import resources
from local.stack import LocalStack
from ops.cli import main

NAME = "sluice-dev"

_SERVICE = re.compile(r"Credential=[^/]+/\d+/[^/]+/([a-z0-9-]+)/aws4_request")
_FUNCTION = re.compile(r"/2015-03-31/functions/([^/]+)/(\w+)")
_XML = ("cloudformation", "s3")
_MAPPING: dict[str, Any] = {
    "UUID": "0f5e1c4a",
    "FunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:{function}",
    "EventSourceArn": "arn:aws:kinesis:us-east-1:123456789012:stream/events",
    "State": "Enabled",
    "MaximumRetryAttempts": -1,
    "MaximumRecordAgeInSeconds": -1,
    "BisectBatchOnFunctionError": False,
    "ParallelizationFactor": 1,
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
    "LastProcessingResult": "OK",
}


class Deployed:
    """Runs the command on a stack that appears to be deployed.

    Attributes:
        calls: the actions called, named as in IAM, for example `kinesis:GetRecords`. If a stack has several resources for an
            action, the output that names the resource follows.
        refusals: by action, or by service, the status and code to answer; the local stack answers everything else.
        answers: responses to give in place of functions, by the outputs that name them.
        age: seconds by which to make the stream appear older.
        log: lines that the functions have just logged, each with the name of its log stream. The first page of each search is
            empty, as CloudWatch Logs may answer.
        url: the endpoint of AWS.
        environment: the environment variables with which commands use it.
        outputs: the stack's outputs.
    """

    def __init__(self, url: str, outputs: Mapping[str, str]) -> None:
        self.outputs = outputs
        self.answers: dict[str, dict[str, Any]] = {}
        self.age = 0.0
        self.log: list[tuple[str, str]] = []
        self.calls: list[str] = []
        self.refusals: dict[str, tuple[int, str]] = {}
        self.url = url
        self.environment = {
            "AWS_ENDPOINT_URL": url,
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
        return CliRunner(mix_stderr=False).invoke(
            main, arguments, input=answer, env=self.environment, prog_name="sluice"
        )

    @contextmanager
    def refusing(self, what: str, status: int, code: str) -> Iterator[None]:
        """Reject calls of an action or service for the duration of the block."""
        self.refusals[what] = (status, code)
        try:
            yield
        finally:
            del self.refusals[what]

    @contextmanager
    def answering(self, function: str, answer: dict[str, Any]) -> Iterator[None]:
        """Answer in a function's place for the duration of the block."""
        self.answers[function] = answer
        try:
            yield
        finally:
            del self.answers[function]

    @contextmanager
    def as_old_as(self, *, days: float) -> Iterator[None]:
        """Make the stream appear older for the duration of the block."""
        self.age = days * 86_400
        try:
            yield
        finally:
            self.age = 0.0


@contextmanager
def deployed(stack: LocalStack, **more: str) -> Iterator[Deployed]:
    """Present a local stack as a deployed one, with additional outputs."""
    made = stack.resources
    outputs = {
        "ApiUrl": stack.addresses.gateway,
        "StreamName": made.stream,
        "OverflowQueueUrl": made.queue_url,
        "OverflowNoticesUrl": made.notices_url,
        "LedgerTable": made.ledger_table,
        "CountersTable": made.counters_table,
        "DataBucket": made.data_bucket,
        "WriteKeySecret": made.write_key_secret,
        "TdApiKeySecret": made.td_api_key_secret,
        "RedisUrlSecret": made.redis_url_secret,
        "IngestFunction": "IngestFunction",
        **{name: name for name in stack.addresses.functions},
        **more,
    }
    cloudformation = resources.client("cloudformation", made.endpoint)
    endpoint = stack.addresses.treasure_data
    parameters = {"TdImportEndpoint": endpoint, "TdApiEndpoint": endpoint, "Stage": "dev"}
    template = {
        "Parameters": {name: {"Type": "String"} for name in parameters},
        "Resources": {"Nothing": {"Type": "AWS::CloudFormation::WaitConditionHandle"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    cloudformation.create_stack(StackName=NAME, TemplateBody=json.dumps(template), Parameters=given)

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    shown = Deployed(f"http://127.0.0.1:{server.server_address[1]}", outputs)
    Handler.shown, Handler.stack = shown, stack
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        cloudformation.delete_stack(StackName=NAME)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    shown: Deployed
    stack: LocalStack

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        found = _SERVICE.search(self.headers.get("authorization", ""))
        service = found[1] if found else "?"
        operation = f"{_PREFIXES.get(service, service)}:{self._operation(service, body)}"
        of = self._output(service, body)
        self.shown.calls.append(f"{operation} {of}" if of else operation)
        refusal = self.shown.refusals.get(operation, self.shown.refusals.get(service))
        if refusal is not None:
            self._refuse(service, *refusal)
        elif service == "lambda":
            self._answer_for_lambda(body)
        elif service == "logs":
            asked = json.loads(body)
            is_second, is_latest = (
                "nextToken" in asked,
                asked.get("endTime", float("inf")) > time.time() * 1000,
            )
            shown = self.shown.log if is_latest else ()
            events = {"events": [{"logStreamName": name, "message": line} for name, line in shown]}
            page = events if is_second else {"events": [], "nextToken": "second"}
            self._answer(200, json.dumps(page).encode(), "application/x-amz-json-1.1")
        else:
            self._forward(self.stack.resources.endpoint, body)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815 -- names of the base class

    def _operation(self, service: str, body: bytes) -> str:
        target = self.headers.get("x-amz-target")
        if target:
            return target.rpartition(".")[2]
        path = urlsplit(self.path).path
        if service == "lambda":
            if self.command == "POST":
                return "InvokeFunction"
            return "GetFunctionConfiguration" if "/functions/" in path else "ListEventSourceMappings"
        if service == "s3":
            has_key = bool(path.strip("/").partition("/")[2])
            if not has_key:
                return "ListBucket"
            return {"PUT": "PutObject", "DELETE": "DeleteObject"}.get(self.command, "GetObject")
        if "/operation/" in path:
            return path.rpartition("/")[2]
        return parse_qs(body.decode()).get("Action", ["?"])[0]

    def _output(self, service: str, body: bytes) -> str:
        """Return the index, or the output that names the bucket, secret or function; an empty string for other calls."""
        path = urlsplit(self.path).path
        match service:
            case "s3":
                value = path.strip("/").partition("/")[0]
            case "dynamodb":
                asked = json.loads(body)
                if asked.get("TableName") == self.shown.outputs["CountersTable"]:
                    return "counters"
                return str(asked.get("IndexName", ""))
            case "secretsmanager":
                value = json.loads(body)["SecretId"]
            case "lambda" if self.command == "POST":
                value = path.split("/")[3]
            case _:
                return ""
        return next((name for name, output in self.shown.outputs.items() if output == value), value)

    def _answer_for_lambda(self, body: bytes) -> None:
        named = _FUNCTION.match(self.path)
        if named is None:
            function = _MAPPING["FunctionArn"].format(function=self.shown.outputs["WorkerFunction"])
            mapping = _MAPPING | {"FunctionArn": function}
            self._answer(200, json.dumps({"EventSourceMappings": [mapping]}).encode())
        elif named[1] in self.shown.answers:
            self._answer(200, json.dumps(self.shown.answers[named[1]]).encode())
        elif named[2] == "invocations":
            self._forward(self.stack.addresses.functions[named[1]], body)
        else:
            self._answer(200, json.dumps({"LoggingConfig": {"LogGroup": "/sluice"}}).encode())

    def _forward(self, endpoint: str, body: bytes) -> None:
        connection = HTTPConnection(urlsplit(endpoint).netloc, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
            headers = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() not in ("connection", "transfer-encoding", "date", "server")
            }
        finally:
            connection.close()
        if self.shown.age and b"StreamCreationTimestamp" in content:
            summary = json.loads(content)
            summary["StreamDescriptionSummary"]["StreamCreationTimestamp"] -= self.shown.age
            content = json.dumps(summary).encode()
            headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name in headers}:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, service: str, status: int, code: str) -> None:
        message = "it is not for you"
        if service in _XML:
            error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
            body = error if service == "s3" else f"<ErrorResponse>{error}</ErrorResponse>"
            self._answer(status, body.encode(), "text/xml")
            return
        self._answer(status, json.dumps({"__type": code, "message": message}).encode(), code=code)

    def _answer(self, status: int, body: bytes, kind: str = "application/json", *, code: str = "") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if code:
            self.send_header("x-amzn-errortype", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


_PREFIXES = {"monitoring": "cloudwatch"}
