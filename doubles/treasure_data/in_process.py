"""Connects the double to the real requests library without sockets, for use with a simulated clock."""

import errno
import math
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from http.client import RemoteDisconnected
from io import BytesIO
from typing import Any, override
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)
from urllib3.util import Timeout

from doubles.http_server import Drop, Request, Response
from shared.clock import Clock


class InProcess(HTTPAdapter):
    """A transport adapter for requests: `session.mount("http://", InProcess(td.handle, clock))`, likewise `https://`.

    It replaces only urllib3's connections, so errors and responses are those of requests. Where a client would wait, the
    clock sleeps as long. A request without a time-out that would wait forever raises RuntimeError.
    """

    def __init__(self, handle: Callable[[Request], Response], clock: Clock) -> None:
        super().__init__()
        self._connections = cache(lambda host: _Connections(host, handle, clock))

    @override
    def get_connection_with_tls_context(
        self, request: PreparedRequest, *_arguments: Any, **_options: Any
    ) -> HTTPConnectionPool:
        """Return the pool of connections to the request's host."""
        return self._connections(urlsplit(request.url or "").hostname or "")


class _Connections(HTTPConnectionPool):
    def __init__(self, host: str, handle: Callable[[Request], Response], clock: Clock) -> None:
        super().__init__(host)
        self._handle = handle
        self._clock = clock

    @override
    def urlopen(  # type: ignore[override]  # requests passes these and few other of urllib3's parameters
        self, *, method: str, url: str, body: bytes | str | None, headers: Any, timeout: Timeout, **_: object
    ) -> HTTPResponse:
        sent = body.encode() if isinstance(body, str) else body or b""
        response = self._handle(Request(method, url, tuple(headers.items()), sent))
        if response.drop == Drop.REFUSE:
            refused = "Failed to establish a new connection: [Errno 111] Connection refused"
            raise MaxRetryError(self, url, NewConnectionError(HTTPConnection(self.host), refused))
        if response.drop == Drop.UNREACHABLE:
            patience = timeout.connect_timeout
            self._outlasts(math.inf, patience)
            message = f"Connection to {self.host} timed out. (connect timeout={patience})"
            raise MaxRetryError(self, url, ConnectTimeoutError(HTTPConnection(self.host), message))
        if self._outlasts(response.delay, timeout.read_timeout):
            raise ReadTimeoutError(self, url, f"Read timed out. (read timeout={timeout.read_timeout})")
        if response.drop == Drop.RESET:
            reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            raise ProtocolError("Connection aborted.", reset)
        if response.drop == Drop.CLOSE:
            closed = RemoteDisconnected("Remote end closed connection without response")
            raise ProtocolError("Connection aborted.", closed)
        return HTTPResponse(
            BytesIO(response.body),
            {**dict(response.headers), "Content-Length": str(len(response.body))},
            response.status,
            reason=HTTPStatus(response.status).phrase,
            preload_content=False,
            decode_content=False,
        )

    def _outlasts(self, delay: float, patience: object) -> bool:
        """Sleep for the delay or the client's time-out, whichever ends first. Return whether the time-out did."""
        limit = patience if isinstance(patience, int | float) else math.inf
        seconds = min(delay, limit)
        if seconds == math.inf:
            raise RuntimeError("a request without a time-out waits forever")
        if seconds:
            self._clock.sleep(seconds)
        return limit <= delay
