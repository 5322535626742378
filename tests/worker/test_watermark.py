"""Watermarks: the time before which every received event is in Treasure Data or set aside."""

from collections import Counter
from typing import Any

import pytest
from botocore.exceptions import ClientError
from worker.delivery import State
from worker.overflow_set_aside import OverflowSetAside

from doubles.clock import ManualClock
from doubles.sqs import MemorySQS
from doubles.treasure_data import Action, Fault, Kind
from ingest.overflow import NOTICE_EVERY_SECONDS
from local.functions import INGEST
from local.resources import NOTICES
from shared.errors import UnavailableError
from tests.support import delivery as support
from tests.support.delivery import Delivery
from tests.support.overflow import an_envelope
from worker.executor import InlineExecutor
from worker.shards import Shards
from worker.watermark import (
    CLOCK_SECONDS,
    COUNTED_SECONDS,
    INGEST_SECONDS,
    Completeness,
    Watermarks,
)

SHOP = ("shop", "pageviews")
MARGIN = INGEST_SECONDS + 2 * CLOCK_SECONDS


class Stack:
    """A delivery and its overflow queue.

    Attributes:
        delivery: stream, worker, ledger and so on.
        clock: the delivery's manual clock.
        sqs: the queue's client.
    """

    def __init__(self) -> None:
        self.delivery = Delivery()
        self.delivery.map(shop="shop_db", blog="blog_db")
        self.clock: ManualClock = self.delivery.clock
        self.sqs = MemorySQS(self.clock.now)
        self.queue_url = self.sqs.create_queue(QueueName="overflow")["QueueUrl"]
        self.notices_url = self.sqs.create_queue(QueueName="overflow-notices", Attributes=NOTICES)["QueueUrl"]
        self._number = 0

    def put(self, account: str = "shop", at: float | None = None) -> float:
        """Put an envelope of one row and return when it was received."""
        self._number += 1
        received_at = self.clock.now() if at is None else at
        self.delivery.put(an_envelope(f"r{self._number}", account=account, at=received_at).encode())
        return received_at

    def deliver_many(self, batches: int) -> None:
        """Put and deliver batches of 1,100 envelopes."""
        for _ in range(batches):
            for _ in range(1100):
                self.put()
            self.delivery.deliver(len(self.delivery.read))

    def take(self, kinesis: Any = None, seconds: float = 60.0) -> Completeness:
        """Take a watermark."""
        return Watermarks(
            shards=Shards(kinesis or self.delivery.kinesis, support.STREAM, self.clock),
            ledger=self.delivery.ledger,
            sqs=self.sqs,  # type: ignore[arg-type]  # a double
            queue_url=self.queue_url,
            notices_url=self.notices_url,
            clock=self.clock,
            executors=InlineExecutor,
        ).take(seconds)

    def before(self, account: str = "shop") -> float | None:
        """Return a table's watermark in UNIX seconds."""
        found = self.take().before(account, "pageviews")
        return None if found is None else found / 1000


@pytest.fixture
def stack() -> Stack:
    """Return a stack with its first record delivered."""
    made = Stack()
    made.put()
    made.delivery.deliver()
    made.clock.time += 3600
    return made


def test_delivered_rows_are_complete(stack: Stack) -> None:
    """The margin covers requests still in the ingest, and wrong clocks."""
    began = stack.clock.now()
    found = stack.take()

    assert (began - MARGIN) * 1000 == found.before(*SHOP)
    assert frozenset({SHOP}) == found.tables


def test_an_unplanned_record_is_pending(stack: Stack) -> None:
    """It limits the watermark of its own table alone."""
    received_at = stack.put(at=stack.clock.now() - 3000)
    began = stack.clock.now()
    found = stack.take()

    assert received_at * 1000 == found.before(*SHOP)
    assert (began - MARGIN) * 1000 == found.before("blog", "pageviews")


def test_an_open_span_is_pending(stack: Stack) -> None:
    """It is planned but not delivered, since Treasure Data fails."""
    received_at = stack.put(at=stack.clock.now() - 3000)
    for action in (Action.IMPORT, Action.STATUS):
        stack.delivery.td.faults.add(Fault(kind=Kind.STATUS, action=action, status=503))  # type: ignore[attr-defined]  # the default source
    stack.delivery.deliver()

    assert received_at == stack.before()


def test_records_before_the_last_span_may_be_pending(stack: Stack) -> None:
    """A replay has planned the records behind them."""
    received_at = stack.put(at=stack.clock.now() - 3000)
    stack.put()
    event = stack.delivery.event(2) | {"replay": True}
    stack.delivery.run(event, support.INVOCATION_MS)

    assert received_at == stack.before()


