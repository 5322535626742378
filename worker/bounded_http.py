"""HTTP connections with a timeout that bounds the whole response.

A socket's timeout restarts with each byte, so a server that sends one byte a second can hold its client forever. Here the
timeout covers head and body together. RES_OPTIONS in template.yaml bounds name resolution.
"""

import io
import time
from http.client import HTTPResponse
from socket import socket
from typing import Any, override

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection


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
        """Read the bytes that are there, or wait for some.

        Raises:
            TimeoutError: the time is up.
        """
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
    """Bound every response in this process: requests and boto3 both build their connections on urllib3's."""
    HTTPConnection.response_class = BoundedResponse


def session(connections: int) -> requests.Session:
    """Return a session that never retries, uses no proxy and keeps this many connections per host open."""
    made = requests.Session()
    made.trust_env = False  # saves a look for proxies and netrc at every request
    adapter = HTTPAdapter(pool_maxsize=connections, max_retries=0)
    made.mount("https://", adapter)
    made.mount("http://", adapter)
    return made
