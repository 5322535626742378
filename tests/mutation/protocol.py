"""Leaves out the defences of the protocol. It imports the product, so it must not be imported before the last mutant has run."""

from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import replace

from chaos import exhaustive
from chaos import schedule as schedules
from chaos.defences import ALL, Defence, without
from chaos.run import Pool, run_schedule

SEEDS, EVENTS = 12, 400
"""How many more schedules are tried if the first one shows nothing, and how many events each has."""


def leave_out(only: str, processes: int) -> Iterator[tuple[Defence, bool, str]]:
    """Leave out the defences whose module's path or name contains `only`, in so many processes.

    Yield each when it is done, whether its absence was noticed, and by nothing else than its absence, and what was noticed.
    """
    numbers = [number for number, one in enumerate(ALL) if only in one.module or only in one.name]
    with Pool(processes) as pool:
        # a defence cannot go to another process
        runs = {pool.submit(_check, number): ALL[number] for number in numbers}
        for run in as_completed(runs):
            told, is_sound = run.result()
            remark = "" if is_sound else "; BUT ALSO WITH THE DEFENCE"
            yield runs[run], bool(told) and is_sound, (told or "NOTHING NOTICES") + remark


def _check(number: int) -> tuple[str, bool]:
    """Leave out a defence. Return where something is broken then, and what, and whether nothing is broken there with the defence."""
    defence = ALL[number]
    return (_by_steps if defence.meets else _by_seeds)(defence)


def _by_seeds(defence: Defence) -> tuple[str, bool]:
    for seed in dict.fromkeys((defence.seed, *range(SEEDS))):
        schedule = schedules.draw(seed, EVENTS, defence.kinds)
        schedule = replace(schedule, setup=replace(schedule.setup, **defence.setup))
        if broken := run_schedule(schedule, without(defence.weakness)).violations:
            return f"seed {seed}: {dict(broken)}", not run_schedule(schedule).violations
    return "", True


def _by_steps(defence: Defence) -> tuple[str, bool]:
    scenario, build = exhaustive.NAMED[defence.meets], without(defence.weakness)
    _, wrong = exhaustive.explore(scenario, exhaustive.DEFENCE_RUNS, build, most_wrong=1)
    for choice, broken in wrong.items():
        return f"{scenario.name}, {choice}: {broken}", not exhaustive.run(scenario, choice).wrong
    return "", True
