"""`python -m chaos`: run the whole pipeline through seeded schedules of faults.

Spreads EVENTS over SEEDS schedules, drawn from the seeds SEED, SEED + 1, …. With SEEDS=1 it can write the schedule's
trace to a file. If a schedule breaks a promise, it prints how to reproduce it and exits with status 1.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console

from chaos import schedule as schedules
from chaos.report import Report
from chaos.run import Ran, run_schedule, run_seeds
from chaos.schedule import START, Schedule
from chaos.shrink import shrink
from chaos.verdict import PROMISES

_MOST_SHOWN = 3
_WIDTH = 132  # the table's width if standard output is not a terminal


@click.command(help=__doc__)
@click.option("--events", default=100_000, show_default=True, help="Events in total.")
@click.option("--seeds", default=100, show_default=True, help="Number of schedules.")
@click.option("--seed", default=0, show_default=True, help="The first seed.")
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the first schedule's trace to this file.",
)
@click.option("--processes", default=0, help="Schedules to run in parallel; 0 for one per core.")
def main(events: int, seeds: int, seed: int, trace: Path | None, processes: int) -> None:
    """Run the schedules and print the results."""
    console = Console(stderr=True)
    share, more = divmod(events, seeds)
    jobs = [(seed + index, share + (index < more)) for index in range(seeds)]
    if trace is not None:
        _write_trace(jobs[0], trace)
    report = Report()
    began = time.monotonic()
    for ran in _shown(run_seeds(jobs, processes), len(jobs), report, console):
        report.add(ran)
    report.print(Console() if sys.stdout.isatty() else Console(width=_WIDTH))
    for ran in report.failures[:_MOST_SHOWN]:
        _show(ran, console)
    if len(report.failures) > _MOST_SHOWN:
        console.print(
            f"… and the seeds {', '.join(str(ran.seed) for ran in report.failures[_MOST_SHOWN:40])}"
        )
    if missing := report.missing():
        console.print(f"kinds of trouble that never occurred: {'; '.join(missing)}")
    console.print(f"{time.monotonic() - began:.0f} s")
    click.echo(report.json())
    sys.exit(bool(report.failures))


def _shown(runs: Iterator[Ran], total: int, report: Report, console: Console) -> Iterator[Ran]:
    """Yield the runs, and print every failure, and how far it is at every tenth of the runs."""
    for count, ran in enumerate(runs, 1):
        yield ran
        if ran.verdict.violations:
            console.print(f"seed {ran.seed} failed: {dict(ran.verdict.violations)}")
        if count * 10 // total > (count - 1) * 10 // total:
            console.print(f"{count} of {total} schedules, {len(report.failures)} failed")


def _write_trace(job: tuple[int, int], path: Path) -> None:
    lines: list[str] = []
    run_schedule(schedules.draw(*job), trace=lines)
    path.write_text("\n".join(lines) + "\n")


def _show(ran: Ran, console: Console) -> None:
    """Print which promises a failed schedule broke, how to reproduce it, and the smallest schedule that breaks them."""
    verdict = ran.verdict
    console.print(
        f"\n[bold red]seed {ran.seed}[/]: {dict(verdict.violations)}; reproduce with: "
        f"make chaos SEED={ran.seed} SEEDS=1 EVENTS={ran.events} TRACE=trace.txt"
    )
    for name in (*PROMISES, "told"):
        found = getattr(verdict, name)
        if found and not isinstance(found, int):
            console.print(f"  {name}: {', '.join(map(str, found[:8]))}{' …' if len(found) > 8 else ''}")
    broken = set(verdict.violations)

    def fails(schedule: Schedule) -> bool:
        try:
            return bool(broken & set(run_schedule(schedule).violations))
        except Exception:  # noqa: BLE001 -- a schedule that fails differently is not a smaller form of this one
            return False

    small = shrink(schedules.draw(ran.seed, ran.events), fails)
    console.print(
        f"  smallest failing schedule found: {small.events} events in {len(small.sent)} requests, and"
    )
    for window in small.windows:
        console.print(
            f"    {window.kind} {window.target} from {window.begin - START:.0f} s to {window.end - START:.0f} s,"
            f" with a chance of {window.chance:.0%}"
        )
    for act in small.acts:
        console.print(f"    {act.kind} {act.arguments} at {act.at - START:.0f} s")


if __name__ == "__main__":
    main()
