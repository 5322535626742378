"""Arrivals: the events that the gateway accepted, and the records that the stream counted."""

from collections import Counter
from typing import Any

import pytest

from ops.books.accounting import Balance, Rows, Unread, UnreadShard
from ops.books.arrivals import WINDOW_SECONDS, Arrivals, StreamCount, of_gateway
from ops.logs.answers import Answers
from tests.ops.books.test_accounting import accounting, put
from tests.support.delivery import STREAM, Delivery
from worker.chain import ChainId
from worker.shards import Shards
from worker.states import State


@pytest.fixture
def delivery() -> Delivery:
    """A delivery whose account shop goes to shop_db."""
    made = Delivery()
    made.map(shop="shop_db")
    return made


def balance(received: int, waiting: int = 0, *, queued: int = 0, copies: int = 0) -> Balance:
    """Return a balance of received rows, with other rows that wait on the stream."""
    shard = UnreadShard(records=waiting, rows=waiting)
    unread = Unread(queued, {ChainId.parse("s@1#shardId-0"): shard})
    rows = Rows(received, Counter({State.DELIVERED: received}))
    return Balance({("shop", "views"): rows}, unread, {}, 1, copies)


def test_accepted_events_that_ledger_and_stream_lack_are_lost() -> None:
    """Events that wait on the stream are not lost; with messages in the queue, or with copies, no loss can be proved.

    The gateway's lines are summed, and its refusals counted by code.
    """
    answers = Answers()
    answers.add(["accepted 2", "refused invalid_key", "accepted 1", "refused invalid_key"])

    assert (3, {"invalid_key": 2}) == (answers.accepted, answers.refused)
    assert 0 == of_gateway(9, balance(6, 3)).lost
    assert 0 == of_gateway(5, balance(6, 3)).lost
    assert 2 == of_gateway(11, balance(6, 3)).lost
    assert 0 == of_gateway(11, balance(6, 3, queued=1)).lost
    assert 0 == of_gateway(11, balance(6, 3, copies=1)).lost


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
