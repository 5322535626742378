"""A sample of the interleavings that `make chaos-exhaustive` goes through."""

import random

import pytest
from worker.guards import Guard

from chaos.exhaustive import GUARDS, SCENARIOS, Scenario, explore, run, steps_of
from chaos.interleavings import Choice, FaultKind
from chaos.selfcheck import ALL

_RUNS = 10
_NAMED = {scenario.name: scenario for scenario in SCENARIOS}
DEAD = _NAMED["two redrives of a dead letter that is rejected again"]
ACCEPTED = _NAMED["two redrives of a dead letter that is accepted now"]
LOST = _NAMED["a redrive by hand beside the schedule, answers are lost"]
CHANGES = _NAMED["two redrives, an answer is lost, then the rows are rejected"]
REJECTED = _NAMED["two workers of one batch, rows are rejected"]
EDITS = _NAMED["two edits of one dead letter"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_no_interleaving_without_a_fault_breaks_anything(scenario: Scenario) -> None:
    """No interleaving with at most one preemption and no fault breaks a promise."""
    done = explore(scenario, 1, faults=0)

    assert (True, {}) == (done.complete, done.wrong)


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
    done = explore(DEAD, None, faults=0)

    assert (True, {}) == (done.complete, done.wrong)
    assert done.interleavings > 100 * done.runs


@pytest.mark.parametrize(
    ("guard", "scenario", "choice"),
    [
        (Guard.FINAL_DELETE, DEAD, Choice()),
        (Guard.FENCED_IN_DOUBT, DEAD, Choice()),
        (Guard.OBJECT_FIRST, REJECTED, Choice((5,), (6, FaultKind.HOUR))),
        (Guard.FENCE, LOST, Choice((6, 15), (16, FaultKind.THREE_HOURS))),
        (Guard.IF_VERSION, ACCEPTED, Choice((8, 16, 17, 19))),
        (Guard.CONDITIONAL_PLAN, REJECTED, Choice((1,), (0, FaultKind.HOUR))),
        (Guard.OWN_DOUBT, ACCEPTED, Choice((6,), (17, FaultKind.UNHEARD))),
        (Guard.DOUBTED_REFUSAL, CHANGES, Choice()),
        (Guard.DIGEST_IN_NAME, EDITS, Choice((3, 7))),
    ],
    ids=lambda one: one.name if isinstance(one, Guard) else "",
)
def test_a_guard_that_is_left_out_is_noticed(guard: Guard, scenario: Scenario, choice: Choice) -> None:
    """Without the guard the interleaving breaks something; with it, nothing."""
    assert [] == run(scenario, choice)
    assert run(scenario, choice, frozenset({guard}))


def test_every_guard_is_left_out_by_a_command() -> None:
    """`make chaos-selfcheck` or `make chaos-exhaustive` leaves out each guard, so that every guard is shown to be needed."""
    assert set(Guard) == {*GUARDS, *(guard for one in ALL for guard in one.weakness.without)}
