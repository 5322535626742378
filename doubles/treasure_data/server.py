"""The double behind real sockets: HTTP/1.1 with persistent connections, and connections that end as a fault says."""

import socket
import struct
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from threading import TIMEOUT_MAX, Event, Thread
from types import TracebackType
from typing import Any, Self

from doubles.treasure_data.exchange import Drop, Request, Response

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time


class Server:
    """A server on the loopback interface that listens from its construction on; a context manager that stops it.

    A listening socket cannot refuse the connection of one request, so that the drops `refuse` and `unreachable` reset
    it. Stop the server for a real refusal.

    Args:
        handle: answers a request; called from many threads.
        port: the port, or 0 for a free one.
        host: the address to listen at.
    """

    def __init__(self, handle: Callable[[Request], Response], port: int = 0, host: str = "127.0.0.1") -> None:
        self._listener = _Listener((host, port), handle)
        self._thread = Thread(target=self._listener.serve_forever, args=(0.05,), name="treasure data")
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return self._listener.address[1]

    @property
    def url(self) -> str:
        """The address without a slash at its end."""
        return f"http://{self._listener.address[0]}:{self.port}"

    def stop(self) -> None:
        """Stop listening, end all connections, and wait until their threads have ended."""
        self._listener.shutdown()
        self._listener.end_connections()
        self._listener.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Listener(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = False  # so that server_close() waits for them
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handle: Callable[[Request], Response]) -> None:
        super().__init__(address, _Connection)
        self.answer = handle
        self.stopping = Event()
        self._connections: set[Any] = set()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.socket.getsockname()[:2]
        return host, port

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        self.stopping.set()
        for connection in tuple(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has just ended
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # an OSError is a client that disconnected
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def answer(self) -> None:
        request = Request(self.command, self.path, dict(self.headers.items()), self._body)
        response = self.server.answer(request)
        if response.delay:
            self.server.stopping.wait(min(response.delay, TIMEOUT_MAX))
        if response.drop in (None, Drop.CLOSE):
            request.body  # noqa: B018 -- an unread body would be taken for the next request
        if response.drop is None and not self.server.stopping.is_set():
            self._send(response)
        else:
            self._hang_up(response.drop)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Log nothing: `/-/` shows what arrived."""

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError("the client disconnected in the middle of a body")
        return body

    def _send(self, response: Response) -> None:
        fields = {**response.headers, "Content-Length": str(len(response.body))}
        lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + response.body)

    def _hang_up(self, drop: Drop | None) -> None:
        self.close_connection = True
        if drop not in (None, Drop.CLOSE):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.rfile.close()  # holds the socket open
            self.connection.close()
