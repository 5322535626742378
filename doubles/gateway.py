"""API Gateway's HTTP API on one machine: a server that calls a handler with events of payload format 2.0."""

import json
import logging
import queue
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self

from doubles.http_api import (
    MAX_BODY_BYTES,
    MAX_PAYLOAD_BYTES,
    Answer,
    RefusedError,
    Request,
    answer_of,
    event_of,
    message,
    new_request_id,
)
from doubles.lambda_context import Context
from shared.clock import Clock, SystemClock

_log = logging.getLogger("doubles.gateway")

Handler = Callable[[dict[str, Any], Any], Any]
Record = Callable[[str, str, list[tuple[str, str]], bytes, dict[str, Any] | None], None]
"""Is told of each request: method, target, headers as sent, body, and the event made of it, None where none was."""


class Gateway:
    """Serves a handler over HTTP, between `start` and `stop`.

    Args:
        handler: of a function, as Lambda calls it.
        host: address to listen on.
        port: 0 takes a free one.
        function_name: goes into the handler's context.
        memory_limit_in_mb: the same.
        function_timeout_seconds: the function's own time-out; Lambda's error then is a 500.
        timeout_seconds: the gateway's, at most 30 on AWS; then it answers 503.
        sandboxes: how many invocations may be under way at once; 1 keeps a handler from running beside itself, as it
            never does in Lambda. A request waits for its turn within the gateway's time-out.
        record: is told of each request before it is handled, by the thread that serves it.
        clock: tells the time.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        function_name: str = "IngestFunction",
        memory_limit_in_mb: int = 512,
        function_timeout_seconds: float = 60,
        timeout_seconds: float = 30,
        sandboxes: int = 32,
        record: Record = lambda *_: None,
        clock: Clock | None = None,
    ) -> None:
        self._handler = handler
        self._function_name = function_name
        self._memory_limit_in_mb = memory_limit_in_mb
        self._function_timeout_seconds = function_timeout_seconds
        self._timeout_seconds = timeout_seconds
        self._sandboxes = threading.Semaphore(sandboxes)
        self._record = record
        self._clock = clock or SystemClock()
        self._server = _Server((host, port), type("_Exchange", (_Exchange,), {"gateway": self}))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="gateway", daemon=True
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://{self._server.server_address[0]!s}:{self.port}"

    def start(self) -> None:
        """Begin to serve; return at once."""
        self._thread.start()

    def stop(self) -> None:
        """End at once: connections are closed, and what the handler is at work on is not waited for."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.close_connections()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answer(self, request: Request) -> Answer:
        """Return the answer to one request, with the gateway's own headers."""
        request_id = new_request_id()
        try:
            event = event_of(request, request_id=request_id, now=self._clock.now())
        except RefusedError as refused:
            self._tell(request, None)
            answer = message(refused.status, refused.message)
        else:
            self._tell(request, event)
            answer = self._invoke(event)
        return Answer(answer.status, (*answer.headers, ("Apigw-Requestid", request_id)), answer.body)

    def _tell(self, request: Request, event: dict[str, Any] | None) -> None:
        self._record(request.method, request.target, list(request.headers), request.body, event)

    def _invoke(self, event: dict[str, Any]) -> Answer:
        late = time.monotonic() + self._timeout_seconds
        if not self._sandboxes.acquire(timeout=self._timeout_seconds):
            return message(503, "Service Unavailable")
        results: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        payload = json.dumps(event)

        def run() -> None:
            try:
                results.put(self._call(payload))
            finally:
                self._sandboxes.release()

        # A thread that nobody waits for: a handler that hangs holds its sandbox and nothing else.
        threading.Thread(target=run, name="invocation", daemon=True).start()
        left = late - time.monotonic()
        try:
            result = results.get(timeout=max(0.0, min(left, self._function_timeout_seconds)))
        except queue.Empty:
            if left <= self._function_timeout_seconds:
                return message(503, "Service Unavailable")
            _log.warning("the function timed out after %g s", self._function_timeout_seconds)
            return message(500, "Internal Server Error")
        if result is None or len(result.encode("utf-8", "surrogatepass")) > MAX_PAYLOAD_BYTES:
            return message(500, "Internal Server Error")
        return answer_of(json.loads(result))

    def _call(self, payload: str) -> str | None:
        """Return the handler's result as JSON, None when it raised or returned what JSON cannot hold."""
        context = Context(
            function_name=self._function_name,
            deadline=self._clock.now() + self._function_timeout_seconds,
            now=self._clock.now,
            memory_limit_in_mb=self._memory_limit_in_mb,
        )
        try:
            return json.dumps(self._handler(json.loads(payload), context), ensure_ascii=False)
        except BaseException:  # noqa: BLE001 -- Lambda survives whatever a function raises
            _log.exception("the function failed")
            return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """End what clients keep open."""
        for connection in tuple(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Exchange(BaseHTTPRequestHandler):
    """Reads requests off a connection and writes answers to it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    gateway: ClassVar[Gateway]

    def handle_one_request(self) -> None:
        """Serve one request, whatever its method."""
        self.close_connection = True
        try:
            self.raw_requestline = self.rfile.readline(65_537)
            if not self.raw_requestline or not self._parse():
                return
            try:
                request = self._read()
            except ValueError:
                self.send_error(400)
                return
            self._send(self.gateway.answer(request))
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing: the function reports."""

    def send_error(self, code: int, *_: Any) -> None:
        """Refuse what the server could not read, in the gateway's words."""
        self.close_connection = True
        texts = {414: "URI Too Long", 431: "Request Header Fields Too Large"}
        status = code if code in texts else 400
        self.headers = getattr(self, "headers", Message())
        self._send(message(status, texts.get(status, "Bad Request")))

    def _parse(self) -> bool:
        if len(self.raw_requestline) > 65_536:
            self.command, self.request_version = "", self.protocol_version
            self.send_error(414)
            return False
        if not self.parse_request():
            return False
        # The mail parser behind parse_request takes what follows a line without a colon for a body.
        if self.request_version == "HTTP/0.9" or self.headers.defects or self.headers.get_payload():
            self.send_error(400)
            return False
        return True

    def _read(self) -> Request:
        """Return the request with its body.

        Raises:
            ValueError: the body's length cannot be read.
        """
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            body = self._read_chunks()
        else:
            body = self._read_bounded(_length(self.headers.get("Content-Length", "0"), 10))
        return Request(
            method=self.command,
            target=self.requestline.split()[1],
            headers=tuple((name, _unfolded(value)) for name, value in self.headers.items()),
            body=body,
            source_ip=str(self.client_address[0]),
            protocol=self.request_version,
        )

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := _length(self.rfile.readline(1024).partition(b";")[0].decode("latin-1"), 16):
            # Beyond the limit it only matters that it is beyond: the rest is read and forgotten.
            body += self._read_bounded(size)[: MAX_BODY_BYTES + 1 - len(body)]
            self.rfile.readline(8)
        while self.rfile.readline(8192).strip():
            pass  # trailers
        return bytes(body)

    def _read_bounded(self, size: int) -> bytes:
        """Read so many bytes and return them, or the limit and one more; a client hears an answer only at its end."""
        body = self.rfile.read(min(size, MAX_BODY_BYTES + 1))
        left = size - len(body)
        while left > 0 and (skipped := self.rfile.read(min(left, 65_536))):
            left -= len(skipped)
        if left > 0:
            raise ConnectionError("the client went away within its body")
        return body

    def _send(self, answer: Answer) -> None:
        head = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}"]
        head += [f"{name}: {value}" for name, value in answer.headers]
        if not any(name.lower() == "date" for name, _ in answer.headers):
            head.append(f"Date: {self.date_time_string()}")
        head.append(f"Connection: {'close' if self.close_connection else 'keep-alive'}")
        if answer.status != 204:
            head.append(f"Content-Length: {len(answer.body)}")
        text = "\r\n".join(head) + "\r\n\r\n"
        has_body = self.command != "HEAD" and answer.status not in (204, 304)
        self.wfile.write(text.encode("latin-1", "replace") + (answer.body if has_body else b""))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _length(text: str, base: int) -> int:
    if not re.fullmatch("[0-9A-Fa-f]{1,16}", text.strip()):
        raise ValueError(f"{text!r} is no length")
    return int(text, base)


def _unfolded(value: str) -> str:
    return re.sub(r"\r?\n[ \t]*", " ", value)
