"""A group of commands that suggests the right name for a mistyped one."""

from difflib import get_close_matches

import click


class CommandGroup(click.Group):
    """A group whose error for an unknown command names those that are spelt alike, or all of them."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that a command line names.

        Raises:
            click.UsageError: there is none of that name.
        """
        name = args[0] if args else ""
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            close = get_close_matches(name, self.commands)
            listed = ", ".join(close or sorted(self.commands))
            hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {listed}."
            ctx.fail(f"No such command '{name}'. {hint}")
        return super().resolve_command(ctx, args)
