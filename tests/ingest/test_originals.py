"""A rejected event's copy is that event alone, in every dialect, and its repair gives the row that it would have been."""

import json
import zlib
from base64 import b64encode
from typing import Any
from urllib.parse import quote, urlencode

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.policy import PolicyEntry
from shared.tracking_plan import TrackingPlan
from tests.support import json_values
from tests.support.ingest import KEY, SECRETS, START, Site, http_event
from worker.replacement import row_of

HEADERS = {"x-td-write-key": KEY}
SINGLE = {**HEADERS, "content-type": "application/vnd.treasuredata.v1.single+json"}
FORM = {**HEADERS, "content-type": "application/x-www-form-urlencoded"}
SECRET = b'{"email":"a@b.example"}'
OWN = b'{"n": 1.50,  "events":[{"email": 1}]}'
DATA = quote(b64encode(OWN).decode())


def originals(*request: Any, **site: Any) -> list[bytes]:
    """Send a request; return the copies on the stream."""
    made = Site(**site)
    made.send(http_event(*request))
    return [event.original for event in made.rejected()]


@pytest.mark.parametrize(
    "request_",
    [
        ("POST", "/v1/events", "t=Bad", {"x-write-key": KEY}, b'{"x":%b,"events":[%b]}' % (SECRET, OWN)),
        ("POST", "/shop/Bad", "", HEADERS, b'{"x":%b,"records":[%b]}' % (SECRET, OWN)),
        ("POST", "/shop/Bad", "", HEADERS, b'{"x":%b,"events": [%b ]}' % (SECRET, OWN)),
        ("POST", "/shop/Bad", "", HEADERS, b"[%b]" % OWN),
        ("POST", "/shop/Bad", "", SINGLE, b" %b " % OWN),
        ("POST", "/js/v3/event/shop/Bad", "", HEADERS, OWN),
        ("POST", "/js/v3/event/shop/Bad", f"data={DATA}", HEADERS, b""),
        ("GET", "/js/v3/event/shop/Bad", f"data={DATA}", HEADERS, SECRET),
        ("POST", "/postback/v3/event/shop/Bad", "", HEADERS, OWN),
        ("POST", "/postback/v3/event/shop/Bad", "", HEADERS, b"[%b]" % OWN),
        ("POST", "/ios/v3/event", "", HEADERS, b'{"shop.orders":[%b],"shop.Bad":[%b]}' % (SECRET, OWN)),
        ("POST", "/ios/v3/event", "", HEADERS, zlib.compress(b'{"shop.Bad":[%b],"shop.x":[]}' % OWN)),
    ],
    ids=lambda request_: f"{request_[0]} {request_[1]} {request_[4][:20]!r}",
)
def test_a_copy_is_the_event_as_sent_and_nothing_around_it(request_: Any) -> None:
    """It has neither the wrapping nor another event or table, and a record's own `events` is part of it."""
    method, path, query, headers, body = request_
    headers = headers | {"content-encoding": "deflate"} if body[:1] == b"\x78" else headers

    assert [OWN] == originals(method, path, query, headers, body)


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("GET", "/pixel.gif", f"k={KEY}&t=Bad&a=1", None),
        ("POST", "/pixel.gif", f"k={KEY}&t=Bad&a=1", SECRET),
        ("GET", "/postback/v3/event/shop/Bad", f"td_write_key={KEY}&a=1", SECRET),
        ("POST", "/postback/v3/event/shop/Bad", f"td_write_key={KEY}&a=1", b"PING"),
        ("POST", "/postback/v3/event/shop/Bad", f"td_write_key={KEY}", b"a=1"),
        ("POST", "/js/v3/event/shop/Bad", f"td_write_key={KEY}", b"a=1"),
        ("POST", "/shop/Bad", f"td_write_key={KEY}", b"a=1"),
    ],
)
def test_a_copy_of_parameters_is_json(method: str, path: str, query: str, body: bytes | None) -> None:
    """It has the event's own parameters, not the key, and nothing of a body that is not read. A pixel's names its table, too."""
    table = b'"table":"Bad",' * (path == "/pixel.gif")

    assert [b'{%b"a":"1"}' % table] == originals(method, path, query, FORM, body)


def test_a_copy_never_is_the_whole_body() -> None:
    """If an event's text cannot be found in the body, its copy is made from its value."""
    body = b'{"shop.%b": [{"a":  1}], "shop.orders": [%b]}' % ("表".encode(), SECRET)

    assert [b'{"a":1}'] == originals("POST", "/ios/v3/event", "", HEADERS, body)


def test_an_event_of_no_planned_table_has_no_planned_personal_data() -> None:
    """Any table may be meant, so what one of them drops or hashes is not in the copy."""
    plan = {
        "orders": {"columns": {"email": {"personal": "hash"}}},
        "carts": {"columns": {"email": {"personal": "drop"}}},
        "visits": {"columns": {"email": {"personal": "hash"}}},
    }
    site = Site()
    site.secret.text = json.dumps(SECRETS | {".hash": "hash secret"})
    site.publish(shop=PolicyEntry(plan=TrackingPlan.parse({"mode": "quarantine", "tables": plan})))

    site.post([{"email": "a@b.example", "a": 1}, {"table": "order", "email": "a@b.example"}])

    assert [b'{"a":1}', b'{"table":"order"}'] == [event.original for event in site.rejected()]


MEMBERS = ["table", "TABLE", "events", "records", "td_ip", "td_os", "uuid", "#UUID", "a", "A"]
VALUES = json_values.finite | st.sampled_from(["td_ip", "td_os", "views"])
EVENT = st.dictionaries(st.sampled_from(MEMBERS) | st.text(max_size=4), VALUES, max_size=6)
EVENTS = st.lists(EVENT, min_size=1, max_size=4)


def request_of(route: str, table: str, events: list[Any]) -> dict[str, Any]:
    """Return a request of a Treasure Data client with events for a table."""
    one, place = json.dumps(events[0]).encode(), f"shop/{table}"
    if route == "data":
        query = urlencode({"data": b64encode(one)})
        return http_event("GET", f"/js/v3/event/{place}", query, HEADERS)
    mobile = {"shop.others": [{"a": 1}], f"shop.{table}": events}
    paths = {"js": f"/js/v3/event/{place}", "postback": f"/postback/v3/event/{place}"}
    paths["mobile"] = "/android/v3/event"
    bodies = {"records": {"x": 1, "records": events}, "events": {"events": events}, "mobile": mobile}
    body = one if route in ("single", "js") else json.dumps(bodies.get(route, events)).encode()
    headers = SINGLE if route == "single" else HEADERS
    return http_event("POST", paths.get(route, f"/{place}"), "", headers, body)


@settings(max_examples=160, deadline=None)
@given(st.sampled_from(["records", "events", "array", "single", "js", "data", "postback", "mobile"]), EVENTS)
def test_a_repair_of_a_copy_is_the_row_that_the_event_would_have_been(route: str, events: list[Any]) -> None:
    """A copy needs no change but a legal table: its columns are those of the accepted event, except for an id that was made."""
    good, bad = Site(), Site()
    good.send(request_of(route, "views", events))
    bad.send(request_of(route, "Bad", events))

    expected = [row for table, row in good.rows() if table == "views"]
    copies = [event.original for event in bad.rejected()]
    repaired = [row_of(copy.decode(), int(START * 1000), "views", str) for copy in copies]

    found = [msgpack.unpackb(row) for _, row in repaired]
    assert ["views"] * len(expected) == [table for table, _ in repaired]
    assert [row | {"event_id": ""} for row in expected] == [row | {"event_id": ""} for row in found]
