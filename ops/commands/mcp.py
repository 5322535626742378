"""`sluice mcp`: serves the read-only commands to programs that speak the Model Context Protocol."""

import signal
import sys
from importlib.util import find_spec

import click

from ops import screen
from ops.failure import Failure
from ops.stack import UNNAMED, stack_options
from ops.version import extra


@click.command("mcp")
@stack_options
@click.pass_context
def command(ctx: click.Context, *, is_local: bool, name: str | None, region: str | None) -> None:
    """Serve the commands that change nothing as tools of a Model Context Protocol server, on standard input and output.

    An assistant that speaks the protocol starts it, and can then look into the stack. Personal data is replaced by stand-ins.
    """
    if find_spec("mcp") is None:
        raise Failure(f"the extra `mcp` is not installed: {extra('mcp', 'sluice mcp')}")
    if name is None and not is_local:
        raise click.UsageError(UNNAMED)
    from ops.mcp.server import serve  # noqa: PLC0415 -- only the extra installs what it imports

    if sys.stdin.isatty():
        screen.note("Waiting for a client on standard input. Press Ctrl-C to stop.")
    # a thread waits for standard input, and there is nothing to clean up
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    region_words = ["--region", region] if region else []
    serve(ctx.find_root().command, ["--local"] if is_local else ["--stack", str(name), *region_words])
