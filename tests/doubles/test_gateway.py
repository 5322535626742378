"""The gateway turns requests into events and results into responses as API Gateway's HTTP API does, over sockets too."""

import gzip
import http.client
import json
import socket
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from doubles.gateway import Gateway, answer_of, event_of
from doubles.http_server import RejectedError, Request, Response

Connection = http.client.HTTPConnection
NOW = 1_783_711_145.766


def event(method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> dict[str, Any]:
    """Return the event of a request."""
    request = Request(method, target, headers, body, "68.8.83.18")
    return event_of(request, request_id="ATfSmjLgPHcESJw=", now=NOW)


def test_an_event_has_the_captured_form() -> None:
    """A request captured from a live API becomes the same event, except for account, API and stage."""
    captured = json.loads((Path(__file__).parent / "captured_event.json").read_text())
    added = {"x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "x-probe"}
    sent = [(name.title(), value) for name, value in captured["headers"].items() if name not in added]
    sent += [("X-Probe", "first"), ("X-Probe", "second")]
    sent += [("Cookie", "session=abc123; theme=dark"), ("cookie", "c=3;")]
    target = f"/capture/space%20value?{captured['rawQueryString']}"

    assert captured == event("POST", target, *sent, body=captured["body"].encode())


def test_a_bare_request_has_no_empty_members() -> None:
    """Without query, cookies and body an event has no members for them; the gateway adds its own headers."""
    headers = (("Host", "localhost:8080"), ("Connection", "keep-alive"), ("X-Forwarded-For", "10.0.0.1"))
    made = event("POST", "/health", *headers, ("Content-Length", "0"), ("X-Forwarded-Proto", "http"))

    assert not {"cookies", "queryStringParameters", "body"} & made.keys()
    assert ("", "localhost") == (made["rawQueryString"], made["requestContext"]["domainName"])
    assert made["headers"]["x-amzn-trace-id"].startswith("Root=1-6a5145a9-")
    assert {
        "content-length": "0",
        "content-type": "text/plain; charset=utf-8",
        "host": "localhost:8080",
        "x-amzn-trace-id": made["headers"]["x-amzn-trace-id"],
        "x-forwarded-for": "10.0.0.1, 68.8.83.18",
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
    } == made["headers"]


@pytest.mark.parametrize(
    ("sent", "arrived"),
    [
        ("/capture/space%20value", "/capture/space value"),
        ("/capture/question%3Fvalue", "/capture/question"),
        ("/capture/slash%2Fvalue", "/capture/slash/value"),
        ("/capture/unicode-%CE%BB-%E4%B8%96%E7%95%8C", "/capture/unicode-λ-世界"),
        ("/capture/literal%252Fvalue", "/capture/literal/value"),
        ("/capture/literal%253Fvalue", "/capture/literal?value"),
        ("/capture/literal%2525value", "/capture/literal%value"),
        ("//twice/slash/", "//twice/slash/"),
        ("/p\u00c3\u00a4", "/pä"),
    ],
)
def test_paths_arrive_as_captured(sent: str, arrived: str) -> None:
    """Paths are decoded twice and cut where the first decoding reveals a question mark; the query stays as sent."""
    query = "marker=path-probe&value=a%3Fb%25c%23d&repeat=one&repeat=two"
    made = event("GET", f"{sent}?{query}")

    assert (arrived, query) == (made["rawPath"], made["rawQueryString"])
    assert arrived == made["requestContext"]["http"]["path"]


@pytest.mark.parametrize("target", ["/capture/percent%25done", "/a%zz", "/a%", "*", "a/b"])
def test_paths_that_cannot_be_decoded_are_rejected(target: str) -> None:
    """A path with a broken escape, even after the first decoding, is a bad request."""
    with pytest.raises(RejectedError) as caught:
        event("GET", target)

    assert 400 == caught.value.status


@pytest.mark.parametrize(
    ("kind", "encoding", "body", "is_base64"),
    [
        ("Application/JSON; charset=utf-8", "", '{"a": "é"}'.encode(), False),
        ("application/xml", "", b"<a/>", False),
        ("application/javascript", "", b"a()", False),
        ("text/plain;charset=UTF-8", "", b"beacon", False),
        ("application/x-www-form-urlencoded", "", b"a=1", True),
        ("application/vnd.treasuredata.v1+json", "", b"{}", True),
        ("image/svg+xml", "", b"<svg/>", True),
        ("", "", b"{}", True),
        ("application/json", "gzip", gzip.compress(b"{}", mtime=0), True),
        ("text/plain", "", b"\xff\xfe", True),
    ],
)
def test_only_text_travels_as_text(kind: str, encoding: str, body: bytes, *, is_base64: bool) -> None:
    """Text, JSON, XML and JavaScript arrive as text; everything else, compressed bodies included, in base64."""
    pairs = (("Content-Type", kind), ("Content-Encoding", encoding))
    made = event("POST", "/v1/events", *((name, value) for name, value in pairs if value), body=body)

    arrived = b64decode(made["body"]) if made["isBase64Encoded"] else made["body"].encode()
    assert (is_base64, body) == (made["isBase64Encoded"], arrived)


def test_a_result_becomes_a_response() -> None:
    """Status, headers and body are the function's; each cookie becomes a separate header."""
    headers = {"X-One": "a,b", "Connection": "close", "content-length": "9"}
    result = {"statusCode": 202, "headers": headers, "cookies": ["a=1; Path=/", "b=2"]}
    told = (("X-One", "a,b"), ("Content-Type", "text/plain; charset=utf-8"))
    told += (("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"))
    binary = {"body": b64encode(b"GIF89a\x00\xff").decode(), "isBase64Encoded": True}

    assert Response(202, b"GIF89a\x00\xff", told) == answer_of(result | binary)
    assert Response(202, "ü".encode(), told) == answer_of(result | {"body": "ü"})


@pytest.fixture
def serve() -> Iterator[Callable[..., Connection]]:
    """A function that starts a gateway until the end of the test, and returns a connection to it."""

    def serve(handler: Any, **options: Any) -> Connection:
        gateway = ending.enter_context(Gateway(handler, **options))
        connection = Connection("127.0.0.1", gateway.port, timeout=60)
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
    """A request with any method reaches the handler as an event, and is recorded as sent. White space around a header is not part of it."""
    seen: list[Any] = []
    connection = serve(
        lambda event, _context: {"statusCode": 200, "body": json.dumps(event)},
        record=lambda *request: seen.append(request),
    )
    headers = {"Content-Type": "application/json", "X-Write-Key": "k\t "}
    _, event = ask(connection, method, "/a%20b?k=%FFx&t=1", body=b'{"a":1}', headers=headers)
    rejected = ask(connection, "GET", "/%zz")

    http = event["requestContext"]["http"]
    assert (method, "127.0.0.1", "/a b") == (http["method"], http["sourceIp"], event["rawPath"])
    assert ("k=%FFx&t=1", '{"a":1}') == (event["rawQueryString"], event["body"])
    assert (method, "/a%20b?k=%FFx&t=1", b'{"a":1}', event) == (*seen[0][:2], *seen[0][3:])
    assert ("X-Write-Key", "k") in seen[0][2]
    assert "k" == event["headers"]["x-write-key"]
    assert (400, "/%zz", None) == (rejected[0], seen[1][1], seen[1][4])


def test_responses_have_the_gateways_headers(serve: Callable[..., Connection]) -> None:
    """They have a date, the request id, each cookie and no server name; HEAD and 204 have no body and keep the connection usable."""

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        told = f"{context.function_name} {event['requestContext']['requestId']}"
        return {"statusCode": int(event["rawPath"][1:]), "cookies": ["a=1", "b=2"], "body": told}

    connection, seen = serve(handler), []
    for method, path in (("HEAD", "/200"), ("GET", "/204"), ("GET", "/200")):
        connection.request(method, path)
        answer = connection.getresponse()
        request_id, body = answer.headers["Apigw-Requestid"], answer.read()
        seen.append((answer.headers["Content-Length"], body))

    assert [("31", b""), (None, b""), ("31", f"IngestFunction {request_id}".encode())] == seen
    assert (["a=1", "b=2"], None) == (answer.headers.get_all("Set-Cookie"), answer.headers["Server"])
    assert answer.headers["Date"].endswith(" GMT")


def test_half_a_body_does_not_reach_the_function(serve: Callable[..., Connection]) -> None:
    """While a client has sent half of its body, others are answered; if it disconnects, the function is not called."""
    bodies: list[str] = []
    text = {"Content-Type": "text/plain"}
    other = serve(lambda event, _context: bodies.append(event["body"]))
    with socket.create_connection((other.host, other.port), timeout=60) as client:
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
        lambda _event, _context: {"body": "no status"},
        lambda _event, _context: {"statusCode": 200, "body": "not base64!", "isBase64Encoded": True},
    ],
)
def test_a_failing_function_is_an_internal_error(serve: Callable[..., Connection], handler: Any) -> None:
    """An exception, a result that JSON cannot represent, and one that is malformed become the gateway's own 500."""
    assert (500, {"message": "Internal Server Error"}) == ask(serve(handler), "GET", "/")


