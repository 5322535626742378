"""Connects the double to the real urllib3 without sockets, for use with a simulated clock."""

import errno
import math
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from http.client import RemoteDisconnected
from io import BytesIO
from typing import Any, override

from urllib3 import HTTPConnectionPool, HTTPResponse, PoolManager
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProtocolError, ReadTimeoutError
from urllib3.util import Timeout

from doubles.http_server import Drop, Request, Response
from shared.clock import Clock


class Answer(HTTPResponse):
    """A response. `whole` is its body, read or not."""

    def __init__(self, response: Response) -> None:
        self.whole = response.body
        super().__init__(
            BytesIO(response.body),
            {**dict(response.headers), "Content-Length": str(len(response.body))},
            response.status,
            reason=HTTPStatus(response.status).phrase,
            preload_content=False,
            decode_content=False,
        )


class InProcess(PoolManager):
    """A pool of connections whose requests a function answers: `InProcess(td.handle, clock)`.

    Errors and responses are those of urllib3. Where a client would wait, the clock sleeps as long. A request without a
    time-out that would wait forever raises RuntimeError.
    """

    def __init__(self, handle: Callable[[Request], Response], clock: Clock) -> None:
        super().__init__()
        self._connections = cache(lambda host: _Connections(host, handle, clock))

    @override
    def connection_from_host(self, host: str | None, *_arguments: Any, **_options: Any) -> HTTPConnectionPool:
        """Return the pool of connections to a host."""
        return self._connections(host)


class _Connections(HTTPConnectionPool):
    def __init__(self, host: str, handle: Callable[[Request], Response], clock: Clock) -> None:
        super().__init__(host)
        self._handle = handle
        self._clock = clock

    @override
    def urlopen(  # type: ignore[override]  # clients pass these and few other of urllib3's parameters
        self,
        method: str,
        url: str,
        *,
        timeout: Timeout,
        body: bytes | None = None,
        headers: Mapping[str, str],
        **_: object,
    ) -> Answer:
        response = self._handle(Request(method, url, tuple(headers.items()), body or b""))
        if response.drop == Drop.REFUSE:
            refused = "Failed to establish a new connection: [Errno 111] Connection refused"
            raise NewConnectionError(HTTPConnection(self.host), refused)
        if response.drop == Drop.UNREACHABLE:
            patience = timeout.connect_timeout
            self._outlasts(math.inf, patience)
            message = f"Connection to {self.host} timed out. (connect timeout={patience})"
            raise ConnectTimeoutError(HTTPConnection(self.host), message)
        if self._outlasts(response.delay, timeout.read_timeout):
            raise ReadTimeoutError(self, url, f"Read timed out. (read timeout={timeout.read_timeout})")
        if response.drop == Drop.RESET:
            reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            raise ProtocolError("Connection aborted.", reset)
        if response.drop == Drop.CLOSE:
            closed = RemoteDisconnected("Remote end closed connection without response")
            raise ProtocolError("Connection aborted.", closed)
        return Answer(response)

    def _outlasts(self, delay: float, patience: object) -> bool:
        """Sleep for the delay or the client's time-out, whichever ends first. Return whether the time-out did."""
        limit = patience if isinstance(patience, int | float) else math.inf
        seconds = min(delay, limit)
        if seconds == math.inf:
            raise RuntimeError("a request without a time-out waits forever")
        if seconds:
            self._clock.sleep(seconds)
        return limit <= delay
