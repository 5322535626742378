"""The balance: received = delivered + set aside + in flight, from the ledger, S3, the stream and the queue."""

import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import count
from typing import Any

import boto3
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from moto import mock_aws
from worker.delivery import Decision, Entry, State

from doubles.sqs import MemorySQS
from doubles.treasure_data.fault import Action, Fault
from doubles.treasure_data.fault import Kind as FaultKind
from local.resources import LEDGER
from ops.books.accounting import Accounting, Balance, Rows, Unread, UnreadShard
from shared.accounts import Account
from shared.errors import ShardUnreadableError
from shared.telemetry import NullTelemetry
from tests.support import delivery as support
from tests.support.delivery import (
    BUCKET,
    KEYS,
    STREAM,
    TABLE,
    Delivery,
    Meddled,
    envelope,
    lose_answer,
    once,
    row,
)
from tests.support.overflow import WatchedKinesis, Way, refusal, timeout
from worker.chain import ChainId
from worker.drain import CLOCKS_DIFFER_SECONDS
from worker.ledger import Ledger
from worker.shards import Shards
from worker.span import ChunkKey, Cut, Database, Group, Owner, Span

SHOP = ("shop", "pageviews")
DELIVERED, PENDING, PARKED = State.DELIVERED, State.PENDING, State.PARKED
IN_DOUBT, DEAD_LETTER, DROPPED, MISSING = (
    State.IN_DOUBT,
    State.DEAD_LETTER,
    State.DROPPED,
    State.MISSING,
)


def rows(states: dict[State, int], unbacked: int = 0) -> Rows:
    """Return rows by their states."""
    return Rows(sum(states.values()), Counter(states), unbacked)


def accounting(
    delivery: Delivery,
    kinesis: Any = None,
    sqs: Any = None,
    queue_url: str = "",
    ledger: Ledger | None = None,
) -> Accounting:
    """Return the accounting of a delivery, with an empty queue unless one is given."""
    if sqs is None:
        sqs = MemorySQS(delivery.clock.now)
        queue_url = sqs.create_queue(QueueName="overflow")["QueueUrl"]
    return Accounting(
        ledger=ledger or delivery.ledger,
        shards=Shards(kinesis or delivery.kinesis, STREAM, delivery.clock),
        store=delivery.store,
        archive=delivery.archive,
        sqs=sqs,
        queue_url=queue_url,
        clock=delivery.clock,
    )


def take(delivery: Delivery, **options: Any) -> Balance:
    """Return the balance."""
    return accounting(delivery).take(**options)


def put(delivery: Delivery, account: str = "shop", rows: int = 1, table: str = "pageviews") -> None:
    """Put an envelope on the stream."""
    number = len(delivery.records())
    delivery.put(
        envelope(account, {table: [row(f"e{number}-{i}") for i in range(rows)]}, request_id=f"r{number}")
    )


def fail(delivery: Delivery, database: str, **fault: Any) -> None:
    """Make imports into a database fail."""
    delivery.td.faults.add(Fault(database=database, action=Action.IMPORT, **fault))  # type: ignore[attr-defined]  # the default source


@pytest.fixture
def delivery() -> Delivery:
    """Return a delivery whose account shop goes to shop_db."""
    made = Delivery()
    made.map(shop="shop_db", blog="blog_db", ill="ill_db")
    return made


def test_an_empty_stack_has_an_empty_balance(delivery: Delivery) -> None:
    """With an empty ledger and an empty stream, every count is zero."""
    nothing = Unread(0, {delivery.wiring.shards.chain(support.SHARD): UnreadShard()})

    assert Balance({}, nothing, {}, 0, 0) == take(delivery)


def test_counts_delivered_rows_per_account_and_table(delivery: Delivery) -> None:
    """Rows that Treasure Data accepted count as delivered."""
    put(delivery, rows=3)
    put(delivery, rows=2)
    put(delivery, "blog", table="visits")
    delivery.deliver()
    balance = take(delivery)
    assert balance.tables == {
        SHOP: rows({DELIVERED: 5}),
        ("blog", "visits"): rows({DELIVERED: 1}),
    }
    assert (balance.adds_up, balance.spans, balance.open_spans) == (True, 1, 0)
    assert delivery.td.counts() == {"shop_db": {"pageviews": 5}, "blog_db": {"visits": 1}}


