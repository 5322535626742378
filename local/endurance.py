"""`make endurance`: sends events to the local stack while its parts are killed, and counts every event by its id.

Every accepted event must be delivered or dead exactly once; an event that was refused, or whose response was lost, at most
once. Requests are not retried, so each event is sent once.
"""

import argparse
import http.client
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from local import outcomes
from local.accounts import ACCOUNTS, KEYS
from local.interrupt import exit_on_signals
from local.observer import Observer
from local.stack import LocalStack, PartError
from ops.logs import answers

_REVIVE_SECONDS = 0.1
_POLL_SECONDS = 1.0
_PAUSE_SECONDS = 0.2
_TIMEOUT_SECONDS = 30.0
PATIENCE_SECONDS = 420.0
"""How long to wait without any change: an envelope in the overflow queue may wait for two minutes, twice."""


@dataclass(slots=True)
class Count:
    """What was sent and what happened to it.

    Attributes:
        accepted: ids of events that a response reports as accepted.
        unknown: ids of events without such a response.
        statuses: number of responses by status; 0 stands for no response.
        killed: number of kills by part.
        found: number of rows in Treasure Data or dead, by event id.
        said: number of events that the gateway reported as accepted, by its own count.
        in_flight: what is not settled, by kind.
    """

    accepted: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    said: int = 0
    in_flight: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> set[str]:
        """Accepted events without a row."""
        return {event_id for event_id in self.accepted if not self.found[event_id]}

    @property
    def doubled(self) -> set[str]:
        """Events with more than one row."""
        return {event_id for event_id, count in self.found.items() if count > 1}

    @property
    def adds_up(self) -> bool:
        """Whether every accepted event has one row, no event has two, and the gateway's own count is at least as high."""
        return not self.lost and not self.doubled and self.said >= len(self.accepted)


class EventSender:
    """Sends events, one per request, over several connections at once.

    Args:
        url: the gateway's URL.
        count: receives the responses.
        total: number of events.
        threads: number of connections.

    Attributes:
        sent: number of events for which sending has begun.
        allowed: number of events after which it pauses, until this is raised.
    """

    def __init__(self, url: str, count: Count, *, total: int, threads: int) -> None:
        self.sent = 0
        self.allowed = total
        self._parts = urlsplit(url)
        self._count = count
        self._total = total
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(threads)]

    def start(self) -> None:
        """Start to send."""
        for thread in self._threads:
            thread.start()

    @property
    def is_sending(self) -> bool:
        """Whether it is still sending."""
        return any(thread.is_alive() for thread in self._threads)

    def _send(self) -> None:
        connection = http.client.HTTPConnection(
            self._parts.hostname or "", self._parts.port, timeout=_TIMEOUT_SECONDS
        )
        while (number := self._next()) is not None:
            event_id = f"e{number}"
            body = json.dumps({"table": f"endurance_{number % 3}", "event_id": event_id, "n": number})
            account = ("shop", "app")[number % 2]
            try:
                connection.request("POST", f"/v1/events?k={KEYS[account]}", body)
                response = connection.getresponse()
                content, status = response.read(), response.status
            except (OSError, http.client.HTTPException):
                connection.close()
                content, status = b"", 0
                time.sleep(_PAUSE_SECONDS)
            is_accepted = status == 200 and json.loads(content)["accepted"] == 1
            with self._lock:
                self._count.statuses[status] += 1
                (self._count.accepted if is_accepted else self._count.unknown).add(event_id)
        connection.close()

    def _next(self) -> int | None:
        while self.allowed <= self.sent < self._total:
            time.sleep(_REVIVE_SECONDS)
        with self._lock:
            if self.sent >= self._total:
                return None
            self.sent += 1
            return self.sent


def run(
    stack: LocalStack,
    count: Count,
    *,
    total: int,
    threads: int,
    kills: int,
    seed: int,
    spared: tuple[str, ...] = (),
) -> None:
    """Send events to a running stack, while killing and restarting its parts.

    Args:
        stack: the stack.
        count: receives the responses and the kills.
        total: number of events.
        threads: number of connections.
        kills: number of parts to kill with SIGKILL, evenly spread over the events. If a kill is half an interval late, because a
            part is slow to start, the sender waits for it.
        seed: determines which parts are killed.
        spared: parts that are not killed.
    """
    chance = random.Random(seed)  # noqa: S311 -- no secret
    sender = EventSender(stack.addresses.gateway, count, total=total, threads=threads)
    interval = total / (kills + 1)
    sender.allowed = int(interval * 1.5) if kills else total
    sender.start()
    while sender.is_sending:
        done = count.killed.total()
        running = [part for part in stack.parts if part.running and part.name not in spared]
        if done < kills and sender.sent >= interval * (done + 1) and running:
            part = chance.choice(running)
            part.kill()
            count.killed[part.name] += 1
            sender.allowed = int(interval * (done + 2.5)) if done + 1 < kills else total
        stack.revive()
        time.sleep(_REVIVE_SECONDS)


def settle(stack: LocalStack, count: Count, patience: float = PATIENCE_SECONDS) -> None:
    """Count the outcomes until nothing is missing or in flight, or nothing has changed for `patience` seconds."""
    observer = Observer(stack)
    before, changed = -1, time.monotonic()
    while time.monotonic() - changed < patience:
        stack.revive()
        try:
            count.in_flight = observer.in_flight()
            found = [
                *outcomes.delivered(stack.addresses.treasure_data),
                *outcomes.undelivered(stack.resources, ACCOUNTS),
            ]
        except (OSError, BotoCoreError, ClientError):
            continue  # a part is restarting
        count.found = Counter(event_id for one in found for event_id in one.event_ids)
        count.said = answers.read(stack.folder).accepted
        if not count.lost and not any(count.in_flight.values()):
            return
        now = count.found.total() + sum(count.in_flight.values())
        if now != before:
            before, changed = now, time.monotonic()
        time.sleep(_POLL_SECONDS)


def report(count: Count, console: Console) -> None:
    """Print what was counted."""
    killed = ", ".join(f"{name} {times}" for name, times in sorted(count.killed.items()))
    statuses = ", ".join(f"{times:,} × {status or 'no response'}" for status, times in count.statuses.items())
    found = sum(count.found[event_id] > 0 for event_id in count.accepted)
    console.print(f"killed              {count.killed.total():>8,}  {killed}")
    console.print(f"responses           {count.statuses.total():>8,}  {statuses}")
    console.print(
        f"accepted            {len(count.accepted):>8,}  by the responses; {count.said:,} by the gateway's count"
    )
    console.print(f"delivered, or dead   {found:>8,}  of the accepted events")
    console.print(f"lost                {len(count.lost):>8,}  {', '.join(sorted(count.lost)[:5])}")
    console.print(f"duplicated          {len(count.doubled):>8,}  {', '.join(sorted(count.doubled)[:5])}")
    unheard = sum(count.found[event_id] > 0 for event_id in count.unknown)
    console.print(f"without response    {unheard:>8,}  of {len(count.unknown):,} were stored anyway")
    console.print("[green]It adds up.[/]" if count.adds_up else "[red]It does not add up.[/]")


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
    count = Count()
    try:
        with LocalStack(folder) as stack:
            run(
                stack,
                count,
                total=options.events,
                threads=options.threads,
                kills=options.kills,
                seed=options.seed,
            )
            settle(stack, count)
            report(count, console)
    except PartError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    if count.adds_up:
        shutil.rmtree(folder)
        return
    console.print(f"The logs are in {folder}", soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
