"""`sluice local`: runs the whole pipeline on this machine, for --local in other commands, and breaks parts of it."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import requests

from ops import screen
from ops.command_group import CommandGroup
from ops.failure import Failure
from ops.moment import LENGTH
from ops.stack import home
from ops.stack import local as local_stack
from ops.version import extra

_EXTRA = ("crawleruseragents", "moto", "redis")
"""Packages that only the local stack imports. The extra `local` installs them."""
_SECONDS = 15.0


@click.group("local", cls=CommandGroup, invoke_without_command=True)
@click.option(
    "--port", type=click.IntRange(1024, 65_000), help="First of the ports to use; remembered. Default: 8700."
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
    os.chdir(Path(__file__).parents[2])
    os.execv(sys.executable, words)  # noqa: S606 -- our own module


@command.command("break")
@click.argument("target", metavar="TARGET")
@click.option(
    "--for",
    "seconds",
    type=LENGTH,
    default="2min",
    show_default=True,
    help="How long the outage lasts; 0s ends it.",
)
@click.option("--local", is_flag=True, hidden=True, expose_value=False)  # as with other commands
@screen.json_option
def break_(target: str, *, seconds: float, as_json: bool) -> None:
    """Break a part of the local stack for a while: td, td:DATABASE, answers, redis, kinesis or worker.

    td: Treasure Data answers 503. td:media=403 and td:shop.orders=422: imports into a database or a table get another status.
    answers: Treasure Data accepts imports, but its responses are lost. redis and worker: the process is killed, and restarted when
    the time is up. kinesis: the stream rejects every call.
    """
    page = local_stack().outputs.get("SdkUrl", "").removesuffix("/sdk")
    try:
        with requests.Session() as session:
            session.trust_env = False  # never use a proxy for loopback
            answer = session.post(
                f"{page}/break", json={"target": target, "seconds": seconds}, timeout=_SECONDS
            )
        under_way = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise Failure(
            "the local stack's page does not answer, perhaps because it is stopping: start it again with `sluice local`"
        ) from error
    if not answer.ok:
        raise click.UsageError(under_way["error"])
    if as_json:
        screen.show_json({"under_way": under_way})
    elif target in under_way:
        screen.say(
            f"{target} is broken for {screen.lasting(seconds)}. `sluice status --local` shows what happens."
        )
    else:
        screen.say(f"There is no outage of {target} now. After one, it works again within seconds.")
