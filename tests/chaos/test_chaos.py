"""A sample of the schedules that `make chaos` runs by the thousand."""

import pytest

from chaos import schedule as schedules
from chaos.run import run_schedule, run_seed
from chaos.trouble import APART, DRAWN, Kind
from tests.support.commit import seed

EVENTS = 150
FAILED = (
    (63, "S3_GONE TD_BROKEN_DATABASE TD_REJECTS_TABLE BORDERS KINESIS_LOST_ANSWER", "a copy was not booked"),
    (10, "KINESIS_LISTING RESHARD KINESIS_LOST_ANSWER", "a listing older than a chain's end was believed"),
    (10, "RECREATE KINESIS_INTERNAL", "no first copy was looked for in a deleted stream's chains"),
    (9, "FORCE TD_BAD_ROWS", "a forced replay sent the dead half of a record, too"),
    (38, "FILTERED PAUSE", "a filter that ended during an invocation was forgotten"),
    (4, "DISABLE KINESIS_LOST_ANSWER KINESIS_TIMEOUT", "rows put again died unlooked for, then were sent"),
    (34, "DYNAMODB_RESTORED TD_OUTAGE TD_LOST_ANSWER KINESIS_LOST_ANSWER", "a repair took up a wrong object"),
    (3, "TD_WRONG_HOST TD_FORBIDDEN_DATABASE TD_TABLE_MISSING", "the judge knew no refusal by an account"),
)
"""Schedules that once broke a promise or a rule, each with the kinds of trouble that it takes."""
FRESH_EVENTS, SCHEDULES, PARTS = 12, 120, 6
FIRST = seed()


@pytest.mark.parametrize("kind", [*DRAWN, *APART])
def test_each_kind_of_trouble_breaks_no_promise(kind: Kind) -> None:
    """With one kind of trouble and its companions, nothing is lost, duplicated, misrouted, stuck or miscounted."""
    verdict = run_schedule(schedules.draw(7, EVENTS, schedules.with_companions(kind)))
    assert not verdict.violations, verdict
    assert verdict.accepted > 0


@pytest.mark.parametrize("seed", range(10_001, 10_013, 2))
def test_mixtures_of_trouble_break_no_promise(seed: int) -> None:
    """The promises hold with many kinds of trouble at once."""
    verdict = run_seed(seed, EVENTS)
    assert not verdict.violations, verdict


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


@pytest.mark.parametrize(("seed", "trouble", "why"), FAILED)
def test_a_schedule_that_failed_breaks_nothing_any_more(seed: int, trouble: str, why: str) -> None:
    """What was wrong stays mended."""
    kinds = tuple(Kind[name] for name in trouble.split())
    assert not run_schedule(schedules.draw(seed, EVENTS, kinds)).violations, why


@pytest.mark.parametrize("first", range(FIRST, FIRST + SCHEDULES, SCHEDULES // PARTS))
def test_fresh_schedules_break_nothing(first: int) -> None:
    """Each commit has its own, over a hundred small ones, in a minute of CPU time. The head of pytest's report has the first seed."""
    failed = {}
    for number in range(first, first + SCHEDULES // PARTS):
        if broken := run_schedule(schedules.draw(number, FRESH_EVENTS)).violations:
            failed[f"make chaos SEED={number} SEEDS=1 EVENTS={FRESH_EVENTS}"] = dict(broken)

    assert {} == failed
