"""`python -m chaos`: run the whole pipeline through seeded schedules of faults.

Spreads EVENTS over SEEDS schedules, drawn from the seeds SEED, SEED + 1, …. With SEEDS=1 it can write the schedule's
trace to a file. If a schedule breaks a promise, it prints how to reproduce it and exits with status 1.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path

import click
from rich.console import Console

from chaos import schedule as schedules
from chaos.run import run_schedule, run_seeds
from chaos.trouble import Kind
from chaos.verdict import PROMISES, Verdict

_COUNTED = ("events", "accepted", "delivered", "dead", *PROMISES, "watermarks", "unasked")


@click.command(help=__doc__)
@click.option("--events", type=click.IntRange(1), default=100_000, show_default=True, help="Events in total.")
@click.option("--seeds", type=click.IntRange(1), default=100, show_default=True, help="Number of schedules.")
@click.option("--seed", default=0, show_default=True, help="The first seed.")
@click.option("--trace", type=click.Path(dir_okay=False, path_type=Path), help="File for the first's trace.")
def main(events: int, seeds: int, seed: int, trace: Path | None) -> None:
    """Run the schedules and print the results."""
    console, began = Console(stderr=True), time.monotonic()
    share, more = divmod(events, seeds)
    jobs = [(seed + index, share + (index < more)) for index in range(seeds)]
    if trace is not None:
        lines: list[str] = []
        run_schedule(schedules.draw(*jobs[0]), trace=lines)
        trace.write_text("\n".join(lines) + "\n")
    sums = Counter(dict.fromkeys(_COUNTED, 0))
    strikes: Counter[Kind] = Counter()
    failed, delay = 0, 0.0
    for count, verdict in enumerate(run_seeds(jobs), 1):
        for name in _COUNTED:
            value = getattr(verdict, name)
            sums[name] += value if isinstance(value, int) else len(value)
        strikes += verdict.strikes
        delay = max(delay, verdict.largest_delay)
        if verdict.violations:
            failed += 1
            _show(verdict, console)
        if count * 10 // seeds > (count - 1) * 10 // seeds:
            console.print(f"{count} of {seeds} schedules")
    console.print("; ".join(f"{kind} {strikes[kind]:,}" for kind in Kind if kind in strikes))
    if missing := [kind for kind in Kind if kind not in strikes]:
        console.print(f"kinds of trouble that never occurred: {'; '.join(missing)}")
    console.print(f"{time.monotonic() - began:.0f} s")
    click.echo(json.dumps({**sums, "schedules": seeds, "failed": failed, "largest_delay": round(delay)}))
    sys.exit(bool(failed))


def _show(verdict: Verdict, console: Console) -> None:
    """Print which promises a failed schedule broke, and how to reproduce it."""
    console.print(
        f"\n[bold red]seed {verdict.seed}[/]: {dict(verdict.violations)}; reproduce with: "
        f"make chaos SEED={verdict.seed} SEEDS=1 EVENTS={verdict.events} TRACE=trace.txt"
    )
    for name in (*PROMISES, "told"):
        shown = getattr(verdict, name)
        if shown and not isinstance(shown, int):
            console.print(f"  {name}: {', '.join(map(str, shown[:8]))}{' …' if len(shown) > 8 else ''}")


if __name__ == "__main__":
    main()
