"""The balance of what was received, from the ledger, S3, the stream and the queue, and the arrivals that it is compared with."""

import gc
from collections import Counter
from copy import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from doubles.sqs import MemorySQS
from doubles.treasure_data.fault import Fault, Kind
from ops.books.accounting import Accounting, Balance, Rows, Unread, UnreadShard, by_group
from ops.books.arrivals import WINDOW_SECONDS, Arrivals, StreamCount, of_gateway, repeated_rows
from ops.logs.answers import Answers
from ops.stream.readable_shards import ReadableShards
from shared.telemetry import NullTelemetry
from tests.support import delivery as support
from tests.support.delivery import BUCKET, STREAM, TABLE, Delivery, envelope, once, row
from tests.support.overflow import Way
from tests.support.spans import key, span
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.ledger import Ledger
from worker.membership import Membership
from worker.record import CLAIMED
from worker.span import Span
from worker.span_object import name_of
from worker.states import Entry, State
from worker.turn import UNSETTLED_SECONDS

SHOP = ("shop", "pageviews")
WAITING, DEAD, DELIVERED = State.WAITING, State.DEAD, State.DELIVERED


def rows(states: dict[State, int], *, in_flight: int = 0, unbacked: int = 0) -> Rows:
    """Return rows by their states."""
    return Rows(sum(states.values()), Counter(states), in_flight, unbacked)


