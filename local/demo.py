"""`make demo`: recorded requests of a real browser through the whole pipeline, and the count of what became of them."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from local import found
from local.accounts import ACCOUNTS
from local.interrupt import end_in_order
from local.observer import Observer
from local.reconciliation import Reconciliation
from local.recording import REQUESTS, RecordedRequest, RecordingError, read
from local.report import Meter, show
from local.sender import Sent, send
from local.stack import PartError, Stack

_VISITORS = 6
_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.3


def replay(stack: Stack, requests: Iterable[RecordedRequest], sent: Callable[[Sent], None]) -> Reconciliation:
    """Send the requests as several visitors do, and return what their answers say."""
    reconciliation = Reconciliation()

    def count(one: Sent) -> None:
        reconciliation.count_sent(one, ACCOUNTS)
        sent(one)

    send(stack.addresses.gateway, requests, _VISITORS, count)
    return reconciliation


def look(stack: Stack, observer: Observer, reconciliation: Reconciliation) -> None:
    """Count what has become of it by now."""
    made = stack.resources
    reconciliation.count_found(
        found.delivered(stack.addresses.treasure_data),
        found.set_aside(made.client("s3"), made.aside_bucket, ACCOUNTS),
        observer.in_flight(),
    )


def follow(
    stack: Stack,
    reconciliation: Reconciliation,
    looked: Callable[[int], None],
    patience: float = _PATIENCE_SECONDS,
) -> None:
    """Look until it adds up, or nothing changes any more.

    Args:
        stack: where to look.
        reconciliation: what was sent.
        looked: is told how many of the accepted events are found.
        patience: seconds without a change after which it ends.

    Raises:
        PartError: a part of the stack ended.
    """
    observer = Observer(stack)
    before, changed = reconciliation.outstanding, time.monotonic()
    while True:
        stack.check()
        look(stack, observer, reconciliation)
        looked(reconciliation.accepted.total() - reconciliation.outstanding)
        if reconciliation.outstanding != before:
            before, changed = reconciliation.outstanding, time.monotonic()
        if reconciliation.adds_up or time.monotonic() - changed > patience:
            return
        time.sleep(_LOOK_SECONDS)


def run(
    folder: Path,
    requests: Sequence[RecordedRequest],
    console: Console,
    *,
    patience: float = _PATIENCE_SECONDS,
    settings: Mapping[str, Mapping[str, str]] | None = None,
) -> bool:
    """Replay the requests in a stack of its own, tell how it went, and return whether it adds up.

    Args:
        folder: the stack's.
        requests: what to send.
        console: where to tell.
        patience: seconds without a change after which what is missing counts as missing.
        settings: of the functions, as for `Stack`.

    Raises:
        PartError: a part of the stack did not start, or ended.
    """
    started = time.monotonic()
    console.print("Starting the pipeline on this machine …")
    with Stack(folder, settings=settings) as stack:
        console.print(
            f"Ready after {time.monotonic() - started:.1f} s; the gateway is {stack.addresses.gateway}"
        )
        console.print(f"Sending {len(requests):,} requests as a browser made them …")
        with Meter(console, "sent", len(requests)) as meter:
            reconciliation = replay(stack, requests, lambda _: meter.add(1))
        with Meter(console, "accounted for", reconciliation.accepted.total()) as meter:
            follow(stack, reconciliation, meter.set, patience)
    show(reconciliation, console)
    console.print(f"\nThe whole run took {time.monotonic() - started:.1f} s.")
    return reconciliation.adds_up


def main() -> None:
    """Run the demo; the exit status says whether it adds up."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--requests", type=Path, default=REQUESTS, metavar="FILE", help="another recording")
    parser.add_argument("--times", type=int, default=1, help="how often to send it (default: once)")
    options = parser.parse_args()
    end_in_order()
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="sluice-demo-"))
    try:
        status = 0 if run(folder, read(options.requests) * options.times, console) else 1
    except (PartError, RecordingError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        status = 1
    except KeyboardInterrupt:
        console.print("interrupted")
        status = 130
    if status == 1 and any(folder.iterdir()):
        console.print(f"The logs of all parts are in {folder}", soft_wrap=True)
    else:
        shutil.rmtree(folder)
    if status == 0:
        console.print("[bold]make up[/] keeps the pipeline running, with a page to watch it.")
    sys.exit(status)


if __name__ == "__main__":
    main()