def test_counts_unread_records(delivery: Delivery) -> None:
    """Records behind the last span count as waiting on the stream, with the age of the oldest one."""
    for _ in range(5):
        put(delivery, rows=7)
        delivery.clock.sleep(10)
    delivery.deliver(0, 2)
    balance = take(delivery)
    assert (14, 3, 30) == (
        balance.total.received,
        balance.unread.on_stream,
        balance.unread.behind_seconds,
    )


def test_counts_refused_rows_as_dead_letters(delivery: Delivery) -> None:
    """Rows that Treasure Data refuses, rows of unknown accounts and undecodable records are set aside."""
    fail(delivery, "ill_db", kind=FaultKind.STATUS, status=422)
    put(delivery, "ill", rows=2)
    put(delivery, "nobody", rows=3)
    delivery.put(b"garbage")
    delivery.deliver()
    balance = take(delivery)
    assert balance.tables == {
        ("ill", "pageviews"): rows({DEAD_LETTER: 2}),
        ("nobody", "pageviews"): rows({DEAD_LETTER: 3}),
        ("-", "-undecodable"): rows({DEAD_LETTER: 1}),
    }
    assert balance.adds_up


def test_counts_parked_rows_until_they_are_redriven(delivery: Delivery) -> None:
    """Rows of a failing database count as parked, and as delivered once the redrive has sent them."""
    fail(delivery, "ill_db", kind=FaultKind.STATUS, status=429, end=delivery.clock.now() + 1000)
    put(delivery, "ill", rows=2)
    put(delivery)
    delivery.deliver()
    assert take(delivery).tables["ill", "pageviews"] == rows({PARKED: 2})
    delivery.clock.sleep(5000)
    delivery.redrive()
    assert take(delivery).tables["ill", "pageviews"] == rows({DELIVERED: 2})


@pytest.mark.parametrize("status", [429, 503])
def test_counts_rows_in_flight(status: int, delivery: Delivery) -> None:
    """Unsettled rows of an open span are in flight, whether or not Treasure Data may have them."""
    delivery.td.faults.add(Fault(kind=FaultKind.STATUS, status=status))  # type: ignore[attr-defined]  # the default source
    put(delivery, rows=4)
    put(delivery)
    assert delivery.deliver() is not None
    balance = take(delivery)
    assert (balance.tables[SHOP], balance.open_spans) == (rows({PENDING: 5}), 1)
    assert balance.adds_up


def test_counts_a_split_chunk_by_its_parts(delivery: Delivery) -> None:
    """A chunk that was too large to import counts once, as its halves."""
    delivery.td.settings = replace(delivery.td.settings, largest_import=300)
    delivery.put(
        envelope("shop", {"pageviews": [row(f"e{i}", text="x" * (100 if i else 400)) for i in range(5)]})
    )
    delivery.deliver()
    assert rows({DELIVERED: 4, DEAD_LETTER: 1}) == take(delivery).tables[SHOP]


def test_counts_a_split_set_aside_chunk_by_its_parts(delivery: Delivery) -> None:
    """The halves that the redrive made of a parked chunk replace it; one object backs whatever is left of them."""
    fail(delivery, "ill_db", kind=FaultKind.STATUS, status=429, end=delivery.clock.now() + 1000)
    delivery.put(
        envelope("ill", {"pageviews": [row(f"e{i}", text="x" * (100 if i else 400)) for i in range(5)]})
    )
    put(delivery)
    delivery.deliver()
    delivery.clock.sleep(5000)
    delivery.td.settings = replace(delivery.td.settings, largest_import=300)
    delivery.redrive()
    balance = take(delivery)

    assert (1, True) == (len(delivery.objects()), balance.adds_up)
    assert rows({DELIVERED: 4, DEAD_LETTER: 1}) == balance.tables["ill", "pageviews"]


