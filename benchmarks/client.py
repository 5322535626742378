"""Measures the server client: how long `track` takes, and how many events one core stores and sends."""

import json
import queue
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import services
from benchmarks.report import Report
from sluice_client import Client

EVENTS = 60_000
PACED_EVENTS = 6_000
PACE_SECONDS = 0.001
KEY = "shop.k1.AAAAAAAAAAAAAAAAAAAAAA"
COLUMNS = {
    "order_id": 471_100, "sku": "kettle-07", "price": 7_800, "currency": "JPY", "user_id": "u-1f9a2c", "coupon": None,
    "items": ["kettle-07", "filter-2"], "path": "/checkout/complete", "is_first": True,
}  # fmt: skip


def run(report: Report) -> None:
    """Measure `track` with the endpoint up and down, and simpler ways to keep an event."""
    with services.running() as url:
        rows = [
            _row("Sluice, endpoint up", lambda folder: _client(folder, url)),
            _row("Sluice, endpoint down", lambda folder: _client(folder, "http://127.0.0.1:9")),
            _row("Sluice, endpoint up, 1,000 a second", lambda folder: _client(folder, url), paced=True),
            _row("SQLite with its defaults", _plain_sqlite, events=2_000),
            _row("a queue in memory, lost on kill -9", _memory),
        ]
    report.say(
        f"One thread tracks {EVENTS:,} events of {len(json.dumps(COLUMNS))} bytes, as fast as it can or at a pace; the endpoint confirms"
        " every batch. CPU is that of the whole process until everything is stored or confirmed."
    )
    report.table(
        ["", "CPU, µs", "median, ms", "p99, ms", "p99.9, ms", "longest, ms"],
        [
            [name, f"{cpu * 1e6:.0f}", *(f"{times[share] * 1e3:.3f}" for share in ("p50", "p99", "p99.9", "max"))]
            for name, cpu, times in rows
        ],
    )  # fmt: skip
    report.ratio("client_events_per_core_second", 1 / rows[0][1])
    report.ratio("client_p99_ms", max(rows[0][2]["p99"], rows[1][2]["p99"], rows[2][2]["p99"]) * 1e3)


Store = tuple[Callable[[int], object], Callable[[], object]]
"""A function that stores the event with a number, and one that waits until all are stored."""


def _row(
    name: str, start: Callable[[Path], Store], *, events: int = EVENTS, paced: bool = False
) -> tuple[str, float, dict[str, float]]:
    events = PACED_EVENTS if paced else events
    with tempfile.TemporaryDirectory() as folder:
        store, finish = start(Path(folder))
        store(-1)
        times = []
        cpu = time.process_time()
        due = time.perf_counter()
        for number in range(events):
            begin = time.perf_counter()
            store(number)
            end = time.perf_counter()
            times.append(end - begin)
            if paced:
                due += PACE_SECONDS
                time.sleep(max(0.0, due - end))
        finish()
        cpu = time.process_time() - cpu
    times.sort()
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    found = {share: times[int(part * len(times))] for share, part in shares.items()}
    return name, cpu / events, {**found, "max": times[-1]}


def _client(folder: Path, url: str) -> Store:
    client = Client(url, KEY, spool=folder)
    is_up = not url.endswith(":9")
    return lambda number: client.track("orders", COLUMNS, n=number), lambda: client.close(60 if is_up else 0)


def _plain_sqlite(folder: Path) -> Store:
    database = sqlite3.connect(folder / "events.sqlite")
    database.execute("CREATE TABLE event (body TEXT)")

    def store(number: int) -> None:
        with database:
            database.execute("INSERT INTO event VALUES (?)", (json.dumps({**COLUMNS, "n": number}),))

    return store, database.close


def _memory(_: Path) -> Store:
    waiting: queue.Queue[dict[str, object]] = queue.Queue()
    return lambda number: waiting.put({**COLUMNS, "n": number}), lambda: None