def test_envelopes_in_the_overflow_queue_leave_the_watermark_unknown(stack: Stack) -> None:
    """Their age is unknown."""
    stack.sqs.send_message(QueueUrl=stack.queue_url, MessageBody="x")
    found = stack.take()

    assert (None, "about 1 envelopes are in the overflow queue") == (found.before(*SHOP), found.obstacle)


def test_a_notice_delays_the_watermark(stack: Stack) -> None:
    """The overflow queue was used, and its counts may lag. The notice stays for as long as that matters."""
    stack.sqs.send_message(QueueUrl=stack.notices_url, MessageBody="x")
    began = stack.clock.now()
    first, second = stack.before(), stack.before()
    stack.clock.time = began + 301

    assert began - MARGIN - COUNTED_SECONDS == first
    assert first is not None
    assert second is not None
    assert second > first
    assert began + 301 - MARGIN == stack.before()


def test_notices_outlast_the_lag_of_the_counts() -> None:
    """A notice may be a minute old when an envelope is sent, and clocks may differ."""
    lasting = int(NOTICES["MessageRetentionPeriod"])

    assert COUNTED_SECONDS <= lasting - NOTICE_EVERY_SECONDS - 2 * CLOCK_SECONDS


def test_set_aside_rows_are_complete_and_counted_separately(stack: Stack) -> None:
    """The watermark passes them, and their number is reported beside it."""
    stack.put("nobody", at=stack.clock.now() - 3000)
    stack.delivery.deliver()
    began = stack.clock.now()
    found = stack.take()

    assert (began - MARGIN) * 1000 == found.before("nobody", "pageviews")
    assert Counter({State.DEAD_LETTER: 1}) == found.set_aside("nobody", "pageviews")


def test_rows_set_aside_by_the_drainer_are_counted_before_the_index_shows_them(stack: Stack) -> None:
    """Nothing else leads to their span, so the whole ledger is read."""
    stack.delivery.dynamodb.client.lag_indexes(support.TABLE, 400)
    aside = OverflowSetAside(
        stack.delivery.wiring.delivery,
        seconds_kept=3600,
        archive=stack.delivery.archive,
        archive_days=30,
    )
    aside.set_aside(an_envelope("q1"), stack.clock.now() - 86_400, absent=True)

    assert Counter({State.PARKED: 1}) == stack.take().set_aside(*SHOP)


@pytest.mark.parametrize("pause", [0, 3600])
def test_settled_records_are_not_read_again(stack: Stack, pause: float) -> None:
    """All records that the event source delivered before a batch are settled, and the ledger has their set-aside rows."""
    stack.delivery.dynamodb.client.lag_indexes(support.TABLE, 0 if pause else 400)
    stack.put("nobody")
    stack.deliver_many(11)
    stack.clock.time += pause
    reads = stack.delivery.kinesis.calls.count("get_records")
    found = stack.take()
    numbers = stack.delivery.kinesis.calls.count("get_records") - reads

    assert Counter({State.DEAD_LETTER: 1}) == found.set_aside("nobody", "pageviews")
    assert frozenset({SHOP, ("nobody", "pageviews")}) == found.tables
    assert 5 >= numbers
    assert found.before(*SHOP) is not None


def test_set_aside_rows_of_a_settled_hole_are_counted_before_the_index_shows_them(stack: Stack) -> None:
    """A replay planned the records behind it, and the hole was planned a moment ago."""
    stack.delivery.dynamodb.client.lag_indexes(support.TABLE, 400)
    stack.put("nobody")
    stack.put()
    stack.delivery.run(stack.delivery.event(2) | {"replay": True}, support.INVOCATION_MS)
    stack.delivery.deliver(1, 2)
    stack.deliver_many(11)

    assert Counter({State.DEAD_LETTER: 1}) == stack.take().set_aside("nobody", "pageviews")


def test_replays_are_not_in_stream_order() -> None:
    """Only batches of the event source are."""
    stack = Stack()
    stack.put()
    stack.put()
    stack.delivery.run(stack.delivery.event(1, 2) | {"replay": True}, support.INVOCATION_MS)
    stack.delivery.deliver(0, 1)

    assert {False: 1, True: 1} == Counter(span.in_order for span in stack.delivery.spans())


def split(stack: Stack) -> None:
    """Split the stream's shard: its children have no records."""
    stack.delivery.kinesis.split_shard(
        StreamName=support.STREAM, ShardToSplit=support.SHARD, NewStartingHashKey=str(1 << 127)
    )


