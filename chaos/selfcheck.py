"""`python -m chaos.selfcheck`: switch off each defence in turn, and check that the fault-injection tests notice.

Exits with status 1 if the absence of a defence goes unnoticed, or if a schedule fails although no defence is absent.
"""

import sys
import time
from concurrent.futures import as_completed
from dataclasses import dataclass

import click
from rich.console import Console
from rich.table import Table

from chaos import defences, isolation, weak_watermarks
from chaos import schedule as schedules
from chaos.defences import WAITING, Defence, without
from chaos.run import pool_of, run_schedule

ALL = (*defences.ALL, *weak_watermarks.DEFENCES)


@dataclass(frozen=True, slots=True)
class Noticed:
    """The result of running schedules without a defence.

    Attributes:
        name: the defence's name.
        schedules: the number of schedules run.
        seed: the first seed that broke a promise; None if none did.
        broken: what it broke.
        sound: whether the same schedule breaks nothing with the defence.
        seconds: the duration of the check.
    """

    name: str
    schedules: int
    seed: int | None
    broken: str
    sound: bool
    seconds: float

    @property
    def verdict(self) -> str:
        """What was broken, in words."""
        told = self.broken or "NOTHING"
        return told if self.sound else f"{told}; BUT ALSO WITH THE DEFENCE"


def check(defence: Defence) -> Noticed:
    """Run schedules without a defence until one breaks what the defence protects."""
    began = time.monotonic()
    for seed in range(defence.seeds):
        schedule = schedules.draw(seed, defence.events, defence.kinds)
        broken = run_schedule(schedule, without(defence.weakness)).violations
        if any(broken[name] for name in defence.breaks):
            sound = not run_schedule(schedule).violations
            told = ", ".join(f"{count} {name}" for name, count in broken.items())
            return Noticed(defence.name, seed + 1, seed, told, sound, time.monotonic() - began)
    return Noticed(defence.name, defence.seeds, None, "", sound=True, seconds=time.monotonic() - began)


def check_waiting(defence: Defence) -> Noticed:
    """Measure how long healthy accounts wait without a defence, and with it."""
    began = time.monotonic()
    base = isolation.steady(accounts=defence.accounts, minutes=60, every=defence.every, floods=True)
    usual = isolation.measure(base).p99
    told, noticed, sound = [], False, True
    for kind in defence.kinds:
        schedule = isolation.failing(base, kind, minutes=30)
        ratio = isolation.measure(schedule, without(defence.weakness)).p99 / usual
        kept = isolation.measure(schedule).p99 / usual
        noticed |= ratio > isolation.BOUND
        sound &= kept <= isolation.BOUND
        told.append(f"{kind}: waiting {ratio:.1f}-fold, with the defence {kept:.2f}-fold")
    seed = 0 if noticed else None
    return Noticed(defence.name, len(defence.kinds), seed, "; ".join(told), sound, time.monotonic() - began)


def _run(job: tuple[str, int]) -> Noticed:
    kind, index = job
    return check(ALL[index]) if kind == "all" else check_waiting(WAITING[index])


@click.command(help=__doc__)
@click.option("--only", default="", help="Check only defences whose name contains this.")
@click.option("--processes", default=0, help="Defences to check in parallel; 0 for one per core.")
def main(only: str, processes: int) -> None:
    """Check the defences and print the results."""
    jobs = [("all", index) for index, one in enumerate(ALL) if only in one.name]
    jobs += [("waiting", index) for index, one in enumerate(WAITING) if only in one.name]
    table = Table(title="What the tests notice when a defence is left out")
    for name in ("left out", "schedules", "seed", "noticed", "seconds"):
        table.add_column(name)
    progress, failed = Console(stderr=True), False
    with pool_of(processes) as pool:
        runs = [pool.submit(_run, job) for job in jobs]
        for number, run in enumerate(as_completed(runs), 1):
            noticed = run.result()
            progress.print(
                f"{number} of {len(runs)}: {noticed.name}: {noticed.verdict} ({noticed.seconds:.0f} s)"
            )
    for noticed in [run.result() for run in runs]:
        failed |= noticed.seed is None or not noticed.sound
        seed = "" if noticed.seed is None else str(noticed.seed)
        table.add_row(noticed.name, str(noticed.schedules), seed, noticed.verdict, f"{noticed.seconds:.0f}")
    Console().print(table)
    sys.exit(failed)


if __name__ == "__main__":
    main()
