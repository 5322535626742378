"""Leaves out the defences of the protocol. It imports the product, so it must not be imported before the last mutant has run."""

from collections.abc import Sequence
from concurrent.futures import as_completed

from rich.console import Console

from chaos.defences import ALL
from chaos.run import pool_of
from chaos.selfcheck import Noticed, check
from tests.mutation.outcome import Outcome
from tests.mutation.run import Verdict


def leave_out(only: str, processes: int, progress: Console) -> list[Noticed]:
    """Leave out the defences whose module's path or name contains `only`, in so many processes, and return what was noticed."""
    numbers = [number for number, one in enumerate(ALL) if only in one.module or only in one.name]
    with pool_of(processes) as pool:
        runs = [pool.submit(check, number) for number in numbers]
        for count, run in enumerate(as_completed(runs), 1):
            one = run.result()
            told = f"{one.where}: {one.broken}" if one.where else "NOTHING NOTICES"
            told += "" if one.sound else "; BUT ALSO WITH THE DEFENCE"
            progress.print(
                f"{count} of {len(runs)}: {one.defence.name}: {told} ({one.seconds:.0f} s of CPU time)"
            )
    return [run.result() for run in runs]


def outcomes_of(noticed: Sequence[Noticed]) -> list[Outcome]:
    """Return the results of leaving out defences, by module."""
    found: dict[str, Outcome] = {}
    for one in noticed:
        outcome = found.setdefault(one.defence.module, Outcome(one.defence.module, "defences"))
        outcome.verdicts[Verdict.KILLED if one.holds else Verdict.SURVIVED] += 1
    return [*found.values()]
