"""`sluice plan`: makes tracking plans from the events that arrive, and compares plans with events."""

import click

from ops.command_group import CommandGroup
from ops.commands.plan import check, diff, infer, types
from ops.commands.plan import list as list_


@click.group("plan", cls=CommandGroup)
def group() -> None:
    """Make tracking plans from the events that arrive, and compare plans with events."""


for module in (check, diff, infer, list_, types):
    group.add_command(module.command)
