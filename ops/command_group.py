"""A group of commands that suggests the right name for a mistyped one."""

from difflib import get_close_matches
from typing import override

import click

LONGEST_SENTENCE = 200
"""No description of a command is longer, so none is cut in a list of commands."""
_OF_COMMANDS = ("--local", "--stack", "--region")


class CommandGroup(click.Group):
    """A group that answers an unknown command with similar names, or with all names if none is similar."""

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their first sentences in full."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, one.get_short_help_str(LONGEST_SENTENCE))
                    for name, one in sorted(self.commands.items())
                ]
            )

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the group's own options. Those that name a stack belong to its commands.

        Raises:
            click.UsageError: there is another one.
        """
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name not in _OF_COMMANDS:
                raise
            ctx.fail(f"Write {error.option_name} after the command, as in `sluice status --local`.")

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that a command line names.

        Raises:
            click.UsageError: no command has that name.
        """
        name = args[0] if args else ""
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            close = get_close_matches(name, self.commands)
            listed = ", ".join(close or sorted(self.commands))
            hint = f"Did you mean {' or '.join(close)}?" if close else f"Commands: {listed}."
            ctx.fail(f"No such command '{name}'. {hint}")
        return super().resolve_command(ctx, args)
