"""`sluice local`: runs the whole pipeline on this machine, for the other commands' `--local`."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from ops.failure import Failure
from ops.stack import home

_EXTRA = ("crawleruseragents", "moto", "redis", "werkzeug")
"""What the local stack imports and the command does not: the extra `local` installs it."""


@click.command("local")
def command() -> None:
    """Run the whole pipeline on this machine, for --local in other commands. Ctrl-C stops it."""
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise Failure(
            f"the local stack is not installed ({', '.join(missing)}): "
            "in a clone of Sluice, run `uv tool install '.[local]'` or `pip install '.[local]'`"
        )
    os.chdir(Path(__file__).parents[1])
    os.execv(sys.executable, [sys.executable, "-m", "local.up", "--home", str(home())])  # noqa: S606 -- our own module
