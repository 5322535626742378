"""Where events are: each in the state that it has, over services in memory."""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from doubles.clock import START
from doubles.kinesis import HASH_KEYS
from doubles.sqs import MemorySQS
from doubles.treasure_data import Action, Fault, Kind
from ops.find import Finder, Stage, Whereabouts
from ops.find_command import default_since, described, lines_of
from ops.sightings import BYTES_PER_SECOND, EventQuery, Places, Searched
from ops.tail import Kind as SeenKind
from shared.envelope import RejectedEvent, decode
from shared.event_id import new_event_id
from tests.support.delivery import SHARD, STREAM, Delivery, envelope, row
from worker.ledger import Claim
from worker.overflow_set_aside import OverflowSetAside
from worker.shards import Shards
from worker.span import Cut


class Found:
    """A delivery, an overflow queue, and searches in them."""

    def __init__(self, **options: Any) -> None:
        self.delivery = Delivery(**options)
        self.delivery.map(shop="shop_db")
        self.delivery.td.create("shop_db", "views")
        self.queue = MemorySQS(self.delivery.clock.now, visibility_seconds=1800)
        self.url = self.queue.create_queue(QueueName="overflow")["QueueUrl"]
        self.searched = Searched()

    def finder(self) -> Finder:
        """Return a finder."""
        made = self.delivery
        return Finder(
            places=Places(
                Shards(made.kinesis, STREAM, made.clock),
                made.archive,
                self.queue,  # type: ignore[arg-type]  # a double
                self.url,
            ),
            ledger=made.ledger,
            store=made.store,
            clock=made.clock,
        )

    def put(self, *event_ids: str, request_id: str = "r", claim: int = 0, **columns: Any) -> str:
        """Put an envelope; return its sequence number."""
        (number,) = self.delivery.put(
            self.envelope(*event_ids, request_id=request_id, claim=claim, **columns)
        )
        return number

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

    def refuse(self, status: int, **members: Any) -> None:
        """Let imports be refused."""
        self.delivery.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=status, **members))

    def all(
        self, *ids: str, since: float = 0.0, seconds: float = 600.0, columns: Mapping[str, str] | None = None
    ) -> list[Whereabouts]:
        """Return where the events are that have these ids and columns."""
        query = EventQuery(columns=columns or {}, ids=frozenset(ids))
        found, self.searched = self.finder().find(query, since, seconds)
        return found

    def one(self, event_id: str = "a") -> Whereabouts:
        """Return where one event is."""
        (found,) = self.all(event_id)
        return found


def set_aside(found: Found, data: bytes, days: int) -> None:
    """Set an envelope of the overflow queue aside, and keep it in the archive for so many days."""
    made = found.delivery
    aside = OverflowSetAside(
        made.wiring.delivery,
        seconds_kept=made.wiring.claims.seconds_kept,
        archive=made.archive,
        archive_days=days,
    )
    aside.set_aside(decode(data), START, absent=True)


def test_what_is_not_planned_waits() -> None:
    """With its place on the stream."""
    found = Found()
    number = found.put("a")
    one = found.one()

    assert (Stage.WAITING, None) == (one.stage, one.span)
    assert [("stream", SHARD, number)] == [
        (place.source, place.seen.shard, place.seen.sequence_number) for place in one.sightings
    ]


def test_what_is_delivered_has_its_span_chunk_and_id() -> None:
    """The id is the one under which Treasure Data has it."""
    found = Found()
    found.put("b", request_id="r1")
    found.put("a", request_id="r2")
    found.delivery.deliver()
    one = found.one()
    (taken,) = found.delivery.td.imports()

    assert (Stage.DELIVERED, "shop_db", "shop/views/0") == (one.stage, one.database, one.key and one.key.name)
    assert taken.unique_id == one.unique_id
    assert found.delivery.clock.now() == pytest.approx(one.at, abs=1)


def test_each_part_of_a_large_span_is_told_apart() -> None:
    """By the cut of the plan."""
    found = Found(cut=Cut(2, 1 << 20))
    for name in "abcde":
        found.put(name, request_id=name)
    found.delivery.deliver()
    ids = {event["event_id"]: one.unique_id for one in found.delivery.td.imports() for event in one.rows}

    assert ids == {one.seen.event_id: one.unique_id for one in found.all(*"abcde")}
    assert ["shop/views/0", "shop/views/0", "shop/views/1", "shop/views/1", "shop/views/2"] == [
        one.key.name for one in found.all(*"abcde") if one.key
    ]


