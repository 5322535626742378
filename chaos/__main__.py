"""`python -m chaos`: run the whole pipeline through seeded schedules of faults.

Spreads EVENTS over SEEDS schedules, drawn from the seeds SEED, SEED + 1, …. With SEEDS=1 it can write the schedule's
trace to a file. If a schedule breaks a promise, it prints how to reproduce it and exits with status 1.
"""

import json
import sys
import time
from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from chaos import schedule as schedules
from chaos.run import Ran, run_schedule, run_seeds
from chaos.trouble import Kind
from chaos.verdict import PROMISES

_MOST_SHOWN = 3
_WIDTH = 132  # the table's width if standard output is not a terminal
_COUNTED = ("accepted", "delivered", "dead", *PROMISES, "watermarks", "unasked")
_COLUMNS = ("occurred", "schedules", "events", "lost", "duplicated", "misrouted", "largest delay")


@click.command(help=__doc__)
@click.option("--events", default=100_000, show_default=True, help="Events in total.")
@click.option("--seeds", default=100, show_default=True, help="Number of schedules.")
@click.option("--seed", default=0, show_default=True, help="The first seed.")
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the first schedule's trace to this file.",
)
def main(events: int, seeds: int, seed: int, trace: Path | None) -> None:
    """Run the schedules and print the results."""
    console, began = Console(stderr=True), time.monotonic()
    share, more = divmod(events, seeds)
    jobs = [(seed + index, share + (index < more)) for index in range(seeds)]
    if trace is not None:
        lines: list[str] = []
        run_schedule(schedules.draw(*jobs[0]), trace=lines)
        trace.write_text("\n".join(lines) + "\n")
    found: defaultdict[str, list[Ran]] = defaultdict(list)  # by kind of trouble; all of them by ""
    for count, ran in enumerate(run_seeds(jobs), 1):
        for kind in ("", *(ran.verdict.strikes or ("none",))):
            found[kind].append(ran)
        if ran.verdict.violations:
            console.print(f"seed {ran.seed} failed: {dict(ran.verdict.violations)}")
        if count * 10 // seeds > (count - 1) * 10 // seeds:
            console.print(f"{count} of {seeds} schedules")
    failed = [ran for ran in found[""] if ran.verdict.violations]
    (Console() if sys.stdout.isatty() else Console(width=_WIDTH)).print(_table(found))
    for ran in failed[:_MOST_SHOWN]:
        _show(ran, console)
    if missing := [kind for kind in Kind if kind not in found]:
        console.print(f"kinds of trouble that never occurred: {'; '.join(missing)}")
    console.print(f"{time.monotonic() - began:.0f} s")
    seconds = {"processor_seconds": round(sum(ran.seconds for ran in found[""]))}
    click.echo(json.dumps(_sums(found[""]) | {"failed": len(failed)} | seconds))
    sys.exit(bool(failed))


def _sums(some: list[Ran]) -> dict[str, int]:
    """Add up what is counted of schedules."""
    sums = Counter({"events": 0, "schedules": len(some)} | dict.fromkeys(_COUNTED, 0))
    for ran in some:
        sums["events"] += ran.verdict.events
        for name in _COUNTED:
            value = getattr(ran.verdict, name)
            sums[name] += value if isinstance(value, int) else len(value)
    return dict(sums)


def _table(found: dict[str, list[Ran]]) -> Table:
    table = Table(title="Results by kind of trouble, over the schedules in which it occurred")
    table.add_column("trouble")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for kind in sorted(found.keys() - {""}, key=["none", *Kind].index):
        verdicts = [ran.verdict for ran in found[kind]]
        sums = _sums(found[kind]) | {
            "occurred": sum(one.strikes[Kind(kind)] for one in verdicts if one.strikes)
        }
        delay = timedelta(seconds=round(max(one.largest_delay for one in verdicts)))
        table.add_row(kind, *(f"{sums[name]:,}" for name in _COLUMNS[:-1]), str(delay))
    return table


def _show(ran: Ran, console: Console) -> None:
    """Print which promises a failed schedule broke, and how to reproduce it."""
    verdict = ran.verdict
    console.print(
        f"\n[bold red]seed {ran.seed}[/]: {dict(verdict.violations)}; reproduce with: "
        f"make chaos SEED={ran.seed} SEEDS=1 EVENTS={ran.events} TRACE=trace.txt"
    )
    for name in (*PROMISES, "told"):
        shown = getattr(verdict, name)
        if shown and not isinstance(shown, int):
            console.print(f"  {name}: {', '.join(map(str, shown[:8]))}{' …' if len(shown) > 8 else ''}")


if __name__ == "__main__":
    main()
