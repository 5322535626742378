"""Promise 4: a sender with a write key cannot hurt others, whatever it sends."""

import pytest

from chaos import hostile, isolation


@pytest.mark.xdist_group("isolation")
def test_a_hostile_sender_hurts_nobody_else() -> None:
    """Beside one that names 25,000 new tables a second, the others' rows take at most half as long again."""
    schedule = isolation.steady(minutes=3, every=10)

    usual, suffered = hostile.attack(schedule, 0), hostile.attack(schedule, 20)

    assert suffered.p99 <= isolation.BOUND * usual.p99
    assert (0, 0) == (usual.wrong, suffered.wrong)
    assert {200, 429} == suffered.statuses.keys()
    assert suffered.statuses[429] > suffered.statuses[200] / 2
    assert 0 < suffered.tables <= hostile.TABLES_LIMIT
    assert suffered.columns <= hostile.COLUMNS_LIMIT
    assert suffered.stored < 5 << 20
