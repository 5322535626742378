"""Promises 4 and 5: accounts are isolated from each other, and no visitor sees an outage."""

import pytest

from chaos import schedule as schedules
from chaos.isolation import BOUND, case
from chaos.load import percentile, simulate
from chaos.run import run_schedule
from chaos.schedule import START, Act, Schedule
from chaos.trouble import Kind, Window


@pytest.mark.xdist_group("isolation")
def test_one_hanging_database_of_fifty_delays_no_other() -> None:
    """The others' 99th percentile grows by at most half, even if whole batches belong to it; `make isolation` has more databases and kinds."""
    usual, found = (simulate(case("hanging" * count, count, accounts=50, hours=0.2)) for count in (0, 1))

    assert ([], []) == (usual.broken, found.broken)
    assert percentile(found.delays, 0.99) <= BOUND * percentile(usual.delays, 0.99)


@pytest.mark.parametrize(
    ("kind", "share"),
    [(Kind.REDIS_DOWN, 1.0), (Kind.TD_OUTAGE, 1.0), (Kind.STANDSTILL, 1.0), (Kind.KINESIS_DOWN, 0.7)],
    ids=["redis", "treasure data", "worker", "kinesis"],
)
def test_no_visitor_sees_an_outage(kind: Kind, share: float) -> None:
    """With a part down every request is answered 200, and all rows arrive once it is back."""
    plain = schedules.draw(1, 300, ())  # whose accounts have no tracking plan
    length = plain.setup.horizon * share
    windows = () if kind is Kind.STANDSTILL else (Window(kind, START, START + length),)
    acts = (Act(START, kind, (length,)),) if kind is Kind.STANDSTILL else ()
    verdict = run_schedule(Schedule(plain.seed, plain.setup, plain.sent, windows, acts))
    assert {200} == verdict.statuses.keys()
    assert (verdict.accepted, verdict.delivered) == (300, 300)
    assert not verdict.violations
