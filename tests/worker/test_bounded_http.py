"""Responses end in time, however slowly they trickle in: over real sockets on loopback."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError
from urllib3.util import connection

from local.resources import CREDENTIALS, REGION
from shared.aws_clients import bounded_client
from worker import bounded_http

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n"


@pytest.fixture(autouse=True)
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound the responses and the connections of this process for one test."""
    for name in ("response_class", "getresponse", "is_connected"):
        monkeypatch.setattr(HTTPConnection, name, getattr(HTTPConnection, name))
    monkeypatch.setattr(connection, "create_connection", connection.create_connection)
    bounded_http.bound_responses()


@contextmanager
def serving(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """Serve one connection; an event is set when the client needs no more. Yield the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(60)
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):  # the client hangs up, as it should
            answer(connection, ended)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        thread.join()
        listener.close()


def dripping(start: bytes) -> AbstractContextManager[str]:
    """Serve one connection: send `start`, then one byte every 20 ms for at most a minute."""

    def answer(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65_536)
        connection.sendall(start)
        for _ in range(3000):
            if ended.wait(0.02):
                return
            connection.sendall(b"x")

    return serving(answer)


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX-Slow: ", HEAD, CHUNKED])
def test_a_dripping_response_ends_at_the_timeout(start: bytes) -> None:
    """A head or body that comes byte by byte does not extend the request beyond its time-out. A malformed one ends it with the same error."""
    began = time.monotonic()
    with dripping(start) as url, pytest.raises(HTTPError):
        bounded_http.pool(1).request("GET", url, timeout=0.3, retries=False)

    assert time.monotonic() - began < 30


def test_the_addresses_of_a_name_share_the_time_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many do not answer."""
    passed, found = [0.0], [(0, 0, 0, "", (f"10.0.0.{number}", 80)) for number in range(60)]

    def connect(_: Any, share: float, **_options: Any) -> None:
        passed.append(passed[-1] + share)
        raise TimeoutError

    monkeypatch.setattr(time, "monotonic", lambda: passed[-1])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    monkeypatch.setattr(bounded_http, "_create_connection", connect)
    with pytest.raises(ConnectTimeoutError):
        bounded_http.pool(1).request("GET", "http://td", timeout=3.0, retries=False)

    assert [0.5 * number for number in range(7)] == passed


def test_a_name_that_cannot_be_looked_up_fails_like_any_other() -> None:
    """As of a mistyped endpoint. An unforeseen error would hold the stream, where rows of a database that fails wait."""
    with pytest.raises(HTTPError):
        bounded_http.pool(1).request("GET", "http://api..td", timeout=3.0, retries=False)


def test_aws_responses_end_at_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 builds its connections on the same class."""
    began = time.monotonic()
    with dripping(HEAD) as url:
        for name, value in {**CREDENTIALS, "AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(BotoCoreError):
            bounded_client("dynamodb", attempts=1, read_seconds=0.3).describe_table(TableName="ledger")

    assert time.monotonic() - began < 30


def test_a_connection_is_kept_unless_it_has_rested(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response that ends in time leaves its connection open. After a rest, its other end may be gone without a word."""

    def answer(connection: socket.socket, _: threading.Event) -> None:
        connection.settimeout(10)
        while connection.recv(65_536):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    pool = bounded_http.pool(1)
    with serving(answer) as url:
        assert [b"ok", b"ok"] == [pool.request("GET", url, timeout=60).data for _ in range(2)]
        monkeypatch.setattr(bounded_http, "MOST_IDLE_SECONDS", 0)
        with pytest.raises(HTTPError):  # nobody accepts a second connection
            pool.request("GET", url, timeout=0.3, retries=False)


def test_servers_must_prove_their_name() -> None:
    """Only by a certificate of an authority that certifi knows."""
    context = bounded_http.pool(1).connection_pool_kw["ssl_context"]

    assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)
    assert context.get_ca_certs()
