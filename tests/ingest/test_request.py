"""Requests are parsed from API Gateway's payload 2.0."""

import base64
import gzip
import tracemalloc
import zlib
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import request
from ingest.refusal import Refused
from ingest.request import Request
from tests.support.ingest import gzipped, http_event

texts = st.text(max_size=20)


def body_of(body: bytes | str | None, encoding: str = "") -> bytes:
    """Return the body that the ingest reads; bytes are sent as base64, a string as it is."""
    event = http_event("POST", "/v1/events", "", {"content-encoding": encoding} if encoding else {})
    event |= {"body": base64.b64encode(body).decode() if isinstance(body, bytes) else body}
    return Request.from_event(event | {"isBase64Encoded": isinstance(body, bytes)}).body()


def refusal(body: bytes | str, encoding: str = "") -> str:
    """Return the code with which a body is rejected."""
    with pytest.raises(Refused) as caught:
        body_of(body, encoding)
    return caught.value.code


@given(st.lists(st.tuples(texts, texts)), st.sampled_from([quote, quote_plus]))
def test_parameters_arrive_in_order(parameters: list[tuple[str, str]], encode: Any) -> None:
    """Names and values may repeat, and be percent-encoded, with `+` or `%20` for a space."""
    query = "&".join(f"{encode(name, safe='')}={encode(value, safe='')}" for name, value in parameters)

    assert tuple(parameters) == request.parse_query(query)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("&&", ()),
        ("a&b=&=1", (("a", ""), ("b", ""), ("", "1"))),
        ("a=b=c&a=1;b=2", (("a", "b=c"), ("a", "1;b=2"))),
        ("a=x+y%20z%2B", (("a", "x y z+"),)),
        ("a=%E3%81%82あ", (("a", "ああ"),)),
        ("a=%ff%E3%81", (("a", "\ufffd\ufffd"),)),
        ("a=%zz%2", (("a", "%zz%2"),)),
    ],
)
def test_odd_query_strings_are_parsed_leniently(query: str, expected: tuple[tuple[str, str], ...]) -> None:
    """No query string is an error, and bytes that are not UTF-8 become U+FFFD."""
    assert expected == request.parse_query(query)


@given(st.text(alphabet="ab%0Ff1é日", max_size=12))
def test_escapes_are_decoded_as_urllib_does(text: str) -> None:
    """This includes escapes that are cut off, have no hexadecimal digits, or are not UTF-8."""
    assert (("name", unquote(text)),) == request.parse_query(f"name={text}")


def test_the_first_value_that_is_not_empty_counts() -> None:
    """This applies to parameters that can have only one value. The gateway joins repeated ones; that is not used."""
    event = http_event("GET", "/pixel.gif", "k=&k=1,2&k=3&t=") | {"queryStringParameters": {"k": ",1,2,3"}}

    assert ("1,2", None, None) == tuple(Request.from_event(event).parameter(name) for name in "ktx")


def test_optional_fields_may_be_missing() -> None:
    """The gateway omits fields that are empty."""
    event = {"rawPath": "/", "requestContext": {"http": {"method": "GET"}}}

    assert Request("GET", "/", (), {}, "", "", None, is_base64=False) == Request.from_event(event)


GZIP, ZLIB = gzipped(b"[{}]"), zlib.compress(b"[{}]")


@pytest.mark.parametrize("encoding", ["", "identity", "GZIP", " x-gzip ", "deflate"])
@pytest.mark.parametrize("body", [b"[{}]", "[{}]", GZIP, ZLIB])
def test_a_body_is_read_whatever_its_header_says(body: bytes | str, encoding: str) -> None:
    """Beacons cannot set it, a proxy may have decompressed the body and kept it, and some clients call zlib gzip."""
    is_unannounced = body == ZLIB and encoding in ("", "identity")

    assert (body if is_unannounced else b"[{}]") == body_of(body, encoding)