def test_counts_the_parts_of_a_split_chunk_in_an_open_span(delivery: Delivery) -> None:
    """Only the parts count, each by its own state."""
    entries = {
        "shop/pageviews/0": Entry(State.SPLIT, rows=7),
        "shop/pageviews/0.0": Entry(DELIVERED, rows=3),
        "shop/pageviews/0.1": Entry(State.SPLIT, rows=4),
        "shop/pageviews/0.1.0": Entry(PENDING, rows=2),
        "shop/pageviews/0.1.1": Entry(IN_DOUBT, rows=2),
    }
    append(delivery, ChainId("other", "0", "s"), 12, entries, done=False)

    expected = rows({DELIVERED: 3, IN_DOUBT: 2, PENDING: 7}, unbacked=2)
    assert expected == take(delivery).tables[SHOP]


def append(
    delivery: Delivery, chain: ChainId, count: int, entries: dict[str, Entry], *, done: bool = True
) -> None:
    """Append a span of the account shop with these entries to a chain."""
    owner = Owner("shop")
    delivery.ledger.append(
        Span(
            chain,
            "000",
            "001",
            "002",
            0,
            {owner: Database("shop_db")},
            Cut(7, 1000),
            {Group(owner, "pageviews"): count},
            done=done,
            entries={ChunkKey.parse(name): entry for name, entry in entries.items()},
        )
    )


def test_counts_dropped_rows(delivery: Delivery) -> None:
    """Dropped dead letters are neither delivered nor set aside, and the books still balance."""
    fail(delivery, "ill_db", kind=FaultKind.STATUS, status=422)
    put(delivery, "ill", rows=2)
    delivery.deliver()
    delivery.redrive(DEAD_LETTER, decision=Decision.DROP)
    balance = take(delivery)

    assert {("ill", "pageviews"): rows({DROPPED: 2})} == balance.tables
    assert balance.adds_up


def test_counts_missing_rows(delivery: Delivery) -> None:
    """Rows whose records expired count as missing, and the books still balance."""
    append(delivery, ChainId("other", "0", "s"), 3, {"shop/pageviews/0": Entry(MISSING, rows=1)})
    balance = take(delivery)

    assert {SHOP: rows({DELIVERED: 2, MISSING: 1})} == balance.tables
    assert balance.adds_up


def test_counts_rows_of_a_revoked_key_under_their_account(delivery: Delivery) -> None:
    """The ledger plans rows of a revoked key separately; the balance does not show them separately."""
    revoking = Account("shop_db", revoked_key_ids=frozenset({"k1"}))
    delivery.redis.hset(KEYS.of("shop"), mapping=revoking.to_fields())
    put(delivery, rows=2)
    delivery.deliver()
    assert take(delivery).tables == {SHOP: rows({DEAD_LETTER: 2})}


def test_counts_spans_that_fill_holes(delivery: Delivery) -> None:
    """A replay that ran ahead of the event source leaves a hole; the spans that later fill it count like any others."""
    for _ in range(4):
        put(delivery)
    delivery.deliver(2, 4)
    delivery.deliver(0, 4)
    balance = take(delivery)
    assert (balance.tables[SHOP], balance.spans) == (rows({DELIVERED: 4}), 2)


def test_narrows_to_a_time_range(delivery: Delivery) -> None:
    """Only spans that were planned within the range count."""
    begin = delivery.clock.now()
    for index in range(3):
        put(delivery, rows=1 + index)
        delivery.deliver(index)
        delivery.clock.sleep(100)
    assert [
        take(delivery, **limits).total.received
        for limits in (
            {},
            {"since": begin + 50},
            {"until": begin + 150},
            {"since": begin + 50, "until": begin + 150},
        )
    ] == [6, 5, 3, 2]


