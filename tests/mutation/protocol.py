"""Leaves out the defences of the protocol. It imports the product, so it must not be imported before the last mutant has run."""

import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace

from rich.console import Console

from chaos import exhaustive
from chaos import schedule as schedules
from chaos.defences import ALL, Defence, without
from chaos.run import pool_of, run_schedule
from tests.mutation.outcome import Outcome
from tests.mutation.run import Verdict

SEEDS, EVENTS = 12, 400
"""How many more schedules are tried if the first one shows nothing, and how many events each has."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """What is broken without a defence.

    Attributes:
        number: the defence's in `ALL`; the defence itself cannot go from process to process.
        told: where something was broken, and what; empty if nothing was.
        sound: whether nothing is broken there with the defence.
        seconds: of CPU time.
    """

    number: int
    told: str
    sound: bool
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether its absence was noticed, and by nothing else than its absence."""
        return bool(self.told) and self.sound


def check(number: int) -> Noticed:
    """Leave out the defence with this number in `ALL`."""
    began, defence = time.process_time(), ALL[number]
    told, sound = (_by_steps if defence.meets else _by_seeds)(defence)
    return Noticed(number, told, sound, time.process_time() - began)


def _by_seeds(defence: Defence) -> tuple[str, bool]:
    for seed in dict.fromkeys((defence.seed, *range(SEEDS))):
        schedule = schedules.draw(seed, EVENTS, defence.kinds)
        schedule = replace(schedule, setup=replace(schedule.setup, **defence.setup))
        if broken := run_schedule(schedule, without(defence.weakness)).violations:
            return f"seed {seed}: {dict(broken)}", not run_schedule(schedule).violations
    return "", True


def _by_steps(defence: Defence) -> tuple[str, bool]:
    scenario, build = exhaustive.NAMED[defence.meets], without(defence.weakness)
    done = exhaustive.explore(scenario, exhaustive.DEFENCE_RUNS, build, most_wrong=1)
    for choice, broken in done.wrong.items():
        return f"{scenario.name}, {choice}: {broken}", not exhaustive.run(scenario, choice).wrong
    return "", True


def leave_out(only: str, processes: int, progress: Console) -> list[Noticed]:
    """Leave out the defences whose module's path or name contains `only`, in so many processes, and return what was noticed."""
    numbers = [number for number, one in enumerate(ALL) if only in one.module or only in one.name]
    with pool_of(processes) as pool:
        runs = [pool.submit(check, number) for number in numbers]
        for count, run in enumerate(as_completed(runs), 1):
            one = run.result()
            told = (one.told or "NOTHING NOTICES") + ("" if one.sound else "; BUT ALSO WITH THE DEFENCE")
            name = ALL[one.number].name
            progress.print(f"{count} of {len(runs)}: {name}: {told} ({one.seconds:.0f} s of CPU time)")
    return [run.result() for run in runs]


def outcomes_of(noticed: Sequence[Noticed]) -> list[Outcome]:
    """Return the results of leaving out defences, by module."""
    found: dict[str, Outcome] = {}
    for one in noticed:
        module = ALL[one.number].module
        outcome = found.setdefault(module, Outcome(module, "defences"))
        outcome.verdicts[Verdict.KILLED if one.holds else Verdict.SURVIVED] += 1
    return [*found.values()]
