"""`sluice accounts`: maps accounts to databases. accounts.yaml is the source of truth; Redis holds a copy of it."""

import click

from ops.command_group import CommandGroup
from ops.commands.accounts import apply, disable, enable, export, show
from ops.commands.accounts import list as list_


@click.group("accounts", cls=CommandGroup)
def group() -> None:
    """Map accounts to databases. accounts.yaml is the source of truth; Redis holds a copy of it."""


for module in (apply, disable, enable, export, list_, show):
    group.add_command(module.command)