def test_reports_set_aside_rows_whose_object_is_missing(delivery: Delivery) -> None:
    """If someone deletes an object from S3, its rows are unbacked and the books do not balance."""
    put(delivery, "nobody", rows=3)
    delivery.deliver()
    [name] = delivery.objects()
    delivery.s3.delete_object(Bucket=BUCKET, Key=name)
    balance = take(delivery)
    assert (balance.adds_up, balance.total.unbacked) == (False, 3)


def test_a_redrive_during_the_count_leaves_no_rows_unbacked(delivery: Delivery) -> None:
    """A chunk that is delivered between reading the ledger and listing the bucket counts in the state that the ledger had."""
    fail(delivery, "ill_db", kind=FaultKind.STATUS, status=429, end=delivery.clock.now() + 1000)
    put(delivery, "ill", rows=2)
    put(delivery)
    delivery.deliver()
    delivery.clock.sleep(5000)
    delivery.s3.before["list_objects_v2"] = once(delivery.redrive)
    balance = take(delivery)

    assert ([], True) == (delivery.objects(), balance.adds_up)
    assert rows({DELIVERED: 1, PARKED: 2}) == balance.total


def test_a_drop_during_the_count_leaves_no_rows_unbacked(delivery: Delivery) -> None:
    """A chunk that is dropped between reading the ledger and listing the bucket counts in the state that the ledger had."""
    put(delivery, "nobody", rows=2)
    delivery.deliver()
    delivery.s3.before["list_objects_v2"] = once(
        lambda: delivery.redrive(DEAD_LETTER, decision=Decision.DROP)
    )
    balance = take(delivery)

    assert ([], True) == (delivery.objects(), balance.adds_up)
    assert rows({DEAD_LETTER: 2}) == balance.total


def test_records_planned_during_the_count_count_as_unread(delivery: Delivery) -> None:
    """Spans that are appended after the count began are left out, and their records count as waiting on the stream."""
    for _ in range(5):
        put(delivery)
    delivery.deliver(0, 2)
    delivery.dynamodb.before["scan"] = once(lambda: delivery.deliver(2, 4))
    balance = take(delivery)

    assert (rows({DELIVERED: 2}), 3) == (balance.total, balance.unread.on_stream)


def test_counting_unread_records_stops_at_the_time_limit(delivery: Delivery) -> None:
    """A long backlog is counted as far as the time allows, and the count is marked as incomplete."""
    for _ in range(30):
        put(delivery)
        delivery.clock.sleep(1)
    kinesis = WatchedKinesis(delivery.kinesis, delivery.clock, page=1)
    unread = accounting(delivery, kinesis).take(seconds=2.0).unread
    assert (8, False) == (unread.on_stream, unread.is_complete)


def test_retries_throttled_reads(delivery: Delivery) -> None:
    """Throttled reads are retried; other errors are raised."""
    put(delivery)
    kinesis = WatchedKinesis(delivery.kinesis, delivery.clock)
    kinesis.faults["get_records"] = [refusal("ProvisionedThroughputExceededException", "GetRecords")] * 3
    assert accounting(delivery, kinesis).take().unread.on_stream == 1
    kinesis.faults["get_records"] = [refusal("AccessDeniedException", "GetRecords")] * 4
    with pytest.raises(ShardUnreadableError, match="AccessDenied"):
        accounting(delivery, kinesis).take()


def test_counts_every_shard(delivery: Delivery) -> None:
    """After a reshard, the records of parents and children count, whether or not they have been read."""
    put(delivery)
    delivery.deliver()
    put(delivery)
    delivery.kinesis.split_shard(
        StreamName=STREAM, ShardToSplit=support.SHARD, NewStartingHashKey=str(2**127)
    )
    for key in ("a", "b", "c", "d"):
        delivery.kinesis.put_record(StreamName=STREAM, Data=b"{}", PartitionKey=key)
    balance = take(delivery)
    assert (balance.total.received, balance.unread.on_stream) == (1, 5)


