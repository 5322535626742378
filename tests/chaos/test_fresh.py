"""Schedules that nobody has run before: each commit has its own."""

import subprocess

import pytest

from chaos import schedule as schedules
from chaos.run import run_schedule
from tests.support.sam import ROOT

EVENTS, SCHEDULES, PARTS = 12, 120, 6


def first_seed() -> int:
    """Return a number that depends on the commit; 0 if there is none."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=False, capture_output=True, text=True
    ).stdout
    return int(found.strip()[:7] or "0", 16)


FIRST = first_seed()


@pytest.mark.parametrize("first", range(FIRST, FIRST + SCHEDULES, SCHEDULES // PARTS))
def test_fresh_schedules_break_nothing(first: int) -> None:
    """A hundred small schedules and more, a minute of CPU time in all. The test's name has the seed, and what failed the command that repeats it."""
    print(f"fresh schedules: seeds {first} to {first + SCHEDULES // PARTS - 1}, {EVENTS} events each")  # noqa: T201
    failed = {}
    for seed in range(first, first + SCHEDULES // PARTS):
        if broken := run_schedule(schedules.draw(seed, EVENTS)).violations:
            failed[f"make chaos SEED={seed} SEEDS=1 EVENTS={EVENTS}"] = dict(broken)

    assert {} == failed
