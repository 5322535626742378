"""Finding events in every state, over in-memory services."""

import itertools
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from doubles.clock import START
from doubles.sqs import MemorySQS
from ops.commands.find import default_since, described, lines_of
from ops.events.event_query import EventQuery
from ops.events.finder import Finder, Searched
from ops.events.found_event import ON_STREAM, QUEUED, FoundEvent
from ops.events.seen_event import Kind
from ops.stream.readable_shards import ReadableShards
from shared.envelope import RejectedEvent, decode
from shared.event_id import new_event_id
from tests.support.delivery import BUCKET, SHARD, STREAM, Meddled, envelope, once, row, shops
from worker.bucket import Bucket
from worker.forced_replay import Wanted
from worker.plan import Cut
from worker.span_object import name_of
from worker.states import Decision, State


class Found:
    """A delivery, an overflow queue, and searches over both."""

    def __init__(self, **options: Any) -> None:
        self.delivery = shops(**options)
        self.queue: Any = MemorySQS(self.delivery.clock.now)
        hidden = {"VisibilityTimeout": "1800"}
        self.url = self.queue.create_queue(QueueName="overflow", Attributes=hidden)["QueueUrl"]
        self.searched = Searched()

    def finder(self, query: EventQuery, since: float, seconds: float) -> Finder:
        """Return a finder."""
        made = self.delivery
        stack: Any = SimpleNamespace(
            shards=lambda: ReadableShards(made.kinesis, STREAM, made.clock),
            ledger=lambda: made.ledger,
            objects=lambda: made.objects,
            bucket=lambda: Bucket(made.s3, BUCKET),
            client=lambda _: self.queue,
            outputs={"OverflowQueueUrl": self.url},
        )
        return Finder(stack, query, since=since, seconds=seconds, clock=made.clock)

    def put(self, *event_ids: str, **options: Any) -> str:
        """Put an envelope; return its sequence number."""
        return self.delivery.put(self.envelope(*event_ids, **options))[0]

    def envelope(self, *event_ids: str, request_id: str = "r", claim: int = 0, **columns: Any) -> bytes:
        """Return an envelope with rows of these ids."""
        rows = [row(event_id, **columns) for event_id in event_ids]
        return envelope("shop", {"views": rows}, request_id=request_id, claim=claim)

    def send(self, data: bytes, delay: int = 0) -> None:
        """Send an envelope to the overflow queue."""
        self.queue.send_message(
            QueueUrl=self.url,
            MessageBody=b64encode(data).decode(),
            MessageAttributes={"partition_key": {"DataType": "String", "StringValue": "k"}},
            DelaySeconds=delay,
        )

    def all(
        self, *ids: str, since: float = 0.0, seconds: float = 600.0, columns: Mapping[str, str] | None = None
    ) -> list[FoundEvent]:
        """Return where the events with these ids and columns are."""
        query = EventQuery(columns=columns or {}, ids=frozenset(ids))
        finder = self.finder(query, since, seconds)
        found = list(finder)
        self.searched = finder.searched
        return found

    def one(self, event_id: str = "a") -> FoundEvent:
        """Return where one event is."""
        (found,) = self.all(event_id)
        return found


def test_events_of_a_large_span_are_found_in_their_own_chunks() -> None:
    """The plan's cut determines which chunk has an event; its id is the one that Treasure Data imported the chunk under."""
    found = Found(cut=Cut(2, 1 << 20))
    numbers = [found.put(name, request_id=f"of-{name}") for name in "abcde"]
    found.delivery.deliver()
    ids = {event["event_id"]: one.unique_id for one in found.delivery.td.imports() for event in one.rows}
    events = found.all(*"abcde")

    assert ids == {one.seen.event_id: one.unique_id for one in events}
    assert [f"shop/views/{part}" for part in (0, 0, 1, 1, 2)] == [one.key.name for one in events if one.key]
    assert {(State.DELIVERED, "shop_db")} == {(one.state, one.database) for one in events}
    assert numbers == [one.seen.sequence_number for one in events]
    assert ("of-a", SHARD) == (events[0].seen.request_id, events[0].seen.shard)
    assert found.delivery.clock.now() == pytest.approx(events[0].at, abs=1)


