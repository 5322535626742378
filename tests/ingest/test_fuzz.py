"""Any request that API Gateway can send gets a response of docs/openapi.yaml, and what it accepts is on the stream. `make fuzz` draws more."""

import base64
import json
import os
from typing import Any
from urllib.parse import quote

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.app import ROUTES, Paths
from ingest.refusal import ANSWERS
from ingest.request import Request
from ops.deploy.certify.request_steps import Dialect
from tests.support import json_values
from tests.support.dialects import DIALECTS, accepted, event_of
from tests.support.ingest import KEY, Site, gzipped, http_event
from tests.support.openapi import differences

METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "", "é"]
PARAMETERS = """
k t table time event_id a api_key td_write_key data callback td_format td_redirect td_record_time td_ip cookie_domain ids
"""
HEADERS = """
authorization x-write-key x-td-write-key idempotency-key sec-gpc host origin referer user-agent content-encoding content-type
"""
VALUES = f"""
0 1 {KEY} shop.k1.forged pageviews pixel td_ip collect.example https://www.shop.example https://allowed.example/ gzip deflate br
text/plain application/x-www-form-urlencoded application/vnd.treasuredata.v1.single+json application/vnd.treasuredata.v1.js+json
"""
texts = st.text(st.characters(exclude_categories=()), max_size=30)
values = st.sampled_from(["", f"Bearer {KEY}", f"TD1 {KEY}", *VALUES.split()]) | texts

pairs = st.tuples(st.sampled_from(PARAMETERS.split()) | texts, values).map(
    lambda pair: "=".join(quote(text, errors="replace") for text in pair)
)
raw = st.binary(max_size=40).map(lambda data: data.decode("latin-1"))
escaped = st.binary(max_size=30).map(lambda data: "".join(f"%{byte:02x}" for byte in data))
headers = st.dictionaries(st.sampled_from(HEADERS.split()) | texts, values, max_size=4)
queries = st.lists(pairs, max_size=6).map("&".join) | raw | escaped | texts

events = json_values.events | json_values.values
members = st.sampled_from(["table", "write_key", "sent_at", "batch_id"])
said = st.dictionaries(members, values | json_values.values)
batches = st.builds(lambda some, members: {"events": some} | members, st.lists(events, max_size=4), said)
tables = st.dictionaries(st.sampled_from(["shop.pageviews", "shop.x", "other.pageviews"]), st.lists(events))
documents = (json_values.events | st.lists(events, max_size=4) | batches | tables | json_values.values).map(
    lambda value: json.dumps(value).replace("NaN", "null").replace("Infinity", "1e999").encode()
)
contents = documents | st.binary(max_size=60) | documents.map(lambda text: text[: len(text) // 2])
zipped = contents.map(gzipped)
cut = st.tuples(zipped, st.integers(0, 60)).map(lambda pair: pair[0][: pair[1]])
longer = st.tuples(zipped, st.binary(min_size=1, max_size=9)).map(b"".join)
bodies = st.sampled_from([contents, zipped, cut, longer]).flatmap(lambda kind: kind)

OTHERS = [Dialect("id", "GET", "/js/v3/global_id"), Dialect("site id", "GET", "/get_cookie_id?a=1")]
PATHS = [route.path.format(database="shop", table="pageviews") for route in ROUTES]
FIELDS = ["rawQueryString", "headers", "body", "isBase64Encoded"]


@st.composite
def http_events(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a dialect's request, in which anything may have been changed, as a payload 2.0 event."""
    event = event_of(draw(st.sampled_from([*DIALECTS, *OTHERS])))
    seldom = st.integers(0, 5).map(lambda number: number == 5)
    if draw(st.booleans()):
        event["rawQueryString"] += "&" + draw(queries)
    if draw(st.booleans()):
        event["headers"] |= draw(headers)
    if draw(st.booleans()):
        event |= {"isBase64Encoded": True, "body": base64.b64encode(draw(bodies)).decode()}
    if draw(seldom):
        errors = draw(st.sampled_from(["replace", "surrogateescape"]))
        body = draw(contents.map(lambda data: data.decode("utf-8", errors)) | texts)
        event |= {"isBase64Encoded": draw(seldom), "body": body}
    if draw(seldom):
        event["requestContext"]["http"]["method"] = draw(st.sampled_from(METHODS))
    if draw(seldom):
        event["rawPath"] = draw(st.sampled_from(PATHS) | texts)
    if draw(seldom):
        for name in draw(st.sets(st.sampled_from(FIELDS))):
            event.pop(name, None)
    return event | {"cookies": draw(st.just([]) | st.lists(texts))}


PIXEL = http_event("GET", "/pixel.gif", f"k={KEY}&t=pageviews")
BATCH = http_event("POST", "/v1/events", f"k={KEY}&t=pageviews")


@settings(max_examples=int(os.environ.get("INPUTS", "400")), deadline=None)
@example({name: part for name, part in PIXEL.items() if name != "headers"}, ("*",))
@example({**BATCH, "body": '[{"a": "\udc8b"}]'}, ("*",))
@example(http_event("HEAD", "/health"), ("*",))
@given(http_events(), st.sampled_from([("*",), ("https://www.shop.example",)]))
def test_every_request_gets_a_documented_response(event: dict[str, Any], origins: tuple[str, ...]) -> None:
    """No request causes an exception or a 5xx, and as many rows are stored as events were accepted."""
    site = Site(origins, visitor_cookies="on", redirect_hosts=("allowed.example",), visitor_ip="truncate")

    answer = site.send(event)

    assert answer.status in {200, 204, 302, 400, 401, 403, 404, 405, 413}
    if answer.code is not None:
        assert answer.status in (302, ANSWERS[answer.code].status)  # type: ignore[index]  # any other code is a KeyError
    routes, _ = Paths(ROUTES).find(Request.from_event(event).path)
    if route := routes.get(method := event["requestContext"]["http"]["method"]):
        assert [] == differences(answer, method, route.path)
    if answer.status == 302:
        assert answer.headers["location"].startswith("https://allowed.example/")
    assert all(text.isascii() and text.isprintable() for text in answer.headers.values())
    assert 0 == site.telemetry.counts["UnforeseenErrors"]
    assert accepted(event, answer) == len(site.rows()) + sum(item.row_count for item in site.queued())
    json.dumps(site.handler(event, None)).encode()
