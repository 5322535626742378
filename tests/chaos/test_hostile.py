"""Promise 4: a sender with a write key cannot harm other accounts, whatever it sends."""

import pytest

from chaos import hostile, isolation
from chaos.flood import Flood


@pytest.mark.xdist_group("isolation")
def test_a_hostile_sender_harms_no_other_account() -> None:
    """While one sender names 25,000 tables a second, the others' 99th percentile grows by at most half."""
    schedule = isolation.steady(minutes=3, every=10)

    usual, suffered = hostile.attack(schedule, 0), hostile.attack(schedule, 20)

    assert suffered.p99 <= isolation.BOUND * usual.p99
    assert (0, 0) == (usual.wrong, suffered.wrong)
    assert {200, 429} == suffered.statuses.keys()
    assert suffered.statuses[429] > suffered.statuses[200] / 2
    assert 0 < suffered.tables <= hostile.TABLES_LIMIT
    assert suffered.columns <= hostile.COLUMNS_LIMIT
    assert suffered.stored < 5 << 20


@pytest.mark.xdist_group("isolation")
def test_a_flood_of_large_bodies_stores_little_and_refuses_no_visitor() -> None:
    """With one key or a thousand, others and the account's own visitors notice nothing; an honest peak passes, also without counters."""
    assert [] == [told for told, holds in hostile.flood_checks(10).items() if not holds]


@pytest.mark.xdist_group("isolation")
def test_a_flood_stores_no_more_than_the_budget() -> None:
    """With however many keys of an account it sends bodies of 2 MiB, the stream grows to a few shards only."""
    found = Flood(1000).run(70, 100)

    assert found.statuses["hostile"][200] <= 2 * hostile.STORED_A_MINUTE
    assert found.shards <= hostile.MOST_SHARDS
