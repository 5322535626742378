"""Finding events in every state, over in-memory services."""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ops.events.sightings import BYTES_PER_SECOND, EventQuery, Places, Searched
from worker.overflow_set_aside import OverflowSetAside

from doubles.clock import START
from doubles.kinesis import HASH_KEYS
from doubles.sqs import MemorySQS
from doubles.treasure_data import Action, Fault, Kind
from ops.commands.find import default_since, described, lines_of
from ops.events.event_tail import Kind as SeenKind
from ops.events.finder import Finder, Stage, Whereabouts
from shared.envelope import RejectedEvent, decode
from shared.event_id import new_event_id
from tests.support.delivery import SHARD, STREAM, Delivery, envelope, row
from worker.chain import ChainId, ClaimOwner
from worker.ledger import Claim
from worker.shards import Shards
from worker.span import Cut


class Found:
    """A delivery, an overflow queue, and searches over both."""

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
        """Make imports fail with a status."""
        self.delivery.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=status, **members))

    def all(
        self, *ids: str, since: float = 0.0, seconds: float = 600.0, columns: Mapping[str, str] | None = None
    ) -> list[Whereabouts]:
        """Return where the events with these ids and columns are."""
        query = EventQuery(columns=columns or {}, ids=frozenset(ids))
        found, self.searched = self.finder().find(query, since, seconds)
        return found

    def one(self, event_id: str = "a") -> Whereabouts:
        """Return where one event is."""
        (found,) = self.all(event_id)
        return found


def set_aside(found: Found, data: bytes, days: int) -> None:
    """Set an envelope of the overflow queue aside, and archive it for so many days."""
    made = found.delivery
    aside = OverflowSetAside(
        made.wiring.delivery,
        seconds_kept=made.wiring.claims.seconds_kept,
        archive=made.archive,
        archive_days=days,
    )
    aside.set_aside(decode(data), START, absent=True)


def test_an_unplanned_event_is_waiting() -> None:
    """Its place on the stream is given."""
    found = Found()
    number = found.put("a")
    one = found.one()

    assert (Stage.WAITING, None) == (one.stage, one.span)
    assert [("stream", SHARD, number)] == [
        (place.source, place.seen.shard, place.seen.sequence_number) for place in one.sightings
    ]


def test_a_delivered_event_has_its_chunk_and_unique_id() -> None:
    """The id is the one that Treasure Data imported the chunk under."""
    found = Found()
    found.put("b", request_id="r1")
    found.put("a", request_id="r2")
    found.delivery.deliver()
    one = found.one()
    (taken,) = found.delivery.td.imports()

    assert (Stage.DELIVERED, "shop_db", "shop/views/0") == (one.stage, one.database, one.key and one.key.name)
    assert taken.unique_id == one.unique_id
    assert found.delivery.clock.now() == pytest.approx(one.at, abs=1)


def test_events_of_a_large_span_are_found_in_their_own_chunks() -> None:
    """The plan's cut determines which chunk has an event."""
    found = Found(cut=Cut(2, 1 << 20))
    for name in "abcde":
        found.put(name, request_id=name)
    found.delivery.deliver()
    ids = {event["event_id"]: one.unique_id for one in found.delivery.td.imports() for event in one.rows}

    assert ids == {one.seen.event_id: one.unique_id for one in found.all(*"abcde")}
    assert ["shop/views/0", "shop/views/0", "shop/views/1", "shop/views/1", "shop/views/2"] == [
        one.key.name for one in found.all(*"abcde") if one.key
    ]


def test_a_planned_event_is_in_flight_until_it_is_settled() -> None:
    """While Treasure Data fails, it cannot be settled."""
    found = Found()
    found.put("a")
    found.refuse(503)
    found.delivery.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=503))
    found.delivery.deliver()

    assert Stage.IN_FLIGHT is found.one().stage


