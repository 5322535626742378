"""A loopback server that acts as Kinesis, SQS, S3 and Secrets Manager, and fails on request."""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Fault = Callable[["_Handler"], None]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_POST(self) -> None:
        """Record the call, and answer it or fail."""
        body = self.rfile.read(int(self.headers["content-length"]))
        operation = self.headers["x-amz-target"].rpartition(".")[2]
        self.server.calls.append((operation, json.loads(body)))
        self.server.ports.append(self.client_address[1])
        self.server.heads.append({name.lower(): value for name, value in self.headers.items()})
        faults = self.server.faults.get(operation, [])
        fault = faults.pop(0) if faults else None
        if fault is None:
            self.answer(200, self.server.answers[operation](json.loads(body)))
        else:
            fault(self)

    def do_GET(self) -> None:
        """Return an S3 object from any bucket, or deny access as S3 does to an object that does not exist."""
        self.server.reads.append(
            {"path": self.path} | {name.lower(): text for name, text in self.headers.items()}
        )
        body = self.server.objects.get(self.path.partition("/")[2].partition("/")[2])
        tag = '"1"'
        if body is None:
            self.answer(403, b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>")
        elif self.headers.get("if-none-match") == tag:
            self.send_response(304)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("etag", tag)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def answer(self, status: int, value: Any) -> None:
        """Answer with JSON, or with bytes as they are."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/x-amz-json-1.1")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: Any) -> None:
        """Log nothing."""


def _added(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of an item that did not exist before numbers were added to it."""
    return {name.removeprefix(":"): value for name, value in values.items()}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, secrets: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[tuple[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.ports: list[int] = []
        self.objects: dict[str, bytes] = {}
        self.reads: list[dict[str, str]] = []
        self.faults: dict[str, list[Fault | None]] = {}
        self.answers: dict[str, Callable[[Any], Any]] = {
            "GetSecretValue": lambda _call: {"SecretString": json.dumps(secrets)},
            "PutRecord": lambda _call: {"SequenceNumber": "1", "ShardId": "shardId-000000000000"},
            "PutRecords": lambda call: {
                "Records": [{"SequenceNumber": "1", "ShardId": "s"}] * len(call["Records"])
            },
            "SendMessage": lambda _call: {"MessageId": "1"},
            "UpdateItem": lambda call: {"Attributes": _added(call["ExpressionAttributeValues"])},
        }

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, operation: str) -> int:
        """Return how often an operation was called."""
        return [name for name, _ in self.calls].count(operation)

    def handle_error(self, *_arguments: Any) -> None:
        """Ignore clients that disconnect."""


@contextmanager
def aws_server(secrets: Mapping[str, str]) -> Iterator[_Server]:
    """Serve until the block ends."""
    server = _Server(secrets)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def error(status: int, code: str) -> Fault:
    """Answer with an error as AWS does."""
    return lambda handler: handler.answer(status, {"__type": code, "message": "Rate exceeded"})


def close(handler: _Handler) -> None:
    """Close the connection after the request has arrived."""
    handler.close_connection = True


def unset_variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Remove every variable and file that AWS clients would read; return the variables that do so."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    files = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
    variables = dict.fromkeys(files, os.devnull) | {"AWS_EC2_METADATA_DISABLED": "true"}
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    return variables
