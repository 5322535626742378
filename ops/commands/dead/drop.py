"""`sluice dead drop`: gives up dead rows that nobody needs."""

from typing import Any

import click

from ops import screen
from ops.commands import redrive
from ops.selecting import rejected_option, selects_rows
from ops.stack import Stack, works_on_stack


@click.command("drop")
@works_on_stack
@selects_rows
@rejected_option
@click.option("--all", "everything", is_flag=True, help="Drop all of them.")
@screen.dry_run_option
@screen.yes_option
@screen.json_option
@click.pass_context
def command(ctx: click.Context, /, stack: Stack, *, everything: bool, rejected: bool, **options: Any) -> None:
    """Drop dead rows permanently, after a confirmation. The reconciliation counts them as dropped."""
    narrowed = any(options[name] is not None for name in ("account", "table", "reason", "since"))
    if not narrowed and not everything:
        raise click.UsageError(
            "select what to drop with --account, --table, --reason or --since, or use --all"
        )
    names = ("rejected" if rejected else "dead",)
    redrive.run(ctx, stack, names=names, decision="drop", edits=False, **options)
