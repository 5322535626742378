"""`make up`: runs the whole pipeline on this machine until it is stopped, with a page that shows it at work.

A part that dies is restarted. Ports are the same at every start, so that snippets and bookmarks stay valid.
"""

import argparse
import fcntl
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from local import containers
from local.accounts import KEYS
from local.functions import TEMPLATE
from local.interrupt import exit_on_signals
from local.local_state import local_state
from local.outages import Outages
from local.page_server import Beside, local_page
from local.received import Received
from local.stack import PORTS, LocalStack, PartError
from local.website import Website
from ops import browser_sdk
from ops.console.actions import Actions
from ops.console.live_feed import LiveFeed, stack_tail
from ops.console.page_data import page_data
from ops.console.server import ConsolePage, Server
from ops.console.view import ConsoleView
from ops.failure import Failure
from ops.stack import announce, described
from shared.clock import SystemClock
from shared.errors import SluiceError

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".local"
DESCRIPTION = "stack.json"
"""Name of the file with the addresses of the running stack, for other commands."""

_CHECK_SECONDS = 0.5
_LOOK_SECONDS = 1.0
_ACCOUNT_SECONDS = 5.0
_HISTORY_SECONDS = 3600.0
_BASE_PORT = 8700
_PORT_FILE = "port"
_SOURCES = ("doubles", "ingest", "local", "ops", "shared", "worker")


class NotStartedError(SluiceError):
    """Another stack is running in this folder, another program listens on one of the ports, or an option is not valid."""


def base_port(home: Path, wanted: int | None) -> int:
    """Return the first port of the stack, and remember it: the wanted port, or else the last one, or else 8700.

    If neither is given and another program has the default ports, the next free ones are used.

    Raises:
        NotStartedError: the ports are in use.
    """
    file = home / _PORT_FILE
    remembered = int(file.read_text()) if file.exists() else None
    asked = wanted or remembered
    for base in [asked] if asked else range(_BASE_PORT, _BASE_PORT + 20 * len(PORTS), 2 * len(PORTS)):
        busy = [base + offset for offset in range(len(PORTS)) if not _is_free(base + offset)]
        if not busy:
            file.write_text(str(base))
            return base
    raise NotStartedError(
        f"Port {busy[0]} is in use. Stop the program that uses it, or choose other ports with --port FIRST: "
        f"the stack needs {len(PORTS)} consecutive ports."
    )


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Lock the folder, so that a second stack cannot empty it.

    Raises:
        NotStartedError: another process has locked it, or it cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "lock").open("a")
    except OSError as error:
        raise NotStartedError(f"{home}: {error.strerror}. Set SLUICE_HOME to another folder.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotStartedError(
                f"The stack in {home} is already running. `sluice status --local` shows it; Ctrl-C where it was started stops it."
            ) from None
        yield


def run(home: Path, console: Console, options: argparse.Namespace) -> None:
    """Run the stack until a signal stops it.

    Raises:
        NotStartedError: it is already running, another program has its ports, or an option is not valid.
        PartError: a part did not start.
    """
    started = time.monotonic()
    description = home / DESCRIPTION
    with exclusive(home):
        console.print("Starting the pipeline on this machine …")
        port = base_port(home, options.port)
        page_port = port + PORTS.index("page")
        parameters = {"LogLevel": options.log_level} if options.log_level else {}
        if options.allowed_origins not in (None, "*"):  # the page sends events, too
            parameters["AllowedOrigins"] = f"{options.allowed_origins},http://127.0.0.1:{page_port}"
        if said := TEMPLATE.objections(parameters):
            raise NotStartedError(said[0])
        record = options.record and options.record.absolute()
        with LocalStack(home / "stack", base_port=port, parameters=parameters, record=record) as stack:
            gateway = stack.addresses.gateway
            site = Website(gateway, KEYS, snippet=snippet(gateway, KEYS["app"]))
            stack.save(description, page=f"http://127.0.0.1:{page_port}")
            announce(home.resolve())
            outages = Outages(stack)
            try:
                with (
                    Server(page_of(stack, site, outages), page_port) as page,
                    containers.reachable(stack, home, containers.gateway()),
                ):
                    for line in (*_addresses(stack, page.url), *next_steps(gateway, page.url)):
                        console.print(line, markup=False)
                    console.print(f"Ready after {time.monotonic() - started:.1f} s. Press Ctrl-C to stop.")
                    _tend(stack, console, reload=options.reload)
            finally:
                description.unlink()


