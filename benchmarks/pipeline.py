"""Measures the local stack as a whole: throughput, CPU by part, and the delay until rows arrive.

Its parts are processes that share this machine's cores with the sender. One of them emulates AWS. The HTTP API and the
event source run inside the functions' processes, so the shares say nothing about a deployed stack.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from benchmarks import traffic
from benchmarks.chart import Bar, Group, bars
from benchmarks.report import Report
from local.accounts import KEYS
from local.stack import LocalStack
from ops.cost.estimate import Setup, Workload, total
from ops.cost.prices import DEFAULT_REGION, REGIONS

SECONDS = 10.0
"""The duration of the throughput measurement."""
SENDERS = 8
WINDOWS = (1, 5, 15)
RATE = 20
"""Requests per second while the arrival of rows is measured."""
_MONTH = Workload(1e7, 1)
_MODES = ("ON_DEMAND", "PROVISIONED")
_PRICES = REGIONS[DEFAULT_REGION]
_TICKS = 100  # per second, in /proc/*/stat
_PATIENCE = 10.0

_ROLES = {
    "aws": "AWS emulator",
    "ingest": "ingest and HTTP API",
    "worker": "worker and event source",
    "treasure-data": "simulated Treasure Data",
    "valkey": "Valkey",
}
"""The parts' names in the report; the other parts are idle."""

Message = tuple[str, str, bytes, Mapping[str, str]]
"""Method, target, body, headers."""


def run(report: Report) -> None:
    """Measure, and report tables, charts and ratios."""
    with TemporaryDirectory() as folder:
        _throughput(report, Path(folder))
        _arrival(report, Path(folder))


def _throughput(report: Report, folder: Path) -> None:
    rows, groups = [], []
    with LocalStack(folder / "stack") as stack:
        for name, message, events in (("pixel", pixel(), 1), ("ten events", posted(10), 10)):
            before, had = _cpu(stack), _rows_taken(stack)
            began, mine = time.perf_counter(), time.process_time()
            sent = _flood(stack.addresses.gateway, message, SECONDS)
            seconds = time.perf_counter() - began
            arrived = _wait_for(stack, had + sent * events) - had
            missing = sent * events - arrived
            until_rows = time.perf_counter() - began - (_PATIENCE if missing else 0.0)
            spent = {part: after - before[part] for part, after in _cpu(stack).items()}
            spent["sender"] = time.process_time() - mine
            each = {role: spent.get(part, 0.0) / sent for part, role in _ROLES.items()}
            each["sender"] = spent["sender"] / sent
            each["idle processes"] = (
                sum(spent[part] for part in spent.keys() - _ROLES.keys() - {"sender"}) / sent
            )
            rows.append(
                [
                    name,
                    f"{sent / seconds:,.0f}/s",
                    f"{arrived / until_rows:,.0f}/s",
                    str(missing),
                    *(
                        f"{each[role] * 1e6:,.0f} µs"
                        for role in (*_ROLES.values(), "sender", "idle processes")
                    ),
                    f"{each['AWS emulator'] / sum(each.values()) * 100:.0f} %",
                ]
            )
            shown = [
                Bar(role, cost * 1e6, f"{cost * 1e6:,.0f} µs", ours=role.startswith(("ingest", "worker")))
                for role, cost in sorted(each.items(), key=lambda one: -one[1])
            ]
            groups.append(Group(f"CPU per request: {name}", shown))
            report.ratio(f"pipeline_requests_per_second ({name})", sent / seconds)
    report.table(
        (
            "request",
            "requests",
            "rows",
            "late",
            *_ROLES.values(),
            "sender",
            "idle processes",
            "emulator share",
        ),
        rows,
    )
    report.say(
        f"{SENDERS} connections sent requests for {SECONDS:.0f} s, one at a time each. Rows are counted until the last has"
        " arrived. Late rows are not included: the emulator answered their put too late, so they went through the overflow queue."
        " CPU time is per process and request."
    )
    report.chart(
        "pipeline",
        "Where the time goes in the local stack",
        bars("Where the time goes in the local stack", groups),
    )


