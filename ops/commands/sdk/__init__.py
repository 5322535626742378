"""`sluice sdk`: publishes the browser SDK's scripts to the stack's bucket."""

import click

from ops.command_group import CommandGroup
from ops.commands.sdk import publish


@click.group("sdk", cls=CommandGroup)
def group() -> None:
    """Publish the browser SDK."""


group.add_command(publish.command)
