"""Outages under load: the real worker and sender, rows counted."""

import pytest

from chaos import away
from chaos.away import Case, Result

pytestmark = pytest.mark.xdist_group("scale")


@pytest.mark.parametrize("kind", away.OUTAGES)
def test_no_outage_breaks_a_promise(kind: str) -> None:
    """Few shards and chunks for a few minutes; `make outage` has many for hours."""
    result = away.simulate(Case(kind, 200, 4, 0.1))

    assert [] == result.broken
    assert 200 * 300 < result.rows
    assert (4 if kind == "hanging" else 0, 0) == (result.doubts, result.left)


def test_broken_promises_are_reported() -> None:
    """Each figure beyond its bound is."""
    case = Case("hanging", 1000, 20, 6.0)
    fine = Result(case, lag=59, doubts=40, alarm=300, drained=3600.0)
    assert [] == fine.broken
    broken = Result(case, lag=60, doubts=41, later_doubts=1, alarm=301, lost=1, doubled=1)

    assert ["lag", "doubts", "later", "alarm", "delivered", "lost", "doubled"] == broken.broken