@pytest.mark.parametrize("envelopes", [["abcdefg"], ["ab", "cd", "efg"]], ids=["one", "three"])
def test_an_event_that_was_not_delivered_has_its_stage(envelopes: list[str]) -> None:
    """With the reason, and since when, also of a bad row whose chunk was halved until it was alone."""
    found = Found()
    made = found.delivery
    made.map(waits="waits_db", refused="refused_db", dropped="dropped_db")
    for account, status in (("waits", 429), ("refused", 415), ("dropped", 415)):
        made.fail(status, database=f"{account}_db")
        made.put(envelope(account, {"views": [row(account)]}, request_id=account))
    for names in envelopes:
        found.put(*names, request_id=names)
    made.td.settings = replace(made.td.settings, rejects=lambda one: one.get("event_id") == "c")
    made.deliver()
    made.send()
    made.send(State.DEAD, account="dropped", decision=Decision.DROP)
    events = {one.seen.event_id: one for one in found.all("waits", "refused", "dropped", *"abcdefg")}
    stages = {name: (one.state, one.reason) for name, one in events.items()}

    assert (State.WAITING, "http_429") == stages.pop("waits")
    assert (State.DEAD, "http_415") == stages.pop("refused")
    assert (State.DROPPED, "") == stages.pop("dropped")
    assert (State.DEAD, "http_422") == stages.pop("c")
    assert {(State.DELIVERED, "")} == set(stages.values())
    assert events["c"].entry.words
    assert all(START <= one.at <= made.clock.now() for one in events.values())


def test_an_event_that_was_sent_again_is_found_in_each_place() -> None:
    """As it was, as an edit has made it, and as a forced replay has sent that."""
    found = Found()
    found.put("a", page="x")
    found.delivery.fail(415)
    found.delivery.deliver()
    found.delivery.td.faults.clear()
    [span] = found.delivery.spans()
    [key] = span.chunks
    payload = found.delivery.objects.payload(span, key).replace(b"\xa1x", b"\xa1y")
    wiring = found.delivery.sender_wiring
    edited = wiring.replacements.edit(span.place, key, payload)
    found.delivery.send()
    wiring.forced_replays.run(Wanted("t"), [edited.place], found.delivery.deadline())
    found.delivery.send()

    assert {(State.REPLACED, "x", False), (State.DELIVERED, "y", False), (State.DELIVERED, "y", True)} == {
        (one.state, one.seen.row["page"], one.is_forced) for one in found.all("a")
    }


def test_events_that_the_stream_has_lost_are_found() -> None:
    """The object has their places. A search for an id reads no later spans, unless its client was offline for days after the time in it."""
    found = Found()
    number = found.put("a")
    found.delivery.deliver()
    early = new_event_id(int((START - 3 * 86_400) * 1000), bytes)
    for other in range(1, 9):
        found.delivery.clock.sleep(86_400)
        found.put(early if other == 8 else f"{other}", request_id=f"{other}")
        found.delivery.deliver(other)
    one = found.one()
    searched = found.searched.spans

    assert (State.DELIVERED, number, SHARD) == (one.state, one.seen.sequence_number, one.seen.shard)
    assert 1 == searched
    assert [State.DELIVERED] == [one.state for one in found.all(early, since=START - 3 * 86_400 - 300)]
    assert 9 == len(found.all(columns={"time": "1700000000"}))


def test_a_copy_names_the_record_that_counts() -> None:
    """A search for the request finds both. A lost object is counted, and the search goes on without it."""
    found = Found()
    found.put("lost", request_id="r2")
    found.delivery.deliver()
    [name] = found.delivery.span_objects()
    found.delivery.s3.put_object(Bucket=BUCKET, Key=name, Body=b"damaged" * 100)
    first, _ = (found.put("a", claim=1) for _ in range(2))
    found.delivery.deliver(1)
    stages = {one.state: one for one in found.all("r", "lost")}

    assert 1 == found.searched.unreadable
    assert {State.DELIVERED, State.COPY} == set(stages)
    assert f"{first} of {SHARD}" == stages[State.COPY].owner
    shown = list(lines_of(stages[State.COPY], "--local", details=False, raw=False))
    assert ("COPY  a repeated request", f"  counts as  {first} of {SHARD}") == (shown[0], shown[4])


def test_a_search_of_the_overflow_queue_consumes_no_message() -> None:
    """Seconds later, the drainer can receive every message; those that a search has no time for count as hidden."""
    found = Found()
    for number in range(25):
        found.send(found.envelope(f"e{number}", request_id=f"r{number}"))
    found.send(found.envelope("hidden"), delay=60)
    found.queue.send_message(QueueUrl=found.url, MessageBody="not an envelope", MessageAttributes={})
    one = found.one("e23")
    messages = found.queue.messages(found.url)

    assert QUEUED == one.state
    assert 27 == len(messages)
    assert 26 == sum(message.visible_at <= found.delivery.clock.now() + 5 for message in messages)
    found.delivery.clock.sleep(6)
    assert [] == found.all("hidden")
    assert 1 == found.searched.hidden
    found.delivery.clock.sleep(6)
    found.queue = Meddled(found.queue)
    found.queue.before["receive_message"] = lambda _: found.delivery.clock.sleep(1)
    assert 20 == len(found.all(seconds=2))
    assert (7, False) == (found.searched.hidden, found.searched.is_complete)


