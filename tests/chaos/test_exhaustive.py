"""A sample of the interleavings that `make chaos-exhaustive` goes through."""

import random

import pytest

from chaos.defences import ALL, Defence
from chaos.exhaustive import NAMED, SCENARIOS, Scenario, explore, run, steps_of
from chaos.interleavings import Choice, FaultKind

_RUNS = 10
WORKERS = NAMED["two workers of one batch, rows are rejected"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_no_interleaving_without_a_fault_breaks_anything(scenario: Scenario) -> None:
    """None of the first interleavings with at most one preemption and no fault breaks a promise."""
    done = explore(scenario, 1, faults=0, runs=100)

    assert {} == done.wrong


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_no_interleaving_of_a_sample_breaks_anything(scenario: Scenario) -> None:
    """No interleaving in a random sample with two preemptions and a fault breaks a promise."""
    chance, steps = random.Random(scenario.name), steps_of(scenario) + 6
    some = [
        Choice(
            tuple(sorted(chance.sample(range(steps), 2))),
            (chance.randrange(steps), chance.choice(list(FaultKind))),
        )
        for _ in range(_RUNS)
    ]

    assert {} == {choice: wrong for choice in some if (wrong := run(scenario, choice))}


def test_any_number_of_preemptions_can_be_explored() -> None:
    """Interleavings that reach a known state are counted without running their continuations again."""
    done = explore(WORKERS, None, faults=0)

    assert (True, {}) == (done.complete, done.wrong)
    assert done.interleavings > 10 * done.runs


@pytest.mark.parametrize("defence", [one for one in ALL if one.meets], ids=lambda one: one.name)
def test_a_defence_that_is_left_out_is_noticed(defence: Defence) -> None:
    """Without the defence an interleaving breaks something; with it, nothing."""
    assert defence.meets is not None
    name, choice = defence.meets

    assert [] == run(NAMED[name], choice)
    assert run(NAMED[name], choice, defence)
