"""HTTP requests to AWS: which calls they make, and a proxy in front of a local AWS that records the calls of a function."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from doubles.http_server import HttpServer, Request, Response
from local.resources import Resources
from shared import policy

_SIGNED_FOR = re.compile(r"Credential=[^/]+/\d+/[^/]+/([a-z0-9-]+)/aws4_request")
OBJECT_ACTIONS = {"GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
"""By method, the action on an S3 object."""
_RESOURCES = {"kinesis": "Stream", "sqs": "OverflowQueue"}
_COUNTERS = Resources("", "").counters_table

_OF_CONNECTION = ("connection", "content-length", "date", "server", "transfer-encoding", "x-amz-crc32")

type Call = tuple[str, str]
"""An action named as in IAM, and the template's resource that it accesses; `/*` for a bucket's objects."""


def service_of(request: Request) -> str:
    """Return the service for which a request is signed."""
    signed_for = _SIGNED_FOR.search(request.header("authorization"))
    assert signed_for is not None, f"an unsigned request: {request.method} {request.target}"
    return signed_for[1]


def forwarded(request: Request, endpoint: str) -> Response:
    """Return an endpoint's response to a request."""
    connection = HTTPConnection(urlsplit(endpoint).netloc, timeout=60)
    try:
        connection.request(request.method, request.target, request.body, dict(request.headers))
        answer = connection.getresponse()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OF_CONNECTION]
        return Response(answer.status, answer.read(), kept)
    finally:
        connection.close()


class CallRecorder(HttpServer):
    """Forwards requests to AWS, records their calls and may `change` the bodies of responses. `secrets` are the template's names by the ids at that AWS."""

    def __init__(self, endpoint: str, secrets: Mapping[str, str]) -> None:
        self.calls: set[Call] = set()
        self.change: Callable[[Call, bytes], bytes] = lambda _, content: content
        self._endpoint, self._secrets = endpoint, secrets
        super().__init__(self._forward)

    def _forward(self, request: Request) -> Response:
        calls = _calls(request, self._secrets)
        self.calls |= calls
        answer = forwarded(request, self._endpoint)
        return replace(answer, body=self.change(next(iter(calls)), answer.body))


def _calls(request: Request, secrets: Mapping[str, str]) -> set[Call]:
    """Return the calls of a request: one, or one for each kind of write in a transaction."""
    method, path, body = request.method, request.target, request.body
    service = service_of(request)
    if service == "s3":
        url = urlsplit(path)
        _, _, name = url.path.strip("/").partition("/")
        if not name:
            return {("s3:ListBucketVersions" if "versions" in url.query else "s3:ListBucket", "DataBucket")}
        place = name if name == policy.KEY else f"{name.partition('/')[0]}/*"
        of_version = "Version" if "versionId=" in url.query else ""
        return {(f"s3:{OBJECT_ACTIONS[method]}{of_version}", f"DataBucket/{place}")}
    operation = request.header("x-amz-target").rpartition(".")[2]
    if service == "secretsmanager":
        return {(f"{service}:{operation}", secrets[json.loads(body)["SecretId"]])}
    if service == "dynamodb":
        return _table_calls(operation, json.loads(body))
    if service == "sqs" and json.loads(body)["QueueUrl"].endswith("-notices"):
        return {(f"{service}:{operation}", "OverflowNotices")}
    return {(f"{service}:{operation}", _RESOURCES[service])}


def _table_calls(operation: str, request: Mapping[str, Any]) -> set[Call]:
    """Return the calls of a request to DynamoDB."""
    if operation == "BatchExecuteStatement":
        verbs = {one["Statement"].split()[0].title() for one in request["Statements"]}
        return {(f"dynamodb:PartiQL{verb}", "Ledger") for verb in verbs}
    if operation == "TransactWriteItems":
        return {(f"dynamodb:{kind}Item", "Ledger") for action in request["TransactItems"] for kind in action}
    index = f"/index/{request['IndexName']}" if "IndexName" in request else ""
    table = "Counters" if request.get("TableName") == _COUNTERS else "Ledger"
    return {(f"dynamodb:{operation}", f"{table}{index}")}