def test_a_parked_event_names_its_object() -> None:
    """The reason and the time are given, too."""
    found = Found()
    found.put("a")
    found.refuse(429)
    found.delivery.deliver()
    one = found.one()

    assert (Stage.PARKED, "http_429") == (one.stage, one.reason)
    assert [one.object_name] == found.delivery.objects()
    assert START <= one.at <= found.delivery.clock.now()


@pytest.mark.parametrize("envelopes", [["abcdefg"], ["ab", "cd", "efg"]], ids=["one", "three"])
def test_a_dead_letter_is_distinguished_from_delivered_neighbours(envelopes: list[str]) -> None:
    """The chunk was halved until the bad row was alone, whether its rows came from one envelope or from several."""
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


def test_expired_events_are_found_in_the_set_aside_store() -> None:
    """Without an archive, they are found there by id and by column."""
    found = Found(archive_days=0)
    found.put("a", "b", td_client_id="v1")
    found.refuse(429)
    found.delivery.deliver()
    found.delivery.clock.sleep(8 * 86_400)
    one = found.one()

    assert (Stage.PARKED, "set_aside") == (one.stage, one.sightings[0].source)
    assert ["a", "b"] == [each.seen.event_id for each in found.all(columns={"td_client_id": "v1"})]


def test_expired_events_are_found_in_the_archive() -> None:
    """Their state and their place on the stream are known; a search for an id does not read the rest of the archive."""
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


def test_events_of_a_deleted_stream_are_found_in_the_archive() -> None:
    """A stream recreated under the same name does not have them, however recent they are."""
    found = Found()
    number = found.put("a")
    found.delivery.deliver()
    found.delivery.kinesis.delete_stream(StreamName=STREAM)
    found.delivery.kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    one = found.one()

    assert (Stage.DELIVERED, number) == (one.stage, one.seen.sequence_number)


def test_a_copy_is_followed_to_the_record_that_counts() -> None:
    """It does not matter which of the two is found first."""
    found = Found()
    for _ in range(2):
        found.put("a", claim=1)
    found.delivery.deliver()
    one = found.one()

    assert Stage.DELIVERED is one.stage
    assert 2 == len(one.sightings)


def test_a_copy_has_the_state_of_its_expired_owner() -> None:
    """Even without an archive, the ledger still knows what happened to the owner."""
    found = Found(archive_days=0)
    found.put("a", claim=1)
    found.delivery.deliver()
    found.delivery.clock.sleep(8 * 86_400)
    found.put("a", claim=1)
    found.delivery.deliver(1)
    one = found.one()

    assert Stage.DELIVERED is one.stage
    assert one.owner is not None
    assert one.owner.name.endswith(found.delivery.records()[0]["SequenceNumber"])


def test_a_search_of_the_overflow_queue_consumes_no_message() -> None:
    """Seconds later, the drainer can receive every message."""
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


def test_a_leftover_message_leads_to_what_the_drainer_set_aside() -> None:
    """Its claim leads to the overflow's span."""
    found = Found()
    data = found.envelope("a", "b", request_id="r7")
    found.send(data)
    set_aside(found, data, days=0)
    one = found.one("b")

    assert (Stage.PARKED, ClaimOwner(ChainId.overflow("r7"))) == (one.stage, one.owner)
    assert ["queue"] == [place.source for place in one.sightings]
    assert [one.object_name] == found.delivery.objects()


@pytest.mark.parametrize("wanted", ["b", "r7"])
def test_events_that_bypassed_the_stream_are_found_in_the_archive(wanted: str) -> None:
    """The drainer set them aside and the redrive sent them, so they were never on the stream."""
    found = Found()
    set_aside(found, found.envelope("b", request_id="r7"), days=30)
    before = found.one(wanted)
    found.delivery.redrive()
    one = found.one(wanted)

    assert (Stage.PARKED, Stage.DELIVERED) == (before.stage, one.stage)
    assert ("shop_db", ClaimOwner(ChainId.overflow("r7"))) == (one.database, one.owner)
    assert ["archive"] == [place.source for place in one.sightings]
    assert 0 == one.seen.at - 1_700_000_000


