"""An HTTP proxy in front of a local AWS that records which calls a function makes."""

import json
import re
import threading
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from local.resources import Resources
from shared import policy

_SIGNED_FOR = re.compile(r"Credential=[^/]+/\d+/[^/]+/([a-z0-9-]+)/aws4_request")
_OBJECT_ACTIONS = {"GET": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}
_RESOURCES = {"kinesis": "Stream", "sqs": "OverflowQueue"}
_COUNTERS = Resources("", "").counters_table

type Call = tuple[str, str]
"""An action named as in IAM, and the template's resource that it accesses; `/*` for a bucket's objects."""


class CallRecorder:
    """Forwards requests to AWS and records their calls, as a context manager.

    Args:
        endpoint: AWS's endpoint.
        secrets: the template's names of secrets, by their ids at that AWS.

    Attributes:
        url: the endpoint to give to a function.
        calls: the recorded calls.
        change: changes the body of a call's response; by default it stays as it is.
    """

    def __init__(self, endpoint: str, secrets: Mapping[str, str]) -> None:
        self.calls: set[Call] = set()
        self.change: Callable[[Call, bytes], bytes] = lambda _, content: content
        address, recorder = urlsplit(endpoint).netloc, self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                calls = _calls(self.command, self.path, dict(self.headers.items()), body, secrets)
                recorder.calls |= calls
                call = next(iter(calls))
                connection = HTTPConnection(address, timeout=60)
                try:
                    connection.request(self.command, self.path, body, dict(self.headers.items()))
                    answer = connection.getresponse()
                    content = recorder.change(call, answer.read())
                finally:
                    connection.close()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in (
                        "connection",
                        "content-length",
                        "transfer-encoding",
                        "x-amz-crc32",
                    ):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815 -- names of the base class

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as in the base class
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _calls(
    method: str, path: str, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str]
) -> set[Call]:
    """Return the calls of a request: one, or one for each kind of write in a transaction."""
    headers = {name.lower(): value for name, value in headers.items()}
    signed_for = _SIGNED_FOR.search(headers.get("authorization", ""))
    assert signed_for is not None, f"an unsigned request: {method} {path}"
    service = signed_for[1]
    if service == "s3":
        url = urlsplit(path)
        _, _, name = url.path.strip("/").partition("/")
        if not name:
            return {("s3:ListBucketVersions" if "versions" in url.query else "s3:ListBucket", "DataBucket")}
        place = name if name == policy.KEY else f"{name.partition('/')[0]}/*"
        of_version = "Version" if "versionId=" in url.query else ""
        return {(_OBJECT_ACTIONS[method] + of_version, f"DataBucket/{place}")}
    operation = headers["x-amz-target"].rpartition(".")[2]
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
        return {
            (f"dynamodb:PartiQL{one['Statement'].split()[0].title()}", "Ledger")
            for one in request["Statements"]
        }
    if operation == "TransactWriteItems":
        return {(f"dynamodb:{kind}Item", "Ledger") for action in request["TransactItems"] for kind in action}
    index = f"/index/{request['IndexName']}" if "IndexName" in request else ""
    table = "Counters" if request.get("TableName") == _COUNTERS else "Ledger"
    return {(f"dynamodb:{operation}", f"{table}{index}")}
