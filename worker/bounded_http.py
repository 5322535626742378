"""HTTP connections with a timeout that bounds the whole response.

A socket's timeout restarts with each byte, so a server that sends one byte a second can hold its client forever. Here the
timeout covers head and body together. RES_OPTIONS in template.yaml bounds name resolution.
"""

import io
import time
from http.client import HTTPResponse
from socket import socket
from typing import Any, override

import certifi
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection
from urllib3.util.ssl_ import create_urllib3_context


class _BoundedReader(io.RawIOBase):
    """Reads a socket, for at most this many seconds in total."""

    def __init__(self, sock: socket, seconds: float) -> None:
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

    def __init__(self, sock: socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        seconds = sock.gettimeout()
        if seconds is not None:
            self.fp.close()
            self.fp = io.BufferedReader(_BoundedReader(sock, seconds))


def bound_responses() -> None:
    """Bound every response in this process: boto3, too, builds its connections on urllib3's."""
    HTTPConnection.response_class = BoundedResponse


def pool(connections: int) -> PoolManager:
    """Return a pool that keeps this many connections per host open. It uses no proxy; several threads may use it."""
    # one context for all connections, because it takes as long to make as a handshake
    context = create_urllib3_context()
    context.load_verify_locations(certifi.where())
    return PoolManager(maxsize=connections, ssl_context=context)
