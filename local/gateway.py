"""API Gateway's HTTP API on one machine: HTTP requests become events of payload format 2.0, results become answers.

What is fixed there is fixed here: 10,240 bytes of request line and headers, 10 MB of body, 6 MB of event, 30 seconds.
Lambda's reference names the fields of the event; bodies that are not text, and all that are compressed, come in base64.
"""

import json
import logging
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, unquote
from uuid import uuid4

from local.context import Context

MAX_HEAD_BYTES = 10_240
"""Request line and headers."""
MAX_BODY_BYTES = 10 * 1024 * 1024
MAX_EVENT_BYTES = 6 * 1024 * 1024
TIMEOUT_SECONDS = 30.0

_TEXT_TYPES = ("text/", "application/json", "application/javascript", "application/xml")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}

_log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any], Any], Any]
Record = Callable[[str, str, list[tuple[str, str]], bytes, dict[str, Any] | None], None]
"""Is told of each request: method, target, headers as sent, body, and the event made of it, None where none was."""


class Gateway:
    """Serves a handler over HTTP, between `start` and `stop`.

    Args:
        handler: of a function, as Lambda calls it.
        host: address to listen on.
        port: 0 takes a free one.
        function_name: named in the handler's context.
        timeout_seconds: after which an answer is not waited for.
        record: is told of each request before it is handled.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        function_name: str = "IngestFunction",
        timeout_seconds: float = TIMEOUT_SECONDS,
        record: Record = lambda *_: None,
    ) -> None:
        self._handler = handler
        self._function_name = function_name
        self._timeout_seconds = timeout_seconds
        self._record = record
        self._calls = ThreadPoolExecutor(32, "invocation")
        answer = type("_Answer", (_Exchange,), {"gateway": self})
        self._server = _Server((host, port), answer)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://{self._server.server_address[0]!s}:{self.port}"

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End at once; connections are closed."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._calls.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def answer(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes, source_ip: str
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, headers and body of the answer to one request.

        Args:
            method: as sent.
            target: path and query as sent.
            headers: as sent.
            body: as sent.
            source_ip: the client's address.
        """
        refusal = _refusal(method, target, headers, body)
        if refusal is not None:
            self._record(method, target, headers, body, None)
            return refusal
        event = payload_event(method, target, headers, body, source_ip)
        self._record(method, target, headers, body, event)
        if len(json.dumps(event)) > MAX_EVENT_BYTES:
            return _message(413, "Request Too Long")
        deadline = time.time() + self._timeout_seconds
        context = Context(function_name=self._function_name, deadline=deadline, now=time.time)
        try:
            result = self._calls.submit(self._handler, event, context).result(self._timeout_seconds)
            return answer_of(result)
        except FutureTimeoutError:
            return _message(503, "Service Unavailable")
        except Exception:  # noqa: BLE001 -- whatever a function raises is an Internal Server Error
            _log.exception("the function failed")
            return _message(500, "Internal Server Error")


def payload_event(
    method: str, target: str, headers: list[tuple[str, str]], body: bytes, source_ip: str
) -> dict[str, Any]:
    """Return the event of payload format 2.0 that API Gateway makes of a request to its `$default` route."""
    path, _, query = target.partition("?")
    joined = _joined(headers)
    cookies = [part.strip() for part in joined.pop("cookie", "").split(";") if part.strip()]
    now = time.time()
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": unquote(path),
        "rawQueryString": query,
        "headers": joined,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": joined.get("host", "localhost"),
            "domainPrefix": "local",
            "http": {
                "method": method,
                "path": unquote(path),
                "protocol": "HTTP/1.1",
                "sourceIp": source_ip,
                "userAgent": joined.get("user-agent", ""),
            },
            "requestId": str(uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": datetime.fromtimestamp(now, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if parameters := _parameters(query):
        event["queryStringParameters"] = parameters
    if body:
        event["body"], event["isBase64Encoded"] = _body(body, joined)
    return event


def answer_of(result: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return status, headers and body that API Gateway makes of what a handler returned.

    A result without `statusCode` is the body of a 200, in JSON.
    """
    if not isinstance(result, Mapping) or "statusCode" not in result:
        return 200, [("content-type", "application/json")], json.dumps(result).encode()
    headers = [(str(name), _text(value)) for name, value in (result.get("headers") or {}).items()]
    headers += [("set-cookie", cookie) for cookie in result.get("cookies") or ()]
    body = result.get("body") or ""
    data = b64decode(body) if result.get("isBase64Encoded") else str(body).encode()
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("content-type", "text/plain; charset=utf-8"))
    return int(result["statusCode"]), headers, data


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    gateway: ClassVar[Gateway]

    def __getattr__(self, name: str) -> Any:
        """Serve every method alike."""
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing: the function reports."""

    def _serve(self) -> None:
        try:
            body = self._read_body()
        except ValueError:
            self.close_connection = True
            self._send(*_message(400, "Bad Request"))
            return
        headers = [(name, value) for name, value in self.headers.items()]
        self._send(*self.gateway.answer(self.command, self.path, headers, body, str(self.client_address[0])))

    def _read_body(self) -> bytes:
        """Return the body; at most one byte more than is taken, and then the connection ends."""
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return self._read_chunks()
        length = int(self.headers.get("content-length") or 0)
        if length < 0:
            raise ValueError("a length below zero")
        if length > MAX_BODY_BYTES:
            self.close_connection = True
        return self.rfile.read(min(length, MAX_BODY_BYTES + 1))

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := int(self.rfile.readline(1024).partition(b";")[0], 16):
            body += self.rfile.read(min(size, MAX_BODY_BYTES + 1))
            if len(body) > MAX_BODY_BYTES:
                self.close_connection = True
                return bytes(body)
            self.rfile.readline(8)
        while self.rfile.readline(8192).strip():
            pass  # trailers
        return bytes(body)

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)


def _message(status: int, text: str) -> tuple[int, list[tuple[str, str]], bytes]:
    return status, [("content-type", "application/json")], json.dumps({"message": text}).encode()


def _refusal(
    method: str, target: str, headers: list[tuple[str, str]], body: bytes
) -> tuple[int, list[tuple[str, str]], bytes] | None:
    """Return the answer to a request that no function gets to see, None where one does."""
    if _head_size(method, target, headers) > MAX_HEAD_BYTES:
        return _message(431, "Request Header Fields Too Large")
    if len(body) > MAX_BODY_BYTES:
        return _message(413, "Request Entity Too Large")
    return None


def _head_size(method: str, target: str, headers: list[tuple[str, str]]) -> int:
    line = len(method) + len(target) + len("  HTTP/1.1\r\n")
    return line + sum(len(name) + len(value) + len(": \r\n") for name, value in headers)


def _joined(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Return the headers by lower-case name; repeated ones are joined by commas, cookies by semicolons."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        glue = "; " if key == "cookie" else ","
        joined[key] = f"{joined[key]}{glue}{value}" if key in joined else value
    return joined


def _parameters(query: str) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _body(body: bytes, headers: Mapping[str, str]) -> tuple[str, bool]:
    kind = headers.get("content-type", "text/plain").lower()
    if kind.startswith(_TEXT_TYPES) and "content-encoding" not in headers:
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass
    return b64encode(body).decode(), True


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
