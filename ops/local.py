"""`sluice local`: the whole pipeline on this machine, which `--local` of the other commands works on."""

import os
import sys
from pathlib import Path

import click

from ops.stack import home


@click.command("local")
def command() -> None:
    """Keep the whole pipeline running on this machine, for --local of the other commands; Ctrl-C ends it."""
    os.chdir(Path(__file__).parents[1])
    os.execv(sys.executable, [sys.executable, "-m", "local.up", "--home", str(home())])  # noqa: S606 -- our own module
