"""The gateway serves a handler over real sockets."""

import http.client
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from doubles.gateway import Gateway
from doubles.http_api import MAX_BODY_BYTES, MAX_HEAD_BYTES

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
    """Return status and JSON body of an answer."""
    connection.request(*arguments, **options)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def exchange(connection: http.client.HTTPConnection, request: bytes) -> bytes:
    """Return what a gateway says to raw bytes until it hangs up."""
    with socket.create_connection((connection.host, connection.port), timeout=10) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.recv(65_536):
            answer += part
        return answer


def test_a_request_reaches_the_handler(serve: Serve) -> None:
    """Path, query, headers, body and the client's address arrive in an event of format 2.0."""
    _, event = ask(
        serve(echo), "POST", "/a%20b?k=%FFx&t=1&t=2", body=b"{}", headers={"Content-Type": "application/json"}
    )

    assert (event["rawPath"], event["rawQueryString"], event["body"]) == ("/a b", "k=%FFx&t=1&t=2", "{}")
    assert event["headers"]["content-type"] == "application/json"
    assert event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
    assert event["requestContext"]["domainName"] == "127.0.0.1"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_every_method_is_passed_on(serve: Serve, method: str) -> None:
    """The gateway leaves methods, OPTIONS too, to the function."""
    _, event = ask(serve(echo), method, "/")

    assert event["requestContext"]["http"]["method"] == method


def test_a_head_request_has_no_body(serve: Serve) -> None:
    """HEAD is passed on; its answer tells the length of a body that is not sent, and the connection goes on."""
    connection = serve(lambda _event, _context: {"statusCode": 200, "body": "four"})
    connection.request("HEAD", "/")
    head = connection.getresponse()
    body = head.read()
    connection.request("GET", "/")

    assert (head.status, head.headers["Content-Length"], body) == (200, "4", b"")
    assert connection.getresponse().read() == b"four"


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_end_at_their_head(serve: Serve, status: int) -> None:
    """A 204 and a 304 carry no body, and the connection goes on."""
    connection = serve(lambda _event, _context: {"statusCode": status, "body": "not to be sent"})
    statuses = []
    for _ in range(2):
        connection.request("GET", "/")
        answer = connection.getresponse()
        statuses.append((answer.status, answer.read()))

    assert statuses == [(status, b"")] * 2


def test_a_connection_serves_many_requests(serve: Serve) -> None:
    """Connections are kept open."""
    connection = serve(echo)
    ports = set()
    for _ in range(3):
        ask(connection, "POST", "/", body=b"{}")
        ports.add(connection.sock.getsockname()[1])

    assert len(ports) == 1


def test_a_client_may_close(serve: Serve) -> None:
    """`Connection: close` and HTTP/1.0 end the connection after the answer."""
    connection = serve(echo)

    answers = [
        exchange(connection, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        exchange(connection, b"GET / HTTP/1.0\r\n\r\n"),
    ]

    assert [b"\r\nConnection: close\r\n" in answer for answer in answers] == [True, True]


def test_answers_have_the_gateways_headers(serve: Serve) -> None:
    """An answer has a date, the request's id, the function's cookies one by one, and no server's name."""
    connection = serve(lambda _event, _context: {"statusCode": 200, "cookies": ["a=1", "b=2"], "body": "x"})
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()

    assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert len(answer.headers["Apigw-Requestid"]) == 16
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Date"].endswith(" GMT")
    assert "Server" not in answer.headers


def test_the_id_is_that_of_the_event(serve: Serve) -> None:
    """The header `Apigw-Requestid` and the event tell one id."""
    connection = serve(echo)
    connection.request("GET", "/")
    answer = connection.getresponse()

    assert json.loads(answer.read())["requestContext"]["requestId"] == answer.headers["Apigw-Requestid"]


def test_a_chunked_body_arrives_whole(serve: Serve) -> None:
    """A body without a length is read by its chunks, extensions and trailers included."""
    request = (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b'5;x=y\r\n{"a":\r\n2\r\n1}\r\n0\r\nTrailer: t\r\n\r\n'
    )

    event = json.loads(exchange(serve(echo), request).partition(b"\r\n\r\n")[2])

    assert event["body"] == '{"a":1}'
    assert (event["headers"]["content-length"], "transfer-encoding" in event["headers"]) == ("7", False)


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n",
    ],
    ids=["by length", "in chunks"],
)
def test_half_a_body_holds_nobody_up_and_reaches_no_function(serve: Serve, head: bytes) -> None:
    """Others are answered while a client has sent half of its body; if it goes away, the function never hears of it."""
    bodies: list[str] = []
    text = {"Content-Type": "text/plain"}

    def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        bodies.append(event["body"])
        return {"statusCode": 200, "body": "{}"}

    first = serve(handler)
    with socket.create_connection((first.host, first.port), timeout=10) as client:
        client.sendall(head + b'{"events": [')
        during = ask(first, "POST", "/", body=b"whole", headers=text)
        client.shutdown(socket.SHUT_WR)
        hung_up = client.recv(1000)
    second = http.client.HTTPConnection(first.host, first.port, timeout=10)
    after = ask(second, "POST", "/", body=b"another", headers=text)
    second.close()

    assert ((200, {}), b"", (200, {})) == (during, hung_up, after)
    assert ["whole", "another"] == bodies