def test_counts_the_overflow_queue_and_rows_set_aside_from_it() -> None:
    """Envelopes in the queue are unread; envelopes that waited there for too long are set aside."""
    way = Way()
    way.kinesis.faults["put_record"] = [timeout()] * 2
    way.collect("held", rows=3)
    way.wait(3.5 * 86_400 + CLOCKS_DIFFER_SECONDS)
    way.kinesis.faults["put_record"] = [timeout()]
    way.drain()
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("queued")
    balance = accounting(way.delivery, sqs=way.sqs, queue_url=way.queue_url).take()
    assert (balance.tables, balance.unread.in_queue) == (
        {SHOP: rows({PARKED: 3})},
        1,
    )


def test_an_overflow_chunk_that_also_came_by_the_stream_counts_once() -> None:
    """Both copies count until the doubt is resolved; after that, only the stream's copy does."""
    way = Way()
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.collect("twice", rows=3)
    way.deliver()
    way.wait(7 * 86_400)
    way.drain()
    doubted = take(way.delivery).total
    way.delivery.redrive()
    found = take(way.delivery)

    assert rows({DELIVERED: 3, IN_DOUBT: 3}) == doubted
    assert (rows({DELIVERED: 3}), True) == (found.total, found.adds_up)
    assert 3 == len(way.ids())


def test_an_overflow_chunk_sent_by_the_redrive_counts_as_delivered() -> None:
    """Rows that reach Treasure Data without passing through the stream are received and delivered."""
    way = Way()
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("held", rows=3)
    way.wait(7 * 86_400)
    way.drain()
    way.delivery.redrive(IN_DOUBT, decision=Decision.SEND)
    balance = take(way.delivery)

    assert (rows({DELIVERED: 3}), True) == (balance.total, balance.adds_up)
    assert 3 == len(way.ids())


_ACCOUNTS = ("shop", "blog", "ill", "ill", "refused", "nobody", "-")


@example(
    sizes=[("shop", 2), ("refused", 1), ("ill", 3), ("nobody", 1), ("-", 1), ("shop", 3), ("blog", 1)],
    turns=[(5, False, False, 0), (1, True, False, 0)],
)
@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.sampled_from(_ACCOUNTS), st.integers(1, 3)), min_size=3, max_size=12),
    turns=st.lists(
        st.tuples(st.integers(1, 6), st.booleans(), st.booleans(), st.sampled_from([0, 100, 3000])),
        min_size=1,
        max_size=4,
    ),
)
def test_balance_equals_what_treasure_data_s3_and_the_stream_hold(
    sizes: list[tuple[str, int]], turns: list[tuple[int, bool, bool, float]]
) -> None:
    """This holds for any mix of outcomes, outages and redrives."""
    delivery = Delivery()
    delivery.map(shop="shop_db", blog="shop_db", ill="ill_db", refused="refused_db")
    fail(delivery, "ill_db", kind=FaultKind.STATUS, status=500, end=delivery.clock.now() + 2000)
    fail(delivery, "refused_db", kind=FaultKind.STATUS, status=400)
    for index, (account, rows) in enumerate(sizes):
        if account == "-":
            delivery.put(b"garbage")
        else:
            put(delivery, account, rows, f"table_{index % 2}")
    numbers = [record["SequenceNumber"] for record in delivery.records()]
    done = 0
    for batch, outage, redrive, pause in turns:
        if outage:
            now = delivery.clock.now()
            delivery.td.faults.add(Fault(kind=FaultKind.STATUS, begin=now, end=now + 150))  # type: ignore[attr-defined]  # the default source
        if redrive:
            delivery.redrive()
        if done < len(sizes):
            held = delivery.start().deliver(done, done + batch)
            done = min(done + batch, len(sizes)) if held is None else numbers.index(held)
        delivery.clock.sleep(pause)
    balance = take(delivery)
    total = balance.total
    in_s3 = sum(delivery.store.read(name).rows for name in delivery.objects())
    in_td = sum(count for tables in delivery.td.counts().values() for count in tables.values())
    planned = len(sizes) - balance.unread.on_stream
    received = sum(1 if account == "-" else rows for account, rows in sizes[:planned])

    assert balance.adds_up
    assert (received, in_td, in_s3) == (total.received, total.delivered, total.aside.total())
    assert (total.in_flight > 0) == (balance.open_spans > 0)


