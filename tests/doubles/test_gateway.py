"""The gateway serves a handler over real sockets."""

import http.client
import json
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from doubles.gateway import Gateway

Serve = Callable[..., http.client.HTTPConnection]


def echo(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Answer with the event."""
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(event)}


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start gateways that end with the test; each call returns a connection to a new one."""

    def serve(handler: Any, **options: Any) -> http.client.HTTPConnection:
        gateway = ending.enter_context(Gateway(handler, **options))
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        ending.callback(connection.close)
        return connection

    with ExitStack() as ending:
        yield serve


def ask(connection: http.client.HTTPConnection, *arguments: Any, **options: Any) -> tuple[int, Any]:
    """Return status and JSON body of a response."""
    connection.request(*arguments, **options)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PURGE"])
def test_a_request_reaches_the_handler(serve: Serve, method: str) -> None:
    """Whatever its method, a request arrives in an event of format 2.0 and is recorded as it was sent."""
    seen: list[Any] = []
    connection = serve(echo, record=lambda *request: seen.append(request))
    headers = {"Content-Type": "application/json", "X-Write-Key": "k"}
    _, event = ask(connection, method, "/a%20b?k=%FFx&t=1&t=2", body=b"{}", headers=headers)
    rejected = ask(connection, "GET", "/%zz")

    assert ("/a b", "k=%FFx&t=1&t=2", "{}") == (event["rawPath"], event["rawQueryString"], event["body"])
    assert (method, "127.0.0.1") == tuple(
        event["requestContext"]["http"][name] for name in ("method", "sourceIp")
    )
    assert (method, "/a%20b?k=%FFx&t=1&t=2", b"{}", event) == (*seen[0][:2], *seen[0][3:])
    assert ("X-Write-Key", "k") in seen[0][2]
    assert (400, "/%zz", None) == (rejected[0], seen[1][1], seen[1][4])


def test_responses_without_a_body_end_at_their_head(serve: Serve) -> None:
    """A HEAD request and a 204 get no body, and the connection continues."""
    connection = serve(lambda event, _context: {"statusCode": int(event["rawPath"][1:]), "body": "four"})
    seen = []
    for method, path in (("HEAD", "/200"), ("GET", "/204"), ("GET", "/200")):
        connection.request(method, path)
        answer = connection.getresponse()
        seen.append((answer.headers["Content-Length"], answer.read()))

    assert [("4", b""), (None, b""), ("4", b"four")] == seen


def test_responses_have_the_gateways_headers(serve: Serve) -> None:
    """A response has a date, the request's id, the function's cookies one by one, and no server name."""
    ids: list[str] = []

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        ids.append(event["requestContext"]["requestId"])
        return {"statusCode": 200, "cookies": ["a=1", "b=2"], "body": context.function_name}

    connection = serve(handler)
    connection.request("GET", "/")
    answer = connection.getresponse()

    assert (b"IngestFunction", ["a=1", "b=2"]) == (answer.read(), answer.headers.get_all("Set-Cookie"))
    assert (ids, 16) == ([answer.headers["Apigw-Requestid"]], len(ids[0]))
    assert "text/plain; charset=utf-8" == answer.headers["Content-Type"]
    assert answer.headers["Date"].endswith(" GMT")
    assert "Server" not in answer.headers


def test_a_chunked_body_arrives_whole(serve: Serve) -> None:
    """A body without a length is read by its chunks."""
    connection = serve(echo)
    _, event = ask(
        connection, "POST", "/", body=iter([b'{"a":', b"1}"]), headers={"Content-Type": "text/plain"}
    )

    assert ('{"a":1}', "7") == (event["body"], event["headers"]["content-length"])
    assert "transfer-encoding" not in event["headers"]


@pytest.mark.parametrize(
    "framing", ["Content-Length: 100\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n64\r\n"]
)
def test_half_a_body_delays_nobody_and_reaches_no_function(serve: Serve, framing: str) -> None:
    """Others are answered while a client has sent half of its body; if it disconnects, the function never hears of it."""
    bodies: list[str] = []
    text = {"Content-Type": "text/plain"}
    other = serve(lambda event, _context: bodies.append(event["body"]))
    with socket.create_connection((other.host, other.port), timeout=10) as client:
        client.sendall(f"POST / HTTP/1.1\r\n{framing}".encode() + b'{"events": [')
        during = ask(other, "POST", "/", body=b"whole", headers=text)
        client.shutdown(socket.SHUT_WR)
        hung_up = client.recv(1000)
    after = ask(other, "POST", "/", body=b"another", headers=text)

    assert ((200, None), b"", (200, None)) == (during, hung_up, after)
    assert ["whole", "another"] == bodies


@pytest.mark.parametrize(
    "handler",
    [
        lambda _event, _context: 1 / 0,
        lambda _event, _context: {"statusCode": object()},
        lambda _event, _context: {"statusCode": 200, "body": "x" * 6_300_000},
    ],
)
def test_a_failing_function_is_an_internal_error(serve: Serve, handler: Any) -> None:
    """An exception, a result that JSON cannot hold, and one of more than 6 MB are API Gateway's own 500."""
    assert (500, {"message": "Internal Server Error"}) == ask(serve(handler), "GET", "/")


def test_an_exception_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The function's exceptions are in the log."""
    with caplog.at_level(logging.ERROR, "doubles.gateway"):
        ask(serve(lambda _event, _context: 1 / 0), "GET", "/")

    assert "the function failed" in caplog.text


def test_stopping_ends_connections() -> None:
    """After a stop, open connections are closed."""
    gateway = Gateway(echo)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    ask(connection, "GET", "/")
    gateway.stop()

    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(connection, "GET", "/")
    connection.close()
