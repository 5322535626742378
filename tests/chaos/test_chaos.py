"""A sample of the schedules that `make chaos` runs by the thousand."""

import pytest

from chaos import schedule as schedules
from chaos.run import finished, run_schedule, run_seed
from chaos.trouble import DRAWN, Kind

EVENTS = 150


@pytest.mark.parametrize("kind", DRAWN)
def test_each_kind_of_trouble_breaks_no_promise(kind: Kind) -> None:
    """With one kind of trouble and its companions, nothing is lost, duplicated, misrouted, stuck or miscounted."""
    schedule = schedules.draw(7, EVENTS, schedules.with_companions(kind))
    verdict = run_schedule(schedule)
    assert not verdict.violations, verdict
    assert verdict.accepted > 0


def test_a_dead_copy_counts_beside_its_first_one() -> None:
    """Nobody knows of the first copy while an object is deleted: both are in the books, as while the copy waits."""
    verdict = run_schedule(schedules.draw(63, EVENTS, schedules.with_companions(Kind.S3_GONE)))
    assert not verdict.violations, verdict


@pytest.mark.parametrize("seed", range(10_001, 10_013, 2))
def test_mixtures_of_trouble_break_no_promise(seed: int) -> None:
    """The promises hold with many kinds of trouble at once."""
    ran = run_seed(seed, EVENTS)
    assert not ran.verdict.violations, ran.verdict


def test_runs_are_reproducible_from_their_seed() -> None:
    """The same seed gives the same trace, line by line."""
    traces: list[list[str]] = [[], []]
    for trace in traces:
        run_schedule(schedules.draw(61, EVENTS), trace=trace)
    assert len(traces[0]) > 1000
    assert traces[0] == traces[1]


def test_without_trouble_everything_is_delivered_within_seconds() -> None:
    """Without trouble every row is in Treasure Data within 15 seconds, and nothing is dead."""
    verdict = run_schedule(schedules.draw(1, EVENTS, ()))
    assert (verdict.delivered, verdict.dead, verdict.largest_delay < 15) == (EVENTS, 0, True)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_wrong_edge_policy_rejects_nobody(seed: int) -> None:
    """With a truncated, newer, older or missing edge policy, every event that fits its account's plan is accepted."""
    pipeline, verdict = finished(schedules.draw(seed, EVENTS, (Kind.S3_POLICY, Kind.COLD)))

    assert not verdict.violations, verdict
    strays = {number for number, sent in pipeline.sent.items() if sent.stray(number)}
    assert set() == pipeline.sent.keys() - pipeline.accepted.keys() - strays
