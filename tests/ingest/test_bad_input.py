"""Every kind of bad input gets its documented response, and valid events in the same request are not lost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import write_key
from tests.support.ingest import KEY, Answer, Site, gzipped

GOOD = {"table": "pageviews", "page": "home"}
FORGED = [
    "shop",
    "shop.k1",
    "shop.k1.",
    "shop.k1.AAAAAAAAAAAAAAAAAAAAAA",
    f"{KEY}x",
    KEY[:-1],
    KEY.upper(),
    KEY.replace("shop", "shop2"),
    KEY.replace("k1", "k2"),
    KEY.replace("k1", "k1-1"),
    write_key.sign("shop", "k1", "another secret"),
    write_key.sign("shop", "k9", "first secret"),
    f"{KEY} {KEY}",
    f"{KEY},{KEY}",
    "." * 1000,
    "x" * 9000,
    "\x00",
    "é.k1.x",
    "\ud800.k1.x",
]
"""Keys without a valid signature, including altered copies of a valid key."""
NOT_JSON = [
    b"",
    b" ",
    b"{",
    b'{"events": [{"table": "pageviews"}',
    b"[{}] x",
    b"{'table': 'pageviews'}",
    b"[NaN]",
    b"\x00",
    b"\xff\xfe[\x00]\x00",
    b'[{"table": "pageviews", "a": "\xff"}]',
    b"\xef\xbb\xbf[]",
    b"k=key&t=pageviews",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'[{"a":1e}]',
    b'["\\x"]',
    b'["\n"]',
]
"""Bodies that are not JSON documents in UTF-8."""


def outcome(answer: Answer) -> tuple[int, int, list[tuple[int, str]]]:
    """Return the status, the number of accepted events, and the rejected events' indices and codes."""
    return (
        answer.status,
        answer.json["accepted"],
        [(item["index"], item["code"]) for item in answer.json["rejected"]],
    )


def refused(site: Site, answer: Answer, status: int, code: str) -> None:
    """Check that the request was rejected as a whole, and that nothing was put."""
    assert (status, code, code) == (answer.status, answer.code, answer.json["error"]["code"])
    assert ([], []) == (site.kinesis.calls, site.sqs.calls)


# Keys


@pytest.mark.parametrize("key", FORGED, ids=range(len(FORGED)))
def test_forged_keys_are_rejected(key: str) -> None:
    """A forged key gets 401, `invalid_key`, in a header or in the body."""
    refused(site := Site(), site.post([GOOD], key=key), 401, "invalid_key")
    refused(site := Site(), site.post([GOOD], key="", x_write_key=key), 401, "invalid_key")
    refused(site := Site(), site.post({"events": [GOOD], "write_key": key}, key=""), 401, "invalid_key")


# Bodies


@given(
    st.lists(
        st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.integers()), min_size=1, max_size=4
    ),
    st.booleans(),
    st.data(),
)
def test_a_truncated_body_is_rejected(
    columns: list[dict[str, Any]], zipped: bool, data: st.DataObject
) -> None:
    """A truncated body, compressed or not, is rejected as a whole, because nobody can tell which events it lost."""
    site = Site()
    text = json.dumps({"events": [{**event, **GOOD} for event in columns]}).encode()
    body = gzipped(text) if zipped else text
    cut = body[: data.draw(st.integers(0, len(body) - 1), "where it ends")]

    unreadable = zipped and cut.startswith(b"\x1f\x8b")
    refused(site, site.post(cut), 400, "unreadable_body" if unreadable else "invalid_json")


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:20]))
def test_invalid_json_is_rejected(body: bytes) -> None:
    """The request gets 400, `invalid_json`, and the message gives the position of the error."""
    refused(site := Site(), answer := site.post(body), 400, "invalid_json")
    assert answer.json["error"]["message"].startswith("the body is not valid JSON in UTF-8: ")


# Single events

BAD_EVENTS: list[tuple[str, str]] = [
    ("null", "not_an_object"),
    ("[]", "not_an_object"),
    ('"text"', "not_an_object"),
    ("1e999", "not_an_object"),
    ("{}", "missing_table"),
    ('{"table": null}', "missing_table"),
    ('{"table": "Page Views"}', "invalid_table"),
    ('{"table": "../../etc"}', "invalid_table"),
    ('{"table": "pg"}', "invalid_table"),
    ('{"table": ""}', "invalid_table"),
    ('{"table": 7}', "invalid_table"),
    ('{"table": ["pageviews"]}', "invalid_table"),
    ('{"table": "pageviews", "table": "NO"}', "invalid_table"),
    ('{"table": "pageviews", "a": ' + "[" * 300 + "]" * 300 + "}", "too_deep"),
    ('{"table": "pageviews", "a": ' + '{"a":' * 300 + "1" + "}" * 300 + "}", "too_deep"),
    ('{"table": "pageviews", "a": ' + "[" * 300 + "1" * 30 + "]" * 300 + "}", "too_deep"),
    ('{"table": "pageviews", "a": "' + "x" * 262_144 + '"}', "event_too_large"),
    ('{"table": "pageviews", ' + ", ".join(f'"c{n}": 1' for n in range(510)) + "}", "too_many_columns"),
]


@pytest.mark.parametrize(
    ("text", "code"), BAD_EVENTS, ids=[f"{code} {text[:30]}" for text, code in BAD_EVENTS]
)
def test_only_the_bad_event_is_rejected(text: str, code: str) -> None:
    """The events before and after the bad one are accepted, in order."""
    site = Site()

    answer = site.post(
        f'[{{"table": "pageviews", "n": 1}}, {text}, {{"table": "pageviews", "n": 2}}]'.encode()
    )

    assert (200, 2, [(1, code)]) == outcome(answer)
    assert [1, 2] == [row["n"] for _, row in site.rows()]


def test_a_request_with_only_bad_events_is_rejected() -> None:
    """The response is 400 and lists every rejection, and no row is stored."""
    site = Site()

    answer = site.post(f"[{', '.join(text for text, _ in BAD_EVENTS)}]".encode())

    assert (400, 0, [(index, code) for index, (_, code) in enumerate(BAD_EVENTS)]) == outcome(answer)
    assert [] == site.rows()
