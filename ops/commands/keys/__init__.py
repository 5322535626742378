"""`sluice keys`: write keys, and the secrets that sign them."""

import click

from ops.command_group import CommandGroup
from ops.commands.keys import issue, revoke, rotate, verify


@click.group("keys", cls=CommandGroup)
def group() -> None:
    """Issue, verify and revoke write keys, and rotate the secrets that sign them."""


for module in (issue, revoke, rotate, verify):
    group.add_command(module.command)
