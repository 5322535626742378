"""An HTTP/1.1 server on the loopback interface, for doubles that are reached over sockets."""

import re
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import TIMEOUT_MAX, Event, Thread
from typing import Any, override
from urllib.parse import unquote

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time
_LENGTH = re.compile("[0-9]{1,9}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[^\r\n]*)?\r\n")
_MAX_CHUNKED_BYTES = 64 * 1024 * 1024
_MAX_LINE = 8192
_MAX_TRAILERS = 100


@dataclass(frozen=True)
class Request:
    """A request as it was sent.

    Attributes:
        target: the request line's second word, decoded as Latin-1.
        headers: in their order and spelling, including repeated ones.
        body: with its content coding.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    source_ip: str = "127.0.0.1"

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The path's segments, each decoded separately, so that `%2F` stays within its segment."""
        path = self.target.partition("?")[0].lstrip("/")  # td-client sends two slashes
        return tuple(map(unquote, path.split("/")))

    def header(self, name: str) -> str:
        """Return the first header with a name, given in lower case; an empty string if there is none."""
        return next((value for spelt, value in self.headers if spelt.lower() == name), "")


class Drop(StrEnum):
    """How a connection ends without a response."""

    CLOSE = "close"
    RESET = "reset"
    REFUSE = "refuse"  # a listening socket cannot do this for one request, so the server resets instead
    UNREACHABLE = "unreachable"  # the server resets instead, too


@dataclass(frozen=True, slots=True)
class Response:
    """The response to a request, or how its connection ends without one.

    Attributes:
        headers: headers other than those of the connection.
        delay: seconds before the response's first byte, or before the connection ends; may be infinite.
        drop: how the connection ends instead of a response.
    """

    status: int = 200
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()
    delay: float = 0.0
    drop: Drop | None = None


@dataclass(eq=False)
class RejectedError(Exception):
    """A request is answered with an error, with a status from 400 to 499 and a message for a person."""

    status: int
    message: str


class HttpServer(ThreadingHTTPServer):
    """A server that listens as soon as it is constructed and serves each connection in a thread. It is a context manager.

    Args:
        respond: answers a request; called from many threads.
        port: the port to listen on; 0 for any free port.

    Attributes:
        stopping: set when the server is stopping, so that `respond` can wait on it.
        port: the port that it listens on.
        url: its address, without a trailing slash.
    """

    block_on_close = False
    request_queue_size = 128

    def __init__(self, respond: Callable[[Request], Response], *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Connection)
        self.respond = respond
        self.stopping = Event()
        self.port = int(self.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._connections: set[Any] = set()
        self._thread = Thread(target=self.serve_forever, args=(0.05,), name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and end all connections, without waiting for responses in progress."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        self._thread.join()
        for connection in tuple(self._connections):
            with suppress(OSError):  # it has just ended
                connection.shutdown(socket.SHUT_RDWR)

    @override
    def __exit__(self, *_: object) -> None:
        self.stop()

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and remember it for `stop`."""
        self._connections.add(request)
        super().process_request(request, client_address)

    @override
    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect or send nonsense."""
        if not isinstance(sys.exception(), OSError | ValueError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpServer
    raw_requestline: bytes
    _target = "/"

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Answer every method."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    @override
    def log_message(self, *_: object) -> None:
        """Log nothing."""

    @override
    def parse_request(self) -> bool:
        """Parse a request with any bytes in its target: the base class splits the line at every Unicode space."""
        words = self.raw_requestline.split(b" ")
        if len(words) == 3:
            self._target = words[1].decode("latin-1")
            self.raw_requestline = b" ".join((words[0], b"/", words[2]))
        return super().parse_request()

    def _answer(self) -> None:
        headers = tuple((name, value.strip(" \t")) for name, value in self.headers.items())  # RFC 9112, 5.1
        source_ip = str(self.client_address[0])
        try:
            body = self._body()
        except RejectedError as rejected:
            self.close_connection = True
            self._send(Response(rejected.status, rejected.message.encode(), [("Content-Type", "text/plain")]))
            return
        request = Request(self.command, self._target, headers, body, source_ip)
        response = self.server.respond(request)
        if response.delay:
            self.server.stopping.wait(min(response.delay, TIMEOUT_MAX))
        if response.drop is None and not self.server.stopping.is_set():
            self._send(response)
            return
        self.close_connection = True
        if response.drop not in (None, Drop.CLOSE):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.rfile.close()  # holds the socket open
            self.connection.close()

    def _body(self) -> bytes:
        """Return the request's body.

        Raises:
            ConnectionAbortedError: the client has disconnected.
            RejectedError: nobody can say where the body ends.
        """
        lengths = {value.strip() for value in self.headers.get_all("Content-Length", [])}
        codings = self.headers.get_all("Transfer-Encoding", [])
        if codings:
            if lengths or [coding.strip().lower() for coding in codings] != ["chunked"]:
                raise RejectedError(400, "transfer-encoding must be chunked, without a content-length")
            return b"".join(self._chunks())
        length = lengths.pop() if lengths else "0"
        if lengths or not _LENGTH.fullmatch(length):
            raise RejectedError(400, "content-length must be one number of at most nine digits")
        return self._read(int(length))

    def _chunks(self) -> Iterator[bytes]:
        """Yield the chunks of a body (RFC 9112, 7.1); its trailers are dropped."""
        left = _MAX_CHUNKED_BYTES
        while found := _CHUNK.fullmatch(self.rfile.readline(_MAX_LINE)):
            size = int(found[1], 16)
            left -= size
            if left < 0:
                raise RejectedError(413, f"a chunked body may have at most {_MAX_CHUNKED_BYTES} bytes")
            if not size:
                if any(self.rfile.readline(_MAX_LINE) == b"\r\n" for _ in range(_MAX_TRAILERS)):
                    return
                break
            yield self._read(size)
            if self._read(2) != b"\r\n":
                break
        raise RejectedError(400, "the chunks of the body are malformed")

    def _read(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionAbortedError("the client disconnected in the middle of a body")
        return data

    def _send(self, response: Response) -> None:
        has_body = response.status not in (204, 304)
        head = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
        head += [f"{name}: {value}" for name, value in response.headers]
        head += [f"Date: {self.date_time_string()}"]
        head += [f"Content-Length: {len(response.body)}"] if has_body else []
        body = response.body if has_body and self.command != "HEAD" else b""
        self.wfile.write("\r\n".join([*head, "", ""]).encode("latin-1", "replace") + body)