@pytest.mark.parametrize(
    ("wanted", "expected"), [("r1", ["a", "b"]), ("r1#1", ["b"]), ("r2", ["c"]), ("r", [])]
)
@pytest.mark.parametrize("is_planned", [False, True])
def test_a_request_is_found_with_its_envelopes(wanted: str, expected: list[str], *, is_planned: bool) -> None:
    """The request's id finds them all; the id of one envelope finds only that one. Of a span, only chunks with its rows are read."""
    found = Found(cut=Cut(1, 1 << 20))
    found.put("a", request_id="r1")
    found.put("b", request_id="r1#1")
    found.put("c", request_id="r2")
    read: list[str] = []
    places: list[str] = []
    if is_planned:
        found.delivery.deliver()
        [span] = found.delivery.spans()
        members = found.delivery.objects.index(span).members
        chunks = [members[key] for key in span.chunks if "abc"[key.part] in expected]
        places = [f"bytes={chunks[0].offset}-{chunks[-1].offset + chunks[-1].length - 1}"] if chunks else []
        found.delivery.s3.before["get_object"] = lambda request: read.append(request["Range"])

    assert expected == [one.seen.event_id for one in found.all(wanted)]
    assert not expected or places == read[-1:]


@pytest.mark.parametrize(
    ("column", "value"), [("td_client_id", "v1"), ("price", "7"), ("note", '{"a": 1}'), ("td_title", "茶")]
)
def test_a_search_by_column_covers_spans_shards_and_splits(column: str, value: str) -> None:
    """It finds every event of a visitor. A column is compared as text, whatever its type: numbers and objects as JSON."""
    found = Found()
    made = found.delivery
    wanted = {"td_client_id": "v1", "price": 7, "note": {"a": 1}, "td_title": "茶"}
    other = {"td_client_id": "v2", "price": 70, "note": {"a": 2}, "td_title": "水"}
    found.put("a", **wanted)
    found.put("z", request_id="z", **other)
    made.deliver()
    made.split()
    for name in "bcdef":
        data = found.envelope(name, request_id=name, **(other if name == "d" else wanted))
        made.kinesis.put_record(StreamName=STREAM, Data=data, PartitionKey=name)

    assert set("abcef") == {one.seen.event_id for one in found.all(columns={column: value})}


@pytest.mark.parametrize(("meanwhile", "state"), [("before", State.DELIVERED), ("after", ON_STREAM)])
def test_an_event_that_is_planned_during_the_search_is_found_once(meanwhile: str, state: str) -> None:
    """It was on the stream, in no span yet, when the search began. Kinesis may return no records although there are some."""
    found = Found()
    number = found.put("a")
    empty = iter([True] * 3)

    def plan() -> None:
        found.delivery.deliver()
        found.delivery.kinesis.client.reads_empty = lambda: next(empty, False)

    getattr(found.delivery.s3, meanwhile)["list_objects_v2"] = once(plan)
    one = found.one()

    assert (state, state == ON_STREAM) == (one.state, one.span is None)
    assert (SHARD, number) == (one.seen.shard, one.seen.sequence_number)


def test_what_arrives_during_the_search_does_not_prolong_it() -> None:
    """Neither new records nor new messages are waited for."""
    found = Found()
    names = (f"n{number}" for number in itertools.count())

    def arrive(_: object) -> None:
        found.delivery.clock.sleep(0.01)
        found.put(next(names))
        found.send(found.envelope(next(names)))

    found.delivery.kinesis.before["get_records"] = arrive
    found.queue = Meddled(found.queue)
    found.queue.before["receive_message"] = arrive

    assert [] == found.all(*(f"n{number}" for number in range(100)))
    assert found.searched.is_complete
    assert 10 > found.queue.calls.count("receive_message")


