"""One write key cannot use up the capacity that others need."""

import pytest

from doubles.clock import ManualClock
from ingest.rate import BURST_SECONDS, BYTES_PER_EVENT, Rate
from ingest.refusal import Refused
from shared import write_key
from shared.policy import AccountLimits
from shared.write_key import WriteKey
from tests.support.ingest import SECRETS, START, Site

RATE = 10


def post(site: Site, count: int, **headers: str) -> int:
    """Send this many events and return the response's status."""
    return site.post([{"table": "pageviews"}] * count, **headers).status


def test_a_key_may_send_a_burst_and_then_its_rate() -> None:
    """The request that overdraws the allowance is accepted; the next get 429 until the debt is paid, but not those of other keys."""
    site = Site(key_events_per_second=RATE)
    burst = int(RATE * BURST_SECONDS)
    assert [200, 200, 429] == [post(site, burst - 1), post(site, RATE + 1), post(site, 1)]
    answer = site.post([{"table": "pageviews"}])
    assert ("rate_exceeded", "1") == (answer.code, answer.headers["retry-after"])
    others = [write_key.sign(*one, SECRETS["k1"]) for one in (("news", "k1"), ("shop", "k1-2"))]
    assert [200, 200] == [post(site, burst, key=key) for key in others]

    site.clock.sleep(0.9)
    assert 429 == post(site, 1)
    site.clock.sleep(0.2)

    assert 200 == post(site, 1)
    assert not site.telemetry.counts


def test_an_account_may_have_limits_of_its_own() -> None:
    """Limits in the edge policy replace the defaults."""
    clock, key = ManualClock(START), WriteKey("shop", "k1")
    rate = Rate(1, clock)
    limits = AccountLimits(events_per_second=100, bytes_per_second=5)

    def admits(events: int, size: int) -> bool:
        try:
            rate.allowance(key, limits).charge(events, size)
        except Refused:
            return False
        return True

    assert [True, True, False] == [admits(900, 0), admits(100, 0), admits(1, 0)]
    clock.sleep(1)
    assert [True, False] == [admits(0, 50), admits(0, 0)]


LARGE = {"table": "pageviews", "text": "x" * int(RATE * BURST_SECONDS * BYTES_PER_EVENT)}


@pytest.mark.parametrize(
    ("events", "status"), [([LARGE], 200), ([{}] * int(RATE * BURST_SECONDS), 400)], ids=["bytes", "rejected"]
)
def test_large_and_rejected_events_use_up_the_allowance(events: list[dict[str, str]], status: int) -> None:
    """They cost as much to process as others, and a few large ones as much as many small ones."""
    site = Site(key_events_per_second=RATE)

    assert [status, 429] == [site.post(events).status, post(site, 1)]


@pytest.mark.parametrize(("change", "left"), [(86_400, 100), (-3600, 50)])
def test_a_burst_does_not_grow_with_idle_time(change: int, left: int) -> None:
    """After a day without requests it is as large as ever. A clock that is set back changes nothing."""
    site = Site(key_events_per_second=RATE)
    post(site, 50)
    site.clock.time += change

    assert [200, 429] == [post(site, left), post(site, 1)]


def test_a_request_has_rows_for_at_most_20_tables() -> None:
    """Each event for a further table is rejected on its own; the others are not affected."""
    tables = [f"table_{number % 30:03}" for number in range(60)]

    answer = Site().post([{"table": table} for table in tables])

    assert (200, 40) == (answer.status, answer.json["accepted"])
    assert [(index, "too_many_tables") for index, table in enumerate(tables) if table >= "table_020"] == [
        (one["index"], one["code"]) for one in answer.json["rejected"]
    ]