@mock_aws
def test_counts_the_same_with_real_aws_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over boto3 clients and an AWS emulator, the balance equals what S3 and the Treasure Data double hold."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    delivery = Delivery()
    delivery.map(shop="shop_db", refused="refused_db")
    kinesis: Any = boto3.client("kinesis")
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    dynamodb: Any = boto3.client("dynamodb")
    dynamodb.create_table(TableName=TABLE, **LEDGER)
    s3: Any = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    sqs: Any = boto3.client("sqs")
    queue_url = sqs.create_queue(QueueName="overflow")["QueueUrl"]
    sqs.send_message(QueueUrl=queue_url, MessageBody="x")
    delivery.kinesis, delivery.dynamodb, delivery.s3 = Meddled(kinesis), Meddled(dynamodb), Meddled(s3)
    delivery.start()
    fail(delivery, "refused_db", kind=FaultKind.STATUS, status=400)
    put(delivery, rows=2)
    put(delivery, "refused", rows=3)
    delivery.deliver()
    put(delivery)
    balance = accounting(delivery, sqs=sqs, queue_url=queue_url).take()
    assert balance.tables == {
        SHOP: rows({DELIVERED: 2}),
        ("refused", "pageviews"): rows({DEAD_LETTER: 3}),
    }
    assert (balance.adds_up, balance.unread.on_stream, balance.unread.in_queue) == (True, 1, 1)
    assert delivery.td.counts()["shop_db"] == {"pageviews": 2}
    assert 1 == s3.list_objects_v2(Bucket=BUCKET, Prefix="aside/")["KeyCount"]


@pytest.mark.parametrize("days", [0, 1, 30])
def test_counts_settled_spans_whose_archive_object_is_missing(delivery: Delivery, days: int) -> None:
    """An object is expected only while both the setting at the time of writing and the current setting keep it."""
    put(delivery)
    delivery.deliver()
    put(delivery)
    delivery.deliver(1)
    delivery.s3.delete_object(Bucket=BUCKET, Key=delivery.archived()[0])
    delivery.clock.sleep(2 * 86_400)
    made = accounting(delivery)
    made._archive_days = days

    assert int(days == 30) == made.take().unarchived


def test_spans_that_were_never_archived_are_not_reported(delivery: Delivery) -> None:
    """Open spans have no object yet, and spans written while the archive was off never get one."""
    delivery.archive_days = 0
    put(delivery)
    delivery.start().deliver()
    delivery.archive_days = 30
    put(delivery)
    delivery.s3.before["put_object"] = lambda _: lose_answer()
    delivery.start().deliver(1)
    balance = take(delivery)

    assert (0, 1) == (balance.unarchived, balance.open_spans)


def test_memory_barely_grows_with_the_ledger(delivery: Delivery) -> None:
    """Spans are read page by page and discarded, except for one hash each that is compared with the archive."""
    span_item = None
    put(delivery)
    delivery.deliver()
    for item in delivery.dynamodb.items(TABLE):
        if "g" in item:
            span_item = item
    assert span_item is not None

    class Endless:
        def __init__(self, pages: int) -> None:
            self.left = count(pages, -1)
            self.number = count(1)

        def query(self, **request: Any) -> Any:
            return delivery.dynamodb.query(**request)

        def scan(self, **_request: Any) -> Any:
            page = {"Items": [span_item | {"last": {"S": f"{next(self.number):056}"}} for _ in range(100)]}
            return page | ({"LastEvaluatedKey": {}} if next(self.left) else {})

    peaks = []
    for pages in (200, 2, 200):  # the first run fills Python's own caches
        endless: Any = Endless(pages)
        ledger = Ledger(endless, TABLE, clock=delivery.clock, entropy=bytes, telemetry=NullTelemetry())
        watched = accounting(delivery, ledger=ledger)
        tracemalloc.start()
        assert watched.take().total.received == 100 * (pages + 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 256 * 100 * 198