def test_a_client_that_expects_to_be_asked_is(serve: Serve) -> None:
    """`Expect: 100-continue` is answered before the body is read."""
    connection = serve(echo)
    with socket.create_connection((connection.host, connection.port), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        asked = client.recv(1000)
        client.sendall(b"{}")
        answer = client.recv(65_536)

    assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        (b"GET /?" + b"q" * MAX_HEAD_BYTES + b" HTTP/1.1", b"", 414),
        (b"GET /?" + b"q" * 70_000 + b" HTTP/1.1", b"", 414),
        (b"GET / HTTP/1.1", b"X: " + b"v" * MAX_HEAD_BYTES + b"\r\n", 431),
        (b"GET / HTTP/1.1", b"X: " + b"v" * 70_000 + b"\r\n", 431),
        (b"GET / HTTP/1.1", b"X: v\r\n" * 200, 431),
        (b"GET / HTTP/1.1", b"no colon here\r\nHost: a\r\n", 400),
        (b"GET /percent%25done HTTP/1.1", b"", 400),
        (b"GET / HTTP/2.0", b"", 400),
        (b"GET /", b"", 400),
        (b"nonsense", b"", 400),
        (b"POST / HTTP/1.1", b"Content-Length: many\r\n", 400),
        (b"POST / HTTP/1.1", b"Content-Length: -1\r\n", 400),
        (b"POST / HTTP/1.1", b"Transfer-Encoding: chunked\r\n\r\nnot hex\r\n", 400),
    ],
)
def test_what_cannot_be_served_is_refused_in_json(
    serve: Serve, request_line: bytes, headers: bytes, status: int
) -> None:
    """A request beyond the limits, or none at all, never reaches the function and gets a message in JSON."""
    seen: list[Any] = []
    connection = serve(lambda event, _context: seen.append(event))

    answer = exchange(connection, request_line + b"\r\n" + headers + b"\r\n")

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/json" in head
    assert list(json.loads(body)) == ["message"]
    assert seen == []


def test_bodies_beyond_ten_megabytes_are_refused(serve: Serve) -> None:
    """A client that sends more than 10 MB, with or without a length, hears 413 after it has sent it."""
    connection = serve(echo)
    large = b"x" * (MAX_BODY_BYTES + 1)

    answers = [
        ask(connection, "POST", "/", body=large),
        ask(connection, "POST", "/", body=iter([large])),
        ask(connection, "POST", "/", body=large * 2),
    ]

    assert answers == [(413, {"message": "Request Entity Too Large"})] * 3


