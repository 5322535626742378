"""Good and bad: what end-to-end tests of a site assert on."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from werkzeug.test import Client

from doubles.gateway import answer_of, event_of
from doubles.http_server import Request, Response
from local.bad import FILE, bad_of
from local.received import MOST_EVENTS, Received
from ops.console_server import ConsolePage
from tests.support.ingest import KEY, START, STREAM, Site
from worker.shards import Shards


class Stack:
    """An ingest behind a gateway that notes what is bad, and what is asked of it all."""

    def __init__(self, folder: Path) -> None:
        self.site = Site()
        self.folder = folder
        self.received = Received(Shards(self.site.kinesis, STREAM, self.site.clock), folder, self.site.clock)
        self.client = Client(ConsolePage(self.received.data(), self.received.actions()))

    def send(self, method: str, target: str, body: Any = None, **headers: str) -> Response:
        """Send a request; a body that is no bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = tuple((name.replace("_", "-"), text) for name, text in headers.items())
        request = Request(method, target, named, data)
        event = event_of(request, request_id="JKJaXmPLvHcESHA=", now=START)
        reply = answer_of(self.site.handler(event, None))
        with (self.folder / FILE).open("ab") as file:
            file.writelines(one.line for one in bad_of(request, reply, START))
        return reply

    def events(self, *events: Any, key: str = KEY) -> Response:
        """Send events."""
        return self.send("POST", "/v1/events", {"events": list(events)}, x_write_key=key)

    def ask(self, path: str) -> Any:
        """Ask as a test does."""
        return self.client.get(path, base_url="http://localhost:8701").json


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """A stack of its own."""
    return Stack(tmp_path)


def test_whoever_has_a_2xx_finds_its_events(stack: Stack) -> None:
    """With the row as Treasure Data gets it."""
    stack.events({"table": "orders", "event_id": "a", "Price": 3}, {"table": "views"})
    good = stack.ask("/good?table=orders")

    assert 1 == good["count"]
    assert ("shop", "orders", "k1", "a", 3) == (
        *(good["events"][0][name] for name in ("account", "table", "key_id", "event_id")),
        good["events"][0]["row"]["price"],
    )
    assert 2 == stack.ask("/good")["count"]
    assert {"count": 0, "events": []} == stack.ask("/bad")


def test_an_event_that_was_rejected_has_code_message_and_original(stack: Stack) -> None:
    """Its neighbours are good."""
    stack.events({"table": "views"}, {"table": "Bad Name", "page": "/"}, 7)
    first, second = stack.ask("/bad")["events"]

    assert {
        "kind": "rejected",
        "code": "invalid_table",
        "table": "Bad Name",
        "index": 1,
        "account": "shop",
    }.items() <= first.items()
    assert {"table": "Bad Name", "page": "/"} == first["original"]
    assert first["message"]
    assert ("not_an_object", 7) == (second["code"], second["original"])
    assert 1 == stack.ask("/good")["count"]


@pytest.mark.parametrize(
    ("method", "target", "body", "expected"),
    [
        (
            "POST",
            "/v1/events?k=shop.k1.x",
            {"table": "views"},
            ("invalid_key", 401, "shop", "views", {"table": "views"}),
        ),
        ("POST", f"/v1/events?k={KEY}", b"{", ("invalid_json", 400, "shop", "", "{")),
        (
            "GET",
            "/pixel.gif?k=No!&t=views&page=/",
            None,
            ("invalid_key", 401, "", "views", {"k": "No!", "t": "views", "page": "/"}),
        ),
        (
            "GET",
            f"/pixel.gif?k={KEY}&page=/",
            None,
            ("missing_table", 400, "shop", "", {"k": KEY, "page": "/"}),
        ),
        ("GET", "/v0/nothing", None, ("not_found", 404, "", "", {})),
    ],
)
def test_a_refused_request_has_code_message_and_what_was_sent(
    stack: Stack, method: str, target: str, body: Any, expected: tuple[Any, ...]
) -> None:
    """Whatever the dialect answers, an image too."""
    stack.send(method, target, body)
    (bad,) = stack.ask("/bad")["events"]

    assert ("refused", None, True) == (bad["kind"], bad["index"], bool(bad["message"]))
    assert expected == tuple(bad[name] for name in ("code", "status", "account", "table", "original"))


