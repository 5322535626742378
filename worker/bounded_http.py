"""HTTP connections with a timeout that bounds the whole response, and that are not used again after a long rest.

A socket's timeout restarts with each byte, so a server that sends one byte a second can hold its client forever. Here the
timeout covers head and body together. That of a connection covers all addresses of a name. RES_OPTIONS in template.yaml bounds name resolution.
"""

import io
import socket
import time
from http.client import HTTPException, HTTPResponse
from typing import Any, override

import certifi
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection
from urllib3.exceptions import LocationParseError
from urllib3.util import connection
from urllib3.util.ssl_ import create_urllib3_context

MOST_IDLE_SECONDS = 50.0
"""After so long without a request, a connection is opened anew: its other end may be gone. A load balancer closes it after a minute, which a
frozen function instance may not hear of; a NAT gateway forgets it after 350 seconds, and tells nobody."""

_LEAST_CONNECT_SECONDS = 0.5  # for an address, however many there are: the server may be far away


class _BoundedReader(io.RawIOBase):
    """Reads a socket, for at most this many seconds in total."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._until = time.monotonic() + seconds

    @override
    def readable(self) -> bool:
        """Return True."""
        return True

    @override
    def readinto(self, buffer: Any) -> int | None:
        """Read the bytes that are there, or wait for some; raise TimeoutError if the time is up."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the response did not end in time")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    @override
    def close(self) -> None:
        """Close the reader's end of the socket."""
        self._raw.close()
        super().close()


class BoundedResponse(HTTPResponse):
    """A response that must end within its socket's timeout."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        seconds = sock.gettimeout()
        if seconds is not None:
            self.fp.close()
            self.fp = io.BufferedReader(_BoundedReader(sock, seconds))

    @override
    def read(self, amt: int | None = None) -> bytes:
        """Read bytes of the body; raise HTTPException if it is malformed."""
        try:
            return super().read(amt)
        except ValueError as error:  # of a chunk that says that its length is negative
            raise HTTPException("the response is malformed") from error


_create_connection = connection.create_connection
_getresponse = HTTPConnection.getresponse
_is_connected: Any = HTTPConnection.is_connected  # the property itself


def _connect(address: tuple[str, int], timeout: Any, *args: Any, **options: Any) -> socket.socket:
    """Connect to the first address of a name that answers; raise OSError if none does within the timeout, if there is one: they share it."""
    if not isinstance(timeout, int | float):
        return _create_connection(address, timeout, *args, **options)
    host, port = address
    family = connection.allowed_gai_family()
    try:
        found: list[Any] = socket.getaddrinfo(host.strip("[]"), port, family, socket.SOCK_STREAM)
    except UnicodeError:  # as urllib3 does; it is no OSError
        raise LocationParseError(f"'{host}', label empty or too long") from None
    until, failure = time.monotonic() + timeout, OSError("the name has no address")
    for number, (*_, place) in enumerate(found):
        left = until - time.monotonic()
        if left <= 0:
            break
        share = max(left / (len(found) - number), min(left, _LEAST_CONNECT_SECONDS))
        try:
            made = _create_connection(place[:2], share, *args, **options)
        except OSError as error:
            failure = error
        else:
            made.settimeout(timeout)
            return made
    raise failure


def _get_response(self: HTTPConnection) -> Any:
    response = _getresponse(self)
    vars(self)["used_at"] = time.time()  # a monotonic clock may rest with the function instance
    return response


def _is_fresh(self: HTTPConnection) -> bool:
    rest = time.time() - vars(self).get("used_at", 0.0)
    return 0 <= rest < MOST_IDLE_SECONDS and bool(_is_connected.__get__(self))


def bound_responses() -> None:
    """Bound every connect, every response and every rest of a connection in this process: boto3, too, builds its connections on urllib3's."""
    connection.create_connection = _connect  # type: ignore[assignment]
    HTTPConnection.response_class = BoundedResponse
    HTTPConnection.getresponse = _get_response  # type: ignore[method-assign]
    HTTPConnection.is_connected = property(_is_fresh)  # type: ignore[assignment,method-assign]


def pool(connections: int) -> PoolManager:
    """Return a pool that keeps this many connections per host open. It uses no proxy; several threads may use it."""
    # one context for all connections, because it takes as long to make as a handshake
    context = create_urllib3_context()
    context.load_verify_locations(certifi.where())
    return PoolManager(maxsize=connections, ssl_context=context)
