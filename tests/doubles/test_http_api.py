"""Requests become events, and results responses, as API Gateway's HTTP API makes them."""

import gzip
from base64 import b64decode, b64encode
from typing import Any

import pytest

from doubles.gateway import MAX_BODY_BYTES, MAX_HEAD_BYTES, answer_of, event_of
from doubles.http_server import RejectedError, Request, Response

NOW = 1_783_711_145.766


def event(method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> dict[str, Any]:
    """Return the event of a request."""
    request = Request(method, target, headers, body, "68.8.83.18")
    return event_of(request, request_id="ATfSmjLgPHcESJw=", now=NOW)


def rejection(method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> int:
    """Return the status with which a request is rejected."""
    with pytest.raises(RejectedError) as caught:
        event(method, target, *headers, body=body)
    return caught.value.status


def test_an_event_has_the_captured_form() -> None:
    """A request that was captured behind a live API becomes the same event, except for account, API and stage."""
    query = "repeat=one&repeat=two&redirect=https%3A%2F%2Fexample.com%2Fa&literalPlus=a+b&encodedPlus=a%2Bb&empty="
    body = '{"message":"hello from the public internet","unicode":"lambda-λ"}'
    kept = {
        "accept": "*/*",
        "content-length": "66",
        "content-type": "application/json",
        "host": "abc.execute-api.us-west-2.amazonaws.com",
        "user-agent": "curl/8.7.1",
        "x-amzn-trace-id": "Root=1-6a5145a9-1bae89e2512ec92d5d9438a0",
    }
    sent = [(name.title(), value) for name, value in kept.items()]
    sent += [
        ("X-Probe", "first"),
        ("X-Probe", "second"),
        ("Cookie", "session=abc123; theme=dark"),
        ("cookie", "c=3;"),
    ]
    made = event("POST", f"/capture/space%20value?{query}", *sent, body=body.encode())

    added = {
        "x-forwarded-for": "68.8.83.18",
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
        "x-probe": "first,second",
    }
    assert {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/capture/space value",
        "rawQueryString": query,
        "cookies": ["session=abc123", "theme=dark", "c=3"],
        "headers": kept | added,
        "queryStringParameters": {
            "repeat": "one,two",
            "redirect": "https://example.com/a",
            "literalPlus": "a b",
            "encodedPlus": "a+b",
            "empty": "",
        },
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": "abc.execute-api.us-west-2.amazonaws.com",
            "domainPrefix": "abc",
            "http": {
                "method": "POST",
                "path": "/capture/space value",
                "protocol": "HTTP/1.1",
                "sourceIp": "68.8.83.18",
                "userAgent": "curl/8.7.1",
            },
            "requestId": "ATfSmjLgPHcESJw=",
            "routeKey": "$default",
            "stage": "$default",
            "time": "10/Jul/2026:19:19:05 +0000",
            "timeEpoch": 1783711145766,
        },
        "body": body,
        "isBase64Encoded": False,
    } == made


def test_a_bare_request_has_no_empty_members() -> None:
    """Without query, cookies and body an event has no member for them; the gateway adds its own headers."""
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
    """Paths are decoded twice and cut where the first decoding reveals a question mark; the query is left alone."""
    query = "marker=path-probe&value=a%3Fb%25c%23d&repeat=one&repeat=two"
    made = event("GET", f"{sent}?{query}")

    assert (arrived, query) == (made["rawPath"], made["rawQueryString"])
    assert arrived == made["requestContext"]["http"]["path"]


def test_paths_that_cannot_be_decoded_are_rejected() -> None:
    """A path with a broken escape, even after the first decoding, is a bad request."""
    broken = ("/capture/percent%25done", "/a%zz", "/a%", "*", "a/b")

    assert [400] * 5 == [rejection("GET", target) for target in broken]


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
    """Text, JSON, XML and JavaScript arrive as text, everything else and compressed bodies in base64."""
    pairs = (("Content-Type", kind), ("Content-Encoding", encoding))
    made = event("POST", "/v1/events", *((name, value) for name, value in pairs if value), body=body)

    arrived = b64decode(made["body"]) if made["isBase64Encoded"] else made["body"].encode()
    assert (is_base64, body) == (made["isBase64Encoded"], arrived)


def test_the_limits_are_exact() -> None:
    """Request line and header values have 10,240 bytes, a body 10 MB, and an event 6 MB, base64 included."""
    spare = MAX_HEAD_BYTES - len("GET / HTTP/1.1")
    text, binary = ("Content-Type", "text/plain"), ("Content-Type", "application/octet-stream")
    event("GET", "/", ("X-Name-That-Does-Not-Count", "v" * spare))
    event("GET", "/" + "q" * spare)
    event("POST", "/", text, body=b"x" * 6_000_000)

    assert [431, 414, 413, 413, 413] == [
        rejection("GET", "/", ("X", "v" * (spare + 1))),
        rejection("GET", "/" + "q" * (spare + 1)),
        rejection("POST", "/", text, body=b"x" * 6_300_000),
        rejection("POST", "/", binary, body=b"x" * 4_750_000),
        rejection("POST", "/", text, body=b"x" * (MAX_BODY_BYTES + 1)),
    ]


@pytest.mark.parametrize(
    ("result", "body"),
    [({"ok": True}, b'{"ok": true}'), ([1, 2], b"[1, 2]"), (None, b"null"), ('{"a":', b'{"a":')],
)
def test_a_result_without_a_status_is_a_body(result: Any, body: bytes) -> None:
    """A result without `statusCode` is a 200 with JSON; a string is sent as it is."""
    assert Response(200, body, (("Content-Type", "application/json"),)) == answer_of(result)


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"body": b64encode(b"GIF89a\x00\xff").decode(), "isBase64Encoded": True}, b"GIF89a\x00\xff"),
        ({"body": "ü"}, "ü".encode()),
    ],
)
def test_a_result_becomes_a_response(body: dict[str, Any], sent: bytes) -> None:
    """Status, headers and body are the function's; each cookie is a header of its own."""
    headers = {"X-One": "a,b", "Connection": "close", "content-length": "9"}
    result = {"statusCode": 202, "headers": headers, "cookies": ["a=1; Path=/", "b=2"]}
    kept = (("X-One", "a,b"), ("Content-Type", "text/plain; charset=utf-8"))
    cookies = (("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"))

    assert Response(202, sent, kept + cookies) == answer_of(result | body)


@pytest.mark.parametrize(
    "result",
    [
        *({"statusCode": status} for status in (200.5, 0, None, "ok", True)),
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "headers": {"a": 1}},
        {"statusCode": 200, "cookies": [1, {}]},
        {"statusCode": 200, "body": {"a": 1}},
        {"statusCode": 200, "body": "not base64!", "isBase64Encoded": True},
    ],
)
def test_a_malformed_result_is_an_internal_error(result: Any) -> None:
    """A status that is not a whole number, or anything else that cannot be sent, is the gateway's own 500."""
    said = b'{"message":"Internal Server Error"}'

    assert Response(500, said, (("Content-Type", "application/json"),)) == answer_of(result)
