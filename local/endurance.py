"""`make endurance`: sends events to the local stack while its parts are killed, and counts every event by its id.

Every accepted event must be delivered or dead exactly once; an event that was refused, or whose response was lost, at most
once. Requests are not retried, so each event is sent once. AWS and Treasure Data are doubles, and are not killed.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from local.accounts import KEYS
from local.demo import send_recording, wait_for_outcomes
from local.interrupt import exit_on_signals
from local.part import Part
from local.reconciliation import Reconciliation
from local.recording import RecordedRequest
from local.stack import LocalStack, PartError

_REVIVE_SECONDS = 0.1
_PATIENCE_SECONDS = 420.0
"""How long to wait without any change: an envelope in the overflow queue may wait for two minutes, twice; rows of a killed worker for three."""


def run(
    stack: LocalStack, *, events: int, threads: int, kills: int, seed: int
) -> tuple[Reconciliation, Counter[str]]:
    """Send events to a running stack while killing and restarting its parts. Return the counts, and the kills by part.

    Args:
        stack: the stack.
        events: number of events, one per request.
        threads: number of connections.
        kills: number of parts to kill with SIGKILL, evenly spread over the events.
        seed: determines which parts are killed.

    Raises:
        PartError: a part exited that was not killed.
    """
    chances = random.Random(seed)  # noqa: S311 -- no secret
    killed: Counter[str] = Counter()
    beat = threading.Event()

    def requests() -> Iterator[RecordedRequest]:
        for number in range(1, events + 1):
            due = min(kills, number * (kills + 1) // events)
            if killed.total() < due:
                part = chances.choice(running())
                part.kill()
                killed[part.name] += 1
            yield _request(number)

    def running() -> list[Part]:
        while not (found := [part for part in stack.parts if part.running and not stack.keeps_data(part)]):
            beat.wait(_REVIVE_SECONDS)
        return found

    with _revived(stack):
        count = send_recording(stack, requests(), lambda _: None, threads)
    while not all(part.running for part in stack.parts):
        stack.revive()
        beat.wait(_REVIVE_SECONDS)
    wait_for_outcomes(stack, count, lambda _: None, _PATIENCE_SECONDS, is_over=adds_up)
    return count, killed


def adds_up(count: Reconciliation) -> bool:
    """Return whether every accepted event has one row, no other event has two, and nothing waits or is in flight."""
    return count.settled and not count.mismatched_ids and not count.repeated_ids


@contextmanager
def _revived(stack: LocalStack) -> Iterator[None]:
    """Restart parts that exit during the block."""
    over = threading.Event()

    def tend() -> None:
        while not over.wait(_REVIVE_SECONDS):
            stack.revive()

    thread = threading.Thread(target=tend)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _request(number: int) -> RecordedRequest:
    body = json.dumps({"table": f"endurance_{number % 3}", "event_id": f"e{number}", "n": number})
    headers = (("host", "collect.example"), ("x-write-key", KEYS[("shop", "app")[number % 2]]))
    return RecordedRequest("POST", "/v1/events", headers, body.encode())


def report(count: Reconciliation, killed: Counter[str], console: Console) -> None:
    """Print what was counted."""
    wrong = count.mismatched_ids
    lost = [event_id for (_, event_id), missing in wrong.items() if missing > 0]
    repeated = [event_id for _, event_id in count.repeated_ids]
    refused = ", ".join(f"{code} {times:,}" for code, times in count.refused.items())
    parts = ", ".join(f"{name} {times}" for name, times in sorted(killed.items()))
    for name, number, more in (
        ("killed", killed.total(), parts),
        ("accepted", count.accepted.total(), ""),
        ("refused", count.refused.total(), refused),
        (
            "without response",
            len(count.errors),
            f"{-count.outstanding:,} of these and the refused have a row",
        ),
        ("lost", len(lost), ", ".join(sorted(lost)[:5])),
        ("duplicated", len(repeated), ", ".join(sorted(repeated)[:5])),
    ):
        console.print(f"{name:<18}{number:>8,}  {more}", soft_wrap=True)
    console.print("[green]It adds up.[/]" if adds_up(count) else "[red]It does not add up.[/]")


def main() -> None:
    """Run it. The exit status is 0 if it adds up."""
    parser = argparse.ArgumentParser(prog="make endurance", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    exit_on_signals()
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="sluice-endurance-"))
    try:
        with LocalStack(folder) as stack:
            count, killed = run(stack, **vars(options))
    except PartError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    report(count, killed, console)
    if adds_up(count):
        shutil.rmtree(folder)
        return
    console.print(f"The logs are in {folder}", soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