def test_a_message_whose_envelope_is_on_the_stream_is_another_place() -> None:
    """The record on the stream determines the event's state."""
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
    """The request's id finds them all; the id of one envelope finds only that one."""
    found = Found()
    found.put("a", request_id="r1")
    found.put("b", request_id="r1#1")
    found.put("c", request_id="r2")

    assert expected == [one.seen.event_id for one in found.all(wanted)]


def test_a_search_by_column_covers_shards_and_splits() -> None:
    """It finds every event of a visitor."""
    found = Found()
    made = found.delivery
    found.put("a", td_client_id="v1")
    made.kinesis.split_shard(StreamName=STREAM, ShardToSplit=SHARD, NewStartingHashKey=str(HASH_KEYS // 2))
    for name in "bcdef":
        data = found.envelope(name, request_id=name, td_client_id="v1" if name != "d" else "v2")
        made.kinesis.put_record(StreamName=STREAM, Data=data, PartitionKey=name)

    assert set("abcef") == {one.seen.event_id for one in found.all(columns={"td_client_id": "v1"})}


def test_a_search_for_an_id_ends_soon_after_it_is_found() -> None:
    """Records that arrived long after it are not read."""
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


def test_a_search_leaves_half_of_the_read_budget() -> None:
    """The worker keeps half of a shard's bytes per second, however much is read."""
    found = Found()
    for number in range(200):
        found.put(f"{number}", text="x" * 100_000)
    began = found.delivery.clock.now()
    found.all("none such")

    assert found.delivery.clock.now() - began >= 200 * 100_000 / BYTES_PER_SECOND - 1


def test_a_search_stops_at_its_time_limit() -> None:
    """It reports that it is incomplete, and how many records it read."""
    found = Found()
    for number in range(200):
        found.put(f"{number}", text="x" * 100_000)
    found.all("none such", seconds=5)

    assert not found.searched.is_complete
    assert 0 < found.searched.records < 200


def test_empty_reads_do_not_end_a_search() -> None:
    """Kinesis may return no records although there are some."""
    found = Found()
    found.put("a")
    empty = iter([True] * 3)
    found.delivery.kinesis.client.reads_empty = lambda: next(empty, False)

    assert Stage.WAITING is found.one().stage


@pytest.mark.parametrize("table", ["views", "orders"])
def test_the_copy_that_counts_may_have_rejected_the_event(table: str) -> None:
    """Each copy was checked against the plan of its time, so the row in the event's place may be another event."""
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


def test_an_unplanned_record_with_the_claim_of_another_is_a_copy() -> None:
    """The ledger says that the other record counts, even if nobody can read it any more."""
    found = Found()
    found.put("a", claim=1)
    chain = found.delivery.wiring.shards.chain(SHARD)
    elsewhere = ClaimOwner(replace(chain, start="1"), "0011")
    found.delivery.ledger.claim({"r": Claim(elsewhere, int(START))}, 60)

    assert Stage.COPY is found.one().stage


def test_a_search_begins_at_the_time_in_the_id() -> None:
    """Only a UUIDv7 has a time; other ids are searched from a day ago, and columns from an hour ago."""
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


def test_text_and_json_say_the_same() -> None:
    """Both have the state, span, chunk, id and place; personal data is replaced unless requested."""
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
    """It has its rejection code; accepted events of its request keep their own states."""
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


def test_an_invalid_event_of_another_producer_is_a_dead_letter() -> None:
    """Such a producer writes records in JSON form."""
    found = Found()
    events = [{"table": "views", "event_id": "a"}, {"table": "views!", "event_id": "mine"}]
    found.delivery.put(json.dumps({"account": "shop", "events": events}).encode())
    found.delivery.deliver()

    assert (Stage.DEAD_LETTER, "invalid_table") == (found.one("mine").stage, found.one("mine").reason)
    assert Stage.DELIVERED is found.one("a").stage
