"""Measures promise 4: how much failing databases delay the rows of other accounts.

`python -m chaos.isolation` measures it for growing numbers of failing databases out of 500, and exits with status 1 if the
others' rows wait too long.
"""

import sys
from dataclasses import dataclass, replace
from itertools import batched

import click
from rich.console import Console
from rich.table import Table

from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.run import pool_of
from chaos.schedule import START, Schedule, Setup
from chaos.traffic import TABLES, Sent
from chaos.trouble import Kind, Window
from chaos.verdict import Verdict, judge
from chaos.world import World

BOUND = 1.5
"""The factor by which the others' 99th percentile may grow."""
_FLOOD_EVERY = 300.0  # seconds
_ACCOUNTS, _EVERY, _MINUTES = 500, 30.0, 12.0
_FAILING_MINUTES = 6.0
_COUNTS = (1, 16, 64, 200)
_KINDS = (Kind.TD_HANGING_DATABASE, Kind.TD_BROKEN_DATABASE, Kind.TD_SLOW_DATABASE)
_PARKING_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds from acceptance to Treasure Data, over the rows in working databases, and what happened to all rows."""

    p50: float
    p99: float
    longest: float
    verdict: Verdict


def steady(accounts: int = 50, minutes: float = 90, every: float = 20, *, floods: bool = False) -> Schedule:
    """Return a schedule without faults in which each account sends requests at a constant rate.

    Args:
        accounts: how many accounts, each with its own database.
        minutes: the duration of the traffic.
        every: seconds between two requests of an account.
        floods: whether the first account now and then sends hundreds of requests at once, so that it fills whole batches.
    """
    names = [f"acct_{index:03}" for index in range(accounts)]
    between_floods = round(_FLOOD_EVERY / every)
    sent: list[Sent] = []
    number = 0
    for step in range(int(minutes * 60 / every)):
        for index, name in enumerate(names):
            at = START + 10 + step * every + index * every / accounts
            sent.append(Sent(at, name, f"v{step % 7}", "events", ((number, TABLES[step % 3]),)))
            number += 1
        if floods and step % between_floods == between_floods // 2:
            for extra in range(250):
                at = START + 10 + step * every + extra * 0.002
                sent.append(Sent(at, names[0], f"v{extra}", "events", ((number, TABLES[extra % 3]),)))
                number += 1
    setup = Setup(
        shards=2,
        databases=tuple((name, f"db_{index:03}") for index, name in enumerate(names)),
        retention_hours=168,
        horizon=minutes * 60 + 60,
        batch_size=100,
    )
    return Schedule(1, setup, tuple(sorted(sent, key=lambda one: one.at)))


def failing(schedule: Schedule, kind: Kind, minutes: float = 60, count: int = 1) -> Schedule:
    """Return the schedule with the databases of the first `count` accounts failing from the fifth minute on."""
    begin = START + 300
    names = [database for _, database in schedule.setup.databases[:count]]
    windows = tuple(Window(kind, begin, begin + minutes * 60, 1.0, name) for name in names)
    return replace(schedule, windows=windows)


def measure(schedule: Schedule) -> Measured:
    """Run a schedule and measure the delay of the rows in working databases."""
    world = World(schedule)
    pipeline = Pipeline(world, Functions(world))
    pipeline.run(observed=False)
    failing_ones = {window.target for window in schedule.windows} or {schedule.setup.databases[0][1]}
    delays = sorted(
        taken.at - pipeline.accepted[int(row["n"])]
        for taken in world.td.imports()
        if taken.database not in failing_ones
        for row in taken.rows
        if int(row["n"]) in pipeline.accepted
    )
    verdict = judge(pipeline)
    world.close()
    return Measured(percentile(delays, 0.5), percentile(delays, 0.99), delays[-1], verdict)


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which a share of the values in order are."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def limit(usual: Measured) -> float:
    """Return how many seconds the 99th percentile of rows in working databases may be while others fail."""
    return 2 * usual.p99 + _PARKING_SECONDS


def _one(job: tuple[Kind | None, int, float]) -> Measured:
    kind, count, minutes = job
    schedule = steady(accounts=_ACCOUNTS, every=_EVERY, minutes=minutes)
    return measure(schedule if kind is None else failing(schedule, kind, _FAILING_MINUTES, count))


@click.command(help=__doc__)
@click.option("--minutes", default=_MINUTES, show_default=True, help="Simulated minutes of each run.")
@click.option("--processes", default=0, help="Runs in parallel; 0 for one per core.")
def main(minutes: float, processes: int) -> None:
    """Measure the delays and print them."""
    jobs = [(None, 0, minutes), *((kind, count, minutes) for count in _COUNTS for kind in _KINDS)]
    progress, found = Console(stderr=True), []
    with pool_of(processes) as pool:
        for (kind, count, _), measured in zip(jobs, pool.map(_one, jobs), strict=True):
            found.append(measured)
            progress.print(f"{count} of {_ACCOUNTS}: {kind or 'no failure'}, p99 {measured.p99:.1f} s")
    usual, *others = found
    bound = limit(usual)
    table = Table(title=f"p50 / p99 of the rows in working databases, of {_ACCOUNTS}; limit {bound:.1f} s")
    for name in ("failing", *_KINDS, "broken promises"):
        table.add_column(name)
    table.add_row("none", *[f"{usual.p50:.1f} / {usual.p99:.1f} s"] * len(_KINDS), str(_broken(usual)))
    for count, row in zip(_COUNTS, batched(others, len(_KINDS), strict=True), strict=True):
        cells = [f"{one.p50:.1f} / {one.p99:.1f} s" for one in row]
        table.add_row(str(count), *cells, str(sum(map(_broken, row))))
    Console().print(table)
    sys.exit(any(one.p99 > bound or _broken(one) for one in found))


def _broken(measured: Measured) -> int:
    return sum(measured.verdict.violations.values())


if __name__ == "__main__":
    main()
