"""`/good` and `/bad`: the events on which end-to-end tests of a site assert."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from werkzeug.test import Client

from doubles.gateway import answer_of, event_of
from doubles.http_server import Request, Response
from doubles.kinesis import HASH_KEYS
from local.bad import FILE, bad_lines
from local.received import MOST_EVENTS, Received
from ops.console.server import ConsolePage
from ops.stream.readable_shards import ReadableShards
from tests.support.ingest import KEY, START, STREAM, Site


class Stack:
    """An ingest behind a gateway that records bad events, and the page's queries over all events."""

    def __init__(self, folder: Path) -> None:
        self.site = site = Site()
        self.folder = folder
        shards = ReadableShards(site.kinesis, STREAM, site.clock)
        self.received = Received(shards, folder, site.clock)
        self.client = Client(ConsolePage(self.received.data(), self.received.actions()))

    def send(self, method: str, target: str, body: Any = None, **headers: str) -> Response:
        """Send a request. A body other than bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = tuple((name.replace("_", "-"), text) for name, text in headers.items())
        request = Request(method, target, named, data)
        event = event_of(request, request_id="JKJaXmPLvHcESHA=", now=START)
        reply = answer_of(self.site.handler(event, None))
        with (self.folder / FILE).open("ab") as file:
            file.write(bad_lines(request, reply, START))
        return reply

    def events(self, *events: Any, key: str = KEY) -> Response:
        """Send events."""
        return self.send("POST", "/v1/events", {"events": list(events)}, x_write_key=key)

    def ask(self, path: str) -> Any:
        """Query the events as an end-to-end test does."""
        return self.client.get(path, base_url="http://localhost:8701").json


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """A new stack."""
    return Stack(tmp_path)


def test_events_are_found_as_soon_as_they_are_accepted(stack: Stack) -> None:
    """Each has the row that Treasure Data will receive."""
    stack.events({"table": "orders", "event_id": "a", "Price": 3}, {"table": "views"})
    good = stack.ask("/good?table=orders")

    assert 1 == good["count"]
    [event] = good["events"]
    expected = {"account": "shop", "table": "orders", "key_id": "k1", "event_id": "a"}
    assert (3, True) == (event["row"]["price"], expected.items() <= event.items())
    assert 2 == stack.ask("/good")["count"]
    assert {"count": 0, "events": []} == stack.ask("/bad")


def test_events_of_several_shards_are_listed_in_the_order_of_their_arrival(stack: Stack) -> None:
    """A query that finds many events at once does not list them shard by shard."""
    (shard,) = stack.site.kinesis.list_shards(StreamName=STREAM)["Shards"]
    halves = {"ShardToSplit": shard["ShardId"], "NewStartingHashKey": str(HASH_KEYS // 2)}
    stack.site.kinesis.split_shard(StreamName=STREAM, **halves)
    for number in range(20):
        stack.site.clock.sleep(1.0)
        event = {"table": "views", "number": number, "td_client_id": f"visitor-{number}"}
        stack.send("POST", f"/v1/events?k={KEY}", event)
    good = stack.ask("/good")["events"]

    assert list(range(20)) == [event["row"]["number"] for event in good]


MIXED = {"events": [{"table": "views"}, {"table": "Bad Name"}, 7]}
PACKED = gzip.compress(b'{"table": "views", "events": [3, {"table": ""}]}')
BAD = ['1 Bad Name invalid_table {"table": "Bad Name"}', "2  not_an_object 7"]
GZIP = {"x_write_key": KEY, "content_encoding": "gzip"}
TD = {"authorization": f"TD1 {KEY}", "content_type": "application/vnd.treasuredata.v1+json"}
MOBILE = {"shop.views": [{"a": 1}], "shop.carts": [{"b": 1}, 5], "shop.B B": [{"c": 1}]}
IOS = {"x_td_write_key": KEY, "content_type": "application/json"}


@pytest.mark.parametrize(
    ("target", "body", "headers", "expected"),
    [
        ("/v1/events", MIXED, {"x_write_key": KEY}, BAD),
        ("/v1/events", {**MIXED, "write_key": KEY}, {}, BAD),
        ("/v1/events", MIXED, {"authorization": f"Bearer {KEY}"}, BAD),
        ("/v1/events", PACKED, GZIP, ["0 views not_an_object 3", '1  invalid_table {"table": ""}']),
        ("/shop/views", {"events": [{"a": 1}, 5]}, TD, ["1 views not_an_object 5"]),
        ("/ios/v3/event", MOBILE, IOS, ["1 carts not_an_object 5", '0 B B invalid_table {"c": 1}']),
    ],
    ids=["some", "key in body", "bearer", "all, compressed", "a receipt each", "receipts by table"],
)
def test_a_rejected_event_has_code_message_and_original(
    stack: Stack, target: str, body: Any, headers: dict[str, str], expected: list[str]
) -> None:
    """This holds for all dialects, with one list of events or several; the other events of the request are good."""
    answer = stack.send("POST", target, body, **headers)
    bad = stack.ask("/bad")["events"]
    told = [f"{one['index']} {one['table']} {one['code']} {json.dumps(one['original'])}" for one in bad]

    assert expected == told
    assert {("rejected", "shop", answer.status, True)} == {
        (one["kind"], one["account"], one["status"], bool(one["message"])) for one in bad
    }
    assert len(stack.site.rows()) == stack.ask("/good")["count"]


NO_KEY = {"k": "No!", "t": "views", "page": "/"}


@pytest.mark.parametrize(
    ("request_line", "body", "expected"),
    [
        ("POST /v1/events?k=shop.k1.x", {"table": "views"}, ("invalid_key", 401, "shop", "views", {"table": "views"})),
        (f"POST /v1/events?k={KEY}", b"{", ("invalid_json", 400, "shop", "", "{")),
        ("GET /pixel.gif?k=No!&t=views&page=/", None, ("invalid_key", 401, "", "views", NO_KEY)),
        (f"GET /pixel.gif?k={KEY}&page=/", None, ("missing_table", 400, "shop", "", {"k": KEY, "page": "/"})),
        (f"GET /pixel.gif?k=No!&k={KEY}&t=&t=views", None, ("invalid_key", 401, "", "views", {"k": ["No!", KEY], "t": ["", "views"]})),
        (f"POST /pixel.gif?k={KEY}&t=views&table=Bad", b"PING", ("invalid_table", 400, "shop", "Bad", {"k": KEY, "t": "views", "table": "Bad"})),
        ("GET /v0/nothing", None, ("not_found", 404, "", "", {})),
    ],
)  # fmt: skip
def test_a_refused_request_has_code_message_and_original(
    stack: Stack, request_line: str, body: Any, expected: tuple[Any, ...]
) -> None:
    """This holds for all dialects, even if the response is an image. Of a repeated parameter, the first counts that is not empty."""
    stack.send(*request_line.split(), body)
    (bad,) = stack.ask("/bad")["events"]

    assert ("refused", None, True) == (bad["kind"], bad["index"], bool(bad["message"]))
    assert expected == tuple(bad[name] for name in ("code", "status", "account", "table", "original"))


@pytest.mark.parametrize("levels", [250, 300, 9000, 20_000])
def test_an_event_of_any_depth_is_listed(stack: Stack, levels: int) -> None:
    """One that is nested too deeply to be kept as it is appears as text, if it can be written at all."""
    text = f'{{"table": "Bad Name", "deep": {"[" * levels}{"]" * levels}}}'
    answer = stack.send("POST", f"/v1/events?k={KEY}", text.encode())
    (bad,) = stack.ask("/bad")["events"]

    assert 400 == answer.status
    assert (dict if levels < 254 else str) is type(bad["original"])


@pytest.mark.parametrize(
    ("question", "count"),
    [
        ("/good?match=order=1", 1),
        ("/good?table=orders&match=order=2&account=shop", 1),
        ("/good?match=sku=1", 0),
        ("/good?account=news", 0),
        ("/bad?code=invalid_table", 1),
        ("/bad?match=table=x%20y", 1),
    ],
)
def test_queries_can_be_narrowed(stack: Stack, question: str, count: int) -> None:
    """Account, table, code and a column's value keep tests that run in parallel apart."""
    stack.events({"table": "orders", "order": 1}, {"table": "orders", "order": "2"}, {"table": "x y"}, 5)

    assert count == stack.ask(question)["count"]


