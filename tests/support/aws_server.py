"""An HTTP server that stands in for AWS, for clients that must survive what a network does."""

import json
import os
from collections.abc import Mapping
from typing import Any, override

import pytest

from doubles.http_server import Drop, HttpServer, Request, Response


def answer(status: int, value: Any) -> Response:
    """Answer with JSON, or with bytes as they are."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Response(status, data, (("content-type", "application/x-amz-json-1.1"),))


def error(status: int, code: str) -> Response:
    """Answer with an error as AWS does."""
    return answer(status, {"__type": code, "message": "Rate exceeded"})


close = Response(drop=Drop.CLOSE)
"""Close the connection after the request has arrived."""


class AwsServer(HttpServer):
    """Accepts every call, and serves S3 objects from any bucket, as a context manager.

    It remembers operation and parameters of each call, its headers, path and headers of each read of an object, and the client's
    port of each connection. S3 denies access to other objects than `objects`. `faults` are, by operation, the answers to the next
    calls; None is success.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.reads: list[dict[str, str]] = []
        self.ports: list[int] = []
        self.objects: dict[str, bytes] = {}
        self.faults: dict[str, list[Response | None]] = {}
        self._secret = json.dumps(secrets)
        super().__init__(self._respond)

    def count(self, operation: str) -> int:
        """Return how often an operation was called."""
        return [name for name, _ in self.calls].count(operation)

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        self.ports.append(client_address[1])
        super().process_request(request, client_address)

    def _respond(self, request: Request) -> Response:
        head = {name.lower(): value for name, value in request.headers}
        if request.method == "GET":
            self.reads.append({"path": request.target} | head)
            return self._read(request.target.partition("/")[2].partition("/")[2], head)
        operation, asked = head["x-amz-target"].rpartition(".")[2], json.loads(request.body)
        self.calls.append((operation, asked))
        self.heads.append(head)
        faults = self.faults.get(operation)
        return (faults and faults.pop(0)) or answer(200, self._success(operation, asked))

    def _read(self, key: str, head: Mapping[str, str]) -> Response:
        if key not in self.objects:
            return answer(403, b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>")
        tag = '"1"'
        if head.get("if-none-match") == tag:
            return Response(304)
        return Response(200, self.objects[key], (("etag", tag),))

    def _success(self, operation: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        put = {"SequenceNumber": "1", "ShardId": "shardId-000000000000"}
        match operation:
            case "GetSecretValue":
                return {"SecretString": self._secret}
            case "PutRecords":
                return {"Records": [put] * len(asked["Records"])}
            case "UpdateItem":  # of an item that did not exist before numbers were added to it
                values = asked["ExpressionAttributeValues"]
                return {"Attributes": {name.removeprefix(":"): value for name, value in values.items()}}
        return {"PutRecord": put, "SendMessage": {"MessageId": "1"}}[operation]


def unset_variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Remove every variable and file that AWS clients would read; return the variables that do so."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    files = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
    variables = dict.fromkeys(files, os.devnull) | {"AWS_EC2_METADATA_DISABLED": "true"}
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    return variables
