"""The model of batch ids: sound with all its rules, and broken without any one of them."""

import pytest

from tests.models.claims_model import STEPS, Rule, at_random, enumerated

_FIRST_SEEDS = {Rule.CLOCKS: 3_800, Rule.WAIT_FOR_SEARCH: 1_000}
"""Where to look first for what few schedules at random show."""


def test_no_schedule_at_random_breaks_anything() -> None:
    """Kills, days that pass, wrong answers, copies from anywhere: each event is a row once."""
    broken = {seed: wrong for seed in range(2_000) if (wrong := at_random(seed).run(STEPS))}

    assert {} == broken


@pytest.mark.parametrize("has_id", [False, True])
def test_no_schedule_with_two_troubles_breaks_anything(has_id: bool) -> None:
    """All of them, up to a few steps."""
    outcomes = [wrong for _, wrong in enumerated(2, has_id=has_id, steps=5)]

    assert len(outcomes) > 1_000
    assert not any(outcomes)


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name)
def test_every_rule_is_needed(rule: Rule) -> None:
    """Without it, some schedule loses rows, duplicates them, or does not end."""
    first = _FIRST_SEEDS.get(rule, 0)

    assert any(at_random(seed, {rule}).run(STEPS) for seed in range(first, first + 500))
