"""Promise 4: a sender with a write key cannot harm other accounts, whatever it sends."""

import pytest

from chaos import hostile
from chaos.hostile import Attack


@pytest.mark.xdist_group("isolation")
def test_a_hostile_sender_harms_no_other_account() -> None:
    """While one sender names 25,000 tables a second, the others' 99th percentile grows by at most half."""
    usual, found = hostile.suffer(Attack(12)), hostile.suffer(Attack(12, 50, hostile.new_tables))

    assert found.p99 <= hostile.BOUND * usual.p99
    assert (0, 0) == (usual.wrong, found.wrong)
    assert {200, 429} == found.statuses.keys()
    assert found.statuses[429] > found.statuses[200] / 2
    assert 0 < found.tables <= hostile.TABLES_LIMIT
    assert found.columns <= hostile.COLUMNS_LIMIT
    assert found.stored < 5 << 20


@pytest.mark.xdist_group("isolation")
def test_a_flood_of_large_bodies_stores_little_and_refuses_no_visitor() -> None:
    """With one key or a thousand, others and the account's own visitors notice nothing; an honest peak passes."""
    assert [] == [told for told, holds in hostile.flood_checks(5).items() if not holds]
