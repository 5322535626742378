"""`make up`: runs the whole pipeline on this machine until it is stopped, with a page that shows it at work."""

import argparse
import fcntl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

from rich.console import Console

from local import containers
from local.accounts import KEYS
from local.interrupt import exit_on_signals
from local.observer import Observer
from local.page_server import LivePage, Server
from local.stack import LocalStack, PartError
from local.website import Website
from ops import browser_sdk
from ops.failure import Failure
from shared.errors import SluiceError

HOME = Path(__file__).parents[1] / ".local"
DESCRIPTION = "stack.json"
"""Name of the file with the addresses of the running stack, for other commands."""

_CHECK_SECONDS = 0.5


class AlreadyRunningError(SluiceError):
    """Another stack is running in this folder."""


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Lock the folder, so that a second stack cannot empty it.

    Raises:
        AlreadyRunningError: another process has locked it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"The local stack is already running. Its addresses are in {home / DESCRIPTION}."
            ) from None
        yield


def run(home: Path, console: Console) -> None:
    """Run the stack until a signal stops it.

    Raises:
        AlreadyRunningError: it is already running.
        PartError: a part did not start, or exited.
    """
    started = time.monotonic()
    console.print("Starting the pipeline on this machine …")
    description = home / DESCRIPTION
    with exclusive(home), LocalStack(home / "stack") as stack:
        observer = Observer(stack)
        gateway = stack.addresses.gateway
        site = Website(gateway, KEYS, snippet=snippet(gateway, KEYS["app"]))
        with (
            Server(LivePage(site, observer.state)) as page,
            containers.reachable(stack, home, containers.gateway()),
        ):
            stack.save(description, page=page.url)
            for line in _addresses(stack, page.url):
                console.print(line, markup=False)
            console.print(f"Ready after {time.monotonic() - started:.1f} s. Press Ctrl-C to stop.")
            try:
                while True:
                    stack.check()
                    time.sleep(_CHECK_SECONDS)
            finally:
                description.unlink()


def snippet(endpoint: str, key: str, sdk: Path = browser_sdk.FOLDER) -> str:
    """Return the HTML that loads the browser SDK or, if the SDK is not built, a message that says how to build it.

    Args:
        endpoint: where to send events.
        key: the write key.
        sdk: the folder of the built SDK.
    """
    try:
        template = browser_sdk.Build(sdk).read(browser_sdk.SNIPPET).decode()
    except Failure as failure:
        return f'<p role="alert">This page sends no events: {escape(str(failure))}.</p>'
    return browser_sdk.snippet(template, endpoint=endpoint, key=key, host="/sdk")


def _addresses(stack: LocalStack, page: str) -> Iterator[str]:
    """Yield a line per address."""
    example = (
        f'curl \'{stack.addresses.gateway}/v1/events?k={KEYS["shop"]}\' -d \'{{"table": "tries", "n": 1}}\''
    )
    for name, address in (
        ("Page", page),
        ("Gateway", stack.addresses.gateway),
        ("Treasure Data (double)", stack.addresses.treasure_data),
        ("AWS (moto)", stack.addresses.aws),
        ("Valkey", stack.addresses.redis),
        ("Logs", str(stack.folder)),
        ("Try", example),
    ):
        yield f"{name:<26}{address}"


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
    options = parser.parse_args()
    exit_on_signals()
    console = Console(highlight=False, soft_wrap=True)
    try:
        run(options.home, console)
    except (AlreadyRunningError, PartError) as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped")


if __name__ == "__main__":
    main()