def test_what_is_planned_and_not_settled_is_in_flight() -> None:
    """While Treasure Data fails."""
    found = Found()
    found.put("a")
    found.refuse(503)
    found.delivery.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=503))
    found.delivery.deliver()

    assert Stage.IN_FLIGHT is found.one().stage


def test_what_is_parked_names_its_object() -> None:
    """And the reason, and since when."""
    found = Found()
    found.put("a")
    found.refuse(429)
    found.delivery.deliver()
    one = found.one()

    assert (Stage.PARKED, "http_429") == (one.stage, one.reason)
    assert [one.object_name] == found.delivery.objects()
    assert START <= one.at <= found.delivery.clock.now()


@pytest.mark.parametrize("envelopes", [["abcdefg"], ["ab", "cd", "efg"]], ids=["one", "three"])
def test_a_dead_letter_is_told_from_its_delivered_neighbours(envelopes: list[str]) -> None:
    """A chunk was halved until the bad row was alone, wherever its rows came from."""
    found = Found()
    for names in envelopes:
        found.put(*names, request_id=names)
    made = found.delivery
    made.td.settings = replace(made.td.settings, rejects=lambda one: one.get("event_id") == "c")
    made.deliver()
    stages = {one.seen.event_id: one.stage for one in found.all(*"abcdefg")}

    assert Stage.DEAD_LETTER is stages.pop("c")
    assert {Stage.DELIVERED} == set(stages.values())
    assert "http_422" == found.one("c").reason


def test_what_the_stream_has_forgotten_is_found_in_the_set_aside_store() -> None:
    """By its id and by its columns, where there is no archive."""
    found = Found(archive_days=0)
    found.put("a", "b", td_client_id="v1")
    found.refuse(429)
    found.delivery.deliver()
    found.delivery.clock.sleep(8 * 86_400)
    one = found.one()

    assert (Stage.PARKED, "set_aside") == (one.stage, one.sightings[0].source)
    assert ["a", "b"] == [each.seen.event_id for each in found.all(columns={"td_client_id": "v1"})]


def test_what_the_stream_has_forgotten_is_found_in_the_archive() -> None:
    """In its state, with its place on the stream; a search for an id does not read the rest of the archive."""
    found = Found()
    number = found.put("a")
    found.delivery.deliver()
    for other in range(1, 9):
        found.delivery.clock.sleep(86_400)
        found.put(f"{other}")
        found.delivery.deliver(other)
    one = found.one()
    read = found.searched.records

    assert (Stage.DELIVERED, number) == (one.stage, one.seen.sequence_number)
    assert [("archive", SHARD)] == [(place.source, place.seen.shard) for place in one.sightings]
    assert 1 == read
    assert 9 == len(found.all(columns={"time": "1700000000"}))


def test_what_a_deleted_stream_had_is_found_in_the_archive() -> None:
    """A stream created again under its name has forgotten it, however young it is."""
    found = Found()
    number = found.put("a")
    found.delivery.deliver()
    found.delivery.kinesis.delete_stream(StreamName=STREAM)
    found.delivery.kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    one = found.one()

    assert (Stage.DELIVERED, number) == (one.stage, one.seen.sequence_number)


def test_a_copy_is_followed_to_the_record_that_counts() -> None:
    """Whichever of the two is found first."""
    found = Found()
    for _ in range(2):
        found.put("a", claim=1)
    found.delivery.deliver()
    one = found.one()

    assert Stage.DELIVERED is one.stage
    assert 2 == len(one.sightings)


def test_a_copy_whose_owner_has_expired_is_as_its_owner() -> None:
    """The ledger still tells what became of that one, where there is no archive."""
    found = Found(archive_days=0)
    found.put("a", claim=1)
    found.delivery.deliver()
    found.delivery.clock.sleep(8 * 86_400)
    found.put("a", claim=1)
    found.delivery.deliver(1)
    one = found.one()

    assert Stage.DELIVERED is one.stage
    assert one.owner.endswith(found.delivery.records()[0]["SequenceNumber"])


def test_the_overflow_queue_is_looked_at_and_not_consumed() -> None:
    """The drainer can receive every message seconds later."""
    found = Found()
    for number in range(25):
        found.send(found.envelope(f"e{number}", request_id=f"r{number}"))
    found.send(found.envelope("hidden"), delay=60)
    found.queue.send_message(QueueUrl=found.url, MessageBody="not an envelope", MessageAttributes={})
    one = found.one("e23")
    messages = found.queue.messages(found.url)

    assert (Stage.QUEUED, "queue") == (one.stage, one.sightings[0].source)
    assert 27 == len(messages)
    assert 26 == sum(message.visible_at <= found.delivery.clock.now() + 5 for message in messages)
    found.delivery.clock.sleep(6)
    assert [] == found.all("hidden")
    assert 1 == found.searched.hidden