@pytest.mark.parametrize(
    ("body", "encoding", "code"),
    [
        *[(b"[{}]", encoding, "unsupported_encoding") for encoding in ("br", "gzip, gzip", "gzip,identity")],
        *[(body, "", "unreadable_body") for body in (GZIP[:-1], GZIP[:2], GZIP[:3] + bytes(20))],
        *[(GZIP + rest, "", "unreadable_body") for rest in (b"rest", GZIP[:5])],
        (GZIP[:-5] + b"\x00" + GZIP[-4:], "", "unreadable_body"),
        (GZIP[:-1] + b"\x01", "", "unreadable_body"),
        (ZLIB[:-1], "deflate", "unreadable_body"),
        (zlib.compress(b" " * 6_000_000), "deflate", "body_too_large"),
    ],
)
def test_a_broken_body_is_rejected(body: bytes, encoding: str, code: str) -> None:
    """It is truncated, followed by other data, has a wrong checksum, or another encoding than gzip and deflate (RFC 9110, 8.4.1)."""
    assert code == refusal(body, encoding)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_gzip_members_are_joined(contents: list[bytes]) -> None:
    """A gzip file may have several members (RFC 1952, 2.2)."""
    assert b"".join(contents) == request.inflate(b"".join(gzipped(content) for content in contents))


@pytest.mark.parametrize("data", [b"[{}]", b"{ }", b" {}", b"\t[]", b"\r\n[]", b"\n{}", gzipped(b"[{}]")])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.encodebytes])
def test_unannounced_base64_is_decoded(data: bytes, encode: Any) -> None:
    """A body that is base64 of JSON or of gzip cannot be anything else, whether the gateway encodes it again or not."""
    expected = b"[{}]" if data[:1] == b"\x1f" else data

    assert expected == body_of(encode(data).decode()) == body_of(encode(data))


@pytest.mark.parametrize("text", ["eyJ", "eeee", "WWWW", "H4", "W=", "PING", '"\ud800"'])
def test_other_text_is_not_taken_for_base64(text: str) -> None:
    """Text that resembles base64 stays as it is. Lone surrogates, which UTF-8 cannot encode, become U+FFFD."""
    assert text.replace("\ud800", "\ufffd").encode() == body_of(text)


@pytest.mark.parametrize("body", ["not base64!", "YQ", "YQ==YQ==", "あ"])
def test_broken_base64_is_rejected(body: str) -> None:
    """The gateway never sends it, but others can invoke the function."""
    event = http_event("POST", "/v1/events") | {"body": body, "isBase64Encoded": True}

    with pytest.raises(Refused, match="unreadable_body"):
        Request.from_event(event).body()


@pytest.mark.parametrize("kind", [bytes, bytes.decode])
def test_a_body_has_at_most_one_mebibyte_as_sent_and_two_decompressed(kind: Any) -> None:
    """The first limit is the same for text and base64; the second applies to all gzip members together."""
    assert request.MAX_RAW_BYTES == len(body_of(kind(b"x" * request.MAX_RAW_BYTES)))
    assert "body_too_large" == refusal(kind(b"x" * (request.MAX_RAW_BYTES + 1)))
    assert "body_too_large" == refusal(kind(b"x" * (request.MAX_RAW_BYTES + 3)))

    half = gzipped(b" " * (request.MAX_INFLATED_BYTES // 2))
    assert request.MAX_INFLATED_BYTES == len(body_of(half + half))
    assert "body_too_large" == refusal(half + half + gzipped(b" "))


def test_a_gzip_bomb_is_decompressed_only_up_to_the_limit() -> None:
    """A file that expands to a gigabyte takes little more memory than the limit."""
    bomb = gzip.compress(bytes(20 * 1024 * 1024), 9) * 50

    tracemalloc.start()
    code = refusal(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert "body_too_large" == code
    assert peak < 4 * request.MAX_INFLATED_BYTES