def test_a_search_reads_only_what_its_time_allows() -> None:
    """The time in an id bounds it, unless the id is not found there. What is found is shown before the rest is read."""
    found = Found()
    made, ids = found.delivery, []
    for number in range(120):
        ids.append(new_event_id(int(made.clock.now() * 1000), lambda size: bytes(size - 1) + b"x"))
        found.put(ids[-1], request_id=f"r{number}")
        made.deliver(number)
        made.clock.sleep(60)
    made.s3.calls.clear()
    made.dynamodb.calls.clear()
    query = EventQuery(ids=frozenset({ids[40]}))
    coming = iter(found.finder(query, default_since(query, made.clock.now()), 600))
    shown, wanted = Event(), name_of(made.spans()[40])
    # threads read ahead
    made.s3.before["get_object"] = lambda request: request["Key"] <= wanted or shown.wait(30)
    first = next(coming)
    read = made.s3.calls.count("get_object")
    shown.set()

    assert (ids[40], []) == (first.seen.event_id, list(coming))
    assert read < made.s3.calls.count("get_object") <= 2 * 12
    assert made.dynamodb.calls.count("query") <= 12
    made.s3.calls.clear()
    assert [ids[90]] == [one.seen.event_id for one in found.all("r90")]


def test_a_search_stops_at_its_time_limit() -> None:
    """It reports that it is incomplete, and how many records it read."""
    found = Found()
    for number in range(4):
        found.put(f"{number}")
    found.delivery.kinesis.before["get_records"] = lambda request: request.update(Limit=1)
    found.all("none such", seconds=0.4)

    assert not found.searched.is_complete
    assert 0 < found.searched.records < 4


def test_a_search_begins_at_the_time_in_the_id() -> None:
    """The earliest counts. Only a UUIDv7 has a time; other ids are searched from a day ago, and columns from an hour ago."""
    early = new_event_id(int((START - 3 * 86_400) * 1000), bytes)
    ahead = new_event_id(int((START + 86_400) * 1000), bytes)
    queries = (
        EventQuery(ids=frozenset({early, ahead})),
        EventQuery(ids=frozenset({f"{early}#2"})),
        EventQuery(ids=frozenset({ahead})),
        EventQuery(ids=frozenset({"order-17"})),
        EventQuery(columns={"page": "home"}),
        EventQuery(ids=frozenset({"00000000-0000-7000-8000-000000000000"})),
    )

    since = [default_since(query, START) - START for query in queries]
    assert [-3 * 86_400 - 300, -3 * 86_400 - 300, -86_400, -86_400, -3600, -START] == since


def test_text_and_json_say_the_same() -> None:
    """Both have the state, span, chunk, id and place; personal data is replaced unless requested."""
    found = Found()
    number = found.put("a", td_client_id="v1")
    found.delivery.deliver()
    one = found.one()
    texts = [lines_of(one, "--local", details=wanted, raw=False) for wanted in (False, True)]
    brief, full = map("\n".join, texts)
    told = described(one, raw=True)

    assert full.startswith("DELIVERED  a of shop.views\n")
    assert "Treasure Data, database shop_db" in brief
    assert all(text in full for text in (number, one.unique_id, "shop/views/0", "request r"))
    assert not any(text in brief for text in (number, one.unique_id))
    assert '"v1"' not in full
    expected = {"state": "delivered", "unique_id": one.unique_id, "sequence_number": number}
    assert expected.items() <= told.items()
    assert "v1" == told["row"]["td_client_id"]


def test_a_rejected_event_is_found_by_what_its_sender_wrote() -> None:
    """It has its rejection code; accepted events of its request keep their own states. An invalid one of another producer is dead."""
    found = Found()
    accepted = decode(found.envelope("a"))
    original = b'{"table": "views!", "event_id": "mine", "page": "home"}'
    rejected = RejectedEvent(1, "invalid_table", "", original)
    found.delivery.put(accepted._replace(rejected=(rejected,)).encode())
    before = found.one("mine")
    events = [{"table": "views", "event_id": "b"}, {"table": "views!", "event_id": "theirs"}]
    found.delivery.put(json.dumps({"account": "shop", "events": events}).encode())
    found.delivery.deliver()
    one, theirs = found.one("mine"), found.one("theirs")

    assert (State.REJECTED, "invalid_table", "home") == (one.state, one.reason, one.seen.row["page"])
    assert (State.REJECTED, "invalid_table") == (before.state, before.reason)
    assert [State.REJECTED] == [each.state for each in found.all(columns={"page": "home"})]
    assert (State.DEAD, "invalid_table") == (theirs.state, theirs.reason)
    assert {(State.DELIVERED, Kind.EVENT)} == {(one.state, one.seen.kind) for one in found.all("a", "b")}
