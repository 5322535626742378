"""What an account may spend is counted over all function instances, and no failure of the counters reaches a visitor."""

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from doubles.dynamodb import MemoryDynamoDB
from ingest.budget import GRAIN_SECONDS, LARGE_SECONDS, MINUTE_SECONDS, PAUSE_SECONDS, SMALL_BYTES, Budgets
from ingest.refusal import Refused
from ingest.request import Request
from local.resources import COUNTERS
from shared import policy, write_key
from shared.policy import AccountLimits, EdgePolicy, OverflowLimit, PolicyEntry
from tests.support.ingest import BUCKET, KEY, SECRETS, START, Answer, Faults, Site, gzipped
from tests.support.telemetry import CollectedTelemetry

PER_SECOND = 100_000
LIMITS = AccountLimits(bytes_per_hour=3600 * PER_SECOND, events_per_hour=3600 * 1000)
"""A budget of 100 kB and 1,000 events a second."""
DOWN = client_error("InternalServerError", "UpdateItem", status=500)


class Instances:
    """Function instances that share the counters, at the start of a minute. Their client can fail."""

    def __init__(self, count: int = 1) -> None:
        self.clock = ManualClock(START // 3600 * 3600 + 600)
        self.table = MemoryDynamoDB(self.clock.now)
        self.table.create_table(TableName="counters", **COUNTERS)
        self.dynamodb: Any = Faults(self.table, self.clock)
        telemetry = CollectedTelemetry()
        self.all = [Budgets(self.dynamodb, "counters", self.clock, telemetry) for _ in range(count)]

    def spends(self, size: int, instance: int = 0, events: int = 1) -> bool:
        """Send a request and return whether it is accepted."""
        try:
            self.all[instance].of("shop", LIMITS).spend(events, size, self.clock.now())
        except Refused:
            return False
        return True

    def until_refused(self, size: int, instance: int = 0, events: int = 1) -> int:
        """Send requests until one is refused; return how many were accepted."""
        accepted = 0
        while self.spends(size, instance, events):
            accepted += 1
        return accepted


def large_body(events: int = 20) -> bytes:
    """Return a gzip body whose rows are large."""
    return gzipped(json.dumps([{"table": "pageviews", "text": "x" * 50_000}] * events).encode())


def limited(**limits: int) -> Site:
    """Return a site whose account has these limits."""
    site = Site()
    site.publish(shop=PolicyEntry(limits=AccountLimits(**limits)), news=PolicyEntry())
    return site


def test_an_account_that_spends_more_is_counted() -> None:
    """One call for each grain adds what this instance has counted since the last."""
    made = Instances()
    step = int(PER_SECOND * GRAIN_SECONDS / 3) + 1
    for _ in range(9):
        assert made.spends(step)

    assert 3 == len(made.dynamodb.calls)
    [item] = made.table.items("counters")
    assert round(9 * step / PER_SECOND * 1e6, -1) == pytest.approx(int(item["s10"]["N"]))
    assert 0 == int(item["l10"]["N"])


def test_a_flood_of_large_requests_is_refused_and_small_ones_pass() -> None:
    """Large requests may spend three quarters of a minute's budget; what they are refused counts neither against small ones nor later."""
    made = Instances(50)

    accepted = sum(made.until_refused(PER_SECOND, number) for number in range(50))

    assert LARGE_SECONDS == accepted
    assert all(made.spends(1000, number) for number in range(50))
    for _ in range(300):
        made.clock.sleep(1)
        accepted += sum(made.spends(PER_SECOND, number) for number in range(50))
    assert 5 * LARGE_SECONDS * 0.8 <= accepted <= 6 * LARGE_SECONDS
    [item] = made.table.items("counters")
    assert {LARGE_SECONDS * 1_000_000} == {int(item[f"l{minute}"]["N"]) for minute in (10, 11, 14)}


def test_small_requests_are_refused_too_above_the_budget() -> None:
    """All instances together accept a minute's budget, and what each spends before it asks."""
    made, size = Instances(10), PER_SECOND // 20

    accepted = sum(made.until_refused(size, number) for number in range(10)) * size / PER_SECOND

    assert MINUTE_SECONDS <= accepted <= MINUTE_SECONDS + 10 * (GRAIN_SECONDS + 0.05)


@pytest.mark.parametrize(("next_instance", "fault"), [(0, None), (1, None), (0, DOWN)])
def test_the_budget_refills_continuously(next_instance: int, fault: Exception | None) -> None:
    """An account regains what the minute before spent, through whichever instance, as that minute passes."""
    made = Instances(2)
    made.dynamodb.faults, made.dynamodb.sticky = [fault], True
    made.clock.sleep(30)
    made.until_refused(PER_SECOND)
    made.clock.sleep(60)
    assert made.spends(PER_SECOND, next_instance)
    made.clock.sleep(15)

    assert LARGE_SECONDS - 46 // 4 - 1 == made.until_refused(PER_SECOND, next_instance)


def test_many_events_cost_as_much_as_many_bytes() -> None:
    """The budget is in bytes and in events."""
    assert MINUTE_SECONDS * 1000 == 500 * Instances().until_refused(1, events=500)


def test_refused_requests_are_counted() -> None:
    """The counters have the requests and, at least, the events that were refused: a body that is not read counts as one."""
    made = Instances()
    large = Request("POST", "/v1/events", (), {}, "", "", "x" * (SMALL_BYTES + 1), is_base64=False)
    made.until_refused(PER_SECOND)
    for _ in range(4):
        made.spends(PER_SECOND, events=100)
    with pytest.raises(Refused):
        made.all[0].of("shop", LIMITS).body(large)
    made.clock.sleep(PAUSE_SECONDS)
    made.spends(PER_SECOND, events=100)

    items, names = list(made.table.items("counters")), ("refused_requests", "refused_events")
    assert [7, 502] == [sum(int(item[name]["N"]) for item in items) for name in names]


def counted(small: str, large: str, last: str) -> dict[str, Any]:
    """Return DynamoDB's answer with the counters of this minute and of the last."""
    numbers = {"s10": small, "l10": large, "s9": last, "l9": last}
    return {"Attributes": {name: {"N": number} for name, number in numbers.items()}}


@pytest.mark.parametrize(
    "answer",
    [
        DOWN,
        {},
        {"Attributes": {}},
        counted("-5", "1", "0"),
        *[counted(*[n] * 3) for n in ("9" * 30, "x", "0")],
    ],
    ids=["away", "empty", "lacking", "negative", "huge", "text", "forgetful"],
)
def test_without_counters_each_instance_counts_for_itself(answer: Any) -> None:
    """Whatever DynamoDB answers, an instance accepts a minute's budget of its own, and no less."""
    made = Instances(2)
    made.dynamodb.faults, made.dynamodb.sticky = [answer], True

    for size, instance in ((PER_SECOND, 0), (PER_SECOND * 3 // 4, 1)):
        assert LARGE_SECONDS * PER_SECOND // size == sum(made.spends(size, instance) for _ in range(100))
    if answer is DOWN:
        assert 20 * (MINUTE_SECONDS - LARGE_SECONDS) == made.until_refused(PER_SECOND // 20)


def test_a_visitor_waits_once_a_minute_for_counters_that_are_away() -> None:
    """After a failure, an instance makes no call for a minute, for any account."""
    site = Site()
    site.dynamodb.faults, site.dynamodb.sticky = [DOWN], True

    assert {200} == {site.post(large_body()).status for _ in range(10)}
    assert 1 == len(site.dynamodb.calls)
    site.clock.sleep(PAUSE_SECONDS)
    site.post(large_body())
    assert 2 == len(site.dynamodb.calls)
    message = "accounts' spending cannot be counted"
    assert [{"code": "InternalServerError"}] * 2 == site.telemetry.said(message)


def refused(answer: Answer) -> tuple[int, str | None, str | None]:
    """Return status, code and the time to wait of a response."""
    return answer.status, answer.code, answer.headers.get("retry-after")


def test_large_requests_above_the_budget_get_429() -> None:
    """They say when to try again, and nothing of them is stored. A body is decompressed no further than a small one may be."""
    site = limited(bytes_per_hour=60 * 1_000_000)
    damaged = gzip.compress(b" " * (SMALL_BYTES + 1) + b"[" * 1_000_000)[:-8] + b"damaged!"
    assert [200, 429] == [site.post(large_body()).status, site.post(large_body()).status]

    for body in (large_body(), damaged, b" " * (SMALL_BYTES + 1)):
        assert (429, "budget_exceeded", "60") == refused(site.post(body))
    assert 1 == len({item.received_at for item in site.envelopes()})
    assert 200 == site.pixel("page=home").status
    assert "unreadable_body" == Site().post(damaged).code


def test_an_account_that_may_spend_nothing_is_refused_before_its_body_is_read() -> None:
    """The key alone decides."""
    site = limited(events_per_hour=60)
    while site.pixel("page=home").status == 200:
        pass

    for key in (KEY, write_key.sign("shop", "k1-2", SECRETS["k1"])):
        assert (429, "budget_exceeded", "60") == refused(site.post(b"{not JSON", key=key))
    assert 200 == site.post([{"table": "pageviews"}], key=write_key.sign("news", "k1", SECRETS["k1"])).status


def test_an_overflow_ends_large_requests_and_spares_small_ones() -> None:
    """While the policy says that the queue holds too much, an instance accepts a share that is halved with each level."""
    accepted = []
    for level in (None, 0, 1, 10):
        site = Site()
        until = int(site.clock.now() + 30) * 1000
        overflow = None if level is None else OverflowLimit(until, level, 1)
        document = policy.encode({"shop": PolicyEntry()}, 1, EdgePolicy(1, {}, overflow))
        site.bucket.put_object(Bucket=BUCKET, Key=policy.KEY, Body=document)
        accepted.append([site.post(large_body(2)).status for _ in range(5)].count(200))
        assert 200 == site.pixel("page=home").status
        site.clock.sleep(30)
        assert 200 == site.post(large_body(2)).status  # the scaler has stopped

    assert [5, 3, 1, 0] == accepted


SECOND = st.tuples(st.integers(0, 9), st.sampled_from([1_000, 20_000, 60_000, 100_000, 500_000]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(SECOND, max_size=12), min_size=1, max_size=200), st.integers(0, 59))
def test_no_traffic_spends_more_than_the_budget(traffic: list[list[tuple[int, int]]], begin: int) -> None:
    """In any 60 seconds, instances accept at most two minutes' budget, and what each may spend before it asks."""
    made = Instances(10)
    made.clock.sleep(begin)
    accepted: list[float] = []
    for second in traffic:
        accepted.append(sum(size for instance, size in second if made.spends(size, instance)) / PER_SECOND)
        made.clock.sleep(1)

    most = max(sum(accepted[at : at + 60]) for at in range(len(accepted)))
    assert most <= 2 * MINUTE_SECONDS + 10 * (GRAIN_SECONDS + 5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(100, 9_000)), max_size=10), max_size=180),
    st.integers(0, 59),
)
def test_no_traffic_below_the_budget_is_refused(traffic: list[list[tuple[int, int]]], begin: int) -> None:
    """An account that sends less than nine tenths of its budget in each second never gets a 429."""
    made = Instances(10)
    made.clock.sleep(begin)
    for second in traffic:
        assert all(made.spends(size, instance) for instance, size in second)
        made.clock.sleep(1)
