"""Schedules that nobody has run before: each commit has its own."""

import pytest

from chaos import schedule as schedules
from chaos.run import run_schedule
from tests.support.commit import seed

EVENTS, SCHEDULES, PARTS = 12, 120, 6
FIRST = seed()


@pytest.mark.parametrize("first", range(FIRST, FIRST + SCHEDULES, SCHEDULES // PARTS))
def test_fresh_schedules_break_nothing(first: int) -> None:
    """Over a hundred small ones, in a minute of CPU time. The head of pytest's report has the first seed."""
    failed = {}
    for number in range(first, first + SCHEDULES // PARTS):
        if broken := run_schedule(schedules.draw(number, EVENTS)).violations:
            failed[f"make chaos SEED={number} SEEDS=1 EVENTS={EVENTS}"] = dict(broken)

    assert {} == failed