def accounting(
    delivery: Delivery, sqs: Any = None, queue_url: str = "", ledger: Ledger | None = None
) -> Accounting:
    """Return the accounting of a delivery, with an empty queue unless one is given."""
    if sqs is None:
        sqs = MemorySQS(delivery.clock.now)
        queue_url = sqs.create_queue(QueueName="overflow")["QueueUrl"]
    return Accounting(
        ledger=ledger or delivery.ledger,
        shards=ReadableShards(delivery.kinesis, STREAM, delivery.clock),
        bucket=Bucket(delivery.s3, BUCKET),
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
    made = [row(f"e{number}-{i}") for i in range(rows)]
    delivery.put(envelope(account, {table: made}, request_id=f"r{number}"))


@pytest.fixture
def delivery() -> Delivery:
    """Return a delivery whose account shop goes to shop_db."""
    return Delivery().map(shop="shop_db", blog="blog_db", ill="ill_db")


def test_counts_unread_records(delivery: Delivery) -> None:
    """Those after the last span wait on the stream, with the age of the oldest one; after a reshard, those of parents and children."""
    nothing = Unread(0, {delivery.wiring.shards.chain(support.SHARD): UnreadShard()})
    assert Balance({}, nothing, {}, 0) == take(delivery)
    for _ in range(5):
        put(delivery, rows=7)
        delivery.clock.sleep(10)
    delivery.deliver(0, 2)
    delivery.split()
    for name in "abcd":
        delivery.kinesis.put_record(StreamName=STREAM, Data=b"{}", PartitionKey=name)
    balance = take(delivery)
    unread = balance.unread

    assert 14 == balance.total.received
    assert (3 + 4, 21 + 4, 30) == (unread.on_stream, unread.rows, unread.behind_seconds)


def test_counts_messages_wherever_the_queue_keeps_them(delivery: Delivery) -> None:
    """Those that SQS delays, or hides at present, are in the queue, too."""
    queue: Any = MemorySQS(delivery.clock.now)
    url = queue.create_queue(QueueName="overflow")["QueueUrl"]
    for delay in (0, 0, 900):
        queue.send_message(QueueUrl=url, MessageBody="x", DelaySeconds=delay)
    queue.receive_message(QueueUrl=url)

    assert 3 == accounting(delivery, sqs=queue, queue_url=url).unread().in_queue


def test_counts_rows_in_flight(delivery: Delivery) -> None:
    """Rows of a span that its worker has not settled are in flight. They wait once the sender has looked at it, until it has sent them."""
    put(delivery, rows=4)
    put(delivery)
    delivery.dynamodb.before["update_item"] = once(support.kill, support.is_settling)
    with pytest.raises(support.KilledError):
        delivery.deliver()
    balance = take(delivery)
    delivery.fail(429, database="shop_db")
    put(delivery, rows=2)
    delivery.deliver(2)
    waiting = take(delivery).tables[SHOP]
    delivery.td.faults.clear()
    delivery.clock.sleep(1500 + UNSETTLED_SECONDS)
    delivery.send()

    assert (rows({WAITING: 5}, in_flight=5), 0) == (balance.tables[SHOP], balance.total.waiting)
    assert balance.adds_up
    assert (rows({WAITING: 7}, in_flight=5), 2) == (waiting, waiting.waiting)
    assert rows({DELIVERED: 7}) == take(delivery).tables[SHOP]


def test_counts_the_parts_of_a_split_chunk_each_by_its_own_state() -> None:
    """Halves of halves count too; the chunks that were split do not, and neither do rows that others have replaced."""
    states = {"0": State.SPLIT, "0.0": DELIVERED, "0.1": State.SPLIT, "0.1.0": WAITING, "0.1.1": DEAD}
    entries = {key(f"shop/views/{name}"): Entry(state) for name, state in states.items()}
    replaced = key("shop/views/1")
    entries[replaced] = Entry(State.REPLACED)
    found = by_group(span(chunks={key("shop/views/0"): 7, replaced: 5}, settled=True, entries=entries))

    assert [Counter({DELIVERED: 3, WAITING: 2, DEAD: 2})] == list(found.values())


def test_narrows_to_a_time_range(delivery: Delivery) -> None:
    """Only spans that were planned within the range count."""
    begin = delivery.clock.now()
    for index in range(3):
        put(delivery, rows=1 + index)
        delivery.deliver(index)
        delivery.clock.sleep(100)

    since, until = {"since": begin + 50}, {"until": begin + 150}
    ranges: tuple[dict[str, float], ...] = ({}, since, until, since | until)
    assert [6, 5, 3, 2] == [take(delivery, **limits).total.received for limits in ranges]


def test_reports_rows_whose_object_is_gone(delivery: Delivery) -> None:
    """Such rows are unbacked, and the books do not balance. An object that the sweep writes anew during the count is not missed."""
    put(delivery, "nobody", rows=3)
    put(delivery, rows=2)
    delivery.deliver()
    [found] = delivery.spans()
    [before] = delivery.span_objects()

    def rewrite() -> None:
        assert found.object is not None
        moved = replace(found, object=found.object._replace(hour="2033-01-01T00"))
        data = delivery.s3.client.get_object(Bucket=BUCKET, Key=before)["Body"].read()
        delivery.objects.put(moved, data)
        delivery.ledger.update(moved)
        delivery.s3.delete_object(Bucket=BUCKET, Key=before)

    delivery.s3.before["get_object"] = once(rewrite)
    rewritten = take(delivery)
    [after] = delivery.span_objects()
    delivery.s3.delete_object(Bucket=BUCKET, Key=after)
    balance = take(delivery)

    assert before != after
    assert (True, 0) == (rewritten.adds_up, rewritten.total.unbacked)
    assert (False, 3) == (balance.adds_up, balance.total.unbacked)
    assert rows({DELIVERED: 2}) == balance.tables[SHOP]


def test_the_object_of_every_span_that_waits_is_looked_for(delivery: Delivery) -> None:
    """Rows beyond the limit are unchecked, which says that nobody knows."""
    delivery.fail(503)
    for index in range(230):
        put(delivery)
        delivery.deliver(index)
    for found in delivery.spans()[200:]:
        delivery.s3.delete_object(Bucket=BUCKET, Key=name_of(found))
    some = replace(accounting(delivery), most_checked=200).take().total

    assert 30 == take(delivery).total.unbacked
    assert (0, 30) == (some.unbacked, some.unchecked)


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
    delivery.kinesis.before["get_records"] = lambda request: request.update(Limit=1)
    unread = accounting(delivery).take(seconds=2.0).unread

    assert (8, False) == (unread.on_stream, unread.is_complete)


def test_an_envelope_that_was_put_again_counts_once() -> None:
    """Both copies count until it is certain which one does; after that, the other is a copy."""
    way = Way()
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.collect("twice", rows=3)
    queued = accounting(way.delivery, sqs=way.sqs, queue_url=way.queue_url).take().unread.in_queue
    way.deliver()
    way.wait(60)
    way.drain()
    way.deliver()
    undecided = take(way.delivery)
    way.wait(3600)
    way.collect("later", rows=1)
    way.deliver()
    way.delivery.send()
    found = take(way.delivery)

    assert 1 == queued
    assert (rows({DELIVERED: 3, State.AGAIN: 3}), True) == (undecided.total, undecided.adds_up)
    assert (rows({DELIVERED: 4}), 3, True) == (found.total, found.copies, found.adds_up)
    assert 4 == len(way.ids())


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
def test_the_balance_equals_what_treasure_data_and_the_stream_hold(
    sizes: list[tuple[str, int]], turns: list[tuple[int, bool, bool, float]]
) -> None:
    """Table by table, for any mix of outcomes and outages, and for any runs of the sender. What has no account is dead."""
    delivery = Delivery().map(shop="shop_db", blog="shop_db", ill="ill_db", refused="refused_db")
    delivery.fail(500, database="ill_db", end=delivery.clock.now() + 2000)
    delivery.fail(400, database="refused_db")
    for index, (account, rows) in enumerate(sizes):
        if account == "-":
            delivery.put(b"garbage")
        else:
            put(delivery, account, rows, f"table_{index % 2}")
    numbers = [record["SequenceNumber"] for record in delivery.records()]
    done = 0
    for batch, outage, sends, pause in turns:
        if outage:
            now = delivery.clock.now()
            delivery.td.faults.add(Fault(kind=Kind.STATUS, begin=now, end=now + 150))  # type: ignore[attr-defined]  # the default source
        if sends:
            delivery.send()
        if done < len(sizes):
            held = delivery.start().deliver(done, done + batch)
            done = min(done + batch, len(sizes)) if held is None else numbers.index(held)
        delivery.clock.sleep(pause)
    balance = take(delivery)
    total = balance.total
    in_td = sum(count for tables in delivery.td.counts().values() for count in tables.values())
    received: Counter[tuple[str, str]] = Counter()
    for index, (account, rows) in enumerate(sizes[: len(sizes) - balance.unread.on_stream]):
        if account == "-":
            received["-", "-undecodable"] += 1
        else:
            received[account, f"table_{index % 2}"] += rows

    assert (True, 0) == (balance.adds_up, total.in_flight)
    assert received == {place: found.received for place, found in balance.tables.items()}
    lost = [found for (account, _), found in balance.tables.items() if account in ("nobody", "-")]
    assert all(found.dead == found.received for found in lost)
    assert total.delivered <= in_td <= total.delivered + total.waiting  # it may have taken what still waits


def test_spans_are_read_page_by_page_and_discarded(delivery: Delivery) -> None:
    """So memory does not grow with the ledger."""
    put(delivery)
    delivery.deliver()
    [item] = (one for one in delivery.dynamodb.items(TABLE) if "g" in one)
    more, kept = iter([True] * 50 + [False]), list[int]()

    def scan(**_: Any) -> Any:
        if next(more):
            return {"Items": [item] * 100, "LastEvaluatedKey": {}}
        kept.append(sum(type(one) is Span for one in gc.get_objects()))
        return {"Items": []}

    endless: Any = SimpleNamespace(query=delivery.dynamodb.query, scan=scan)
    ledger = Ledger(endless, TABLE, delivery.clock, bytes, NullTelemetry())
    taken = accounting(delivery, ledger=ledger).take()
    assert (5000, 5000) == (taken.spans, taken.total.received)
    assert [True] == [one < 300 for one in kept]


def balance(received: int, waiting: int = 0, *, queued: int = 0, copies: int = 0) -> Balance:
    """Return a balance of received rows, with other rows that wait on the stream."""
    shard = UnreadShard(records=waiting, rows=waiting)
    unread = Unread(queued, {ChainId.parse("s@1#shardId-0"): shard})
    rows = Rows(received, Counter({State.DELIVERED: received}))
    return Balance({("shop", "views"): rows}, unread, {}, 1, copies)


def test_accepted_events_that_ledger_and_stream_lack_are_lost() -> None:
    """Waiting or repeated events are not; messages in the queue, and rows put again, leave no proof of a loss."""
    answers = Answers()
    answers.add(["accepted 2", "refused invalid_key", "accepted 1", "refused invalid_key"])

    def lost(counted: int, repeated: int = 0, **more: int) -> int:
        return of_gateway(counted, balance(6, 3, **more), lambda: repeated).lost

    assert (3, {"invalid_key": 2}) == (answers.accepted, answers.refused)
    assert (0, 0, 2) == (lost(9), lost(5), lost(11))
    assert (0, 2) == (lost(11, repeated=2), lost(11, repeated=1))
    assert (0, 0) == (lost(11, queued=1), lost(11, copies=1))


def test_the_rows_of_repeated_requests_are_counted(delivery: Delivery) -> None:
    """A client that got no answer sends its events again, and the gateway accepts them again."""
    for _ in range(3):
        delivery.put(envelope("shop", {"views": [row("a"), row("b")]}, request_id="r", claim=CLAIMED))
    delivery.put(envelope("shop", {"views": [row("c")]}, request_id="s"))
    delivery.deliver()

    assert 4 == repeated_rows(accounting(delivery).shards)
    assert 3 == accounting(delivery).take().total.received


def counted(delivery: Delivery, *counts: float, asked: dict[str, Any] | None = None) -> Arrivals | None:
    """Return the comparison of the stream's own count, in pages of CloudWatch, with the ledger's. `asked` is what CloudWatch was asked."""

    def paginate(**request: Any) -> list[dict[str, Any]]:
        (asked if asked is not None else {}).update(request)
        return [{"MetricDataResults": [{"Values": [one]}]} for one in counts]

    cloudwatch: Any = SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=paginate))
    shards, membership = accounting(delivery).shards, Membership(delivery.ledger, delivery.objects)
    count = StreamCount.of(shards, membership, delivery.clock, None)
    if count is None:
        return None
    return count.result(cloudwatch, STREAM, accounting(delivery).take(each=count.add))


