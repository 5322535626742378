"""`make demo`: sends recorded browser requests through the whole pipeline and accounts for every event."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from operator import attrgetter
from pathlib import Path

from rich.console import Console

from local import outcomes
from local.accounts import ACCOUNTS, KEYS
from local.interrupt import exit_on_signals
from local.reconciliation import Reconciliation
from local.recording import REQUESTS, RecordedRequest, RecordingError, read
from local.report import meter, show
from local.sender import Exchange, send
from local.stack import LocalStack, PartError
from ops import screen
from ops.books.accounting import Accounting
from ops.plans.arrived_events import events_since
from ops.plans.plan_profile import Drifts
from ops.stack import described
from ops.state.stack_state import accounting
from shared.tracking_plan import TrackingPlan
from worker.span_object import SpanObjects

_CONNECTIONS = 6
_PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.3
_UNKNOWN_ACCOUNT = RecordedRequest(
    "POST", "/v1/events", (("x-write-key", KEYS["unknown account"]),), b'{"events": []}'
)


def wait_until_refused(stack: LocalStack, patience: float = _PATIENCE_SECONDS) -> None:
    """Return when the ingest refuses keys of unknown accounts, or after so many seconds.

    In the first second after its start it still accepts them, and their rows become dead, so that the counts would vary.
    """
    deadline, answers = time.monotonic() + patience, list[Exchange]()
    while time.monotonic() < deadline:
        send(stack.addresses.gateway, [_UNKNOWN_ACCOUNT], 1, answers.append)
        if answers[-1].refused == "unknown_account":
            return
        time.sleep(_POLL_SECONDS)


def send_recording(
    stack: LocalStack,
    requests: Iterable[RecordedRequest],
    on_exchange: Callable[[Exchange], None],
    connections: int = _CONNECTIONS,
) -> Reconciliation:
    """Send the requests over several connections, and return the counts from the responses."""
    reconciliation = Reconciliation()

    def done(exchange: Exchange) -> None:
        reconciliation.count_exchange(exchange, ACCOUNTS)
        on_exchange(exchange)

    send(stack.addresses.gateway, requests, connections, done)
    return reconciliation


def count_outcomes(stack: LocalStack, books: Accounting, reconciliation: Reconciliation) -> None:
    """Update the reconciliation with the outcomes so far."""
    unread = books.unread()
    reconciliation.count_outcomes(
        outcomes.delivered(stack.addresses.treasure_data),
        outcomes.undelivered(books.ledger, SpanObjects(books.bucket), ACCOUNTS),
        {"records on the stream": unread.on_stream, "messages in the queue": unread.in_queue},
    )


def wait_for_outcomes(
    stack: LocalStack,
    reconciliation: Reconciliation,
    updated: Callable[[int], None],
    patience: float = _PATIENCE_SECONDS,
    *,
    is_over: Callable[[Reconciliation], bool] = attrgetter("adds_up"),
) -> None:
    """Update the reconciliation until it adds up, or until nothing has changed for a while.

    Args:
        stack: the stack to observe.
        reconciliation: what was sent.
        updated: called with the number of accepted events that have an outcome.
        patience: seconds without a change after which to give up.
        is_over: what to wait for, if not that it adds up.

    Raises:
        PartError: a part of the stack exited.
    """
    books = accounting(described(stack.describe()))
    before, changed = None, time.monotonic()
    while True:
        stack.check()
        count_outcomes(stack, books, reconciliation)
        updated(reconciliation.accepted.total() - reconciliation.outstanding)
        now = reconciliation.outstanding, reconciliation.unsettled
        if now != before:
            before, changed = now, time.monotonic()
        if is_over(reconciliation) or time.monotonic() - changed > patience:
            return
        time.sleep(_POLL_SECONDS)


def drifts_of(stack: LocalStack, account: str) -> Drifts:
    """Return how the stored events differ from an account's tracking plan."""
    drifts = Drifts(ACCOUNTS[account].plan or TrackingPlan())
    for event in events_since(described(stack.describe()), account, 0.0):
        drifts.add(event.table, event.row, event.at)
    return drifts


def show_drifts(drifts: Drifts, console: Console) -> None:
    """Print how events differ from the news site's plan, which is in observe mode."""
    database = ACCOUNTS["news"].database
    console.print(f"\nThe account news (database {database}) has a tracking plan in observe mode:")
    console.print(drifts.summary())
    columns = ("table", "column", "differs", "found", "events")
    found = [
        (drift.table, drift.column, drift.code, drift.found, extent.events)
        for drift, extent in drifts.sorted()
    ]
    if found:
        screen.print_table(screen.table(columns, found), console)


def run(
    folder: Path,
    requests: Sequence[RecordedRequest],
    console: Console,
    *,
    patience: float = _PATIENCE_SECONDS,
    parameters: Mapping[str, str] | None = None,
) -> bool:
    """Send the requests through a new stack, print the result, and return whether it adds up.

    Args:
        folder: the stack's folder.
        requests: what to send.
        console: where to print.
        patience: seconds without a change after which outstanding events count as missing.
        parameters: as for `LocalStack`.

    Raises:
        PartError: a part of the stack did not start, or exited.
    """
    started = time.monotonic()
    console.print("Starting the pipeline on this machine …")
    with LocalStack(folder, parameters=parameters or {}) as stack:
        wait_until_refused(stack)
        console.print(f"Ready after {time.monotonic() - started:.1f} s.")
        console.print(f"Sending {len(requests):,} requests that were recorded from a browser …")
        with meter(console, "requests sent", len(requests)) as update:
            sent = count(1)
            reconciliation = send_recording(stack, requests, lambda _: update(next(sent)))
        with meter(console, "accepted events accounted for", reconciliation.accepted.total()) as update:
            wait_for_outcomes(stack, reconciliation, update, patience)
        drifts = drifts_of(stack, "news")
    show(reconciliation, console)
    show_drifts(drifts, console)
    console.print(f"\nThe whole run took {time.monotonic() - started:.1f} s.")
    return reconciliation.adds_up


def main() -> None:
    """Run the demo. The exit status is 0 if it adds up."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--requests", type=Path, default=REQUESTS, metavar="FILE", help="send another recording"
    )
    parser.add_argument("--times", type=int, default=1, help="how many times to send it (default: 1)")
    options = parser.parse_args()
    exit_on_signals()
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
        console.print(f"The logs are in {folder}", soft_wrap=True)
    else:
        shutil.rmtree(folder)
    if status == 0:
        console.print("[bold]make up[/] keeps the pipeline running, with a page to send events.")
    sys.exit(status)


if __name__ == "__main__":
    main()
