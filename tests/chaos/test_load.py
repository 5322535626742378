"""The real worker and sender under load, rows counted: calls per row fall as it grows, shards share no keys, outages break no promise."""

import functools

import pytest

from chaos import load
from chaos.load import Case, Result

pytestmark = pytest.mark.xdist_group("scale")

SECONDS = 36


@functools.cache
def _result(rate: float, shards: int = 1, chunks: int = 10) -> Result:
    return load.simulate(Case("", rate, chunks, SECONDS / 3600, shards))


def test_calls_per_row_fall_as_the_load_grows() -> None:
    """Ten times the events, of as many accounts, take under a fifth of the calls per row, and lose no row."""
    small, large = _result(20), _result(200)

    assert ([], []) == (small.broken, large.broken)
    assert 20 * SECONDS <= small.rows < large.rows / 5
    assert not load.grows([small, large])
    for service in ("DynamoDB", "S3", "Treasure Data"):
        assert 0 < large.per_row(service) < small.per_row(service) / 5


@pytest.mark.parametrize(("rate", "accounts"), [(200, 10), (1500, 1)])
def test_every_shard_has_its_own_keys(rate: float, accounts: int) -> None:
    """With eight shards no ledger key and no prefix of the bucket gets more than its shard's share of the calls, even of one account's."""
    result = _result(rate, 8, accounts)

    assert (8, []) == (len(result.batches), result.broken)
    assert 0 < result.share("DynamoDB") < 0.25
    assert 0 < result.share("S3") < 0.25


@pytest.mark.parametrize("kind", load.OUTAGES)
def test_no_outage_breaks_a_promise(kind: str) -> None:
    """Few shards and chunks for a few minutes; `make outage` has many for hours."""
    result = load.simulate(Case(kind, 200, 4, 0.1))

    assert [] == result.broken
    assert 200 * 300 < result.rows
    assert (4 if kind == "hanging" else 0, 0) == (result.doubts, result.left)


def test_broken_promises_are_reported() -> None:
    """Each figure beyond its bound is, and calls per row that grow with the load are."""
    case, plain = Case("hanging", 1000, 20, 6.0), Case("", 1000, 20, 6.0)
    fine = Result(case, lag=59, doubts=40, alarm=300, drained=3600.0)
    assert [] == fine.broken
    broken = Result(case, lag=60, doubts=41, later_doubts=1, alarm=301, lost=1, doubled=1)
    assert ["lag", "lost", "doubled", "doubts", "later", "alarm", "delivered"] == broken.broken

    steady, shared = Result(plain, rows=10), Result(plain, rows=10, left=1)
    shared.calls["S3"] += 1
    shared.keys["S3"]["latest"] += 1
    assert ["left", "shared keys"] == shared.broken
    assert load.grows([steady, shared])
