"""The events API accepts many events per request, and accepts or rejects each on its own."""

import json
import zlib
from collections import Counter
from hashlib import md5
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.batch import Batch
from ingest.intake import MAX_EVENTS, PARTITION_KEYS
from ingest.refusal import Refused
from ingest.request import Request
from shared import rows, write_key
from tests.support import json_values
from tests.support.ingest import KEY, SECRETS, START, Site, gzipped, http_event
from tests.support.openapi import differences

NOW = int(START)
EVENT = {"table": "pageviews", "td_title": "Home"}


@pytest.mark.parametrize("body", [EVENT, [EVENT], {"events": [EVENT]}], ids=["object", "array", "batch"])
@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain;charset=UTF-8", "application/octet-stream"]
)
def test_an_event_may_have_three_forms(body: Any, content_type: str) -> None:
    """The body is an object, an array, or an object with `events`, and any content type works: beacons send text."""
    site = Site()

    answer = site.post(body, content_type=content_type, user_agent="UA")

    assert (200, {"accepted": 1, "rejected": []}) == (answer.status, answer.json)
    row = site.row()
    assert "7" == row.pop("event_id")[14]
    columns = {"td_title": "Home", "td_ip": "192.0.2.7", "td_user_agent": "UA"}
    assert columns | {"time": NOW, "received_at": NOW * 1000} == row


@pytest.mark.parametrize("batch_id", [None, "b1"])
def test_event_ids_are_returned_on_request(batch_id: str | None) -> None:
    """With `ids=1` the response lists the stored ids by index, with null for rejected events."""
    events = [EVENT, {"page": "home"}, EVENT | {"event_id": "mine"}]
    body = {"events": events, "batch_id": batch_id} if batch_id else {"events": events}
    site = Site()

    answer = site.post(body, query="ids=1")
    stored = [row["event_id"] for _, row in site.rows()]

    assert [stored[0], None, "mine"] == answer.json["event_ids"]
    assert {"accepted", "rejected"} == set(site.post(body).json) == set(site.post(body, query="ids=0").json)


def test_one_request_is_one_record() -> None:
    """All rows of a request are in one envelope, by table, in the order of the request."""
    site = Site()

    site.post([EVENT | {"n": 1}, {"table": "clicks", "n": 2}, EVENT | {"n": 3}])

    [item] = site.envelopes()
    assert ("shop", "k1", NOW * 1000, 0) == (item.account, item.key_id, item.received_at, item.claim)
    assert [("pageviews", 2), ("clicks", 1)] == [(table.table, table.row_count) for table in item.tables]
    assert [1, 3, 2] == [row["n"] for _, row in site.rows()]


def test_the_first_key_counts() -> None:
    """`authorization` comes first, then `x-write-key`, then `k`, then the body; later keys are ignored."""
    names = ("first", "second", "third", "fourth")
    keys = {name: write_key.sign(name, "k1", SECRETS["k1"]) for name in names}
    body = {"events": [EVENT], "write_key": keys["fourth"]}
    site = Site()

    site.post(body, f"k={keys['third']}", key=keys["first"], x_write_key=keys["second"])
    site.post(body, f"k={keys['third']}", key="", x_write_key=keys["second"])
    site.post(body, f"k={keys['third']}", key="")
    site.post(body, key="")

    assert list(keys) == [item.account for item in site.envelopes()]


FORGED = [
    *("shop", KEY.replace("shop", "shop2"), write_key.sign("shop", "k1", "another secret"), f"{KEY},{KEY}"),
    *("x" * 9000, "\x00", "é.k1.x", "\ud800.k1.x"),
]


@pytest.mark.parametrize(
    ("headers", "in_body", "code"),
    [
        ({"authorization": f"bearer {KEY}"}, None, None),
        ({"authorization": f"BEARER {KEY}"}, None, None),
        ({"authorization": "Basic dXNlcjpwYXNz"}, None, "missing_key"),
        ({"authorization": "Bearer "}, None, "missing_key"),
        ({"authorization": KEY}, None, "missing_key"),
        *[({}, key, "missing_key") for key in ("", [], None)],
        *[({}, key, "invalid_key") for key in (1, True, [KEY], *FORGED)],
        *[({"x_write_key": key}, None, "invalid_key") for key in FORGED],
        *[({"authorization": f"Bearer {key}"}, None, "invalid_key") for key in FORGED],
    ],
)
def test_a_key_must_be_valid(headers: dict[str, str], in_body: Any, code: str | None) -> None:
    """The case of `Bearer` does not matter, and other schemes are ignored; null and empty keys count as missing."""
    site = Site()

    answer = site.post({"events": [EVENT], "write_key": in_body}, key="", **headers)

    assert (401 if code else 200, code) == (answer.status, answer.code)
    assert ([] if code else ["put_record"]) == [operation for operation, _ in site.kinesis.calls]


