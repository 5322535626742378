"""Every kind of bad input gets its documented response, and valid events in the same request are not lost."""

import pytest

from ingest.batch import Batch
from ingest.intake import MAX_EVENTS
from ingest.refusal import Refused
from ingest.request import Request
from shared import write_key
from tests.support.ingest import KEY, Answer, Site, http_event

GOOD = {"table": "pageviews", "page": "home"}
FORGED = [
    "shop",
    "shop.k1.AAAAAAAAAAAAAAAAAAAAAA",
    KEY.replace("shop", "shop2"),
    KEY.replace("k1", "k2"),
    write_key.sign("shop", "k1", "another secret"),
    f"{KEY},{KEY}",
    "x" * 9000,
    "\x00",
    "é.k1.x",
    "\ud800.k1.x",
]
"""Keys without a valid signature, including altered copies of a valid key."""
NOT_JSON = [
    b"",
    b'{"events": [{"table": "pageviews"}',
    b"k=key&t=pageviews",
    b"\xef\xbb\xbf[]",
    b"\xff\xfe[\x00]\x00",
    b'[{"table": "pageviews", "a": "\xff"}]',
    b"[" * 100_000,
    b'{"a":' * 100_000,
]
"""Bodies that are not JSON documents in UTF-8."""


def refused(site: Site, answer: Answer, status: int, code: str) -> None:
    """Check that the request was rejected as a whole, and that nothing was put."""
    assert (status, code, code) == (answer.status, answer.code, answer.json["error"]["code"])
    assert ([], []) == (site.kinesis.calls, site.sqs.calls)


@pytest.mark.parametrize("key", FORGED, ids=range(len(FORGED)))
def test_forged_keys_are_rejected(key: str) -> None:
    """A forged key gets 401, `invalid_key`, in a header or in the body."""
    refused(site := Site(), site.post([GOOD], key=key), 401, "invalid_key")
    refused(site := Site(), site.post([GOOD], key="", x_write_key=key), 401, "invalid_key")
    refused(site := Site(), site.post({"events": [GOOD], "write_key": key}, key=""), 401, "invalid_key")


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:20]))
def test_invalid_json_is_rejected(body: bytes) -> None:
    """The request gets 400, `invalid_json`, and the message gives the position of the error."""
    refused(site := Site(), answer := site.post(body), 400, "invalid_json")
    assert answer.json["error"]["message"].startswith("the body is not valid JSON in UTF-8: ")


BAD_EVENTS = {
    "null": "not_an_object",
    "[]": "not_an_object",
    "1e999": "not_an_object",
    "{}": "missing_table",
    '{"table": null}': "missing_table",
    '{"table": "../../etc"}': "invalid_table",
    '{"table": 7}': "invalid_table",
    '{"table": "pageviews", "table": "NO"}': "invalid_table",
    '{"table": "pageviews", "a": ' + "[" * 300 + "]" * 300 + "}": "too_deep",
    '{"table": "pageviews", "a": ' + '{"a":' * 300 + "1" + "}" * 300 + "}": "too_deep",
    '{"table": "pageviews", "a": ' + "[" * 300 + "1" * 30 + "]" * 300 + "}": "too_deep",
    '{"table": "pageviews", "a": "' + "x" * 262_144 + '"}': "event_too_large",
    '{"table": "pageviews", ' + ", ".join(f'"c{n}": 1' for n in range(510)) + "}": "too_many_columns",
}


@pytest.mark.parametrize("good", [0, 1])
def test_only_bad_events_are_rejected(good: int) -> None:
    """The events before and after are accepted, in order. If all events are bad, the response is 400 and no row is stored."""
    site = Site()
    first, last = ['{"table": "pageviews", "n": 1}'] * good, ['{"table": "pageviews", "n": 2}'] * good

    answer = site.post(f"[{', '.join([*first, *BAD_EVENTS, *last])}]".encode())

    assert (200 if good else 400, 2 * good) == (answer.status, answer.json["accepted"])
    assert [(index + good, code) for index, code in enumerate(BAD_EVENTS.values())] == [
        (item["index"], item["code"]) for item in answer.json["rejected"]
    ]
    assert [1, 2][: 2 * good] == [row["n"] for _, row in site.rows()]


@pytest.mark.parametrize(("count", "code"), [(0, "no_events"), (MAX_EVENTS + 1, "too_many_events")])
def test_the_number_of_events_is_limited_before_any_is_rewritten(count: int, code: str) -> None:
    """The request is rejected whatever its dialect checks, and at no cost per event."""
    site, rewritten = Site(), list[object]()
    intake, request = site.handler._intake, Request.from_event(http_event("POST", "/new/dialect"))
    batch = Batch([{}] * count, "pageviews", rewrite=rewritten.append)

    with pytest.raises(Refused) as raised:
        intake.accept(request, intake.verify(KEY), batch, intake.privacy.visitor(request))

    assert (code, [], []) == (raised.value.code, rewritten, site.kinesis.calls)
