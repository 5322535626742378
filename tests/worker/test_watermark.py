"""Watermarks: the time before which every received row is in Treasure Data, or dead."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml

from doubles.sqs import MemorySQS
from doubles.treasure_data import Action, Fault, Kind, queries
from ingest.overflow import NOTICE_EVERY_SECONDS
from local.functions import INGEST
from local.resources import NOTICES
from shared.errors import UnavailableError
from tests.support import delivery as support
from tests.support.delivery import Delivery
from tests.support.overflow import an_envelope
from tests.support.sam import ROOT
from tests.support.virtual_time import SideBySide, VirtualClock
from worker.chain import Owner
from worker.ledger import BEHIND_ALL, WORKLIST_KEYS
from worker.passing import CLOCK_SECONDS, MARGIN_SECONDS
from worker.states import State
from worker.watermark import ALL_TABLES, COUNTED_SECONDS, INDEX_SECONDS, INGEST_SECONDS, Completeness
from worker.wiring import Wiring

SHOP = ("shop", "pageviews")
INGEST_MARGIN = INGEST_SECONDS + 2 * CLOCK_SECONDS


class Stack:
    """A delivery and its overflow queue."""

    table = "sluice_watermarks"

    def __init__(self, **changes: Any) -> None:
        self.delivery = Delivery(**changes)
        self.delivery.map(shop="shop_db", blog="blog_db")
        self.clock = self.delivery.clock
        self.sqs = MemorySQS(self.clock.now)
        self.queue_url = self.sqs.create_queue(QueueName="overflow")["QueueUrl"]
        self.notices_url = self.sqs.create_queue(QueueName="overflow-notices", Attributes=NOTICES)["QueueUrl"]
        self.proved = 0  # the watermark that `settled` proves if nothing waits, in UNIX milliseconds
        self._number = 0

    def put(self, account: str = "shop", at: float | None = None, claim: int = 0) -> float:
        """Put an envelope of one row and return when it was received."""
        self._number += 1
        received_at = self.clock.now() if at is None else at
        name = f"r{self._number}"
        self.delivery.put(an_envelope(name, account=account, at=received_at, claim=claim).encode())
        return received_at

    @property
    def wiring(self) -> Wiring:
        """The parts of a new sandbox of the sender, which may read the stream and count messages."""
        usual = self.delivery.sender_wiring
        effects = replace(usual.effects, kinesis=self.delivery.kinesis, sqs=self.sqs)  # type: ignore[arg-type]  # a double
        return Wiring(replace(usual.settings, watermark_table=self.table), effects)

    def take(self, seconds: float = 60.0) -> Completeness:
        """Take a watermark."""
        return self.wiring.watermarks.take(seconds)

    def mark(self, seconds: float) -> None:
        """Note that the queue is empty, and have each shard pass a time that much later."""
        self.proved = round((self.clock.now() - INGEST_MARGIN) * 1000)
        self.wiring.watermarks.note()
        self.clock.sleep(seconds)
        self.delivery.sender_wiring.passing.mark(round(self.clock.now() * 1000))

    def settled(self, seconds: float = MARGIN_SECONDS + CLOCK_SECONDS + 1) -> Completeness:
        """Note that the queue is empty, let every shard pass that time, and take a watermark."""
        self.mark(seconds)
        self.delivery.deliver_all()
        return self.take()


@pytest.fixture
def stack() -> Stack:
    """Return a stack with its first record delivered an hour ago."""
    made = Stack()
    made.put()
    made.delivery.deliver_all()
    made.clock.sleep(3600)
    return made


def test_delivered_rows_are_complete_up_to_what_every_shard_has_passed(stack: Stack) -> None:
    """An idle shard shows that by a marker. Before that, envelopes that had left the queue may be on the stream, in no span yet."""
    found = stack.settled(MARGIN_SECONDS + CLOCK_SECONDS - 1)
    assert (None, True) == (found.horizon, "some seven minutes" in found.obstacle)

    assert stack.settled().before(*SHOP) == stack.proved


@pytest.mark.parametrize("claim", [0, 1_700_000_000_000])
def test_a_waiting_row_limits_its_own_table(stack: Stack, claim: int) -> None:
    """Others go on. One that was put again may count."""
    stack.delivery.fail(status=503)
    received_at = stack.put(claim=claim)
    stack.delivery.deliver_all()
    stack.clock.sleep(900)
    found = stack.settled()

    assert received_at * 1000 == found.before(*SHOP)
    assert stack.proved == found.before("blog", "pageviews")


def test_a_copy_whose_owner_is_in_no_span_limits_everything(stack: Stack) -> None:
    """Its rows are those of a record that is still to come."""
    stack.settled()
    one, *_ = stack.delivery.spans()
    stack.delivery.ledger.update(replace(one, copies={"q": Owner(one.chain, BEHIND_ALL)}))

    assert one.received_at == stack.take().horizon


@pytest.mark.parametrize("account", ["shop", "nobody"])
@pytest.mark.parametrize("gap", [False, True])
def test_recent_spans_are_seen_before_the_index_shows_them(stack: Stack, account: str, gap: bool) -> None:
    """They are read from the chains, and from the chains of gaps."""
    stack.delivery.dynamodb.client.lag_indexes(support.TABLE, INDEX_SECONDS)
    stack.delivery.fail(status=503)
    stack.wiring.watermarks.note()
    stack.clock.sleep(MARGIN_SECONDS + CLOCK_SECONDS + 1)
    stack.put(account)
    stack.put("blog")
    if gap:
        stack.delivery.deliver(2)
    stack.delivery.deliver_all()
    found = stack.take()
    tables, dead = ("pageviews", ALL_TABLES), {account} & {"nobody"}

    assert {(name, table) for name in {account, "blog"} - dead for table in tables} == found.pending.keys()
    assert {(name, table): 1 for name in dead for table in tables} == found.dead


def test_rows_in_place_of_others_are_seen_before_the_index_shows_them(stack: Stack) -> None:
    """The index may still list the span whose dead rows an operator has edited, and not yet that of the edited rows."""
    made = stack.delivery
    made.fail(status=422)
    stack.put()
    stack.delivery.deliver_all()
    stack.settled()
    dead = [(span, key) for span in made.spans() for key, one in span.all_leaves() if one.state is State.DEAD]
    (span, key) = dead[0]
    made.dynamodb.client.lag_indexes(support.TABLE, INDEX_SECONDS)
    payload = made.wiring.objects.payload(span, key)
    made.sender_wiring.replacements.edit(span.place, key, payload)
    found = stack.take()

    assert dict.fromkeys([SHOP, ("shop", ALL_TABLES)], span.received_at) == found.pending
    assert {} == found.dead


def test_many_spans_cost_few_calls(stack: Stack) -> None:
    """A busy stack has thousands of recent spans, and after an outage as many that wait."""
    stack.delivery.fail(status=503)
    stack.settled()
    costs = []
    for _ in range(2):
        for _ in range(20):
            stack.put()
            stack.delivery.deliver(len(stack.delivery.records()) - 1)
        stack.delivery.dynamodb.calls.clear()
        assert stack.take().pending
        costs.append(len(stack.delivery.dynamodb.calls))

    assert 0 <= costs[1] - costs[0] <= 2 * WORKLIST_KEYS


def test_envelopes_in_the_overflow_queue_leave_the_watermark_unknown(stack: Stack) -> None:
    """Their age is unknown, so no note is made."""
    stack.sqs.send_message(QueueUrl=stack.queue_url, MessageBody="x")
    found = stack.settled()

    assert (None, True) == (found.before(*SHOP), "the overflow queue was seen empty" in found.obstacle)


def test_a_notice_delays_the_watermark(stack: Stack) -> None:
    """The overflow queue was used, and its counts may lag."""
    stack.sqs.send_message(QueueUrl=stack.notices_url, MessageBody="x")

    assert stack.settled().horizon == stack.proved - round(COUNTED_SECONDS * 1000)


def test_notices_outlast_the_lag_of_the_counts() -> None:
    """A notice may be a minute old when an envelope is sent, and clocks may differ."""
    lasting = int(NOTICES["MessageRetentionPeriod"])

    assert COUNTED_SECONDS <= lasting - NOTICE_EVERY_SECONDS - 2 * CLOCK_SECONDS
    assert INGEST.timeout == INGEST_SECONDS


def test_a_shard_without_records_proves_nothing_until_its_marker_is_in_a_span(stack: Stack) -> None:
    """Nor does its parent, unless Kinesis shows in time that it holds nothing more."""
    stack.delivery.split()
    assert "the shard shardId-000000000001 has delivered no record yet" == stack.take().obstacle

    assert stack.settled().horizon is not None
    assert f"the closed shard {support.SHARD} has records that are in no span" == stack.take(0.0).obstacle


def test_a_closed_shard_that_is_not_listed_is_read_until_it_is_gone(stack: Stack) -> None:
    """A listing whose open shards cover every key may still lack one that was closed."""
    stack.put()
    stack.delivery.split()
    kinesis = stack.delivery.kinesis.client
    whole = kinesis.list_shards
    kinesis.list_shards = lambda **asked: {
        "Shards": [one for one in whole(**asked)["Shards"] if one["ShardId"] != support.SHARD]
    }

    assert f"the closed shard {support.SHARD} has records that are in no span" == stack.settled().obstacle
    stack.clock.sleep(2 * 86_400)
    assert stack.settled().horizon == stack.proved


def test_a_chain_that_the_sender_closed_counts_only_if_the_shard_held_nothing_more(stack: Stack) -> None:
    """Otherwise the records in it are in no span yet."""
    received_at = stack.put(at=stack.clock.now() - 10)
    stack.delivery.split()
    stack.clock.sleep(1000)
    stack.delivery.sender_wiring.passing.obstacle(round(received_at * 1000))
    stack.delivery.deliver_all({f"shardId-{n:012}" for n in (1, 2)})

    assert f"the closed shard {support.SHARD} has records that are in no span" == stack.take().obstacle


def test_what_is_delivered_behind_the_end_of_a_closed_chain_counts(stack: Stack) -> None:
    """It lies in the gap before the end. What waits there is seen before the index shows it; whatever is in no span holds all."""
    stack.delivery.dynamodb.client.lag_indexes(support.TABLE, INDEX_SECONDS)
    received_at, later = stack.put(), stack.put("blog")
    first = stack.delivery.event(end=2)
    stack.delivery.split()
    stack.clock.sleep(2 * MARGIN_SECONDS)
    stack.delivery.sender_wiring.passing.obstacle(round(received_at * 1000))
    stack.clock.sleep(2 * INDEX_SECONDS)
    stack.mark(2 * MARGIN_SECONDS)
    stack.delivery.fail(status=503)
    stack.delivery.run(first)
    stack.delivery.deliver_all({f"shardId-{n:012}" for n in (1, 2)})
    assert f"the closed shard {support.SHARD} has records that are in no span" == stack.take().obstacle

    stack.delivery.deliver_all()
    found = stack.take()
    assert round(received_at * 1000) == found.before(*SHOP)
    assert round(later * 1000) == found.before("blog", "pageviews")


def test_without_time_or_a_whole_list_of_shards_the_watermark_is_unknown(stack: Stack) -> None:
    """The obstacle says so. Open shards that do not cover every key are not believed to be all."""
    stack.settled()
    found = stack.take(seconds=0.0)
    assert (None, "the time was up before all waiting rows were counted") == (found.horizon, found.obstacle)

    stack.delivery.kinesis.client.list_shards = lambda **_: {"Shards": []}
    assert "Kinesis does not list all shards" == stack.take().obstacle


@pytest.mark.parametrize(
    "fail",
    [
        lambda stack: setattr(stack, "sqs", MemorySQS(stack.clock.now)),  # without the queues
        lambda stack: stack.delivery.dynamodb.before.update(query=lambda _: support.lose_answer()),
        lambda stack: stack.delivery.kinesis.before.update(list_shards=lambda _: support.lose_answer()),
    ],
)
def test_a_failing_service_is_an_error(stack: Stack, fail: Callable[[Stack], Any]) -> None:
    """Queue, ledger and stream are all needed."""
    fail(stack)

    with pytest.raises(UnavailableError):
        stack.settled()


class Writer(Stack):
    """A delivery and the writer of its watermarks."""

    def __init__(self, table: str = Stack.table) -> None:
        clock = VirtualClock()
        super().__init__(clock=clock, executors=lambda: SideBySide(clock))
        self.table = table
        self.rows = self.wiring.watermark_rows

    def write(self, pause: float = 400) -> Any:
        """Write watermarks after a while, in which every shard has passed the time at which the queue was empty."""
        self.mark(pause)
        self.delivery.deliver_all()
        return self.rows.write(self.delivery.deadline(support.INVOCATION_MS))

    def watermarks_in(self, database: str) -> list[tuple[str, int, int]]:
        """Return each row's table, time before which it is complete, and number of dead rows."""
        rows = self.delivery.td.rows(database, self.table)
        return [(row["table_name"], row["complete_before"], row["dead"]) for row in rows]


