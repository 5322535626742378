"""Measures on the local stack how long a row takes from the ingest to Treasure Data, by the window in which batches fill."""

import json
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from benchmarks.report import Report
from local.accounts import KEYS
from local.stack import LocalStack

WINDOWS = (1, 5, 15)
RATE = 20
"""Requests per second."""
_PIXEL = f"/pixel.gif?k={KEYS['shop']}&t=pageviews&page=home&position=3"
_PATIENCE = 10.0


def run(report: Report) -> None:
    """Measure, and report a table and ratios."""
    rows = []
    for window in WINDOWS:
        with TemporaryDirectory() as folder, LocalStack(Path(folder), window_seconds=window) as stack:
            _send(stack.addresses.gateway, round(max(20.0, 3.0 * window) * RATE))
            waits = sorted(_waits(stack))
        p50, p99 = median(waits), quantiles(waits, n=100)[98]
        rows.append(
            [f"{window} s", f"{len(waits):,}", *(f"{seconds:.2f} s" for seconds in (p50, p99, waits[-1]))]
        )
        report.ratio(f"pipeline_p50_seconds (window {window})", p50)
        report.ratio(f"pipeline_p99_seconds (window {window})", p99)
    report.say(
        "Time from the ingest receiving a request to Treasure Data accepting its row, on the local stack, by"
        f" `BatchWindowSeconds`, at {RATE} requests a second:"
    )
    report.table(("window", "rows", "p50", "p99", "longest"), rows)


def _send(url: str, count: int) -> None:
    """Send pixels at a constant rate."""
    begin = time.monotonic()
    with closing(_connection(url)) as connection:
        for number in range(count):
            time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
            connection.request("GET", _PIXEL)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(answer.status)


def _waits(stack: LocalStack) -> list[float]:
    """Return each row's seconds from the ingest to Treasure Data, once no row has arrived for a while."""
    count, since = 0, time.monotonic()
    while time.monotonic() - since < _PATIENCE:
        time.sleep(0.5)
        now = sum(sum(tables.values()) for tables in _treasure_data(stack, "counts").values())
        if now > count:
            count, since = now, time.monotonic()
    arrived = _treasure_data(stack, f"rows?limit={count}")["rows"]
    return [one["at"] - one["row"]["received_at"] / 1000 for one in arrived]


def _treasure_data(stack: LocalStack, path: str) -> Any:
    """Return the Treasure Data double's response on one of its own routes."""
    with closing(_connection(stack.addresses.treasure_data)) as connection:
        connection.request("GET", f"/-/{path}")
        return json.load(connection.getresponse())


def _connection(url: str) -> HTTPConnection:
    parts = urlsplit(url)
    return HTTPConnection(parts.hostname or "", parts.port, timeout=30)