def page_of(stack: LocalStack, site: Website, outages: Outages) -> ConsolePage:
    """Return the page: a console with all changes allowed, and the local stack's own sections."""
    clock = SystemClock()
    described_stack = described(stack.describe())
    view = ConsoleView(
        described_stack,
        look_seconds=_LOOK_SECONDS,
        count_seconds=_LOOK_SECONDS,
        count_share=0.3,
        account_seconds=_ACCOUNT_SECONDS,
    )
    actions = Actions(described_stack, clock, view.expire)
    tail = stack_tail(described_stack)
    feed = LiveFeed(tail, clock, history_seconds=_HISTORY_SECONDS, scrubs=False, plan=view.plan)
    received = Received(described_stack.shards(), stack.folder, clock)
    data = page_data(
        view, actions, feed, allow_changes=True, more=lambda: local_state(stack, outages.under_way())
    )
    return local_page(
        Beside(site),
        {**data, **received.data()},
        {**actions.by_path(), **received.actions()},
        outages.order,
        stack.addresses.gateway,
    )


def _tend(stack: LocalStack, console: Console, *, reload: bool) -> NoReturn:
    """Restart parts that die and, with `reload`, the functions whenever the code changes."""
    changed = _last_change() if reload else 0.0
    while True:
        for line in stack.revive():
            console.print(f"{line}. Its log is in {stack.folder}.", markup=False)
        if reload and (now := _last_change()) != changed:
            changed = now
            stack.restart_functions()
            console.print("The code has changed. The functions were restarted.")
        time.sleep(_CHECK_SECONDS)


def _last_change() -> float:
    """Return when a module was last changed, UNIX seconds."""
    return max(file.stat().st_mtime for package in _SOURCES for file in (ROOT / package).rglob("*.py"))


def snippet(endpoint: str, key: str, sdk: Path = browser_sdk.FOLDER) -> str:
    """Return the HTML that loads the browser SDK or, if the SDK is not built, a message that says how to build it.

    Args:
        endpoint: the URL to which to send events.
        key: the write key.
        sdk: the folder of the built SDK.
    """
    try:
        return _snippet(endpoint, key, sdk, "/sdk")
    except Failure as failure:
        return f'<p role="alert">This page cannot send events: {escape(str(failure))}.</p>'


def _snippet(endpoint: str, key: str, sdk: Path, host: str) -> str:
    template = browser_sdk.Build(sdk).read(browser_sdk.SNIPPET).decode()
    return browser_sdk.snippet(template, endpoint=endpoint, key=key, host=host)


def _addresses(stack: LocalStack, page: str) -> Iterator[str]:
    """Yield a line per address."""
    example = (
        f'curl \'{stack.addresses.gateway}/v1/events?k={KEYS["shop"]}\' -d \'{{"table": "tries", "n": 1}}\''
    )
    for name, address in (
        ("Page", page),
        ("Gateway", stack.addresses.gateway),
        ("Treasure Data (double)", stack.addresses.treasure_data),
        ("AWS (doubles)", stack.addresses.aws),
        ("Valkey", stack.addresses.redis),
        ("Logs", str(stack.folder)),
        ("Try", example),
    ):
        yield f"{name:<26}{address}"


def next_steps(gateway: str, page: str, sdk: Path = browser_sdk.FOLDER) -> Iterator[str]:
    """Yield the lines that let somebody use the stack: the `sluice` command and, for a page of their own, the browser SDK.

    Args:
        gateway: the URL to which to send events.
        page: the URL of the stack's page, which hosts the SDK.
        sdk: the folder of the built SDK.
    """
    if shutil.which("sluice") is None and (ROOT / "bin").exists():
        yield f'{"Commands":<26}export PATH="{ROOT / "bin"}:$PATH"   # then, for example: sluice status --local'
    try:
        yield from ("For your page:", _snippet(gateway, KEYS["shop"], sdk, f"{page}/sdk"))
    except Failure as failure:
        yield f"{'For your page':<26}{failure.message}"


def main() -> None:
    """Run the stack."""
    parser = argparse.ArgumentParser(prog="make up", description=__doc__)
    parser.add_argument(
        "--home",
        type=Path,
        default=HOME,
        metavar="FOLDER",
        help="where to store everything (default: .local/)",
    )
    parser.add_argument(
        "--port", type=int, help="the first port; remembered for the next start (default: 8700)"
    )
    parser.add_argument("--reload", action="store_true", help="restart the functions when the code changes")
    parser.add_argument(
        "--log-level", choices=("INFO", "WARN"), help="log level of the functions (default: INFO)"
    )
    parser.add_argument("--allowed-origins", help="origins whose pages may read responses (default: *)")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="append each request, and the event that the gateway makes from it, as a line of JSON",
    )
    options = parser.parse_args()
    exit_on_signals()
    console = Console(highlight=False, soft_wrap=True)
    try:
        run(options.home, console, options)
    except (NotStartedError, PartError) as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped")


if __name__ == "__main__":
    main()
