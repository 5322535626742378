"""`sluice accounts export`: prints the accounts in the form of accounts.yaml."""

from pathlib import Path

import click

from ops import accounts_file, screen
from ops.failure import Failure
from ops.known_accounts import is_empty, known
from ops.stack import Stack, works_on_stack


@click.command("export")
@screen.output_option
@works_on_stack
def command(stack: Stack, *, file: Path | None) -> None:
    """Print the accounts in Redis in the form of accounts.yaml, for `accounts apply`."""
    accounts, applied_at = known(stack)
    if applied_at is None:
        raise Failure(is_empty(stack))
    said = f"{screen.plural(len(accounts), 'account')} in {file}."
    screen.put(accounts_file.text_of(accounts), file, said)