def test_what_the_drainer_has_set_aside_is_found_by_a_message_that_is_left() -> None:
    """The claim leads to the span of the overflow."""
    found = Found()
    data = found.envelope("a", "b", request_id="r7")
    found.send(data)
    set_aside(found, data, days=0)
    one = found.one("b")

    assert (Stage.PARKED, "overflow#r7") == (one.stage, one.owner)
    assert ["queue"] == [place.source for place in one.sightings]
    assert [one.object_name] == found.delivery.objects()


@pytest.mark.parametrize("wanted", ["b", "r7"])
def test_what_went_to_treasure_data_past_the_stream_is_found_in_the_archive(wanted: str) -> None:
    """The drainer had set it aside and the redrive sent it: it never was on the stream."""
    found = Found()
    set_aside(found, found.envelope("b", request_id="r7"), days=30)
    before = found.one(wanted)
    found.delivery.redrive()
    one = found.one(wanted)

    assert (Stage.PARKED, Stage.DELIVERED) == (before.stage, one.stage)
    assert ("shop_db", "overflow#r7") == (one.database, one.owner)
    assert ["archive"] == [place.source for place in one.sightings]
    assert 0 == one.seen.at - 1_700_000_000


def test_a_message_whose_envelope_is_on_the_stream_is_one_more_place() -> None:
    """What became of the event is told by the record."""
    found = Found()
    data = found.envelope("a")
    found.send(data)
    found.delivery.put(data)
    found.delivery.deliver()
    one = found.one()

    assert (Stage.DELIVERED, {"queue", "stream"}) == (one.stage, {place.source for place in one.sightings})


@pytest.mark.parametrize(
    ("wanted", "expected"), [("r1", ["a", "b"]), ("r1#1", ["b"]), ("r2", ["c"]), ("r", [])]
)
def test_a_request_is_found_with_all_its_envelopes(wanted: str, expected: list[str]) -> None:
    """By its id, or by that of one envelope."""
    found = Found()
    found.put("a", request_id="r1")
    found.put("b", request_id="r1#1")
    found.put("c", request_id="r2")

    assert expected == [one.seen.event_id for one in found.all(wanted)]


