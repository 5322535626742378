"""A persistent HTTP/1.1 connection for small requests and responses.

It sends head and body in one write and parses only what is needed. The exchange is most of a put's cost, and here it is several
times cheaper than with a general-purpose client.

Callers must know whether a request may have been sent: after NotSentError, nothing was.
"""

import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any, NamedTuple

from shared.errors import (
    ConnectionClosedError,
    ConnectionFailedError,
    ConnectTimeoutError,
    ReadTimeoutError,
    TlsError,
    UnreadableAnswerError,
)

_PIECE = 64 * 1024  # larger than a TLS record, so no decrypted bytes stay where poll cannot see them
_MAX_HEAD = 64 * 1024
_MAX_ANSWER = 16 * 1024 * 1024  # twice the largest edge policy: more would take the function's memory


class Address(NamedTuple):
    """Where to connect to; `tls` is None for plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None

    @property
    def url(self) -> str:
        """The URL in error messages."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


class AwsResponse(NamedTuple):
    """A response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """An open connection.

    Args:
        address: where to connect to.
        connect_timeout: seconds for name resolution, TCP and TLS together.
        read_timeout: seconds for a whole exchange, even if the response trickles in.
        resolve: `socket.getaddrinfo`, which has no timeout of its own.
        now: returns monotonic seconds.

    Raises:
        NotSentError: the connection timed out or failed, or the TLS handshake did.
    """

    def __init__(
        self,
        address: Address,
        connect_timeout: float,
        read_timeout: float,
        *,
        resolve: Callable[..., Any] = socket.getaddrinfo,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = address.url
        self._read_timeout = read_timeout
        self._now = now
        self._deadline = now() + connect_timeout
        self._rest = b""  # bytes after the last response; normally empty
        self._left = 0  # how many more bytes may be received
        self.is_reusable = True
        try:
            self._socket = self._open(address, self._resolve(address, resolve))
        except TimeoutError as error:
            raise ConnectTimeoutError(f"{self._url}: {error}") from error
        except ssl.SSLError as error:
            raise TlsError(f"{self._url}: {error}") from error
        except OSError as error:
            raise ConnectionFailedError(f"{self._url}: {error}") from error
        self._socket.settimeout(0)  # a socket timeout would cost three more system calls per exchange
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._writable.register(self._socket, select.POLLOUT)

    def _resolve(self, address: Address, resolve: Callable[..., Any]) -> list[Any]:
        """Resolve the host in a thread, which is abandoned if it takes too long."""
        found: list[Any] = []

        def look_up() -> None:
            try:
                found.append(resolve(address.host, address.port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.append(error)

        thread = Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(self._remaining())
        if not found:
            raise TimeoutError("the name was not resolved in time")
        if isinstance(found[0], Exception):
            raise OSError(str(found[0])) from found[0]
        addresses: list[Any] = found[0]
        return addresses

    def _open(self, address: Address, addresses: list[Any]) -> socket.socket:
        """Connect to the first of the addresses that accepts."""
        refusal = OSError("the name has no address")
        for family, kind, protocol, _, socket_address in addresses:
            plain = socket.socket(family, kind, protocol)
            try:
                plain.settimeout(self._remaining())
                plain.connect(socket_address)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if address.tls is None:
                    return plain
                plain.settimeout(self._remaining())
                return address.tls.wrap_socket(plain, server_hostname=address.host)
            except (TimeoutError, ssl.SSLError):
                plain.close()
                raise
            except OSError as error:
                plain.close()
                refusal = error
        raise refusal

    def _remaining(self) -> float:
        """Return the seconds until the deadline."""
        remaining = self._deadline - self._now()
        if remaining <= 0:
            raise TimeoutError
        return remaining

    def is_idle(self) -> bool:
        """Return whether the connection is open and nothing has arrived since the last response."""
        return self.is_reusable and not self._rest and not self._readable.poll(0)

    def close(self) -> None:
        """Close the connection."""
        self.is_reusable = False
        self._socket.close()

    def exchange(self, request: bytes) -> AwsResponse:
        """Send a request and return the response.

        After any error the request may have been received.

        Raises:
            ReadTimeoutError: the response did not arrive in time.
            ConnectionClosedError: the connection closed before the response was complete.
            UnreadableAnswerError: the response is not valid HTTP.
        """
        try:
            self._deadline, self._left = self._now() + self._read_timeout, _MAX_ANSWER
            self._send(request)
            return self._answer()
        except TimeoutError as error:
            raise ReadTimeoutError(f"{self._url}: {error}") from error
        except OSError as error:
            raise ConnectionClosedError(f"{self._url}: {error}") from error
        except ValueError as error:
            raise UnreadableAnswerError(f"{self._url}: {error}") from error

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(self._writable)

    def _wait(self, poll: select.poll) -> None:
        if not poll.poll(self._remaining() * 1000):
            raise TimeoutError

    def _answer(self) -> AwsResponse:
        status = 100
        while status < 200:  # skip informational responses
            head, data = self._until(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            version, _, rest = first.partition(" ")
            if version not in ("HTTP/1.1", "HTTP/1.0"):
                raise ValueError("not HTTP/1")
            status = int(rest[:3])
            self._rest = data
        headers = {name.lower(): value.strip() for name, _, value in [line.partition(":") for line in lines]}
        self.is_reusable = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        if status in (204, 304):  # a 304 may give the length of the body that it omits
            body = b""
        elif "transfer-encoding" in headers:
            body = self._chunks()
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        else:
            body = self._all()
        return AwsResponse(status, headers, body)

    def _until(self, end: bytes) -> tuple[bytes, bytes]:
        """Read up to `end`; return the bytes before it and those already read after it."""
        data = self._rest or self._more()
        while (position := data.find(end)) < 0:
            if len(data) > _MAX_HEAD:
                raise ValueError("the head or a chunk size is too long")
            data += self._more()
        return data[:position], data[position + len(end) :]

    def _exactly(self, size: int) -> bytes:
        data = self._rest
        if len(data) < size:
            pieces, missing = [data], size - len(data)
            while missing > 0:
                pieces.append(self._more())
                missing -= len(pieces[-1])
            data = b"".join(pieces)
        self._rest = data[size:]
        return data[:size]

    def _chunks(self) -> bytes:
        chunks: list[bytes] = []
        while True:
            line, self._rest = self._until(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            if not size:
                break
            chunks.append(self._exactly(size))
            if self._exactly(2) != b"\r\n":
                raise ValueError("a chunk is longer than its size")
        while line:  # trailers and the final empty line
            line, self._rest = self._until(b"\r\n")
        return b"".join(chunks)

    def _all(self) -> bytes:
        self.is_reusable = False
        pieces = [self._rest]
        self._rest = b""
        while piece := self._receive():
            pieces.append(piece)
        return b"".join(pieces)

    def _more(self) -> bytes:
        piece = self._receive()
        if not piece:
            raise ConnectionResetError("closed before the response was complete")
        return piece

    def _receive(self) -> bytes:
        while True:
            self._wait(self._readable)
            try:
                piece = self._socket.recv(_PIECE)
            except (BlockingIOError, ssl.SSLWantReadError):  # not a whole TLS record yet
                continue
            self._left -= len(piece)
            if self._left < 0:
                raise ValueError("the response is too large")
            return piece
