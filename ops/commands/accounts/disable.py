"""`sluice accounts disable`: refuses an account's events."""

import click

from ops import screen
from ops.known_accounts import one, update
from ops.stack import Stack, works_on_stack


@click.command("disable")
@click.argument("account")
@works_on_stack
@screen.dry_run_option
@screen.yes_option
def command(stack: Stack, account: str, *, dry_run: bool, yes: bool) -> None:
    """Disable an account: within a minute its events are refused; accepted rows that were not sent yet become dead, and stay in S3."""
    current = one(stack, account)
    if current.status == "active" and not dry_run:
        screen.confirm(
            f"Refuse events of {account}, and have its rows that were not sent yet become dead?", yes=yes
        )
    update(stack, account, current, dry_run=dry_run, status="disabled")