def _arrival(report: Report, folder: Path) -> None:
    rows = []
    for window in WINDOWS:
        with LocalStack(folder / f"window-{window}", window_seconds=window) as stack:
            sent = _drip(stack.addresses.gateway, pixel(), max(20.0, 3.0 * window))
            _wait_for(stack, sent)
            waits = sorted(_waits(stack))
        p50, p99 = median(waits), quantiles(waits, n=100)[98]
        usd = [total(_MONTH, Setup(stream_mode=mode, window=window), _PRICES) for mode in _MODES]
        measured = [f"{len(waits):,}", f"{p50:.2f} s", f"{p99:.2f} s", f"{waits[-1]:.2f} s"]
        rows.append([f"{window} s", *measured, *(f"${one:.2f}" for one in usd)])
        report.ratio(f"pipeline_p50_seconds (window {window})", p50)
        report.ratio(f"pipeline_p99_seconds (window {window})", p99)
    report.say(
        "Latency from the ingest receiving a request to Treasure Data accepting its row, by `BatchWindowSeconds`, at"
        f" {RATE} requests a second, and the monthly cost of 10 million events, one per request, with that window:"
    )
    for window in (30, 60):
        usd = [total(_MONTH, Setup(stream_mode=mode, window=window), _PRICES) for mode in _MODES]
        rows.append([f"{window} s", *["not measured"] * 4, *(f"${one:.2f}" for one in usd)])
    report.table(("window", "rows", "p50", "p99", "longest", *_MODES), rows)


def pixel() -> Message:
    """Return a pixel request."""
    return "GET", f"/pixel.gif?k={KEYS['shop']}&t=pageviews&page=home&position=3", b"", {}


def posted(count: int) -> Message:
    """Return a request with `count` page views."""
    source = traffic.rows()
    events = []
    for _ in range(count):
        event = next(source)
        del event["received_at"], event["event_id"]  # rows of different requests must differ
        events.append(event | {"table": "pageviews"})
    body = json.dumps({"events": events}).encode()
    return "POST", "/v1/events", body, {"content-type": "application/json", "x-write-key": KEYS["shop"]}


def _flood(url: str, message: Message, seconds: float) -> int:
    """Send requests as fast as they are answered, and return how many."""
    end = time.monotonic() + seconds
    counts = [0] * SENDERS

    def send(sender: int) -> None:
        with closing(_connection(url)) as connection:
            while time.monotonic() < end:
                _exchange(connection, message)
                counts[sender] += 1

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def _drip(url: str, message: Message, seconds: float) -> int:
    """Send requests at a constant rate, and return how many."""
    count = round(seconds * RATE)
    begin = time.monotonic()
    with closing(_connection(url)) as connection:
        for number in range(count):
            time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
            _exchange(connection, message)
    return count


def _connection(url: str) -> HTTPConnection:
    parts = urlsplit(url)
    return HTTPConnection(parts.hostname or "", parts.port, timeout=30)


def _exchange(connection: HTTPConnection, message: Message) -> None:
    method, target, body, headers = message
    connection.request(method, target, body or None, dict(headers))
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(answer.status)


def _wait_for(stack: LocalStack, rows: int) -> int:
    """Wait until all rows have arrived, or none has arrived for a while. Return how many have.

    Missing rows are in the overflow queue, because the emulator's response to their put timed out. The queue delays messages
    by two minutes.
    """
    taken, since = _rows_taken(stack), time.monotonic()
    while taken < rows and time.monotonic() - since < _PATIENCE:
        stack.check()
        time.sleep(0.1)
        now = _rows_taken(stack)
        if now > taken:
            taken, since = now, time.monotonic()
    return taken


def _rows_taken(stack: LocalStack) -> int:
    return sum(sum(tables.values()) for tables in _treasure_data(stack, "counts").values())


def _waits(stack: LocalStack) -> Iterator[float]:
    """Yield each row's seconds from the ingest to Treasure Data."""
    for one in _treasure_data(stack, f"rows?limit={_rows_taken(stack)}")["rows"]:
        yield one["at"] - one["row"]["received_at"] / 1000


def _treasure_data(stack: LocalStack, path: str) -> Any:
    """Return the Treasure Data double's response on one of its own routes."""
    with closing(_connection(stack.addresses.treasure_data)) as connection:
        connection.request("GET", f"/-/{path}")
        return json.load(connection.getresponse())


def _cpu(stack: LocalStack) -> dict[str, float]:
    """Return the CPU seconds of each part, including its child processes."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has exited
                continue
            parents[int(entry.name)] = int(fields[1])
            seconds[int(entry.name)] = sum(int(field) for field in fields[11:15]) / _TICKS

    def tree(pid: int) -> float:
        return seconds.get(pid, 0.0) + sum(tree(child) for child, parent in parents.items() if parent == pid)

    return {part.name: tree(part.pid) for part in stack.parts}