def test_the_key_is_verified_before_the_body_is_read() -> None:
    """A request with a forged key is rejected for its key, even if its body is unreadable."""
    assert "invalid_key" == Site().post(b"{", key="shop.k1.forged").code
    assert "invalid_json" == Site().post(b"{", key="").code


def test_the_nearest_table_counts() -> None:
    """The event's own comes first, then the body's, then the query's; only null counts as absent. `events` may be a column."""
    site = Site()

    site.post({"table": "body", "events": [{"table": "own"}, {}, {"table": ""}]}, "t=query")
    site.post({"table": False, "events": [{}]}, "t=query")
    site.post({"events": [{}, {"table": None}]}, "t=query")
    site.post({"table": "single", "events": {"n": 1}}, "t=query")

    assert ["own", "body", "query", "query", "single"] == [table for table, _ in site.rows()]
    assert ["invalid_table"] * 2 == [event.code for event in site.rejected()]
    assert '{"n":1}' == site.rows()[-1][1]["events"]


NOT_JSON = [
    b"",
    b'{"events": [{"table": "pageviews"}',
    b"k=key&t=pageviews",
    b"\xff\xfe[\x00]\x00",
    b'[{"table": "pageviews", "a": "\xff"}]',
    b"[" * 100_000,
    b'{"a":' * 100_000,
]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        *[(body, "invalid_json") for body in NOT_JSON],
        *[(body, "not_events") for body in (1, "text", None)],
        *[(body, "no_events") for body in ([], {"events": []})],
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_body_must_contain_events(body: Any, code: str) -> None:
    """It is rejected as a whole. An empty request is a client bug that should be visible."""
    site = Site()

    answer = site.post(body)

    assert (400, code, code) == (answer.status, answer.code, answer.json["error"]["code"])
    assert ([], []) == (site.kinesis.calls, site.sqs.calls)
    if code == "invalid_json":
        assert answer.json["error"]["message"].startswith("the body is not valid JSON in UTF-8: ")


DEFLATE = zlib.compressobj(wbits=-15)
TOLD = [
    ({}, b"", "invalid_json", "in UTF-8: it is empty"),
    ({"content-type": "multipart/form-data; boundary=x"}, b"--x", "invalid_json", "it is multipart/form-data; send JSON or"),
    ({}, b'{"table": "views"}\n{"table": "views"}\n', "invalid_json", "(char 19); send several events as an array"),
    ({"content-encoding": "deflate"}, DEFLATE.compress(b"[{}]" * 9) + DEFLATE.flush(), "invalid_json", "deflate means the zlib format"),
    ({}, b'{"event":[{}]}', "missing_table", "Several events belong in an array named `events`"),
    *[({"x-write-key": key}, b"{}", "invalid_key", "begins or ends with white space") for key in (f" {KEY}", f"{KEY}\t")],
    ({"x-write-key": "", "authorization": KEY}, b"[]", "missing_key", "send it as `authorization: Bearer KEY`, `x-write-key: KEY`, the"),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "body", "code", "message"), TOLD)
def test_frequent_mistakes_are_named(headers: dict[str, str], body: bytes, code: str, message: str) -> None:
    """The message says what is wrong or what to do instead, and does not repeat what was sent."""
    answer = Site().send(http_event("POST", "/v1/events", "", {"x-write-key": KEY} | headers, body))

    (told,) = answer.json.get("rejected", [answer.json.get("error")])
    assert (code, 1) == (told["code"], told["message"].count(message))
    assert KEY not in told["message"]


@pytest.mark.parametrize("levels", [300, 5000, 20_000, 300_000])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/events", b'{"events": [%b], "table": "views"}'),
        ("/v1/events", b"[%b]"),
        ("/shop/views", b'{"records": [%b]}'),
        ("/shop/views", b"[%b]"),
        ("/postback/v3/event/shop/views", b"[%b]"),
        ("/ios/v3/event", b'{"shop.orders": [], "shop.views": [%b]}'),
    ],
)
def test_an_event_of_any_depth_does_not_affect_the_others(path: str, body: bytes, levels: int) -> None:
    """It alone is rejected in all forms of a body, and the copy of it is complete if it has room."""
    site, deep = Site(), b'{"a":%b%b}' % (b"[" * levels, b"]" * levels)

    headers = {"authorization": f"TD1 {KEY}", "x-write-key": KEY}
    answer = site.send(
        http_event(
            "POST", path, "t=views", headers, gzipped(body % b", ".join([b'{"n": 1}', deep, b'{"n": 2}']))
        )
    )

    assert (200, [1, 2]) == (answer.status, [row["n"] for _, row in site.rows()])
    [rejected] = site.rejected()
    assert (1, "too_deep") == (rejected.place, rejected.code)
    assert (deep if levels < 60_000 else b"") == rejected.original


def test_one_visitors_events_share_a_partition_key() -> None:
    """They stay in order, and the key is one of the limited number that each account has."""
    site = Site()

    for visitor in range(20):
        for _ in range(2):
            site.post([EVENT | {"td_client_id": f"visitor {visitor}"}])

    keys = [record["PartitionKey"] for record in site.records()]
    assert keys[::2] == keys[1::2]
    assert 20 == len(set(keys))
    assert {f"shop/{number}" for number in range(PARTITION_KEYS)} >= set(keys)