def test_each_account_gets_watermarks_of_its_tables() -> None:
    """They go to a table, created if missing, in its own database. An unknown account gets none."""
    stack = Writer()
    for account in ("shop", "blog", "nobody"):
        stack.put(account)
    stack.delivery.deliver_all()
    written = stack.write()

    assert {"written": 2} == written
    for database in ("shop_db", "blog_db"):
        watermarks = stack.watermarks_in(database)
        assert ["*", "pageviews"] == [table for table, _, _ in watermarks]
        assert {stack.proved} == {at for _, at, _ in watermarks}


def test_a_waiting_row_limits_the_watermark_of_all_tables() -> None:
    """Both watermarks are the time at which the first waiting row was received, and both count what is dead."""
    stack = Writer()
    stack.delivery.td.create("shop_db", "pageviews")
    stack.delivery.fail(422, table="pageviews", count=1)
    stack.put()
    stack.delivery.deliver_all()
    stack.clock.sleep(60)
    received_at = round(stack.put() * 1000)
    stack.clock.sleep(60)
    stack.delivery.fail(503, table="pageviews")
    stack.write()

    assert [("*", received_at, 1), ("pageviews", received_at, 1)] == stack.watermarks_in("shop_db")


def test_a_period_has_one_watermark_per_table() -> None:
    """A run repeated within it changes nothing. An idle account's tables are remembered after their records have expired."""
    stack = Writer()
    stack.put()
    stack.delivery.deliver_all()
    for pause, written in ((400, 2), (1, 2), (9 * 86_400, 4)):
        stack.write(pause)
        assert ["*", "pageviews"] * (written // 2) == [one for one, *_ in stack.watermarks_in("shop_db")]


def test_unknown_watermarks_are_not_written() -> None:
    """Nor are any without a configured table, or while Treasure Data fails. The next run writes them."""
    none, stack = Writer(table=""), Writer()
    stack.put()
    stack.delivery.deliver_all()
    stack.delivery.fail(status=503)
    failed = stack.write()
    stack.delivery.dynamodb.before["query"] = lambda _: support.lose_answer()

    assert {"written": 0, "unknown": "no table is set"} == none.write()
    assert {"written": 0} == failed
    answer = stack.rows.write(stack.delivery.deadline(support.INVOCATION_MS))
    assert {"written": 0, "unknown": "LedgerUnavailableError"} == answer


def test_databases_that_do_not_answer_keep_no_others_from_their_watermarks() -> None:
    """Those of the first accounts would use up the time of each run."""
    stack = Writer()
    accounts = [f"a{number:02}" for number in range(14)]
    stack.delivery.map(**{account: f"{account}_db" for account in accounts})
    for account in (*accounts, "shop"):
        stack.put(account, stack.delivery.clock.now())
    stack.delivery.deliver()
    for account in accounts:
        hang = Fault(kind=Kind.HANG, action=Action.IMPORT, database=f"{account}_db")
        stack.delivery.td.faults.add(hang)

    assert {"written": 1} == stack.write()
    assert stack.watermarks_in("shop_db")
    until = stack.delivery.deadline(4000)
    assert ({"written": 1}, True) == (stack.rows.write(until), until.left() > -1)


@pytest.mark.parametrize(("account", "expected"), [("shop", False), ("blog", True)])
def test_the_example_workflow_waits_for_one_account(account: str, expected: bool) -> None:
    """In a database that accounts share, another's row for all its tables says nothing. Its export has every variable of the query."""
    given = yaml.safe_load((ROOT / "docs/digdag/daily.dig").read_text())["_export"]["sluice"]
    query = (ROOT / "docs/digdag/queries/is_complete.sql").read_text()
    for name, value in {**given, "account": account}.items():
        query = query.replace(f"${{sluice.{name}}}", value)
    columns = {"account": "string", "table_name": "string", "complete_before": "long"}
    rows = [("shop", given["table"], 86_399_999), ("blog", "*", 86_400_000)]
    table = [dict(zip(columns, row, strict=True)) for row in rows], columns

    assert "account" in given
    day = re.sub(r"TD_TIME_\w+\([^)]*\)", "86400", query)  # what it makes of the dates
    assert [(expected,)] == queries.run(day, {Stack.table: table})
