"""Prints the progress and the result of the demo, on a terminal or in a log."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from local.reconciliation import Reconciliation
from ops import screen

_SHOWN = 10


@contextmanager
def meter(console: Console, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show progress: a bar on a terminal, otherwise one line at the end. Yield a function that sets the count.

    Args:
        console: where to print.
        name: what is counted, printed after the numbers.
        total: the count at the end.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.update(task, completed=count)
        count = progress.tasks[0].completed
    if not console.is_terminal:
        console.print(f"{count:,.0f} of {total:,} {name}")


def show(reconciliation: Reconciliation, console: Console) -> None:
    """Print the tables: rows by database and table, then the totals."""
    console.print()
    screen.print_table(_places(reconciliation), console)
    screen.print_table(_totals(reconciliation), console)
    for line in _conclusion(reconciliation):
        console.print(line, soft_wrap=True)


def _places(reconciliation: Reconciliation) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title="Events and rows", title_justify="left", title_style="bold"
    )
    table.add_column("database", no_wrap=True)
    table.add_column("table", no_wrap=True)
    for name in ("accepted", "in TD", "in S3", "missing"):
        table.add_column(name, justify="right")
    before = ""
    for place in reconciliation.places:
        missing = reconciliation.differences.get(place, 0)
        table.add_row(
            place.database if place.database != before else "",
            place.table,
            *(
                f"{count[place]:,}"
                for count in (reconciliation.accepted, reconciliation.delivered, reconciliation.undelivered)
            ),
            f"[red]{missing:,}[/]" if missing else "0",
        )
        before = place.database
    return table


def _totals(reconciliation: Reconciliation) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_header=False,
        title="Reconciliation",
        title_justify="left",
        title_style="bold",
    )
    table.add_column(justify="left")
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    accepted, rejected = reconciliation.accepted.total(), reconciliation.rejected.total()
    refused = reconciliation.refused
    table.add_row(
        "requests",
        f"{reconciliation.requests:,}",
        f"{reconciliation.without_events:,} without events (preflights)",
    )
    table.add_row("refused requests", f"{refused.total():,}", _codes(refused))
    table.add_row("events received", f"{accepted + rejected:,}", "in the other requests")
    table.add_row("rejected", f"{rejected:,}", _codes(reconciliation.rejected))
    table.add_row("accepted", f"{accepted:,}", "according to the gateway's responses")
    table.add_section()
    table.add_row("delivered", f"{reconciliation.delivered.total():,}", "rows in the simulated Treasure Data")
    table.add_row("dead rows", f"{reconciliation.dead.total():,}", _codes(reconciliation.dead))
    table.add_row(
        "waiting, in flight", f"{reconciliation.unsettled.total():,}", _codes(reconciliation.unsettled)
    )
    return table


def _conclusion(reconciliation: Reconciliation) -> list[str]:
    accepted, delivered, dead = (
        count.total() for count in (reconciliation.accepted, reconciliation.delivered, reconciliation.dead)
    )
    if reconciliation.adds_up:
        return [f"[green]It adds up:[/] accepted {accepted:,} = delivered {delivered:,} + dead {dead:,}"]
    lines = ["[red]It does not add up.[/]", *reconciliation.errors[:_SHOWN]]
    for place, count in reconciliation.differences.items():
        how = "missing" if count > 0 else "too many"
        lines.append(f"{place.database}.{place.table}: {abs(count):,} {how}")
    for (place, event_id), count in list(reconciliation.mismatched_ids.items())[:_SHOWN]:
        how = "not found" if count > 0 else "found more than once"
        lines.append(f"{place.database}.{place.table}: event {event_id} {how}")
    if len(reconciliation.mismatched_ids) > _SHOWN:
        lines.append(f"… and {len(reconciliation.mismatched_ids) - _SHOWN:,} more events")
    if not reconciliation.settled:
        lines.append(f"Still waiting or in flight: {_codes(reconciliation.unsettled)}")
    return lines


def _codes(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
