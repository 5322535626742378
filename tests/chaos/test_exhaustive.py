"""A slice of the interleavings that `make chaos-exhaustive` goes through."""

import random
from itertools import islice

import pytest

from chaos.exhaustive import SCENARIOS, Choice, FaultKind, Scenario, choices, run, steps_of
from worker.guards import Guard

_RUNS = 12
_NAMED = {scenario.name: scenario for scenario in SCENARIOS}
DEAD = _NAMED["two redrives of a dead letter that is rejected again"]
LOST = _NAMED["a redrive by hand beside the schedule, answers are lost"]
REJECTED = _NAMED["two workers of one batch, rows are rejected"]
PREEMPTED = Choice((5,), (6, FaultKind.HOUR))
TWICE_PREEMPTED = Choice((5, 14), (13, FaultKind.THREE_HOURS))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_no_interleaving_of_a_slice_breaks_anything(scenario: Scenario) -> None:
    """A few that are spread over all of them."""
    every = list(choices(steps_of(scenario), 2, faults=True))
    some = random.Random(scenario.name).sample(every, _RUNS)

    assert {} == {choice: wrong for choice in some if (wrong := run(scenario, choice))}


@pytest.mark.parametrize(
    ("guard", "scenario", "choice"),
    [
        (Guard.FINAL_DELETE, DEAD, Choice()),
        (Guard.FENCED_IN_DOUBT, DEAD, Choice()),
        (Guard.OBJECT_FIRST, REJECTED, PREEMPTED),
        (Guard.FENCE, LOST, TWICE_PREEMPTED),
    ],
    ids=lambda one: one.name if isinstance(one, Guard) else "",
)
def test_a_guard_that_is_left_out_is_noticed(guard: Guard, scenario: Scenario, choice: Choice) -> None:
    """The same interleaving breaks nothing with it."""
    assert [] == run(scenario, choice)
    assert run(scenario, choice, frozenset({guard}))


def test_choices_are_counted_by_preemptions_and_faults() -> None:
    """Of three steps: none or one of them preempted, and no fault or one of each kind at each step."""
    found = list(choices(3, 1, faults=True))

    assert (1 + 3) * (1 + 3 * len(FaultKind)) == len(found) == len(set(found))
    assert [Choice(), Choice((), (0, FaultKind.KILLED_BEFORE))] == list(islice(found, 2))