@pytest.mark.parametrize(
    "handler", [lambda _event, _context: 1 / 0, lambda _event, _context: {"statusCode": object()}]
)
def test_a_failing_function_is_an_internal_error(
    serve: Serve, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception, or a result that JSON cannot hold, is a 500 with API Gateway's message, and is logged."""
    with caplog.at_level(logging.ERROR, "doubles.gateway"):
        answer = ask(serve(handler), "GET", "/")

    assert answer == (500, {"message": "Internal Server Error"})
    assert "the function failed" in caplog.text


def test_a_result_beyond_six_megabytes_is_an_internal_error(serve: Serve) -> None:
    """Lambda refuses results of more than 6 MB."""
    connection = serve(lambda _event, _context: {"statusCode": 200, "body": "x" * 6_300_000})

    assert ask(connection, "GET", "/") == (500, {"message": "Internal Server Error"})


def test_a_late_function_is_not_waited_for(serve: Serve) -> None:
    """After the gateway's time-out the answer is 503, after the function's own it is 500."""
    never = threading.Event()
    gateway_first = serve(lambda _event, _context: never.wait(10), timeout_seconds=0.05)
    function_first = serve(lambda _event, _context: never.wait(10), function_timeout_seconds=0.05)

    answers = [ask(gateway_first, "GET", "/"), ask(function_first, "GET", "/")]
    never.set()

    assert answers == [(503, {"message": "Service Unavailable"}), (500, {"message": "Internal Server Error"})]


def test_a_sandbox_serves_one_request_at_a_time(serve: Serve) -> None:
    """With one sandbox a second request waits for the first, and is 503 when that takes too long."""
    running, release = threading.Event(), threading.Event()
    busy = 0

    def handler(_event: Any, _context: Any) -> int:
        nonlocal busy
        busy += 1
        running.set()
        release.wait(10)
        return busy

    first = serve(handler, sandboxes=1, timeout_seconds=10)
    first.request("GET", "/")
    assert running.wait(10)
    second = http.client.HTTPConnection(first.host, first.port, timeout=10)
    second.request("GET", "/")
    release.set()

    answers = [json.loads(connection.getresponse().read()) for connection in (first, second)]
    second.close()
    assert answers == [1, 2]


def test_no_sandbox_in_time_is_unavailable(serve: Serve) -> None:
    """A request that gets no sandbox within the gateway's time-out is a 503."""
    release = threading.Event()
    connection = serve(lambda _event, _context: release.wait(10), sandboxes=1, timeout_seconds=0.05)

    answers = [ask(connection, "GET", "/")[0] for _ in range(2)]
    release.set()

    assert answers == [503, 503]


def test_the_context_is_the_functions(serve: Serve) -> None:
    """The handler's context tells the function's name, memory and remaining time."""

    def handler(_event: Any, context: Any) -> list[Any]:
        remaining = context.get_remaining_time_in_millis()
        return [context.function_name, context.memory_limit_in_mb, 9000 < remaining <= 10_000]

    connection = serve(handler, function_name="Ingest", memory_limit_in_mb=1769, function_timeout_seconds=10)

    assert ask(connection, "GET", "/") == (200, ["Ingest", 1769, True])


def test_requests_can_be_recorded(serve: Serve) -> None:
    """The record hook sees each request as it was sent and the event made of it, refused requests too."""
    seen: list[Any] = []
    connection = serve(echo, record=lambda *request: seen.append(request))
    _, event = ask(connection, "POST", "/v1/events?t=x", body=b"{}", headers={"X-Write-Key": "k"})
    ask(connection, "GET", "/%zz")

    (method, target, headers, body, recorded), refused = seen
    assert (method, target, body) == ("POST", "/v1/events?t=x", b"{}")
    assert ("X-Write-Key", "k") in headers
    assert recorded == event
    assert (refused[1], refused[4]) == ("/%zz", None)


def test_a_handler_cannot_change_what_was_recorded(serve: Serve) -> None:
    """The handler gets an event of its own, as in Lambda, where it travels as JSON."""
    seen: list[Any] = []
    connection = serve(lambda event, _context: event.clear(), record=lambda *request: seen.append(request[4]))

    ask(connection, "GET", "/kept")

    assert seen[0]["rawPath"] == "/kept"


def test_stopping_ends_connections(serve: Serve) -> None:
    """After a stop open connections are closed and the port is free; to stop twice does no harm."""
    gateway = Gateway(echo)
    gateway.start()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    ask(connection, "GET", "/")

    gateway.stop()
    gateway.stop()

    connection.sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") if connection.sock else None
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        http.client.HTTPResponse(connection.sock).begin()
    connection.close()
    again = serve(echo, port=gateway.port)
    assert ask(again, "GET", "/")[0] == 200


def test_an_address_has_no_slash_at_its_end() -> None:
    """The URL tells host and port."""
    with Gateway(echo) as gateway:
        assert gateway.url == f"http://127.0.0.1:{gateway.port}"
