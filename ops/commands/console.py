"""`sluice console`: serves a page that shows a stack, only on this machine and only to its user."""

import secrets
import threading

import click

from ops import personal_data, screen
from ops.console.actions import Actions
from ops.console.live_feed import LiveFeed, stack_tail
from ops.console.page_data import page_data
from ops.console.server import ConsolePage, Server
from ops.console.view import ConsoleView
from ops.failure import Failure
from ops.moment import LENGTH
from ops.stack import Stack, works_on_stack
from shared.clock import SystemClock

_HISTORY_SECONDS = 60.0


@click.command("console")
@works_on_stack
@click.option("--port", type=click.IntRange(1024, 65_535), help="Port to listen on. Default: any free port.")
@click.option(
    "--allow-changes",
    is_flag=True,
    help="Let the page redrive and drop rows that wait or are dead, each after a confirmation.",
)
@click.option("--raw", is_flag=True, help="Show personal data in events, such as addresses and visitor ids.")
@click.option("--for", "seconds", type=LENGTH, help="Stop after this long, such as 8h. Default: at Ctrl-C.")
def command(stack: Stack, *, port: int | None, allow_changes: bool, raw: bool, seconds: float | None) -> None:
    """Serve a page that shows a stack: state, events, tables, waiting and dead rows, accounts, cost. Ctrl-C stops it.

    The page is served only on this machine, uses your AWS permissions, and changes nothing unless you allow it. Anyone with the
    printed address, which contains a token, can see what you can see.
    """
    view = ConsoleView(stack)
    with screen.progress("reading the stack's state", hidden=False):
        view.first()
    token = secrets.token_urlsafe(24)
    actions = Actions(stack, SystemClock(), view.expire)
    feed = LiveFeed(
        stack_tail(stack), SystemClock(), history_seconds=_HISTORY_SECONDS, scrubs=not raw, plan=view.plan
    )
    page = ConsolePage(
        page_data(view, actions, feed, allow_changes=allow_changes),
        actions.by_path() if allow_changes else {},
        token=token,
    )
    try:
        server = Server(page, port or 0)
    except OSError as error:
        raise Failure(f"port {port} is in use: choose another with --port, or leave out --port") from error
    with server:
        click.echo(f"{server.url}/#token={token}")
        screen.note("Open this address in a browser. Ctrl-C stops the console.")
        if not raw:
            screen.note(personal_data.EXPLANATION)
        threading.Event().wait(seconds)
