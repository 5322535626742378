"""`sluice dead`: lists dead rows, shows them, and drops those that nobody needs."""

import click

from ops.command_group import CommandGroup
from ops.commands.dead import drop, show
from ops.commands.dead import list as list_


@click.group("dead", cls=CommandGroup)
def group() -> None:
    """List dead rows, show them, or drop them. `sluice redrive --kind dead` sends them."""


for module in (drop, list_, show):
    group.add_command(module.command)
