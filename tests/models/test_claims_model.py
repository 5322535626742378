"""The model of batch ids is sound with all its rules and broken without any one of them."""

import pytest

from tests.models.claims_model import STEPS, Rule, enumerated, random_world

_FIRST_SEEDS = {Rule.CLOCKS: 3_800, Rule.WAIT_FOR_SEARCH: 1_000}
"""First seeds for rules whose absence few random schedules expose."""


def test_no_random_schedule_breaks_anything() -> None:
    """With kills, long pauses, wrong answers and copies from anywhere, each event becomes one row."""
    broken = {seed: wrong for seed in range(2_000) if (wrong := random_world(seed).run(STEPS))}

    assert {} == broken


@pytest.mark.parametrize("has_id", [False, True])
def test_no_schedule_with_two_deviations_breaks_anything(has_id: bool) -> None:
    """All schedules of five steps are enumerated."""
    outcomes = [wrong for _, wrong in enumerated(2, has_id=has_id, steps=5)]

    assert len(outcomes) > 1_000
    assert not any(outcomes)


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name)
def test_every_rule_is_needed(rule: Rule) -> None:
    """Without it, some schedule loses rows, duplicates them, or does not end."""
    first = _FIRST_SEEDS.get(rule, 0)

    assert any(random_world(seed, {rule}).run(STEPS) for seed in range(first, first + 500))