def test_a_visitor_is_found_across_shards_and_splits() -> None:
    """By a column; every event."""
    found = Found()
    made = found.delivery
    found.put("a", td_client_id="v1")
    made.kinesis.split_shard(StreamName=STREAM, ShardToSplit=SHARD, NewStartingHashKey=str(HASH_KEYS // 2))
    for name in "bcdef":
        data = found.envelope(name, request_id=name, td_client_id="v1" if name != "d" else "v2")
        made.kinesis.put_record(StreamName=STREAM, Data=data, PartitionKey=name)

    assert set("abcef") == {one.seen.event_id for one in found.all(columns={"td_client_id": "v1"})}


def test_a_search_for_an_id_ends_soon_after_it_is_found() -> None:
    """What arrived long after is not read."""
    found = Found()
    found.put("a")
    for number in range(20):
        found.delivery.clock.sleep(3600)
        for one in range(15):
            found.put(f"{number}-{one}")
    found.all("a")
    ended_early = found.searched.records
    found.all("none such")

    assert (True, 301) == (ended_early <= 100, found.searched.records)


def test_it_leaves_half_of_the_budget() -> None:
    """Of the stream's bytes, however much is read."""
    found = Found()
    for number in range(200):
        found.put(f"{number}", text="x" * 100_000)
    began = found.delivery.clock.now()
    found.all("none such")

    assert found.delivery.clock.now() - began >= 200 * 100_000 / BYTES_PER_SECOND - 1


def test_it_ends_when_the_time_is_up_and_says_how_far_it_came() -> None:
    """What was found until then is told."""
    found = Found()
    for number in range(200):
        found.put(f"{number}", text="x" * 100_000)
    found.all("none such", seconds=5)

    assert not found.searched.is_complete
    assert 0 < found.searched.records < 200


def test_empty_reads_end_no_search() -> None:
    """Kinesis may answer nothing although there is something."""
    found = Found()
    found.put("a")
    empty = iter([True] * 3)
    found.delivery.kinesis.client.reads_empty = lambda: next(empty, False)

    assert Stage.WAITING is found.one().stage


@pytest.mark.parametrize("table", ["views", "orders"])
def test_the_copy_that_counts_may_have_rejected_the_event(table: str) -> None:
    """Copies are judged by the plan of their moment: what stands in the event's place there is another event."""
    found = Found()
    rejected = RejectedEvent(0, "wrong_type", table, b'{"event_id":"a"}')
    owner = decode(found.envelope("b", claim=1))
    found.delivery.put(owner._replace(rejected=(rejected,)).encode())
    found.delivery.deliver()
    tables = (
        {"orders": [row("a")], "views": [row("b")]} if table == "orders" else {"views": [row("a"), row("b")]}
    )
    found.delivery.put(envelope("shop", tables, request_id="r", claim=1))
    found.delivery.deliver(1)

    stages = {one.seen.event_id: one.stage for one in found.all() if one.seen.kind is SeenKind.EVENT}

    assert {"a": Stage.REJECTED, "b": Stage.DELIVERED} == stages


def test_a_claim_that_is_waiting_for_another_record_is_a_copy() -> None:
    """Not planned, and the ledger says that another record counts, which nobody can read any more."""
    found = Found()
    found.put("a", claim=1)
    chain = found.delivery.wiring.shards.chain(SHARD)
    elsewhere = replace(chain, start="1")
    found.delivery.ledger.claim({"r": Claim(f"{elsewhere.name}#0011", int(START))}, 60)

    assert Stage.COPY is found.one().stage


def test_a_search_begins_at_the_time_in_the_id() -> None:
    """Of a UUIDv7; otherwise a day ago, or an hour for columns."""
    early = new_event_id(int((START - 3 * 86_400) * 1000), bytes)
    ahead = new_event_id(int((START + 86_400) * 1000), bytes)
    queries = (
        EventQuery(ids=frozenset({early})),
        EventQuery(ids=frozenset({f"{early}#2"})),
        EventQuery(ids=frozenset({ahead})),
        EventQuery(ids=frozenset({"order-17"})),
        EventQuery(columns={"page": "home"}),
    )

    assert [-3 * 86_400 - 300, -3 * 86_400 - 300, -86_400, -86_400, -3600] == [
        default_since(query, START) - START for query in queries
    ]


def test_people_and_scripts_are_told_the_same() -> None:
    """State, span, chunk, id and place; personal data is replaced unless asked for."""
    found = Found()
    number = found.put("a", td_client_id="v1")
    found.delivery.deliver()
    one = found.one()
    lines = "\n".join(lines_of(one, "--local", raw=False))
    told = described(one, raw=True)

    assert lines.startswith("DELIVERED  a of shop.views\n")
    assert all(text in lines for text in (number, one.unique_id, "shop/views/0 to shop_db", "request r"))
    assert '"v1"' not in lines
    assert ("delivered", one.unique_id, "v1") == (
        told["state"],
        told["unique_id"],
        told["row"]["td_client_id"],
    )
    assert [number] == [place["sequence_number"] for place in told["places"]]


def test_a_rejected_event_is_found_by_what_its_sender_wrote() -> None:
    """With its code; its neighbours are found as they are."""
    found = Found()
    accepted = decode(found.envelope("a"))
    original = b'{"table": "views!", "event_id": "mine", "page": "home"}'
    rejected = RejectedEvent(1, "invalid_table", "", original)
    found.delivery.put(accepted._replace(rejected=(rejected,)).encode())
    found.delivery.deliver()
    one = found.one("mine")

    assert (Stage.REJECTED, "invalid_table", "home") == (one.stage, one.reason, one.seen.row["page"])
    assert [Stage.REJECTED] == [each.stage for each in found.all(columns={"page": "home"})]
    assert Stage.DELIVERED is found.one("a").stage


def test_what_another_producer_sent_and_never_became_a_row_is_a_dead_letter() -> None:
    """Of a record in JSON form."""
    found = Found()
    events = [{"table": "views", "event_id": "a"}, {"table": "views!", "event_id": "mine"}]
    found.delivery.put(json.dumps({"account": "shop", "events": events}).encode())
    found.delivery.deliver()

    assert (Stage.DEAD_LETTER, "invalid_table") == (found.one("mine").stage, found.one("mine").reason)
    assert Stage.DELIVERED is found.one("a").stage
