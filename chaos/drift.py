"""`make drift`: run events that drift from a tracking plan of thirty tables through the whole pipeline in simulated time.

One event in ten has an extra or missing column, a wrong type, a wrong value, or a table that the plan does not have. One account's
plan is in `quarantine` mode, another's in `observe`. Exits with status 1 unless every violation is counted under its account, table
and code, every quarantined event is kept complete, repaired and delivered once, and every other event is delivered once.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from resource import RUSAGE_SELF, getrusage

import click

from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.schedule import START, Schedule, Setup
from chaos.traffic import TABLES, Sent, strayed
from chaos.verdict import Verdict, judge
from chaos.world import World
from ops.plans.plan_profile import Drifts
from shared.tracking_plan import CODES, Mode

STRAYS = 10
PLANNED = (*TABLES, *(f"table_{number:02}" for number in range(30 - len(TABLES))))
_MODES: tuple[tuple[str, Mode], ...] = (("strict", "quarantine"), ("watched", "observe"))
_EVENTS = 19  # events in a request
_EVERY = 0.05  # seconds between two requests
_WINDOW = 5  # seconds; a batch has few enough events that all rejected events of a span are kept
_DIALECTS = ("events", "batch")
_SHOWN = 5
_LOOK_EVERY = 20.0  # simulated seconds between checks whether progress is due
_TELL_EVERY = 10.0  # real seconds between progress messages

Violations = Counter[tuple[str, str, str]]
"""Numbers of violations by account, table and code."""


@dataclass(frozen=True, slots=True)
class Drifted:
    """The result of a run.

    Attributes:
        sent: events sent, by account.
        strays: sent events that stray from the plan.
        counted: violations that the ledger counts.
        observed: violations found by comparing the rows in Treasure Data with the plan.
        kept: copies of rejected events.
        repaired: events that an operator repaired.
        verdict: what happened to all events.
    """

    sent: Counter[str]
    strays: Violations
    counted: Violations
    observed: Violations
    kept: int
    repaired: int
    verdict: Verdict

    def faults(self) -> Iterator[str]:
        """Yield a message for each difference from what must hold."""
        strict, watched = (
            Counter({place: count for place, count in self.strays.items() if place[0] == account})
            for account in ("strict", "watched")
        )
        if strict != self.counted:
            yield f"the ledger counts {_first(self.counted - strict)} too many and {_first(strict - self.counted)} too few"
        if watched != self.observed:
            yield f"the rows show {_first(self.observed - watched)} too many and {_first(watched - self.observed)} too few"
        if not strict.total() == self.kept == self.repaired:
            yield f"{strict.total():,} strays in quarantine, {self.kept:,} kept, {self.repaired:,} repaired"
        if self.sent.total() != self.verdict.delivered:
            yield f"{self.sent.total():,} events, {self.verdict.delivered:,} rows"
        if self.verdict.violations:
            yield f"{dict(self.verdict.violations)}"


def _first(violations: Violations) -> str:
    return f"{violations.total():,} {violations.most_common(_SHOWN)}"


def schedule(events: int) -> Schedule:
    """Return a schedule with so many events from two accounts that have a plan."""
    sent = []
    for index, first in enumerate(range(0, events, _EVENTS)):
        account, _ = _MODES[index % len(_MODES)]
        numbers = range(first, min(first + _EVENTS, events))
        numbered = tuple(
            (number, PLANNED[(number // 50 * 7 + number % 7) % len(PLANNED)]) for number in numbers
        )
        dialect = _DIALECTS[index // len(_MODES) % len(_DIALECTS)]
        one = Sent(START + 5 + index * _EVERY, account, f"v{index % 40}", dialect, numbered)
        sent.append(strayed(one, STRAYS))
    databases = tuple((account, f"db_{account}") for account, _ in _MODES)
    horizon = len(sent) * _EVERY + 60
    return Schedule(1, Setup(2, databases, retention_hours=168, horizon=horizon, plans=_MODES), tuple(sent))


def run(events: int, tell: Callable[[str], None] = lambda _line: None) -> Drifted:
    """Send events, let an operator repair what was quarantined, and check what happened to every event.

    Args:
        events: how many to send.
        tell: called with a progress message every few seconds.
    """
    drawn = schedule(events)
    world = World(drawn)
    pipeline = Pipeline(world, Functions(world), batch_window=_WINDOW)
    for one in drawn.sent:
        world.simulation.at(one.at, lambda one=one: pipeline.send(one))  # type: ignore[misc]  # a default binds it
    pipeline.begin()
    told_at = time.monotonic()

    def tell_now_and_then() -> None:
        nonlocal told_at
        world.simulation.at(world.simulation.now + _LOOK_EVERY, tell_now_and_then)
        if time.monotonic() >= told_at + _TELL_EVERY:
            told_at = time.monotonic()
            tell(f"{len(pipeline.sent):,} of {events:,} events sent, {len(pipeline.repaired):,} repaired")

    tell_now_and_then()
    world.simulation.run(drawn.end)
    pipeline.rest(hours=2)
    pipeline.copies = list(pipeline.audit.rejected())
    pipeline.repair_rejected()
    tell("everything has settled: checking every event")
    strays: Violations = Counter()
    for number, sent in pipeline.sent.items():
        if code := sent.stray(number):
            strays[sent.account, sent.table_of(number), code] += 1
    counted = pipeline.audit.rejections()
    watched = world.accounts["watched"].plan
    assert watched is not None  # for types
    drifts = Drifts(watched)
    for taken in world.td.imports():
        for row in taken.rows if taken.database == "db_watched" else ():
            drifts.add(taken.table, row, taken.at)
    made = Drifted(
        Counter(sent.account for sent in pipeline.sent.values()),
        strays,
        Counter({place: count for place, count in counted.items() if place[2] in CODES}),
        Counter({("watched", *place): count for place, count in drifts.codes().items()}),
        sum(copy.code in CODES for copy in pipeline.copies),
        len(pipeline.repaired),
        judge(pipeline),
    )
    world.close()
    return made


@click.command(help=__doc__)
@click.option("--events", default=100_000, show_default=True, help="Events in total.")
def main(events: int) -> None:
    """Run, print the results and exit."""
    began = time.monotonic()

    def tell(line: str) -> None:
        click.echo(f"{time.monotonic() - began:4.0f} s: {line}", err=True)

    drifted = run(events, tell)
    codes = Counter[str]()
    for (_, _, code), count in drifted.counted.items():
        codes[code] += count
    click.echo(
        f"{drifted.sent.total():,} events, {drifted.strays.total():,} of them stray from a plan of {len(PLANNED)} tables."
    )
    click.echo(f"In quarantine: {', '.join(f'{count:,} {code}' for code, count in sorted(codes.items()))}.")
    click.echo(
        f"{drifted.kept:,} kept, {drifted.repaired:,} repaired; "
        f"{drifted.observed.total():,} observed and delivered; {drifted.verdict.delivered:,} rows in Treasure Data."
    )
    faults = list(drifted.faults())
    for fault in faults:
        click.echo(f"✗ {fault}")
    used = getrusage(RUSAGE_SELF)
    click.echo(
        f"{'✗' if faults else '✓'} {time.monotonic() - began:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of CPU,"
        f" {used.ru_maxrss / 2**20:.1f} GiB at most"
    )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
