"""`sluice local`: runs the whole pipeline on this machine, for --local in other commands, and breaks parts of it."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from ops.command_group import CommandGroup
from ops.commands.local import break_
from ops.failure import Failure
from ops.stack import home
from ops.version import extra

_EXTRA = ("crawleruseragents", "moto", "redis")
"""Packages that only the local stack imports. The extra `local` installs them."""


@click.group("local", cls=CommandGroup, invoke_without_command=True)
@click.option(
    "--port",
    type=click.IntRange(1024, 65_000),
    help="First of the ports to use; remembered. Default: 8700.",
)
@click.option("--reload", is_flag=True, help="Restart the functions when the code changes.")
@click.option(
    "--log-level", type=click.Choice(["INFO", "WARN"]), help="Log level of the functions. Default: INFO."
)
@click.option(
    "--allowed-origins",
    metavar="ORIGINS",
    help="Origins of your pages, separated by commas, if they use td-js-sdk 3 or 4.",
)
@click.pass_context
def command(
    ctx: click.Context, *, port: int | None, reload: bool, log_level: str | None, allowed_origins: str | None
) -> None:
    """Run the whole pipeline on this machine, for --local in other commands. Ctrl-C stops it."""
    if ctx.invoked_subcommand is not None:
        return
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise Failure(
            f"the local stack is not installed ({', '.join(missing)}): {extra('local', 'sluice local')}"
        )
    words = [sys.executable, "-m", "local.up", "--home", str(home())]
    words += ["--port", str(port)] if port else []
    words += ["--reload"] if reload else []
    words += ["--log-level", log_level] if log_level else []
    words += ["--allowed-origins", allowed_origins] if allowed_origins else []
    os.chdir(Path(__file__).parents[3])
    os.execv(sys.executable, words)  # noqa: S606 -- our own module


command.add_command(break_.command)
