"""Schedules that once broke a promise or a rule, each with the kinds of trouble that it takes."""

import pytest

from chaos import schedule as schedules
from chaos.run import run_schedule
from chaos.trouble import Kind

EVENTS = 150
FAILED = (
    # seed, trouble, what was wrong
)


@pytest.mark.parametrize(("seed", "trouble", "why"), FAILED)
def test_a_schedule_that_failed_breaks_nothing_any_more(seed: int, trouble: str, why: str) -> None:
    """What was wrong stays mended."""
    kinds = tuple(Kind[name] for name in trouble.split())

    assert not run_schedule(schedules.draw(seed, EVENTS, kinds)).violations, why
