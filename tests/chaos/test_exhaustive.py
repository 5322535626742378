"""A sample of the interleavings that `make chaos-exhaustive` goes through."""

import random

import pytest

from chaos.exhaustive import LEFT_OUT, SCENARIOS, Scenario, explore, run, steps_of
from chaos.interleavings import Choice, FaultKind

_RUNS = 10
_NAMED = {scenario.name: scenario for scenario in SCENARIOS}
WORKERS = _NAMED["two workers of one batch, rows are rejected"]
SENDERS = _NAMED["two senders of waiting rows"]
UNHEARD = _NAMED["two senders, answers are lost"]
CHANGES = _NAMED["two senders, an answer is lost, then the rows are rejected"]
DROPS = _NAMED["a drop of rows in doubt"]
EDITS = _NAMED["two edits of dead rows"]
FORCED = _NAMED["two forced replays with one tag"]
SWEEPS = _NAMED["the sweep beside a sender"]
AGAIN = _NAMED["a worker of two copies beside a sender, one copy was put again"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_no_interleaving_without_a_fault_breaks_anything(scenario: Scenario) -> None:
    """No interleaving with at most one preemption and no fault breaks a promise, as far as a second shows."""
    done = explore(scenario, 1, faults=0, seconds=1)

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


_NOTICED = {
    "a span is appended once": (WORKERS, Choice((3,), (11, FaultKind.FAILS))),
    "a write asks for the version that it read": (SENDERS, Choice((8,), (7, FaultKind.FAILS))),
    "a refusal after a doubt proves nothing": (CHANGES, Choice()),
    "a chunk that was not sent keeps the doubt that another opened": (UNHEARD, Choice()),
    "a send is repeated only while Treasure Data remembers its id": (UNHEARD, Choice()),
    "rows that Treasure Data may have are not dropped": (DROPS, Choice()),
    "a chunk and its new rows change places in one transaction": (
        EDITS,
        Choice((), (19, FaultKind.KILLED_BEFORE)),
    ),
    "a forced replay that is repeated appends nothing": (FORCED, Choice()),
    "objects are deleted by the ledger": (SWEEPS, Choice()),
    "rows that were put again are looked for": (AGAIN, Choice()),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_defence_that_is_left_out_is_noticed(name: str) -> None:
    """Without the defence an interleaving breaks something; with it, nothing."""
    scenario, choice = _NOTICED[name]

    assert [] == run(scenario, choice)
    assert run(scenario, choice, LEFT_OUT[name])