@pytest.mark.parametrize("event", [EVENT, EVENT | {"td_client_id": 7}, EVENT | {"td_client_id": ""}])
def test_requests_without_a_visitor_spread_over_partition_keys(event: dict[str, Any]) -> None:
    """A server's events come from one address, and would otherwise all go to one shard."""
    site = Site()
    for number in range(40):
        request = http_event("POST", "/v1/events", f"k={KEY}", {}, json.dumps([event]).encode())
        request["requestContext"]["requestId"] = f"request {number}"
        site.send(request)

    assert 40 == len({one["PartitionKey"] for one in site.records()})


@pytest.mark.parametrize(("shards", "most"), [(2, 1.05), (16, 1.2), (256, 1.75)])
def test_an_accounts_partition_keys_spread_over_all_shards(shards: int, most: float) -> None:
    """The busiest shard gets at most this many times its share of the keys."""
    keys = (f"shop/{number}".encode() for number in range(PARTITION_KEYS))
    hashes = (int.from_bytes(md5(key, usedforsecurity=False).digest()) for key in keys)
    counts = Counter(hashed * shards >> 128 for hashed in hashes)  # as Kinesis maps keys to shards

    assert shards == len(counts)
    assert max(counts.values()) < most * PARTITION_KEYS / shards


# Clocks, by the rules in docs/http.md

DAY = 86_400

stamps = st.integers(NOW - 400 * DAY, NOW + 400 * DAY) | st.floats(NOW - 400 * DAY, NOW + 400 * DAY)


@example(NOW + 10, 100)  # a device that has lost its time counts from 1970
@given(stamps, stamps)
def test_a_corrected_time_is_off_by_at_most_the_transit_time(age: float, sent_at: float) -> None:
    """An event's age when it was sent becomes its age on arrival, give or take the transit time."""
    age, site = abs(age - NOW) % (300 * DAY), Site()

    site.post({"events": [{"time": sent_at - age}], "sent_at": sent_at}, "t=pageviews")

    is_corrected = "time_drift" in site.row()
    assert abs(NOW - age - site.row()["time"]) <= (1 if is_corrected else rows.TRANSIT_SECONDS + 1)


def test_the_size_of_an_event_is_checked_in_a_small_compressed_body() -> None:
    """A body in zlib format is announced by its header alone."""
    body = zlib.compress(json.dumps(EVENT | {"a": "x" * 300_000}).encode())

    [rejected] = Site().post(body, content_encoding="deflate").json["rejected"]

    assert "event_too_large" == rejected["code"]


@pytest.mark.parametrize(("count", "code"), [(0, "no_events"), (MAX_EVENTS + 1, "too_many_events")])
def test_the_number_of_events_is_limited_before_any_is_rewritten(count: int, code: str) -> None:
    """The request is rejected whatever its dialect checks, and at no cost per event."""
    site, rewritten = Site(), list[object]()
    intake, request = site.handler._intake, Request.from_event(http_event("POST", "/new/dialect"))
    batch = Batch([{}] * count, "pageviews", rewrite=rewritten.append)

    with pytest.raises(Refused) as raised:
        intake.accept(request, intake.verify(KEY, ""), batch, intake.privacy.visitor(request))

    assert (code, [], []) == (raised.value.code, rewritten, site.kinesis.calls)


@settings(max_examples=150)
@given(st.lists(json_values.events | json_values.values, min_size=1, max_size=6))
def test_any_event_becomes_a_row_or_is_rejected(events: list[Any]) -> None:
    """By the rules for rows, each on its own, with its index and code stored. If all events are rejected, the response is 400."""
    site = Site()
    body = json.dumps(events).encode().replace(b"NaN", b"null").replace(b"Infinity", b"1e999")
    sent = json.loads(body)

    answer = site.post(body, "t=events")

    expected, rejected = [], []
    arrival = rows.Arrival(NOW * 1000, {"td_ip": "192.0.2.7"})
    for index, event in enumerate(sent):
        try:
            table = rows.table_of(event, "events")
            expected.append((table, len(rows.encode(event, arrival, lambda: "x" * 36))))
        except rows.Rejected as reason:
            rejected.append((index, reason.code))
    assert [] == differences(answer, "POST", "/v1/events")
    assert rejected == [(item["index"], item["code"]) for item in answer.json["rejected"]]
    assert rejected == [(copy.place, copy.code) for copy in site.rejected()]
    assert (200 if expected else 400, len(expected)) == (answer.status, answer.json["accepted"])
    assert sorted(table for table, _ in expected) == sorted(table for table, _ in site.rows())
    stored = [table for item in site.envelopes() for table in item.tables]
    assert sum(size for _, size in expected) == sum(len(table.rows) for table in stored)
