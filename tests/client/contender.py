"""A program that tracks events with one of the compared clients: `python contender.py NAME URL KEY SPOOL SCRIPT`.

Each client is used as its documentation shows for a long-running program. SCRIPT is a line of steps: `track:FIRST-LAST`
tracks events with these marks, `wait:SECONDS` does other work, `fork:STEPS` (steps separated by `;`) runs them in a child
process and waits for it, `kill` ends the process like kill -9, and `close` is the end of a program that ends normally.
"""

import gzip
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

Track = Callable[[str], object]
Close = Callable[[], object]


def sluice(url: str, key: str, spool: str) -> tuple[Track, Close]:
    """Use this project's client."""
    from sluice_client import Client

    client = Client(url, key, spool=spool)
    client.resume()
    return lambda mark: client.track("orders", mark=mark), client.close


def td_client(url: str, _key: str, _spool: str) -> tuple[Track, Close]:
    """Use td-client, with ten events per import, as a program would collect them."""
    import msgpack
    import tdclient

    client = tdclient.Client(apikey="1/key", endpoint=f"{url}/")
    rows: list[bytes] = []

    def send() -> None:
        data = gzip.compress(b"".join(rows))
        rows.clear()
        try:
            client.import_data("shop", "orders", "msgpack.gz", io.BytesIO(data), len(data))
        except Exception:  # noqa: BLE001 -- the program carries on
            return

    def track(mark: str) -> None:
        rows.append(msgpack.packb({"time": int(time.time()), "mark": mark}))
        if len(rows) == 10:
            send()

    return track, lambda: send() if rows else None


def snowplow(url: str, _key: str, _spool: str) -> tuple[Track, Close]:
    """Use snowplow-python-tracker with its asynchronous emitter."""
    from snowplow_tracker import AsyncEmitter, StructuredEvent, Tracker

    tracker = Tracker("shop", AsyncEmitter(url))
    return lambda mark: tracker.track(StructuredEvent("orders", "order", label=mark)), tracker.flush


def posthog(url: str, _key: str, _spool: str) -> tuple[Track, Close]:
    """Use posthog-python."""
    from posthog import Posthog

    client = Posthog("key", host=url)
    return lambda mark: client.capture("order", distinct_id="u-1", properties={"mark": mark}), client.shutdown


def segment(url: str, _key: str, _spool: str) -> tuple[Track, Close]:
    """Use analytics-python."""
    from segment.analytics.client import Client

    client = Client("key", host=url)
    return lambda mark: client.track("u-1", "order", {"mark": mark}), client.shutdown


CONTENDERS: dict[str, Callable[[str, str, str], tuple[Track, Close]]] = {
    "sluice": sluice,
    "td-client": td_client,
    "snowplow": snowplow,
    "posthog": posthog,
    "segment": segment,
}


def perform(steps: list[str], track: Track, close: Close) -> None:
    """Run the steps."""
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
                child = os.fork()
                if not child:
                    perform(value.split(";"), track, close)
                    os._exit(0)
                os.waitpid(child, 0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "close":
                close()


def main() -> Any:
    """Run the program that the command line describes."""
    name, url, key, spool, script = sys.argv[1:]
    track, close = CONTENDERS[name](url, key, spool)
    perform(script.split(), track, close)


if __name__ == "__main__":
    main()
