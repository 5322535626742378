"""Arrivals: the events that the gateway accepted, and the records that the stream counted."""

from collections import Counter
from typing import Any

import pytest

from ops.books.accounting import Balance, Rows, Unread, UnreadShard
from ops.books.arrivals import WINDOW_SECONDS, Arrivals, StreamCount, of_gateway, repeated_rows
from ops.logs.answers import Answers
from tests.ops.books.test_accounting import accounting, put
from tests.support.delivery import STREAM, Delivery, envelope, row
from worker.chain import ChainId
from worker.record import CLAIMED
from worker.shards import Shards
from worker.states import State


@pytest.fixture
def delivery() -> Delivery:
    """A delivery whose account shop goes to shop_db."""
    made = Delivery()
    made.map(shop="shop_db")
    return made


def test_answer_lines_are_added_up() -> None:
    """Accepted events are summed, and refusals are counted by code."""
    answers = Answers()
    answers.add(["accepted 2", "refused invalid_key", "accepted 1", "refused invalid_key"])

    assert (3, {"invalid_key": 2}) == (answers.accepted, answers.refused)


def balance(received: int, waiting: int = 0, *, queued: int = 0, copies: int = 0) -> Balance:
    """Return a balance of received rows, with other rows that wait on the stream."""
    shard = UnreadShard(records=waiting, rows=waiting)
    unread = Unread(queued, {ChainId.parse("s@1#shardId-0"): shard})
    rows = Rows(received, Counter({State.DELIVERED: received}))
    return Balance({("shop", "views"): rows}, unread, {}, 1, copies)


def test_accepted_events_that_ledger_and_stream_lack_are_lost() -> None:
    """Events that wait on the stream, or were repeated, are not lost; with messages in the queue, or with rows put again, no loss can be proved."""

    def lost(counted: int, repeated: int = 0, **more: int) -> int:
        return of_gateway(counted, balance(6, 3, **more), lambda: repeated).lost

    assert (0, 0, 2) == (lost(9), lost(5), lost(11))
    assert (0, 2) == (lost(11, repeated=2), lost(11, repeated=1))
    assert (0, 0) == (lost(11, queued=1), lost(11, copies=1))


def test_the_rows_of_repeated_requests_are_counted(delivery: Delivery) -> None:
    """A client that got no answer sends its events again, and the gateway accepts them again."""
    for _ in range(3):
        delivery.put(envelope("shop", {"views": [row("a"), row("b")]}, request_id="r", claim=CLAIMED))
    delivery.put(envelope("shop", {"views": [row("c")]}, request_id="s"))
    delivery.deliver()

    assert 4 == repeated_rows(Shards(delivery.kinesis, STREAM, delivery.clock))
    assert 3 == accounting(delivery).take().total.received


class CloudWatch:
    """A CloudWatch that returns the given counts."""

    def __init__(self, *counts: float) -> None:
        self.counts = counts
        self.asked: dict[str, Any] = {}

    def get_paginator(self, _: str) -> "CloudWatch":
        """Return itself."""
        return self

    def paginate(self, **request: Any) -> list[dict[str, Any]]:
        """Return two pages."""
        self.asked = request
        return [{"MetricDataResults": [{"Values": [count]}]} for count in self.counts]


def counted(delivery: Delivery, cloudwatch: CloudWatch) -> Arrivals | None:
    """Return the comparison of the stream's own count with the ledger's."""
    shards = Shards(delivery.kinesis, STREAM, delivery.clock)
    count = StreamCount.of(shards, delivery.clock, None)
    if count is None:
        return None
    taken = accounting(delivery).take(each=count.add)
    return count.result(cloudwatch, STREAM, taken)  # type: ignore[arg-type]  # a double


def test_the_streams_own_count_is_compared_over_closed_windows(delivery: Delivery) -> None:
    """Spans and waiting records count by their arrival within the windows; a span that crosses a border counts in part."""
    assert counted(delivery, CloudWatch(0)) is None
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
    cloudwatch = CloudWatch(5, 1)
    found = counted(delivery, cloudwatch)

    assert Arrivals("records", 6, 6, 0, found.since if found else None, end) == found
    assert end == cloudwatch.asked["EndTime"].timestamp()
    assert 2 == getattr(counted(delivery, CloudWatch(8)), "lost", None)


def test_a_record_close_to_a_border_may_count_on_either_side(delivery: Delivery) -> None:
    """The stream and CloudWatch may disagree by seconds."""
    delivery.clock.sleep(2 * WINDOW_SECONDS - delivery.clock.now() % WINDOW_SECONDS + 1)
    put(delivery)
    delivery.deliver()
    delivery.clock.sleep(200)

    assert [0, 2] == [getattr(counted(delivery, CloudWatch(count)), "lost", None) for count in (1, 2)]
