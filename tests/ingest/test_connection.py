"""How a connection handles every kind of response, and none at all."""

import socket
import ssl
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import chain, repeat
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from ingest.connection import Address, AwsResponse, Connection
from shared.errors import (
    AwsError,
    ConnectionClosedError,
    ConnectionFailedError,
    ConnectTimeoutError,
    NotSentError,
    ReadTimeoutError,
    UnreadableAnswerError,
)
from tests.support import certificate

REQUEST = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"


def address_of(one: socket.socket) -> Address:
    """Return where to connect to a socket."""
    return Address("127.0.0.1", one.getsockname()[1], None)


@contextmanager
def answering(pieces: Iterable[bytes], *, stays: bool = True, seconds: float = 60) -> Iterator[Connection]:
    """Yield a connection to a peer that reads some of a request, sends the pieces, and closes unless `stays`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(address_of(listener), 60, seconds)
        other, _ = listener.accept()
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def serve() -> None:
            other.recv(65536)
            with suppress(OSError):  # the client has closed the connection
                for piece in pieces:
                    other.sendall(piece)
            if not stays:
                other.close()

        thread = Thread(target=serve)
        thread.start()
        try:
            yield connection
        finally:
            connection.close()
            thread.join()
            other.close()


HELLO = b"HTTP/1.1 200 OK\r\nX-One:  a b \r\nContent-Length: 5\r\n\r\nhello"
LARGE = bytes(range(256)) * 10_000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("whole", "body"),
    [
        (HELLO, b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO, b"hello"),
        (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", b""),
        (CHUNKED + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nx: y\r\n\r\n", b"hello"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2560000\r\n\r\n" + LARGE, LARGE),
    ],
    ids=["length", "empty", "announced", "no reason", "chunks", "larger than one read"],
)
def test_a_response_is_read_completely(whole: bytes, body: bytes, size: int) -> None:
    """A response is complete in whatever pieces it arrives, and its connection can be reused. Names of headers are lowercased."""
    step = size * (len(body) // 500 + 1)
    pieces = [whole[start : start + step] for start in range(0, len(whole), step)]
    with answering(pieces) as connection:
        found = connection.exchange(REQUEST)
        assert body == found.body
        assert connection.is_idle()
    if whole is HELLO:
        assert AwsResponse(200, {"x-one": "a b", "content-length": "5"}, b"hello") == found


@pytest.mark.parametrize(
    ("pieces", "stays", "is_reusable"),
    [
        ([b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 5\r\n\r\nhello"], True, False),
        ([b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello"], True, False),
        ([b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"], False, False),
        ([HELLO], False, True),
        ([HELLO + b"HTTP/1.1 500 Oh\r\n\r\n"], True, True),
    ],
    ids=["announced", "old version", "no length", "closed later", "unexpected data"],
)
def test_a_connection_that_closes_is_not_reused(pieces: list[bytes], stays: bool, is_reusable: bool) -> None:
    """It is not idle either if data followed the response, because they belong to no request."""
    with answering(pieces, stays=stays) as connection:
        assert b"hello" == connection.exchange(REQUEST).body
        assert is_reusable == connection.is_reusable
        if not stays:
            connection._readable.poll(60_000)
        assert not connection.is_idle()


@pytest.mark.parametrize("end", range(0, len(HELLO), 9))
def test_a_truncated_response_is_a_closed_connection(end: int) -> None:
    """The error is the same wherever the response breaks off."""
    with answering([HELLO[:end]], stays=False) as connection, pytest.raises(ConnectionClosedError):
        connection.exchange(REQUEST)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nhello",
        CHUNKED + b"five\r\nhello\r\n",
        CHUNKED + b"2\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(18_000_000),  # without end, as far as anybody knows
    ],
    ids=range(7),
)
def test_an_invalid_response_is_unreadable(data: bytes) -> None:
    """The outcome of the request is unknown: the error does not say that it was not sent."""
    with answering([data]) as connection, pytest.raises(UnreadableAnswerError) as raised:
        connection.exchange(REQUEST)

    assert (True, False) == tuple(isinstance(raised.value, kind) for kind in (AwsError, NotSentError))


ENDLESS = chain([b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n"], repeat(b"x"))


@pytest.mark.parametrize(
    ("unread", "pieces", "seconds"),
    [(0, [], 0.01), (50_000_000, [], 0.05), (0, ENDLESS, 0.2)],
    ids=["nothing is sent", "the request is not read", "the response is slow"],
)
def test_an_exchange_times_out(unread: int, pieces: Iterable[bytes], seconds: float) -> None:
    """It does even if each byte of the response arrives soon after the last."""
    with answering(pieces, seconds=seconds) as connection, pytest.raises(ReadTimeoutError):
        connection.exchange(REQUEST + bytes(unread))


def test_a_failed_connection_differs_from_a_lost_response() -> None:
    """If nothing listens or the name does not resolve, the error shows that nothing was sent."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for address in (address_of(nobody), Address("127.0.0.256", 80, None)):
            with pytest.raises(ConnectionFailedError):
                Connection(address, 60, 60)


def test_a_connection_attempt_times_out() -> None:
    """The attempt times out if the listener's queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        connections = (Connection(address_of(listener), 0.2, 5) for _ in range(50))
        with ExitStack() as taken, pytest.raises(ConnectTimeoutError):
            deque(taken.enter_context(closing(one)) for one in connections)


def test_name_resolution_times_out() -> None:
    """`getaddrinfo` itself would wait for as long as the resolver is configured to."""
    released, address = Event(), Address("kinesis.invalid", 443, None)
    with pytest.raises(ConnectTimeoutError):
        Connection(address, 0.01, 5, resolve=lambda *_, **__: released.wait())
    released.set()


def test_name_resolution_and_tls_share_one_deadline(tmp_path: Path) -> None:
    """If resolving the name took most of the minute, the handshake gets the rest, not another minute."""
    context = ssl.create_default_context(cafile=str(certificate.make(tmp_path)[0]))
    time = [0.0]

    def resolve(*arguments: Any, **options: Any) -> Any:
        time[0] = 59.99
        return socket.getaddrinfo(*arguments, **options)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = address_of(silent)._replace(tls=context)
        with pytest.raises(ConnectTimeoutError):
            Connection(address, 60, 5, resolve=resolve, now=lambda: time[0])


def test_all_addresses_share_one_deadline() -> None:
    """If an address refuses the connection, the next one is tried, unless the time is up."""
    with socket.socket() as nobody, socket.create_server(("127.0.0.1", 0)) as listener:
        nobody.bind(("127.0.0.1", 0))
        names = [nobody.getsockname(), listener.getsockname()]
        places = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", name) for name in names]
        address = Address("127.0.0.1", 0, None)
        Connection(address, 60, 60, resolve=lambda *_, **__: places).close()
        times = iter([0.0, 0.0, 0.0, 60.0])  # at the start, before resolving, before each address
        with pytest.raises(ConnectTimeoutError):
            Connection(address, 5, 5, resolve=lambda *_, **__: places, now=lambda: next(times))
