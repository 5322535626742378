"""The gateway makes of HTTP what API Gateway's HTTP API makes of it."""

import gzip
import http.client
import json
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from local.gateway import MAX_BODY_BYTES, MAX_HEAD_BYTES, Gateway, answer_of, payload_event


def echo(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Answer with the event."""
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(event)}


@pytest.fixture(name="serve")
def fixture_serve() -> Iterator[Callable[..., http.client.HTTPConnection]]:
    """Start gateways that end with the test; each call returns a connection to a new one."""

    def serve(handler: Any, **options: Any) -> http.client.HTTPConnection:
        gateway = Gateway(handler, **options)
        gateway.start()
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        ending.callback(gateway.stop)
        ending.callback(connection.close)
        return connection

    with ExitStack() as ending:
        yield serve


def test_the_query_arrives_as_it_was_sent(serve: Callable[..., http.client.HTTPConnection]) -> None:
    """The query string is not decoded, rawPath is; repeated parameters are joined by commas."""
    connection = serve(echo)
    connection.request("GET", "/a%20b/pixel.gif?k=%FFx&t=1&t=2&e=")
    event = json.loads(connection.getresponse().read())

    assert (
        "/a b/pixel.gif",
        "k=%FFx&t=1&t=2&e=",
        {"k": "\ufffdx", "t": "1,2", "e": ""},
    ) == (event["rawPath"], event["rawQueryString"], event["queryStringParameters"])


def test_headers_are_lower_case_and_cookies_a_list(
    serve: Callable[..., http.client.HTTPConnection],
) -> None:
    """Header names arrive in lower case, repeated headers joined by commas, cookies apart."""
    connection = serve(echo)
    connection.putrequest("GET", "/")
    for name, value in (("X-One", "a"), ("x-one", "b"), ("Cookie", "p=1; q=2")):
        connection.putheader(name, value)
    connection.endheaders()
    event = json.loads(connection.getresponse().read())

    assert ("a,b", ["p=1", "q=2"], False) == (
        event["headers"]["x-one"],
        event["cookies"],
        "cookie" in event["headers"],
    )


@pytest.mark.parametrize(
    ("kind", "encoding", "body", "is_base64"),
    [
        ("application/json", None, b'{"a": "\xc3\xa9"}', False),
        ("text/plain;charset=UTF-8", None, b"beacon", False),
        ("application/x-www-form-urlencoded", None, b"a=1", True),
        ("application/vnd.treasuredata.v1+json", None, b"{}", True),
        ("application/json", "gzip", gzip.compress(b"{}"), True),
        ("text/plain", None, b"\xff\xfe", True),
    ],
)
def test_bodies_that_are_not_text_come_in_base64(
    kind: str, encoding: str | None, body: bytes, is_base64: bool
) -> None:
    """Text types arrive as text, all others and what is compressed in base64; nothing is altered."""
    headers = [("Content-Type", kind)] + ([("Content-Encoding", encoding)] if encoding else [])
    event = payload_event("POST", "/v1/events", headers, body, "127.0.0.1")
    arrived = b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()

    assert (is_base64, body) == (event["isBase64Encoded"], arrived)


def test_a_connection_serves_many_requests(serve: Callable[..., http.client.HTTPConnection]) -> None:
    """Connections are kept open."""
    connection = serve(echo)
    ports = set()
    for _ in range(3):
        connection.request("POST", "/", body=b"{}")
        connection.getresponse().read()
        ports.add(connection.sock.getsockname()[1])

    assert 1 == len(ports)


def test_long_heads_are_refused(serve: Callable[..., http.client.HTTPConnection]) -> None:
    """More than 10,240 bytes of request line and headers never reach the function."""
    seen: list[Any] = []
    connection = serve(lambda event, _context: seen.append(event))
    connection.request("GET", "/?" + "a" * MAX_HEAD_BYTES)

    assert (431, []) == (connection.getresponse().status, seen)


@pytest.mark.parametrize("size", [MAX_BODY_BYTES, MAX_BODY_BYTES + 1])
def test_large_bodies_are_refused(size: int) -> None:
    """10 MB is the gateway's limit, 6 MB that of Lambda's event; either answers 413."""
    gateway = Gateway(lambda _event, _context: {"statusCode": 200})
    status, _, _ = gateway.answer("POST", "/", [], b"a" * size, "127.0.0.1")
    gateway._server.server_close()

    assert 413 == status


def test_a_chunked_body_arrives_whole(serve: Callable[..., http.client.HTTPConnection]) -> None:
    """A body without a length is read as well."""
    connection = serve(echo)
    connection.request("POST", "/", body=iter([b'{"a":', b"1}"]), headers={"content-type": "text/plain"})

    assert '{"a":1}' == json.loads(connection.getresponse().read())["body"]


def test_a_failing_function_is_an_internal_error(
    serve: Callable[..., http.client.HTTPConnection],
) -> None:
    """An exception answers 500 and API Gateway's message."""
    connection = serve(lambda _event, _context: 1 / 0)
    connection.request("GET", "/")
    answer = connection.getresponse()

    assert (500, {"message": "Internal Server Error"}) == (answer.status, json.loads(answer.read()))


def test_a_late_function_is_not_waited_for(serve: Callable[..., http.client.HTTPConnection]) -> None:
    """After the time-out the answer is 503."""
    never = threading.Event()
    connection = serve(lambda _event, _context: never.wait(10), timeout_seconds=0.05)
    connection.request("GET", "/")
    status = connection.getresponse().status
    never.set()

    assert 503 == status


def test_results_become_answers() -> None:
    """Cookies become headers of their own, base64 is decoded, and what has no status is a 200 in JSON."""
    result = {"statusCode": 202, "cookies": ["a=1", "b=2"], "body": b64encode(b"\x00\xff").decode()}

    assert (
        (
            202,
            [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("content-type", "text/plain; charset=utf-8")],
            b"\x00\xff",
        ),
        (200, [("content-type", "application/json")], b'{"ok": true}'),
    ) == (answer_of(result | {"isBase64Encoded": True}), answer_of({"ok": True}))


def test_a_head_request_has_no_body(serve: Callable[..., http.client.HTTPConnection]) -> None:
    """HEAD is passed on, and its answer is sent without the body."""
    connection = serve(echo)
    connection.request("HEAD", "/")
    answer = connection.getresponse()

    assert (200, b"") == (answer.status, answer.read())


def test_requests_can_be_recorded(serve: Callable[..., http.client.HTTPConnection]) -> None:
    """The record hook sees each request as it was sent, and the event made of it."""
    seen: list[Any] = []
    connection = serve(echo, record=lambda *request: seen.append(request))
    connection.request("POST", "/v1/events?t=x", body=b"{}", headers={"X-Write-Key": "k"})
    connection.getresponse().read()
    method, target, headers, body, event = seen[0]

    assert ("POST", "/v1/events?t=x", True, b"{}", "/v1/events") == (
        method,
        target,
        ("X-Write-Key", "k") in headers,
        body,
        event["rawPath"],
    )
