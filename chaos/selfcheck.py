"""Leaves out one defence at a time, and looks whether the fault-injection tests notice."""

import time
from copy import replace
from dataclasses import dataclass

from chaos import exhaustive, isolation
from chaos import schedule as schedules
from chaos.defences import ALL, Defence, without
from chaos.interleavings import Choice
from chaos.run import run_schedule

SEEDS, EVENTS = 12, 400
"""How many more schedules are tried if the first one shows nothing, and how many events each has."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """What is broken without a defence.

    Attributes:
        number: the defence's in `ALL`.
        where: the schedule's seed, or the scenario; empty if nothing was broken.
        broken: what was broken there.
        sound: whether nothing is broken there with the defence.
        seconds: of CPU time.
    """

    number: int
    where: str
    broken: str
    sound: bool
    seconds: float

    @property
    def defence(self) -> Defence:
        """The defence. It cannot go from process to process."""
        return ALL[self.number]

    @property
    def holds(self) -> bool:
        """Whether its absence was noticed, and by nothing else than its absence."""
        return bool(self.where) and self.sound


def check(number: int) -> Noticed:
    """Leave out the defence with this number in `ALL`."""
    began, defence = time.process_time(), ALL[number]
    where, broken, sound = (_by_waiting if defence.waits else _by_steps if defence.meets else _by_seeds)(
        defence
    )
    return Noticed(number, where, broken, sound, time.process_time() - began)


def _by_seeds(defence: Defence) -> tuple[str, str, bool]:
    for seed in dict.fromkeys((defence.seed, *range(SEEDS))):
        schedule = schedules.draw(seed, EVENTS, defence.kinds)
        schedule = replace(schedule, setup=replace(schedule.setup, **defence.setup))
        if broken := run_schedule(schedule, without(defence.weakness)).violations:
            told = ", ".join(f"{count} {name}" for name, count in broken.items())
            return f"seed {seed}", told, not run_schedule(schedule).violations
    return "", "", True


def _by_steps(defence: Defence) -> tuple[str, str, bool]:
    name, choice = defence.meets or ("", Choice())
    broken, also = (exhaustive.run(exhaustive.NAMED[name], choice, one) for one in (defence, None))
    return (name if broken else ""), "; ".join(broken), not also


def _by_waiting(defence: Defence) -> tuple[str, str, bool]:
    """Measure how long healthy accounts wait without the defence, and with it."""
    base = isolation.steady(
        accounts=defence.waits, minutes=60, every=8 if defence.waits > 20 else 20, floods=True
    )
    usual = isolation.measure(base).p99
    told, is_noticed, sound = [], False, True
    for kind in defence.kinds:
        schedule = isolation.failing(base, kind, minutes=30)
        ratio = isolation.measure(schedule, without(defence.weakness)).p99 / usual
        kept = isolation.measure(schedule).p99 / usual
        is_noticed |= ratio > isolation.BOUND
        sound &= kept <= isolation.BOUND
        told.append(f"{kind}: waiting {ratio:.1f}-fold, with the defence {kept:.2f}-fold")
    return "steady traffic" if is_noticed else "", "; ".join(told), sound
