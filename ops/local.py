"""`sluice local`: runs the whole pipeline on this machine, for --local in other commands, and breaks parts of it."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import click

from ops import screen
from ops.command_group import CommandGroup
from ops.failure import Failure
from ops.moment import LENGTH
from ops.stack import home, local

_EXTRA = ("crawleruseragents", "moto", "redis", "werkzeug")
"""Packages that only the local stack imports. The extra `local` installs them."""
_DIRECT = build_opener(ProxyHandler({}))  # never use a proxy for loopback
_SECONDS = 15.0


@click.group("local", cls=CommandGroup, invoke_without_command=True)
@click.option(
    "--port",
    type=click.IntRange(1024, 65_000),
    help="First of the ports to use; remembered. Default: 8700.",
)
@click.option("--keep", is_flag=True, help="Keep the data of the last run instead of starting empty.")
@click.option("--reload", is_flag=True, help="Restart the functions when the code changes.")
@click.option(
    "--log-level", type=click.Choice(["INFO", "WARN"]), help="Log level of the functions. Default: INFO."
)
@click.pass_context
def command(ctx: click.Context, *, port: int | None, keep: bool, reload: bool, log_level: str | None) -> None:
    """Run the whole pipeline on this machine, for --local in other commands. Ctrl-C stops it."""
    if ctx.invoked_subcommand is not None:
        return
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise Failure(
            f"the local stack is not installed ({', '.join(missing)}): "
            "in a clone of Sluice, run `uv tool install '.[local]'` or `pip install '.[local]'`"
        )
    words = [sys.executable, "-m", "local.up", "--home", str(home())]
    words += ["--port", str(port)] if port else []
    words += [*(["--keep"] if keep else []), *(["--reload"] if reload else [])]
    words += ["--log-level", log_level] if log_level else []
    os.chdir(Path(__file__).parents[1])
    os.execv(sys.executable, words)  # noqa: S606 -- our own module


@command.command("break")
@click.argument("target", metavar="TARGET")
@click.option(
    "--for",
    "seconds",
    type=LENGTH,
    default=120.0,
    show_default="2min",
    help="How long the outage lasts; 0s ends it.",
)
@screen.json_option
def break_(target: str, *, seconds: float, as_json: bool) -> None:
    """Break a part of the local stack for a while: td, td:DATABASE, answers, redis, kinesis or worker.

    td: Treasure Data answers 503. answers: Treasure Data accepts imports, but its responses are lost. redis and worker: the process
    is killed, and restarted when the time is up. kinesis: the stream rejects every call.
    """
    page = local().outputs.get("SdkUrl", "").removesuffix("/sdk")
    body = json.dumps({"target": target, "seconds": seconds}).encode()
    request = Request(f"{page}/break", body, {"content-type": "application/json"})  # noqa: S310 -- our own page
    try:
        with _DIRECT.open(request, timeout=_SECONDS) as answer:
            under_way = json.load(answer)
    except HTTPError as error:
        raise click.UsageError(json.load(error)["error"]) from error
    except (URLError, ValueError) as error:
        raise Failure(
            "the local stack's page does not answer, perhaps because it is stopping: start it again with `sluice local`"
        ) from error
    if as_json:
        screen.show_json({"under_way": under_way})
    elif target in under_way:
        screen.say(
            f"{target} is broken for {screen.lasting(seconds)}. `sluice status --local --watch` shows what happens."
        )
    else:
        screen.say(f"{target} works again.")
