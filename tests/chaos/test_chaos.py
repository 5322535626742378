"""A slice of the schedules that `make chaos` runs by the thousand."""

import pytest

from chaos import schedule as schedules
from chaos.run import run_schedule, run_seed
from chaos.schedule import DRAWN
from chaos.trouble import Kind

EVENTS = 150


@pytest.mark.parametrize("kind", [kind for kind in DRAWN if kind not in schedules.COSTLY])
def test_each_kind_of_trouble_breaks_no_promise(kind: Kind) -> None:
    """With one kind of trouble and what it needs beside it: nothing lost, duplicated, misrouted, stuck or miscounted."""
    schedule = schedules.draw(7, EVENTS, schedules.with_companions(kind))
    verdict = run_schedule(schedule)
    assert not verdict.violations, verdict
    assert verdict.accepted > 0


@pytest.mark.parametrize("seed", range(10_001, 10_013, 2))
def test_mixtures_of_trouble_break_no_promise(seed: int) -> None:
    """With many kinds of trouble at once the promises hold as well."""
    ran = run_seed(seed, EVENTS)
    assert not ran.verdict.violations, ran.verdict


def test_a_seed_decides_everything() -> None:
    """The same seed gives the same trace, line by line."""
    traces: list[list[str]] = [[], []]
    for trace in traces:
        run_schedule(schedules.draw(61, EVENTS), trace=trace)
    assert len(traces[0]) > 1000
    assert traces[0] == traces[1]


def test_without_trouble_everything_is_delivered_at_once() -> None:
    """Without trouble every row is in Treasure Data within seconds, and nothing is set aside."""
    verdict = run_schedule(schedules.draw(1, EVENTS, ()))
    assert (verdict.delivered, verdict.aside, verdict.largest_delay < 15) == (EVENTS, 0, True)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_wrong_edge_policy_refuses_nobody(seed: int) -> None:
    """Cut off, of the next version, an older one or gone: every event of an ordinary account is accepted."""
    verdict = run_schedule(schedules.draw(seed, EVENTS, (Kind.S3_POLICY, Kind.COLD)))

    assert verdict.accepted == EVENTS
