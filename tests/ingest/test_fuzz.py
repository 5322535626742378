"""Any request that API Gateway can send gets a documented response, and accepted events are on the stream.

`make fuzz` draws more requests.
"""

import base64
import json
import os
from typing import Any
from urllib.parse import quote

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.refusal import ANSWERS
from tests.support import json_values
from tests.support.dialects import EVENT_ROUTES, accepted
from tests.support.ingest import KEY, Answer, Site, gzipped, http_event


def mostly[T](usual: st.SearchStrategy[T], other: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Draw the usual value in four of five cases, so that requests often reach deeper code."""
    return st.integers(0, 4).flatmap(lambda number: usual if number else other)


TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)
KEYS = mostly(st.just(KEY), st.sampled_from(["", "shop.k1.forged", "x"]))

METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "", "é"]
PLAIN = ["k", "t", "table", "time", "event_id", "a"]
SPECIAL = [
    "api_key",
    "td_write_key",
    "data",
    "callback",
    "td_format",
    "td_redirect",
    "td_record_time",
    "td_ip",
]
TYPES = ["application/json", "text/plain", "application/x-www-form-urlencoded"]
TD_TYPES = [f"application/vnd.treasuredata.v1.{kind}+json" for kind in ("single", "js")]

routes = mostly(
    st.sampled_from([*EVENT_ROUTES, ("POST", "/v1/events"), ("GET", "/get_cookie_id"), ("GET", "/")]),
    st.tuples(
        st.sampled_from(METHODS),
        st.sampled_from(["/pixel.gif", "/v1/events", "/health", "/robots.txt", "/"]) | TEXTS,
    ),
)

names = st.sampled_from([*PLAIN, *SPECIAL]) | TEXTS
pairs = st.tuples(names, KEYS | TEXTS).map(
    lambda pair: "=".join(quote(text, errors="replace") for text in pair)
)
raw = st.binary(max_size=40).map(lambda data: data.decode("latin-1"))
escaped = st.binary(max_size=30).map(lambda data: "".join(f"%{byte:02x}" for byte in data))
any_query = st.lists(pairs, max_size=6).map("&".join) | raw | escaped | TEXTS
queries = mostly(any_query.map(f"k={KEY}&t=pageviews&{{}}".format), any_query)

headers = st.fixed_dictionaries(
    {},
    optional={
        "authorization": mostly(KEYS.map("Bearer {}".format), KEYS | TEXTS),
        "x-write-key": KEYS | TEXTS,
        "x-td-write-key": mostly(st.just(KEY), TEXTS),
        "idempotency-key": TEXTS,
        "sec-gpc": st.sampled_from(["0", "1"]),
        "host": st.just("collect.example") | TEXTS,
        "content-encoding": mostly(st.sampled_from(["gzip", "deflate", "identity"]), st.just("br") | TEXTS),
        "content-type": st.sampled_from([*TYPES, *TD_TYPES]) | TEXTS,
        "origin": st.sampled_from(["https://www.shop.example", "null"]) | TEXTS,
        "referer": TEXTS,
        "user-agent": TEXTS,
        "x-other": TEXTS,
    },
)

events = mostly(json_values.events, json_values.values)
batches = st.fixed_dictionaries(
    {"events": st.lists(events, max_size=4)},
    optional={
        "table": mostly(st.just("pageviews"), json_values.values),
        "write_key": mostly(KEYS, json_values.values),
        "sent_at": json_values.values,
        "batch_id": mostly(st.just("b1"), json_values.values),
    },
)
documents = mostly(json_values.events | st.lists(events, max_size=4) | batches, json_values.values).map(
    lambda value: json.dumps(value).replace("NaN", "null").replace("Infinity", "1e999").encode()
)
contents = mostly(documents, st.binary(max_size=60) | documents.map(lambda text: text[: len(text) // 2]))
zipped = contents.map(gzipped)
bodies = mostly(
    contents | zipped,
    st.tuples(zipped, st.binary(max_size=9)).map(b"".join)
    | st.tuples(zipped, st.integers(0, 60)).map(lambda cut: cut[0][: cut[1]]),
)


@st.composite
def http_events(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a payload 2.0 event, which may make no sense."""
    method, path = draw(routes)
    event = http_event(method, path, draw(queries), draw(headers))
    event["isBase64Encoded"] = draw(st.integers(0, 4)) > 0
    body = draw(bodies)
    if event["isBase64Encoded"]:
        event["body"] = draw(mostly(st.just(base64.b64encode(body).decode()), TEXTS))
    else:
        event["body"] = body.decode("utf-8", draw(st.sampled_from(["replace", "surrogateescape"])))
    absent = st.sampled_from(["rawQueryString", "headers", "body", "isBase64Encoded"])
    for name in draw(mostly(st.just([]), st.lists(absent))):
        event.pop(name, None)
    event["cookies"] = draw(mostly(st.just([]), st.lists(TEXTS)))
    return event


def documented(answer: Answer) -> None:
    """Check what holds for every response; test_openapi.py checks each against its schema."""
    assert answer.status in {200, 204, 302, 400, 401, 403, 404, 405, 413}
    if answer.code is not None:
        assert answer.status in (302, ANSWERS[answer.code].status)  # type: ignore[index]  # any other code is a KeyError
    if answer.status == 302:
        assert answer.headers["location"].startswith("https://allowed.example/")
    elif answer.code is not None and answer.headers["content-type"] != "image/gif":
        assert {"code", "message"} == set(answer.json["error"])
    for text in answer.headers.values():
        assert text.isascii()
        assert text.isprintable()


PIXEL = http_event("GET", "/pixel.gif", f"k={KEY}&t=pageviews")
BATCH = http_event("POST", "/v1/events", f"k={KEY}&t=pageviews")


@settings(max_examples=int(os.environ.get("INPUTS", "400")), deadline=None)
@example({name: part for name, part in PIXEL.items() if name != "headers"}, ("*",))
@example({**BATCH, "body": '[{"a": "\udc8b"}]'}, ("*",))
@given(http_events(), st.sampled_from([("*",), ("https://www.shop.example",)]))
def test_every_request_gets_a_documented_response(event: dict[str, Any], origins: tuple[str, ...]) -> None:
    """No request causes an exception or a 5xx, and as many rows are stored as events were accepted."""
    site = Site(origins, visitor_cookies="on", redirect_hosts=("allowed.example",), visitor_ip="truncate")

    answer = site.send(event)

    documented(answer)
    assert 0 == site.telemetry.counts["UnforeseenErrors"]
    assert accepted(event, answer) == len(site.rows()) + sum(item.row_count for item in site.queued())
    json.dumps(site.handler(event, None)).encode()
