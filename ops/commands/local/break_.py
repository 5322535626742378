"""`sluice local break`: breaks a part of the local stack for a while."""

import click
import requests

from ops import screen
from ops.failure import Failure
from ops.moment import LENGTH
from ops.stack import local

_SECONDS = 15.0


@click.command("break")
@click.argument("target", metavar="TARGET")
@click.option(
    "--for",
    "seconds",
    type=LENGTH,
    default=120.0,
    show_default="2min",
    help="How long the outage lasts; 0s ends it.",
)
@click.option("--local", is_flag=True, hidden=True, expose_value=False)  # as with other commands
@screen.json_option
def command(target: str, *, seconds: float, as_json: bool) -> None:
    """Break a part of the local stack for a while: td, td:DATABASE, answers, redis, kinesis or worker.

    td: Treasure Data answers 503; td:media=403 and td:shop.orders=422: imports into a database or a table get another status.
    answers: Treasure Data accepts imports, but its responses are lost. redis and worker: the process is killed, and restarted when
    the time is up. kinesis: the stream rejects every call.
    """
    page = local().outputs.get("SdkUrl", "").removesuffix("/sdk")
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
        screen.say(f"The outage of {target} is over: it works again within seconds.")