def test_the_streams_own_count_is_compared_over_closed_windows(delivery: Delivery) -> None:
    """Spans and waiting records count by their arrival within the windows; a span that crosses a border counts in part."""
    assert counted(delivery, 0) is None
    delivery.clock.sleep(WINDOW_SECONDS - delivery.clock.now() % WINDOW_SECONDS)
    for _ in range(6):  # at 20, 70, 120 … 270 s of a window
        delivery.clock.sleep(20)
        put(delivery)
        delivery.clock.sleep(30)
    end = delivery.clock.now()
    for _ in range(2):  # of the next one
        delivery.clock.sleep(20)
        put(delivery)
    delivery.deliver(0, 3)
    delivery.deliver(3, 7)
    delivery.clock.sleep(240)
    asked: dict[str, Any] = {}
    found = counted(delivery, 5, 1, asked=asked)

    assert Arrivals("records", 6, 6, 0, found.since if found else None, end) == found
    assert end == asked["EndTime"].timestamp()
    assert 2 == getattr(counted(delivery, 8), "lost", None)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_record_passed_over_in_a_span_across_a_border_is_lost(
    delivery: Delivery, *, is_known: bool
) -> None:
    """It is not among the span's records, although it lies between them. Without the span's index, nobody can tell."""
    delivery.clock.sleep(WINDOW_SECONDS - delivery.clock.now() % WINDOW_SECONDS)
    for _ in range(4):
        delivery.clock.sleep(80)
        put(delivery)
    first, _, *others = map(support.member, delivery.records())
    delivery.run({"Records": [first, *others]})
    if not is_known:
        delivery.s3.delete_object(Bucket=BUCKET, Key=delivery.span_objects()[0])
    delivery.clock.sleep(240)
    found = counted(delivery, 3)

    assert [2, is_known, not is_known] == [getattr(found, name) for name in ("seen", "lost", "unsure")]


def test_a_record_close_to_a_border_may_count_on_either_side(delivery: Delivery) -> None:
    """The stream and CloudWatch may disagree by seconds."""
    delivery.clock.sleep(2 * WINDOW_SECONDS - delivery.clock.now() % WINDOW_SECONDS + 1)
    put(delivery)
    delivery.deliver()
    delivery.clock.sleep(200)

    assert [0, 2] == [getattr(counted(delivery, count), "lost", None) for count in (1, 2)]
