"""A sample of the runs that `make chaos-exhaustive` makes with the real handlers."""

from itertools import islice
from random import Random

import pytest

from chaos.defences import ALL, Defence, without
from chaos.exhaustive import NAMED, SCENARIOS, Fault, Scenario, choices, explore, run


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_nothing_that_happens_at_one_step_or_two_breaks_a_promise(scenario: Scenario) -> None:
    """Pauses, kills and faults at each step, and pairs of them: a sample of both."""
    steps = run(scenario).steps
    single = 1 + len(steps) * len(Fault)
    found = list(islice(choices(steps, scenario.name), 2 * single))
    some = Random(scenario.name).sample(found, min(12, len(found)))

    assert {} == {choice: wrong for choice in some if (wrong := run(scenario, choice).wrong)}


RARE = {"indexes are read after the shards have passed", "a refusal after a doubt proves nothing"}
"""It takes hundreds or thousands of runs until somebody notices that these are missing; `make mutate` makes them."""


@pytest.mark.parametrize(
    "defence", [one for one in ALL if one.meets and one.name not in RARE], ids=lambda one: one.name
)
def test_a_defence_that_is_left_out_is_noticed(defence: Defence) -> None:
    """Without the defence something at some step breaks a promise or a rule; with it, nothing."""
    _, broken = explore(NAMED[defence.meets], 3000, without(defence.weakness), most_wrong=1)

    assert broken
    assert [{}] == [run(NAMED[defence.meets], choice).wrong for choice in broken]