def exchange(serve: Callable[..., Connection], request: bytes) -> tuple[bytes, list[dict[str, Any]]]:
    """Send a request as it is; return the status in the response and the function's events."""
    events: list[dict[str, Any]] = []
    to = serve(lambda event, _: events.append(event) or {"statusCode": 200})
    with socket.create_connection((to.host, to.port), timeout=60) as connection:
        connection.sendall(request)
        return connection.makefile("rb").readline().split()[1], events


@pytest.mark.parametrize(
    ("target", "query"),
    [
        # these end in bytes that Python's str.split treats as spaces
        (b"/p?a=\xc3\xa0\xe2\x80\xa6", "a=%C3%A0%E2%80%A6"),
        (b"/p?a=\xc3\x85&b", "a=%C3%85&b"),
        (b"/p?a=\xff\x1d", "a=%FF%1D"),
    ],
)
def test_bytes_in_a_query_are_encoded(serve: Callable[..., Connection], target: bytes, query: str) -> None:
    """The event has all bytes of the query, percent-encoded."""
    status, (event,) = exchange(serve, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")

    assert (b"200", query) == (status, event["rawQueryString"])


CHUNKED = b"Transfer-Encoding: Chunked\r\n\r\n"
WHOLE = b"1\r\n{\r\n00001 ;a=b\r\n}\r\n0\r\nX: y\r\n\r\n"
NO_LENGTHS = (b"-1", b"1_0", b"+2", b"abc", b"", b"9" * 10, b"2\r\nContent-Length: 3")


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"Content-Length: 2\r\nContent-Length: 2 \r\n\r\n{}", b"200"),
        (CHUNKED + WHOLE, b"200"),
        *[(b"Content-Length: %b\r\n\r\n{}" % length, b"400") for length in NO_LENGTHS],
        *[(CHUNKED + bad, b"400") for bad in (b"x\r\n", b"1\r\n{}\r\n", b"0\r\n" + b"X: y\r\n" * 200)],
        *[(other + CHUNKED + WHOLE, b"400") for other in (b"Content-Length: 2\r\n", CHUNKED[:-2])],
        (CHUNKED + b"fffffff\r\n", b"413"),
    ],
)
def test_a_body_ends_as_its_headers_say(serve: Callable[..., Connection], rest: bytes, status: bytes) -> None:
    """Chunks are joined, without extensions and trailers. A body without a clear end or bound is refused."""
    told, events = exchange(serve, b"POST / HTTP/1.1\r\nContent-Type: text/plain\r\n" + rest)

    assert (status, ["{}"] * (status == b"200")) == (told, [event["body"] for event in events])
