"""The gateway serves a handler over real sockets."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from doubles.gateway import Gateway

Connection = http.client.HTTPConnection


@pytest.fixture
def serve() -> Iterator[Callable[..., Connection]]:
    """Start gateways that end with the test; each call returns a connection to a new one."""

    def serve(handler: Any, **options: Any) -> Connection:
        gateway = ending.enter_context(Gateway(handler, **options))
        connection = Connection("127.0.0.1", gateway.port, timeout=10)
        ending.callback(connection.close)
        return connection

    with ExitStack() as ending:
        yield serve


def ask(connection: Connection, *arguments: Any, **options: Any) -> tuple[int, Any]:
    """Return status and JSON body of a response."""
    connection.request(*arguments, **options)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PURGE"])
def test_a_request_reaches_the_handler(serve: Callable[..., Connection], method: str) -> None:
    """Whatever its method, a request arrives as an event and is recorded as it was sent."""
    seen: list[Any] = []
    connection = serve(lambda event, _context: event, record=lambda *request: seen.append(request))
    headers = {"Content-Type": "application/json", "X-Write-Key": "k"}
    _, event = ask(connection, method, "/a%20b?k=%FFx&t=1", body=b'{"a":1}', headers=headers)
    rejected = ask(connection, "GET", "/%zz")

    http = event["requestContext"]["http"]
    assert (method, "127.0.0.1", "/a b") == (http["method"], http["sourceIp"], event["rawPath"])
    assert ("k=%FFx&t=1", '{"a":1}') == (event["rawQueryString"], event["body"])
    assert (method, "/a%20b?k=%FFx&t=1", b'{"a":1}', event) == (*seen[0][:2], *seen[0][3:])
    assert ("X-Write-Key", "k") in seen[0][2]
    assert (400, "/%zz", None) == (rejected[0], seen[1][1], seen[1][4])


def test_responses_without_a_body_end_at_their_head(serve: Callable[..., Connection]) -> None:
    """A HEAD request and a 204 get no body, and the connection continues."""
    connection = serve(lambda event, _context: {"statusCode": int(event["rawPath"][1:]), "body": "four"})
    seen = []
    for method, path in (("HEAD", "/200"), ("GET", "/204"), ("GET", "/200")):
        connection.request(method, path)
        answer = connection.getresponse()
        seen.append((answer.headers["Content-Length"], answer.read()))

    assert [("4", b""), (None, b""), ("4", b"four")] == seen


def test_responses_have_the_gateways_headers(serve: Callable[..., Connection]) -> None:
    """A response has a date, the request's id, the function's cookies one by one, and no server name."""

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        told = f"{context.function_name} {event['requestContext']['requestId']}"
        return {"statusCode": 200, "cookies": ["a=1", "b=2"], "body": told}

    connection = serve(handler)
    connection.request("GET", "/")
    answer = connection.getresponse()
    request_id = answer.headers["Apigw-Requestid"]

    assert (f"IngestFunction {request_id}", 16) == (answer.read().decode(), len(request_id))
    assert (["a=1", "b=2"], None) == (answer.headers.get_all("Set-Cookie"), answer.headers["Server"])
    assert answer.headers["Date"].endswith(" GMT")


def test_half_a_body_reaches_no_function(serve: Callable[..., Connection]) -> None:
    """Others are answered while a client has sent half of its body; if it disconnects, the function never hears of it."""
    bodies: list[str] = []
    text = {"Content-Type": "text/plain"}
    other = serve(lambda event, _context: bodies.append(event["body"]))
    with socket.create_connection((other.host, other.port), timeout=10) as client:
        client.sendall(b'POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"events": [')
        ask(other, "POST", "/", body=b"whole", headers=text)
        client.shutdown(socket.SHUT_WR)
        hung_up = client.recv(1000)
    ask(other, "POST", "/", body=b"another", headers=text)

    assert (b"", ["whole", "another"]) == (hung_up, bodies)


@pytest.mark.parametrize(
    "handler",
    [
        lambda _event, _context: 1 / 0,
        lambda _event, _context: {"statusCode": object()},
        lambda _event, _context: {"statusCode": 200, "body": "x" * 6_300_000},
    ],
)
def test_a_failing_function_is_an_internal_error(serve: Callable[..., Connection], handler: Any) -> None:
    """An exception, a result that JSON cannot hold, and one of more than 6 MB are the gateway's own 500."""
    assert (500, {"message": "Internal Server Error"}) == ask(serve(handler), "GET", "/")


def send_raw(head: bytes, body: bytes = b"") -> tuple[bytes, dict[str, Any]]:
    """Send bytes to a gateway; return the response's first line, and the event."""
    events: list[dict[str, Any]] = []
    with (
        Gateway(lambda event, _: events.append(event)) as gateway,
        socket.create_connection(("127.0.0.1", gateway.port)) as connection,
    ):
        connection.sendall(head + b"\r\nHost: x\r\nConnection: close\r\n\r\n" + body)
        answer = connection.makefile("rb").readline()
    return answer, events[0]


@pytest.mark.parametrize(
    ("target", "query"),
    [
        (
            b"/p?a=\xc3\xa0\xe2\x80\xa6",
            "a=%C3%A0%E2%80%A6",
        ),  # whose last bytes are spaces to Python's str.split
        (b"/p?a=\xc3\x85&b", "a=%C3%85&b"),
        (b"/p?a=\xff\x1d", "a=%FF%1D"),
    ],
)
def test_raw_bytes_in_a_query_are_encoded(target: bytes, query: str) -> None:
    """Whatever they are, the event has all of them, percent-encoded."""
    answer, event = send_raw(b"GET " + target + b" HTTP/1.1")

    assert (b"HTTP/1.1 200 OK\r\n", query) == (answer, event["rawQueryString"])


def test_chunked_bodies_arrive() -> None:
    """Chunks are joined, extensions and trailers dropped."""
    head = b"POST / HTTP/1.1\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked"
    _, event = send_raw(head, b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: 1\r\n\r\n")

    assert "abcde" == event["body"]