def test_a_query_waits_for_the_number_of_events_it_expects(stack: Stack) -> None:
    """Pages send events with a delay. The wait is limited."""
    stack.site.clock.at(START + 2, lambda: stack.events({"table": "views"}) and None)
    found = stack.ask("/good?count=1")
    waited = stack.site.clock.now() - START
    missing = stack.ask("/good?count=2&wait=3")

    assert (1, True) == (found["count"], 2 <= waited < 2.5)
    assert 1 == missing["count"]
    assert 0 == pytest.approx(stack.site.clock.now() - START - waited - 3, abs=0.3)


@pytest.mark.parametrize(
    "question", ["/good?tabel=views", "/bad?count=x", "/good?count=-1", "/good?wait=nan", "/good?match=page"]
)
def test_a_mistyped_query_is_an_error(stack: Stack, question: str) -> None:
    """Otherwise an end-to-end test with a typo could pass."""
    answer = stack.client.get(question, base_url="http://localhost:8701")

    assert (400, True) == (answer.status_code, bool(answer.json and answer.json["error"]))


def test_reset_forgets_all_earlier_events(stack: Stack) -> None:
    """It returns how many there were. Links and other sites' pages cannot reset."""
    stack.events({"table": "views"}, 5)
    post = stack.client.post
    foreign = post("/reset", base_url="http://localhost:8701", headers={"origin": "http://shop.example"})
    got = stack.client.get("/reset", base_url="http://localhost:8701")
    done = post("/reset", base_url="http://localhost:8701")
    stack.events({"table": "orders"})

    assert (403, 405) == (foreign.status_code, got.status_code)
    assert {"good": 1, "bad": 1} == done.json
    assert ["orders"] == [one["table"] for one in stack.ask("/good")["events"]]
    assert 0 == stack.ask("/bad")["count"]


def test_the_events_of_a_repeated_request_are_listed_once(stack: Stack) -> None:
    """They become one row each, however often their envelope is on the stream."""
    batch = {"events": [{"table": "views", "event_id": "a"}], "batch_id": "b1"}
    for _ in range(2):
        stack.send("POST", f"/v1/events?k={KEY}", batch)

    assert 2 == len(stack.site.envelopes())
    assert 1 == stack.ask("/good")["count"]


def test_memory_is_bounded(stack: Stack) -> None:
    """Only the latest events are kept."""
    for _ in range(MOST_EVENTS // 500 + 1):
        stack.events(*({"table": "views"} for _ in range(500)))

    assert MOST_EVENTS == stack.ask("/good")["count"]


def test_queries_fail_while_the_stream_is_down(stack: Stack) -> None:
    """An unreadable stream must not look like one without events."""
    stack.site.kinesis.faults, stack.site.kinesis.sticky = [EndpointConnectionError(endpoint_url="x")], True
    answer = stack.client.get("/good", base_url="http://localhost:8701")

    assert (503, True) == (answer.status_code, "does not answer" in answer.text)
    assert 503 == stack.client.post("/reset", base_url="http://localhost:8701").status_code
