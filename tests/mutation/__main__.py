"""`python -m tests.mutation`: takes one thing away at a time, module by module, and looks whether a test notices.

In the modules of pure rules that targets.toml lists, it changes one small thing and runs the module's tests. In the modules of the
protocol, it leaves out one of `chaos.defences` and runs a schedule or an interleaving of the fault-injection tests.

Exits with status 1 if the tests notice fewer than 95 % of a module's mutants, if a mutant survives that targets.toml does not
explain, if targets.toml explains one that does not survive, or if the absence of a defence goes unnoticed.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Table

from tests.mutation.outcome import Outcome
from tests.mutation.run import ROOT, Mutant, TestsError, Verdict, judge, prepare
from tests.mutation.targets import Change, Targets

MIN_SHARE = 0.95

_GENERATOR = (".venv-mutate/bin/python", "tests/mutation/mutants.py")
_COLUMNS = ("module", "taken away", "", "noticed", "timed out", "survived", "share")


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
        table.add_column(name, justify="left" if name in _COLUMNS[:2] else "right")
    total = Outcome("all", "")
    for outcome in outcomes:
        table.add_row(*outcome.cells())
        total.verdicts += outcome.verdicts
        total.survivors += outcome.survivors
    table.add_row(*total.cells())
    return table


@click.command(help=__doc__)
@click.option("--only", default="", help="Only modules whose path, and defences whose name, contains this.")
@click.option("--what", type=click.Choice(["mutants", "defences"]), help="Only these.  [default: both]")
@click.option("--processes", default=0, help="How many to try at once; 0 for one per core.")
def main(only: str, what: str | None, processes: int) -> None:
    """Take everything away in turn, and print what no test noticed."""
    targets = Targets.load()
    chosen = {
        module: tests for module, tests in targets.tests.items() if only in module and what != "defences"
    }
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
    from tests.mutation import protocol  # not before: it imports the modules that mutants take the place of

    noticed = [] if what == "mutants" else protocol.leave_out(only, processes, progress)
    outcomes += protocol.outcomes_of(noticed)
    if not outcomes:
        raise click.UsageError(f"No module's path and no defence's name contains {only!r}.")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for one in noticed:
        if not one.holds:
            defence = protocol.ALL[one.number]
            console.print(f"{defence.module}: nothing shows that this is needed: {defence.name}\n")
    for mutant in unexplained:
        console.print(f"{mutant.module}:{mutant.line}: no test notices\n- {mutant.was}\n+ {mutant.now}\n")
    for change in stale:
        console.print(
            f"{change.module}: explained in targets.toml, but gone\n- {change.was}\n+ {change.now}\n"
        )
    console.print(table_of(outcomes))
    console.print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    is_bad = bool(unexplained or stale) or not all(one.holds for one in noticed)
    sys.exit(is_bad or any(outcome.share < MIN_SHARE for outcome in outcomes))


if __name__ == "__main__":
    main()
