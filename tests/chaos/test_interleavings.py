"""The exploration of all interleavings."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from chaos.interleavings import Clock, Decisions, Exploration, FaultKind, Scheduler


class Counter:
    """A service with one number, and invocations that increment it without a condition."""

    def __init__(self, decisions: Decisions, adders: int) -> None:
        self.number = 0
        self.scheduler = Scheduler(decisions, Clock(0.0), lambda: bytes([self.number]), lambda: None)
        self.scheduler.run([self.add] * adders)

    def add(self) -> None:
        """Read the number, then write it plus one."""
        with suppress(TimeoutError):
            read = self.scheduler.step(lambda: self.number, TimeoutError())
            self.scheduler.step(lambda: self.write(read + 1), TimeoutError())

    def write(self, number: int) -> None:
        """Set the number."""
        self.number = number


def explored(exploration: Exploration, adders: int = 2) -> Iterator[int | None]:
    """Yield the number at the end of each run, None for a run that was cut."""
    more = True
    while more:
        exploration.begin()
        counter = Counter(exploration, adders)
        yield None if counter.scheduler.is_cut else counter.number
        more = exploration.end()


def interleavings(mine: int, others: int, *, waits_at_step: bool = False) -> int:
    """Return the number of interleavings of the remaining steps of two invocations.

    Args:
        mine: the remaining steps of the running invocation, which is before a step.
        others: the remaining steps of the other invocation.
        waits_at_step: whether the other one was preempted before a step, which it will take without another decision.
    """
    goes_on = 1 if mine == 1 else interleavings(mine - 1, others, waits_at_step=waits_at_step)
    if not waits_at_step:
        return goes_on + interleavings(others, mine, waits_at_step=True)
    return goes_on + (1 if others == 1 else interleavings(others - 1, mine, waits_at_step=True))


def test_all_interleavings_are_counted() -> None:
    """The count includes interleavings that were not run because they lead to a known state."""
    exploration = Exploration(None, faults=0)
    ends = list(explored(exploration))

    assert interleavings(2, 2) == exploration.interleavings
    assert exploration.runs == len(ends) < exploration.interleavings
    assert {1, 2, None} == set(ends)


@pytest.mark.parametrize(("preemptions", "ends"), [(0, {2}), (1, {1, 2})])
def test_preemptions_are_limited(preemptions: int, ends: set[int]) -> None:
    """An update is lost only if an invocation is preempted."""
    assert ends == set(explored(Exploration(preemptions, faults=0))) - {None}


def test_a_step_meets_each_kind_of_fault() -> None:
    """The exploration tries no fault, and each kind of fault at each step."""
    exploration = Exploration(0)
    met = {exploration.choice.fault_at for _ in explored(exploration, adders=1)}

    assert {None, *((step, kind) for step in (0, 1) for kind in FaultKind)} == met


def test_a_choice_reproduces_an_interleaving() -> None:
    """Running the choice of a run gives the same result."""
    exploration = Exploration(2, faults=0)
    lost = next(exploration.choice for end in explored(exploration) if end == 1)

    assert 1 == Counter(lost, 2).number