def test_a_shard_without_records_proves_nothing(stack: Stack) -> None:
    """An empty answer is not believed."""
    split(stack)
    found = stack.take()

    assert (
        None,
        "the shard shardId-000000000001 shows no record; the redrive puts a marker there within five minutes",
    ) == (found.horizon, found.obstacle)


def test_a_marker_proves_that_an_idle_shard_is_read(stack: Stack) -> None:
    """It does so whether or not the worker has planned it."""
    split(stack)
    stack.delivery.invoke_redrive({})
    began = stack.clock.now()

    assert began - MARGIN == stack.before()


def test_answers_without_the_record_they_begin_at_are_not_believed(stack: Stack) -> None:
    """The stream shows nothing, although the ledger knows of a record."""

    class Blind:
        def __getattr__(self, name: str) -> Any:
            return getattr(stack.delivery.kinesis, name)

        def get_records(self, **request: Any) -> dict[str, Any]:
            answer = stack.delivery.kinesis.get_records(**request)
            return {**answer, "Records": [], "MillisBehindLatest": 0}

    found = stack.take(Blind())

    assert None is found.horizon
    assert f"the shard {support.SHARD} shows no record" == found.obstacle.partition(";")[0]


def test_a_closed_shard_that_shows_none_of_its_records_is_not_believed(stack: Stack) -> None:
    """The ledger shows that they cannot have expired."""
    split(stack)
    stack.delivery.invoke_redrive({})

    class Blind:
        def __getattr__(self, name: str) -> Any:
            return getattr(stack.delivery.kinesis, name)

        def get_records(self, **request: Any) -> dict[str, Any]:
            answer: dict[str, Any] = stack.delivery.kinesis.get_records(**request)
            if support.SHARD in request["ShardIterator"]:
                return {**answer, "Records": []}
            return answer

    assert f"the shard {support.SHARD} shows none of its records" == stack.take(Blind()).obstacle


def test_an_incomplete_list_of_shards_is_not_believed(stack: Stack) -> None:
    """Its open shards do not cover every key."""

    class Short:
        def __getattr__(self, name: str) -> Any:
            return getattr(stack.delivery.kinesis, name)

        def list_shards(self, **request: Any) -> dict[str, Any]:
            stack.delivery.kinesis.list_shards(**request)
            return {"Shards": []}

    assert "Kinesis does not list all shards" == stack.take(Short()).obstacle


def test_a_busy_shard_is_read_to_its_tip(stack: Stack) -> None:
    """Its tip moves with each answer."""

    class Busy:
        def __getattr__(self, name: str) -> Any:
            return getattr(stack.delivery.kinesis, name)

        def get_records(self, **request: Any) -> dict[str, Any]:
            stack.put()
            answer: dict[str, Any] = stack.delivery.kinesis.get_records(**request)
            return answer

    began = stack.clock.now()

    assert (began - MARGIN) * 1000 == stack.take(Busy()).before(*SHOP)


def test_records_that_land_during_the_read_are_met(stack: Stack) -> None:
    """A record may be settled because a later copy counts, on a shard that was read before."""
    late = stack.clock.now() - 2000

    class Moving:
        reads = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(stack.delivery.kinesis, name)

        def get_records(self, **request: Any) -> dict[str, Any]:
            answer = stack.delivery.kinesis.get_records(**request)
            self.reads += 1
            if self.reads == 3:  # the tip was seen once
                stack.put(at=late)
            return answer

    assert late * 1000 == stack.take(Moving()).before(*SHOP)


def test_without_time_the_watermark_is_unknown(stack: Stack) -> None:
    """The obstacle says so."""
    found = stack.take(seconds=0.1)

    assert (None, "the time was up before the stream was read") == (found.horizon, found.obstacle)


@pytest.mark.parametrize("service", ["sqs", "dynamodb", "kinesis"])
def test_a_failing_service_is_an_error(stack: Stack, service: str) -> None:
    """Queue, ledger and stream are all needed."""
    if service == "sqs":
        stack.queue_url = "https://sqs.invalid/000000000000/gone"
    elif service == "dynamodb":
        stack.delivery.dynamodb.before["query"] = lambda _: support.lose_answer()
    else:
        stack.delivery.kinesis.before["get_records"] = lambda _: support.lose_answer()

    with pytest.raises((UnavailableError, ClientError)):
        stack.take()


def test_the_ingest_ends_within_the_margin() -> None:
    """The margin must not be shorter than the template's time-out."""
    assert INGEST.timeout == INGEST_SECONDS
