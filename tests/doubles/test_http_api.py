"""Requests become events, and results answers, as API Gateway's HTTP API makes them."""

import gzip
import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles.http_api import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    RefusedError,
    Request,
    answer_of,
    event_of,
    new_request_id,
)

NOW = 1_783_711_145.766


def event(method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> dict[str, Any]:
    """Return the event of a request."""
    return event_of(
        Request(method, target, headers, body, "68.8.83.18"), request_id="ATfSmjLgPHcESJw=", now=NOW
    )


def refusal(method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> int:
    """Return the status with which a request is refused."""
    with pytest.raises(RefusedError) as caught:
        event(method, target, *headers, body=body)
    return caught.value.status


def test_an_event_has_the_captured_form() -> None:
    """A request that was captured behind a live API becomes the same event, but for account, API and stage."""
    made = event(
        "POST",
        "/capture/space%20value?repeat=one&repeat=two&redirect=https%3A%2F%2Fexample.com%2Fa%2Fb"
        "&literalPlus=a+b&encodedPlus=a%2Bb&empty=",
        ("Host", "abc.execute-api.us-west-2.amazonaws.com"),
        ("User-Agent", "curl/8.7.1"),
        ("Accept", "*/*"),
        ("Content-Type", "application/json"),
        ("X-Probe", "first"),
        ("X-Probe", "second"),
        ("Cookie", "session=abc123; theme=dark"),
        ("Content-Length", "66"),
        ("X-Amzn-Trace-Id", "Root=1-6a5145a9-1bae89e2512ec92d5d9438a0"),
        body='{"message":"hello from the public internet","unicode":"lambda-λ"}'.encode(),
    )

    assert made == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/capture/space value",
        "rawQueryString": "repeat=one&repeat=two&redirect=https%3A%2F%2Fexample.com%2Fa%2Fb"
        "&literalPlus=a+b&encodedPlus=a%2Bb&empty=",
        "cookies": ["session=abc123", "theme=dark"],
        "headers": {
            "accept": "*/*",
            "content-length": "66",
            "content-type": "application/json",
            "host": "abc.execute-api.us-west-2.amazonaws.com",
            "user-agent": "curl/8.7.1",
            "x-amzn-trace-id": "Root=1-6a5145a9-1bae89e2512ec92d5d9438a0",
            "x-forwarded-for": "68.8.83.18",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
            "x-probe": "first,second",
        },
        "queryStringParameters": {
            "repeat": "one,two",
            "redirect": "https://example.com/a/b",
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
        "body": '{"message":"hello from the public internet","unicode":"lambda-λ"}',
        "isBase64Encoded": False,
    }


def test_a_bare_request_has_no_empty_members() -> None:
    """Without query, cookies and body an event has no member for them, and a content length of 0."""
    made = event("GET", "/health", ("Host", "localhost:8080"))

    assert not {"cookies", "queryStringParameters", "body"} & made.keys()
    assert (made["rawQueryString"], made["headers"]["content-length"]) == ("", "0")
    assert made["requestContext"]["domainName"] == "localhost"
    assert "content-type" not in made["headers"]


@pytest.mark.parametrize(
    ("sent", "arrived"),
    [
        ("/capture/plain", "/capture/plain"),
        ("/capture/space%20value", "/capture/space value"),
        ("/capture/question%3Fvalue", "/capture/question"),
        ("/capture/hash%23value", "/capture/hash#value"),
        ("/capture/slash%2Fvalue", "/capture/slash/value"),
        ("/capture/unicode-%CE%BB-%E4%B8%96%E7%95%8C", "/capture/unicode-λ-世界"),
        ("/capture/literal%252Fvalue", "/capture/literal/value"),
        ("/capture/literal%253Fvalue", "/capture/literal?value"),
        ("/capture/literal%2525value", "/capture/literal%value"),
        ("//twice/slash/", "//twice/slash/"),
    ],
)
def test_paths_arrive_as_captured(sent: str, arrived: str) -> None:
    """Paths are decoded twice and cut where the first decoding uncovers a question mark; the query is left alone."""
    query = "marker=path-probe&value=a%3Fb%25c%23d&repeat=one&repeat=two"

    made = event("GET", f"{sent}?{query}")

    assert (made["rawPath"], made["requestContext"]["http"]["path"]) == (arrived, arrived)
    assert made["rawQueryString"] == query


@pytest.mark.parametrize("target", ["/capture/percent%25done", "/a%zz", "/a%", "*", "a/b"])
def test_paths_that_cannot_be_read_are_refused(target: str) -> None:
    """A path with an escape that is none, also after the first decoding, is a bad request."""
    assert refusal("GET", target) == 400


def test_an_absolute_target_counts_by_its_path() -> None:
    """A proxy's form of the target is read by its path and query."""
    made = [event("GET", target) for target in ("http://a.example/p?q=1", "HTTPS://a.example")]

    assert [(one["rawPath"], one["rawQueryString"]) for one in made] == [("/p", "q=1"), ("/", "")]


def test_bytes_beyond_ascii_are_escaped() -> None:
    """A query that was sent with raw bytes arrives as ASCII, with nothing lost."""
    made = event("GET", "/p\u00c3\u00a4?t=\u00c3\u00a4\u00ff")

    assert (made["rawPath"], made["rawQueryString"]) == ("/pä", "t=%C3%A4%FF")
    assert made["queryStringParameters"] == {"t": "ä\ufffd"}


@pytest.mark.parametrize(
    ("kind", "encoding", "body", "is_base64"),
    [
        ("application/json", None, '{"a": "é"}'.encode(), False),
        ("Application/JSON; charset=utf-8", None, b"{}", False),
        ("application/xml", None, b"<a/>", False),
        ("application/javascript", None, b"a()", False),
        ("text/plain;charset=UTF-8", None, b"beacon", False),
        ("text/csv", None, b"a,b", False),
        ("application/x-www-form-urlencoded", None, b"a=1", True),
        ("multipart/form-data; boundary=x", None, b"--x--", True),
        ("application/vnd.treasuredata.v1+json", None, b"{}", True),
        ("application/octet-stream", None, b"text", True),
        ("image/svg+xml", None, b"<svg/>", True),
        (None, None, b"{}", True),
        ("application/json", "gzip", gzip.compress(b"{}", mtime=0), True),
        ("text/plain", None, b"\xff\xfe", True),
    ],
)
def test_only_text_travels_as_text(
    kind: str | None, encoding: str | None, body: bytes, is_base64: bool
) -> None:
    """Text, JSON, XML and JavaScript arrive as text, all else and what is compressed in base64; nothing is altered."""
    headers = [
        (name, value) for name, value in (("Content-Type", kind), ("Content-Encoding", encoding)) if value
    ]

    made = event("POST", "/v1/events", *headers, body=body)

    arrived = b64decode(made["body"]) if made["isBase64Encoded"] else made["body"].encode()
    assert (made["isBase64Encoded"], arrived) == (is_base64, body)


@given(st.binary(max_size=40), st.sampled_from(["text/plain", "application/json", "image/gif", ""]))
def test_no_byte_of_a_body_is_lost(body: bytes, kind: str) -> None:
    """Whatever a body is, its bytes can be had from the event."""
    made = event("POST", "/", ("Content-Type", kind), body=body)

    text = made.get("body", "")
    assert (b64decode(text) if made["isBase64Encoded"] else text.encode()) == body


def test_a_request_that_says_it_is_empty_gets_a_type() -> None:
    """A request with a content length of 0 and no content type gets one, as AWS documents."""
    made = event("POST", "/", ("Content-Length", "0"))

    assert made["headers"]["content-type"] == "text/plain; charset=utf-8"


def test_what_concerns_the_connection_stays_there() -> None:
    """Headers of the connection do not reach the function; the forwarding ones are the gateway's."""
    made = event(
        "POST",
        "/",
        ("Connection", "keep-alive"),
        ("Transfer-Encoding", "chunked"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        body=b"four",
    )

    assert made["headers"] == {
        "content-length": "4",
        "x-amzn-trace-id": made["headers"]["x-amzn-trace-id"],
        "x-forwarded-for": "10.0.0.1, 68.8.83.18",
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
    }
    assert made["headers"]["x-amzn-trace-id"].startswith("Root=1-6a5145a9-")


def test_cookies_of_several_headers_are_one_list() -> None:
    """All cookies are in one list and not among the headers."""
    made = event("GET", "/", ("Cookie", "a=1; b=2"), ("cookie", "c=3;"))

    assert made["cookies"] == ["a=1", "b=2", "c=3"]
    assert "cookie" not in made["headers"]


def test_the_limit_of_the_head_is_exact() -> None:
    """10,240 bytes of request line and header values pass, one more does not; names do not count."""
    line = len("GET / HTTP/1.1")

    made = event("GET", "/", ("X-Name-That-Does-Not-Count", "v" * (MAX_HEAD_BYTES - line)))

    assert len(made["headers"]["x-name-that-does-not-count"]) == MAX_HEAD_BYTES - line
    assert refusal("GET", "/", ("X", "v" * (MAX_HEAD_BYTES - line + 1))) == 431
    assert refusal("GET", "/", ("X", "v" * MAX_HEAD_BYTES), ("Y", "v")) == 431


def test_the_limit_of_the_target_is_exact() -> None:
    """A request line of 10,240 bytes passes, one more does not."""
    spare = MAX_HEAD_BYTES - len("GET /? HTTP/1.1")

    assert len(event("GET", "/?" + "q" * spare)["rawQueryString"]) == spare
    assert refusal("GET", "/?" + "q" * (spare + 1)) == 414


def test_the_limits_of_the_body() -> None:
    """More than 10 MB, and an event of more than 6 MB, which base64 reaches at 4.5 MB, are refused."""
    text, binary = ("Content-Type", "text/plain"), ("Content-Type", "application/octet-stream")

    assert len(event("POST", "/", text, body=b"x" * 6_000_000)["body"]) == 6_000_000
    assert refusal("POST", "/", text, body=b"x" * 6_300_000) == 413
    assert refusal("POST", "/", binary, body=b"x" * 4_750_000) == 413
    assert refusal("POST", "/", text, body=b"x" * (MAX_BODY_BYTES + 1)) == 413


def test_request_ids_look_like_the_gateways() -> None:
    """An id has 16 characters and ends with an equals sign, and no two are the same."""
    ids = {new_request_id() for _ in range(100)}

    assert len(ids) == 100
    assert {(len(made), made[-1]) for made in ids} == {(16, "=")}


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ({"ok": True}, b'{"ok": true}'),
        ([1, 2], b"[1, 2]"),
        (None, b"null"),
        (42, b"42"),
        ("text", b"text"),
        ('{"name": "John Doe", "age":', b'{"name": "John Doe", "age":'),
        ("", b""),
    ],
)
def test_a_result_without_a_status_is_a_body(result: Any, body: bytes) -> None:
    """Whatever has no `statusCode` is a 200 of JSON; a string is sent as it is."""
    answer = answer_of(result)

    assert (answer.status, answer.headers, answer.body) == (
        200,
        (("Content-Type", "application/json"),),
        body,
    )


def test_a_result_becomes_an_answer() -> None:
    """Status, headers and body are the function's; each cookie is a header of its own; numbers become text."""
    answer = answer_of(
        {
            "statusCode": 202,
            "headers": {
                "X-One": "a,b",
                "x-count": 3,
                "x-flag": True,
                "Connection": "close",
                "content-length": "9",
            },
            "cookies": ["a=1; Path=/", "b=2"],
            "body": "ü",
        }
    )

    assert answer.status == 202
    assert answer.headers == (
        ("X-One", "a,b"),
        ("x-count", "3"),
        ("x-flag", "true"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "b=2"),
    )
    assert answer.body == "ü".encode()


def test_base64_is_decoded() -> None:
    """A body that says it is base64 is sent as its bytes, whatever the client accepts."""
    answer = answer_of(
        {
            "statusCode": 200,
            "headers": {"Content-Type": "image/gif"},
            "body": b64encode(b"GIF89a\x00\xff").decode(),
            "isBase64Encoded": True,
        }
    )

    assert (answer.headers, answer.body) == ((("Content-Type", "image/gif"),), b"GIF89a\x00\xff")


@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": 200.5},
        {"statusCode": 0},
        {"statusCode": None},
        {"statusCode": "ok"},
        {"statusCode": True},
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "headers": {"a": ["b"]}},
        {"statusCode": 200, "headers": {"a": "b\r\nc: d"}},
        {"statusCode": 200, "cookies": [1, {}]},
        {"statusCode": 200, "body": {"a": 1}},
        {"statusCode": 200, "body": "not base64!", "isBase64Encoded": True},
    ],
)
def test_a_result_of_the_wrong_form_is_an_internal_error(result: Any) -> None:
    """A status that is no whole number, or anything else that cannot be sent, is the gateway's own 500."""
    answer = answer_of(result)

    assert (answer.status, answer.body) == (500, b'{"message":"Internal Server Error"}')
    assert json.loads(answer.body) == {"message": "Internal Server Error"}
