"""Delivery over many shards: calls per row fall as the load grows, and shards share no keys."""

import functools
from dataclasses import replace

import pytest

from chaos import scale
from chaos.scale import Load, Result

pytestmark = pytest.mark.xdist_group("scale")

LOAD = Load(rate=20, shards=1, accounts=10, seconds=30)


@functools.cache
def _result(load: Load) -> Result:
    return scale.simulate(load)


def test_calls_per_row_fall_as_the_load_grows() -> None:
    """Ten times the requests, from as many accounts, take under a fifth of the calls per row, and lose no row."""
    small, large = _result(LOAD), _result(replace(LOAD, rate=200))

    assert (0, 0) == (small.wrong, large.wrong)
    assert (600, 6000) == (small.rows, large.rows)
    for service in ("DynamoDB", "S3", "Treasure Data"):
        assert 0 < large.per_row(service) < small.per_row(service) / 5


def test_every_shard_has_its_own_keys() -> None:
    """With eight shards no ledger key and no prefix of the bucket gets more than its shard's share of the calls."""
    result = _result(replace(LOAD, rate=200, shards=8))

    assert 8 == len(result.batches)
    assert 0 == result.wrong
    assert set() == result.shared_keys
    assert result.share("DynamoDB") < 0.25
    assert result.share("S3") < 0.25


def test_a_single_account_uses_all_shards() -> None:
    """Eight shards accept one account's load without a problem."""
    result = _result(replace(LOAD, rate=1500, shards=8, accounts=1, seconds=3))

    assert 8 == len(result.batches)
    assert [] == scale.problems([result])


def test_the_command_reports_problems() -> None:
    """A lost row, a prefix that shards share, and calls per row that grow with the load are reported."""
    fine, lossy = Result(LOAD, rows=10), Result(replace(LOAD, rate=30), rows=10, wrong=1)
    lossy.calls["S3"] += 1
    lossy.keys["S3"]["latest"] += 1

    told = scale.problems([fine, lossy])

    assert [
        "at 30 requests a second, 1 rows are not there exactly once, 0 shards have a backlog",
        "at 30 requests a second, shards share latest",
        "calls per row grow with the load",
    ] == told


@pytest.mark.parametrize(("rate", "shards"), [(1, 1), (700, 1), (701, 2), (1000, 2), (10_000, 16)])
def test_shards_follow_the_scaling_rule(rate: float, shards: int) -> None:
    """An AUTO stream doubles above 70 % of its shards' capacity."""
    assert shards == scale.shards_for(rate)
