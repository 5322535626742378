"""`sluice dead drop`: gives up rows that nobody needs."""

from typing import Any

import click

from ops import screen
from ops.commands import redrive
from ops.selecting import rejected_option, selects_rows
from ops.stack import Stack, works_on_stack
from worker.selection import Selection
from worker.states import State


@click.command("drop")
@works_on_stack
@selects_rows
@rejected_option
@click.option(
    "--waiting",
    is_flag=True,
    help="Waiting rows instead of dead rows. Those that Treasure Data may have stay.",
)
@click.option("--all", "everything", is_flag=True, help="Drop all of them.")
@screen.dry_run_option
@screen.yes_option
@screen.json_option
def command(
    stack: Stack,
    *,
    rejected: bool,
    waiting: bool,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **selected_by: Any,
) -> None:
    """Drop dead rows permanently, after a confirmation. The reconciliation counts them as dropped."""
    if all(value is None for value in selected_by.values()) and not everything:
        raise click.UsageError(
            "select what to drop with --account, --table, --reason or --since, or use --all"
        )
    if rejected and waiting:
        raise click.UsageError("use either --rejected or --waiting")
    state = State.REJECTED if rejected else State.WAITING if waiting else State.DEAD
    opened = redrive.shown(stack, Selection((state,), **selected_by), dry_run=dry_run, as_json=as_json)
    if opened:
        rows = sum(one.rows for one in opened)
        said = "it is" if rows == 1 else "they are"
        screen.confirm(f"This gives up {screen.plural(rows, 'row')}: {said} never sent. Continue?", yes=yes)
        raise click.exceptions.Exit(
            redrive.carry_out(stack, (state,), opened, {"decision": "drop"}, as_json=as_json)
        )
