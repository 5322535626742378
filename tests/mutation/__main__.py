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
from collections import Counter

import click
from rich import box
from rich.console import Console
from rich.table import Table

from tests.mutation.run import ROOT, Mutant, TestsError, judge, prepare
from tests.mutation.targets import MAY_SURVIVE, TESTS, Change

MIN_SHARE = 0.95

_GENERATOR = (".venv-mutate/bin/python", "tests/mutation/mutants.py")


class Outcome:
    """How many mutants or defences were tried, by module, how many of them no test noticed, and what must be mended."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._progress = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def examine(self, module: str, processes: int) -> None:
        """Run a module's tests against each of its mutants."""
        command = [*_GENERATOR, module]
        lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        mutants = [Mutant(**json.loads(line)) for line in lines.splitlines()]
        survivors = set()
        limit = 10 + 10 * prepare(module, TESTS[module])
        for mutant, is_noticed in judge(mutants, TESTS[module], limit=limit, processes=processes):
            self._count(module, is_noticed=is_noticed)
            change = Change(module, mutant.was, mutant.now)
            if not is_noticed:
                survivors.add(change)
                if change not in MAY_SURVIVE:
                    text = f"{module}:{mutant.line}: no test notices\n- {change.was}\n+ {change.now}\n"
                    self.complaints.append(text)
            if (done := self.tried[module]) % 50 == 0 or done == len(mutants):
                survived = self.missed[module]
                self._progress.print(f"{module}: {done} of {len(mutants)} mutants, {survived} survived")
        for change in sorted(MAY_SURVIVE - survivors):
            if change.module == module:
                text = f"{module}: explained in targets.toml, but gone\n- {change.was}\n+ {change.now}\n"
                self.complaints.append(text)

    def leave_out(self, only: str, processes: int) -> None:
        """Leave out each defence whose module's path or name contains `only`."""
        # not before: it imports the modules that mutants take the place of
        from tests.mutation import protocol

        for defence, is_noticed, told in protocol.leave_out(only, processes):
            self._count(f"{defence.module}, defences", is_noticed=is_noticed)
            self._progress.print(f"{defence.name}: {told}")
            if not is_noticed:
                text = f"{defence.module}: nothing shows that this is needed: {defence.name}\n"
                self.complaints.append(text)

    def share(self, module: str) -> float:
        """Return the share that was noticed."""
        return 1 - self.missed[module] / self.tried[module]

    def table(self) -> Table:
        """Return a table with a row for each module."""
        table = Table("module", "taken away", "survived", "noticed", box=box.SIMPLE)
        for module, tried in self.tried.items():
            table.add_row(module, str(tried), str(self.missed[module]), f"{self.share(module):.1%}")
        return table

    def _count(self, module: str, *, is_noticed: bool) -> None:
        self.tried[module] += 1
        self.missed[module] += not is_noticed


@click.command(help=__doc__)
@click.option("--only", default="", help="Only modules whose path, and defences whose name, contains this.")
@click.option("--what", type=click.Choice(["mutants", "defences"]), help="Only these.  [default: both]")
@click.option("--processes", default=0, help="How many to try at once; 0 for one per core.")
def main(only: str, what: str | None, processes: int) -> None:
    """Take everything away in turn, and print what no test noticed."""
    began, outcome = time.monotonic(), Outcome()
    processes = processes or os.process_cpu_count() or 1
    try:
        for module in TESTS:
            if only in module and what != "defences":
                outcome.examine(module, processes)
    except TestsError as error:
        raise click.ClickException(str(error)) from None
    if what != "mutants":
        outcome.leave_out(only, processes)
    if not outcome.tried:
        raise click.UsageError(f"No module's path and no defence's name contains {only!r}.")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(*outcome.complaints, outcome.table(), sep="\n")
    console.print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    sys.exit(bool(outcome.complaints) or min(map(outcome.share, outcome.tried)) < MIN_SHARE)


if __name__ == "__main__":
    main()
