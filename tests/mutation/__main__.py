"""`python -m tests.mutation`: changes one small thing at a time in the modules of targets.toml and runs their tests.

Exits with status 1 if the tests notice fewer than 95 % of a module's mutants, if a mutant survives that targets.toml does not
explain, or if targets.toml explains one that does not survive.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import click
from rich import box
from rich.console import Console
from rich.table import Table

from tests.mutation.run import ROOT, Mutant, TestsError, Verdict, judge, prepare
from tests.mutation.targets import Change, Targets

MIN_SHARE = 0.95

_GENERATOR = (".venv-mutate/bin/python", "tests/mutation/mutants.py")
_COLUMNS = ("module", "mutants", "killed", "timed out", "survived", "share")


@dataclass(slots=True)
class Outcome:
    """The results of a module's mutants.

    Attributes:
        module: the module's path.
        verdicts: the number of mutants with each verdict.
        survivors: the mutants that no test noticed.
    """

    module: str
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    survivors: list[Mutant] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of mutants that the tests noticed."""
        return 1 - len(self.survivors) / max(1, self.verdicts.total())

    def cells(self) -> list[str]:
        """Return the module's row of the table."""
        counts = [self.verdicts.total(), *(self.verdicts[verdict] for verdict in Verdict)]
        return [self.module, *map(str, counts), f"{self.share:.1%}"]


def mutants_of(module: str) -> list[Mutant]:
    """Return a module's mutants."""
    command = [*_GENERATOR, module]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [Mutant(**json.loads(line)) for line in lines.splitlines()]


def examine(module: str, tests: Sequence[str], processes: int, progress: Console) -> Outcome:
    """Run a module's tests against each of its mutants."""
    outcome = Outcome(module)
    mutants = mutants_of(module)
    limit = 10 + 10 * prepare(module, tests)
    for mutant, verdict in judge(mutants, tests, limit=limit, processes=processes):
        outcome.verdicts[verdict] += 1
        if verdict is Verdict.SURVIVED:
            outcome.survivors.append(mutant)
        if (done := outcome.verdicts.total()) % 50 == 0 or done == len(mutants):
            progress.print(f"{module}: {done} of {len(mutants)} mutants, {len(outcome.survivors)} survived")
    return outcome


def table_of(outcomes: Sequence[Outcome]) -> Table:
    """Return a table with a row for each module and one for the total."""
    table = Table(box=box.SIMPLE)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "module" else "right")
    total = Outcome("all")
    for outcome in outcomes:
        table.add_row(*outcome.cells())
        total.verdicts += outcome.verdicts
        total.survivors += outcome.survivors
    table.add_row(*total.cells())
    return table


@click.command(help=__doc__)
@click.option("--only", default="", help="Only modules whose path contains this.")
@click.option("--processes", default=0, help="Mutants to run at once; 0 for one per core.")
def main(only: str, processes: int) -> None:
    """Run the mutants and print what survived."""
    targets = Targets.load()
    chosen = {module: tests for module, tests in targets.tests.items() if only in module}
    if not chosen:
        raise click.UsageError(f"No module in targets.toml has {only!r} in its path.")
    began = time.monotonic()
    progress = Console(stderr=True, highlight=False, soft_wrap=True)
    processes = processes or os.process_cpu_count() or 1
    try:
        outcomes = [examine(module, tests, processes, progress) for module, tests in chosen.items()]
    except TestsError as error:
        raise click.ClickException(str(error)) from None
    survivors = {Change(m.module, m.was, m.now): m for outcome in outcomes for m in outcome.survivors}
    unexplained = [mutant for change, mutant in survivors.items() if change not in targets.reasons]
    stale = [change for change in targets.reasons if change.module in chosen and change not in survivors]
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for mutant in unexplained:
        console.print(f"{mutant.module}:{mutant.line}: no test notices\n- {mutant.was}\n+ {mutant.now}\n")
    for change in stale:
        console.print(
            f"{change.module}: explained in targets.toml, but gone\n- {change.was}\n+ {change.now}\n"
        )
    console.print(table_of(outcomes))
    console.print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    sys.exit(bool(unexplained or stale) or any(outcome.share < MIN_SHARE for outcome in outcomes))


if __name__ == "__main__":
    main()
