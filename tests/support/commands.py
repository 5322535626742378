"""The commands of the command line, by their words."""

from collections.abc import Iterator

import click

from ops.cli import main


def all_commands(group: click.Group = main, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield the words of each command and group below a group, such as `keys issue`, and the command."""
    for name, command in group.commands.items():
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{path}{name} ")
