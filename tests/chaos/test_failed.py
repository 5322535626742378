"""Schedules that once broke a promise or a rule, each with the kinds of trouble that it takes."""

import pytest

from chaos import schedule as schedules
from chaos.run import run_schedule
from chaos.trouble import Kind

EVENTS = 150
FAILED = (
    (10, "KINESIS_LISTING RESHARD KINESIS_LOST_ANSWER", "a listing older than a chain's end was believed"),
    (10, "RECREATE KINESIS_INTERNAL", "no first copy was looked for in a deleted stream's chains"),
    (9, "FORCE TD_BAD_ROWS", "a forced replay sent the dead half of a record, too"),
    (4, "DISABLE KINESIS_LOST_ANSWER KINESIS_TIMEOUT", "rows put again died unlooked for, then were sent"),
    (3, "TD_WRONG_HOST TD_FORBIDDEN_DATABASE TD_TABLE_MISSING", "the judge knew no refusal by an account"),
)


@pytest.mark.parametrize(("seed", "trouble", "why"), FAILED)
def test_a_schedule_that_failed_breaks_nothing_any_more(seed: int, trouble: str, why: str) -> None:
    """What was wrong stays mended."""
    kinds = tuple(Kind[name] for name in trouble.split())

    assert not run_schedule(schedules.draw(seed, EVENTS, kinds)).violations, why
