"""`sluice local`: runs the whole pipeline on this machine, for the other commands' `--local`."""

import os
import sys
from pathlib import Path

import click

from ops.stack import home


@click.command("local")
def command() -> None:
    """Run the whole pipeline on this machine, for --local in other commands. Ctrl-C stops it."""
    os.chdir(Path(__file__).parents[1])
    os.execv(sys.executable, [sys.executable, "-m", "local.up", "--home", str(home())])  # noqa: S606 -- our own module
