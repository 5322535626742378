"""`sluice accounts list`: lists the accounts in Redis."""

import click

from ops import screen
from ops.known_accounts import is_empty, known
from ops.stack import Stack, works_on_stack


@click.command("list")
@works_on_stack
@screen.json_option
def command(stack: Stack, *, as_json: bool) -> None:
    """List the accounts in Redis."""
    accounts, applied_at = known(stack)
    if as_json:
        fields = {name: account.to_fields() for name, account in accounts.items()}
        screen.show_json({"accounts": fields, "applied_at": applied_at})
        return
    if applied_at is None:
        screen.say(f"{is_empty(stack)}.")
    rows = (
        (name, account.database, account.status, ",".join(sorted(account.revoked_key_ids)))
        for name, account in accounts.items()
    )
    screen.show_table(("account", "database", "status", "revoked key ids"), rows)
