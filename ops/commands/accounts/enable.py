"""`sluice accounts enable`: delivers an account's rows again."""

import click

from ops import screen
from ops.known_accounts import one, update
from ops.stack import Stack, works_on_stack


@click.command("enable")
@click.argument("account")
@works_on_stack
@screen.dry_run_option
def command(stack: Stack, account: str, *, dry_run: bool) -> None:
    """Enable an account: its rows are delivered from now on. `sluice redrive --kind dead` sends earlier ones."""
    update(stack, account, one(stack, account), dry_run=dry_run, status="active")
