"""A program that tracks events with one of the compared clients: `python tracker.py PACKAGE URL KEY SPOOL STEPS`.

Each client is used as its documentation shows for a long-running program. STEPS are separated by spaces: `track:FIRST-LAST` tracks
events with these marks, `wait:SECONDS` does other work, `fork:STEPS` (separated by `;`) runs steps in a child process and waits
for it, `kill` ends the process like kill -9, and `close` is the end of a program that ends normally.
"""

import gzip
import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module

MARK = re.compile(r"mark-\d{5}")
Client = tuple[Callable[[str], object], Callable[[], object]]
"""A function that tracks an event with a mark, and one that ends the client."""


def sluice(url: str, key: str, spool: str) -> Client:
    """Use this project's client."""
    client = import_module("sluice_client").Client(url, key, spool=spool)
    client.resume()
    return lambda mark: client.track("orders", mark=mark), client.close


def td_client(url: str, _key: str, _spool: str) -> Client:
    """Use td-client, with ten events per import, as a program would collect them."""
    client = import_module("tdclient").Client(apikey="1/key", endpoint=f"{url}/")
    packb = import_module("msgpack").packb
    rows: list[bytes] = []

    def send() -> None:
        data = gzip.compress(b"".join(rows))
        rows.clear()
        try:
            client.import_data("shop", "orders", "msgpack.gz", io.BytesIO(data), len(data))
        except Exception:  # noqa: BLE001 -- the program carries on
            return

    def track(mark: str) -> None:
        rows.append(packb({"time": int(time.time()), "mark": mark}))
        if len(rows) == 10:
            send()

    return track, lambda: send() if rows else None


def snowplow(url: str, _key: str, _spool: str) -> Client:
    """Use snowplow-tracker with its asynchronous emitter."""
    package = import_module("snowplow_tracker")
    tracker = package.Tracker("shop", package.AsyncEmitter(url))
    event = package.StructuredEvent
    return lambda mark: tracker.track(event("orders", "order", label=mark)), tracker.flush


def posthog(url: str, _key: str, _spool: str) -> Client:
    """Use posthog."""
    client = import_module("posthog").Posthog("key", host=url)
    return lambda mark: client.capture("order", distinct_id="u-1", properties={"mark": mark}), client.shutdown


def segment(url: str, _key: str, _spool: str) -> Client:
    """Use segment-analytics-python."""
    client = import_module("segment.analytics.client").Client("key", host=url)
    return lambda mark: client.track("u-1", "order", {"mark": mark}), client.shutdown


CLIENTS = {
    "sluice": sluice,
    "td-client": td_client,
    "snowplow-tracker": snowplow,
    "posthog": posthog,
    "segment-analytics-python": segment,
}


def perform(steps: Iterable[str], client: Client) -> None:
    """Run the steps."""
    track, close = client
    for step in steps:
        name, _, value = step.partition(":")
        match name:
            case "track":
                first, last = map(int, value.split("-"))
                for number in range(first, last + 1):
                    track(f"mark-{number:05}")
                    time.sleep(0.005)
            case "wait":
                time.sleep(float(value))
            case "fork":
                if child := os.fork():
                    os.waitpid(child, 0)
                else:
                    perform(value.split(";"), client)
                    os._exit(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "close":
                close()


if __name__ == "__main__":
    package, *place, program = sys.argv[1:]
    perform(program.split(), CLIENTS[package](*place))
