"""`sluice accounts show`: shows one account."""

import click

from ops import screen
from ops.known_accounts import one, shown_fields
from ops.stack import Stack, works_on_stack


@click.command("show")
@click.argument("account")
@works_on_stack
@screen.json_option
def command(stack: Stack, account: str, *, as_json: bool) -> None:
    """Show one account."""
    found = one(stack, account)
    if as_json:
        screen.show_json({"account": account, **found.to_fields()})
        return
    fields = shown_fields(found)
    screen.show_table(("account", *fields), [(account, *fields.values())])