def test_a_request_of_which_nothing_was_accepted_is_its_events(stack: Stack) -> None:
    """Each with its own code; compressed, and with one table for all."""
    body = gzip.compress(json.dumps({"table": "views", "events": [3, {"deep": 1, "table": ""}]}).encode())
    stack.send("POST", f"/v1/events?k={KEY}", body, content_encoding="gzip")
    bad = stack.ask("/bad")["events"]

    assert [("rejected", 3, 400), ("rejected", {"deep": 1, "table": ""}, 400)] == [
        (one["kind"], one["original"], one["status"]) for one in bad
    ]


def test_td_clients_are_read_too(stack: Stack) -> None:
    """Their answers have receipts."""
    headers = {"authorization": f"TD1 {KEY}", "content_type": "application/vnd.treasuredata.v1+json"}
    answer = stack.send("POST", "/shop/views", {"events": [{"a": 1}, 5]}, **headers)
    (bad,) = stack.ask("/bad")["events"]

    assert 200 == answer.status
    assert ("rejected", "not_an_object", 5, 1) == (bad["kind"], bad["code"], bad["original"], bad["index"])


def test_a_question_is_narrowed(stack: Stack) -> None:
    """By account, table, code, and a column's value: tests that run in parallel keep apart."""
    stack.events({"table": "orders", "order": 1}, {"table": "orders", "order": "2"}, {"table": "x y"}, 5)

    assert 1 == stack.ask("/good?match=order=1")["count"]
    assert 1 == stack.ask("/good?table=orders&match=order=2&account=shop")["count"]
    assert 0 == stack.ask("/good?match=sku=1")["count"]
    assert 0 == stack.ask("/good?account=news")["count"]
    assert 1 == stack.ask("/bad?code=invalid_table")["count"]
    assert 1 == stack.ask("/bad?match=table=x%20y")["count"]


def test_a_question_waits_for_as_many_as_it_wants(stack: Stack) -> None:
    """Pages send when it suits them."""
    stack.site.clock.at(START + 2, lambda: stack.events({"table": "views"}) and None)
    found = stack.ask("/good?count=1")
    waited = stack.site.clock.now() - START
    missing = stack.ask("/good?count=2&wait=3")

    assert (1, True) == (found["count"], 2 <= waited < 2.5)
    assert 1 == missing["count"]
    assert 0 == pytest.approx(stack.site.clock.now() - START - waited - 3, abs=0.3)


@pytest.mark.parametrize(
    "question", ["/good?tabel=views", "/bad?count=x", "/good?count=-1", "/good?wait=nan"]
)
def test_a_question_that_is_mistyped_is_an_error(stack: Stack, question: str) -> None:
    """A test that asks for nothing must not pass."""
    answer = stack.client.get(question, base_url="http://localhost:8701")

    assert (400, True) == (answer.status_code, bool(answer.json and answer.json["error"]))


def test_reset_forgets_what_was_answered_before_it(stack: Stack) -> None:
    """It says how much that was. A link or another site's page cannot do it."""
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


def test_a_request_that_is_repeated_is_good_once(stack: Stack) -> None:
    """As it is one row, however often its envelope stands on the stream."""
    batch = {"events": [{"table": "views", "event_id": "a"}], "batch_id": "b1"}
    for _ in range(2):
        stack.send("POST", f"/v1/events?k={KEY}", batch)

    assert 2 == len(stack.site.envelopes())
    assert 1 == stack.ask("/good")["count"]


def test_memory_is_bounded(stack: Stack) -> None:
    """Of many events the latest are kept."""
    for _ in range(MOST_EVENTS // 500 + 1):
        stack.events(*({"table": "views"} for _ in range(500)))

    assert MOST_EVENTS == stack.ask("/good")["count"]


def test_a_stream_that_is_down_is_no_answer(stack: Stack) -> None:
    """Nothing received and nobody to ask are two things."""
    stack.site.kinesis.faults, stack.site.kinesis.sticky = [EndpointConnectionError(endpoint_url="x")], True
    answer = stack.client.get("/good", base_url="http://localhost:8701")

    assert (503, True) == (answer.status_code, "does not answer" in answer.text)
    assert 503 == stack.client.post("/reset", base_url="http://localhost:8701").status_code
