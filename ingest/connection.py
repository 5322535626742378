"""One HTTP/1.1 connection that is kept, for small requests and answers.

A request leaves in one piece, head and body together, and an answer's head is read without more than it takes: this is
most of what a put costs, and several times less than what a general client needs for the same bytes.

Errors are botocore's, because what may have been sent decides what becomes of an envelope: where ConnectTimeoutError or
EndpointConnectionError is raised, nothing was.
"""

import select
import socket
import ssl
import time
from collections.abc import Mapping
from typing import NamedTuple

from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)

_PIECE = 64 * 1024
_MAX_HEAD = 64 * 1024


class UnreadableAnswerError(HTTPClientError):
    """What came is no HTTP answer, or not a whole one: it tells nothing of what became of the request."""

    fmt = "Unreadable answer from {endpoint_url}: {error}"


class Address(NamedTuple):
    """Whither to connect; `tls` is None for plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None

    @property
    def url(self) -> str:
        """How it is called in errors."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


class Answer(NamedTuple):
    """What came back; headers' names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """An open connection.

    Args:
        address: whither.
        connect_timeout: seconds for TCP, and the same for TLS.
        read_timeout: seconds for an exchange, however its answer trickles in.

    Raises:
        ConnectTimeoutError: the time passed; nothing was sent.
        EndpointConnectionError: there is no connection; nothing was sent.
        SSLError: the other side is not who it should be.
    """

    def __init__(self, address: Address, connect_timeout: float, read_timeout: float) -> None:
        self._url = address.url
        self._read_timeout = read_timeout
        self._deadline = 0.0
        self._rest = b""  # what came after the last answer: nothing, if all is well
        self.is_reusable = True
        try:
            plain = socket.create_connection((address.host, address.port), connect_timeout)
        except TimeoutError as error:
            raise ConnectTimeoutError(endpoint_url=self._url, error=error) from error
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=self._url, error=error) from error
        self._socket = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if address.tls is not None:
                self._socket = address.tls.wrap_socket(plain, server_hostname=address.host)
        except TimeoutError as error:
            self.close()
            raise ConnectTimeoutError(endpoint_url=self._url, error=error) from error
        except ssl.SSLError as error:
            self.close()
            raise SSLError(endpoint_url=self._url, error=error) from error
        except OSError as error:
            self.close()
            raise EndpointConnectionError(endpoint_url=self._url, error=error) from error
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def is_idle(self) -> bool:
        """Tell whether the other side has neither closed nor sent anything since the last answer."""
        return self.is_reusable and not self._rest and not self._poll.poll(0)

    def close(self) -> None:
        """Close it."""
        self.is_reusable = False
        self._socket.close()

    def exchange(self, request: bytes) -> Answer:
        """Send a request and return its answer.

        Whatever is raised, the request may have been received.

        Raises:
            ReadTimeoutError: no answer came in time.
            ConnectionClosedError: none came at all, or not all of it.
            UnreadableAnswerError: what came is no answer.
        """
        try:
            self._deadline = time.monotonic() + self._read_timeout
            self._socket.settimeout(self._read_timeout)
            self._socket.sendall(request)
            return self._answer()
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except OSError as error:
            raise ConnectionClosedError(endpoint_url=self._url, error=error) from error
        except ValueError as error:
            raise UnreadableAnswerError(endpoint_url=self._url, error=error) from error

    def _answer(self) -> Answer:
        status = 100
        while status < 200:  # what is below only announces an answer
            head, data = self._until(b"\r\n\r\n", _MAX_HEAD)
            first, *lines = head.decode("latin-1").split("\r\n")
            version, _, rest = first.partition(" ")
            if version not in ("HTTP/1.1", "HTTP/1.0"):
                raise ValueError("it is not HTTP/1")
            status = int(rest[:3])
            self._rest = data
        headers = {name.lower(): value.strip() for name, _, value in [line.partition(":") for line in lines]}
        self.is_reusable = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        if "transfer-encoding" in headers:
            body = self._chunks()
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        elif status in (204, 304):
            body = b""
        else:
            body = self._all()
        return Answer(status, headers, body)

    def _until(self, end: bytes, most: int) -> tuple[bytes, bytes]:
        """Return what comes before `end`, and what came after it."""
        data = self._rest or self._more()
        while (place := data.find(end)) < 0:
            if len(data) > most:
                raise ValueError("it does not end")
            data += self._more()
        return data[:place], data[place + len(end) :]

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
            line, self._rest = self._until(b"\r\n", _MAX_HEAD)
            size = int(line.partition(b";")[0], 16)
            if not size:
                break
            chunks.append(self._exactly(size))
            if self._exactly(2) != b"\r\n":
                raise ValueError("a chunk does not end where it should")
        while line:  # trailers, and the empty line after them
            line, self._rest = self._until(b"\r\n", _MAX_HEAD)
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
            raise ConnectionResetError("closed before the answer was whole")
        return piece

    def _receive(self) -> bytes:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._socket.settimeout(remaining)
        return self._socket.recv(_PIECE)
