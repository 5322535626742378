"""Measures the CPU per request of the ingest, of simpler handlers, and of the architecture that Sluice replaces."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.chart import Bar, Group
from benchmarks.ingest_parts import PLAN_PART, parts
from benchmarks.report import Report
from benchmarks.runtimes import (
    BARE,
    DIRECT,
    DIRECT_BY_HAND,
    KEY,
    RESOLVER,
    SLUICE,
    Contender,
    runtimes,
    spent,
)
from doubles.gateway import event_of
from doubles.http_server import Request

CONTENDERS = (SLUICE, BARE, RESOLVER, DIRECT, DIRECT_BY_HAND)
ROUNDS = 9
REPEATS = 150

_EVENT = {
    "td_url": "https://www.shop.example/kettles?sort=price",
    "td_title": "Kettles",
    "td_referrer": "https://search.example/",
    "td_client_id": "0190f1a2-7a5b-7c3d-8e4f-5a6b7c8d9e0f",
    "td_screen": "1920x1080",
    "td_language": "en",
    "price": 12.5,
    "position": 3,
}
_HEADERS = (
    ("Host", "collect.example"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0.0.0 Safari/537.36"),
    ("Accept", "image/avif,image/webp,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.9"),
    ("Referer", "https://www.shop.example/kettles?sort=price"),
    ("X-Forwarded-For", "192.0.2.7"),
)


def requests() -> dict[str, tuple[dict[str, Any], int]]:
    """Return API Gateway's event for a pixel and for ten JSON events, each with the bytes that a handler puts for it."""
    pixel = Request(
        "GET", f"/pixel.gif?k={KEY}&t=pageviews&page=home&position=3&campaign=autumn%20tea", _HEADERS
    )
    events = [
        _EVENT | {"table": "pageviews", "time": 1_795_000_000 + n, "event_id": f"e{n}"} for n in range(10)
    ]
    headers = (*_HEADERS, ("Content-Type", "application/json"), ("X-Write-Key", KEY))
    posted = Request("POST", "/v1/events", headers, json.dumps({"events": events}).encode())
    return {"one pixel": (_event(pixel), 420), "ten events": (_event(posted), 4_200)}


def run(report: Report) -> None:
    """Measure, and report tables, a chart and ratios."""
    report.say(
        "CPU time of a warm request in Lambda's real runtime (the runtime interface emulator and `awslambdaric`): median of"
        f" {ROUNDS} rounds of {REPEATS} requests, alternating between handlers. AWS and Treasure Data are simulated by a server that responds"
        " at once over plain HTTP."
    )
    measured: dict[str, dict[Contender, float]] = {}
    with runtimes() as factory, ExitStack() as running:
        for name, (event, data_bytes) in requests().items():
            started = {
                contender: running.enter_context(factory.running(contender, data_bytes))
                for contender in CONTENDERS
            }
            measured[name] = _interleaved(started, event)
    head = ["µs for", *(contender.label for contender in CONTENDERS)]
    report.table(
        head,
        [[name, *(f"{seconds * 1e6:.0f}" for seconds in each.values())] for name, each in measured.items()],
    )
    against = {BARE: "bare", RESOLVER: "resolver", DIRECT: "direct", DIRECT_BY_HAND: "direct_by_hand"}
    for name, each in measured.items():
        suffix = "" if name == "one pixel" else "_ten_events"
        for contender, short in against.items():
            report.ratio(f"ingest_vs_{short}{suffix}", each[SLUICE] / each[contender])
    report.say("Where Sluice's time goes, each part measured alone:")
    measured_parts = parts(requests()["one pixel"][0])
    total = sum(measured_parts.values())
    report.ratio("pixel_with_plan_vs_without", total / (total - measured_parts[PLAN_PART]))
    report.table(
        ["part of a pixel", "µs"],
        [[name, f"{seconds * 1e6:.0f}"] for name, seconds in measured_parts.items()],
    )
    report.chart("CPU of one request", _groups(measured))


def _interleaved(started: dict[Contender, Any], event: dict[str, Any]) -> dict[Contender, float]:
    seconds: dict[Contender, list[float]] = {contender: [] for contender in started}
    for _ in range(ROUNDS + 1):
        for contender, runtime in started.items():
            seconds[contender].append(spent(runtime, event, REPEATS).cpu)
    return {contender: median(measured[1:]) for contender, measured in seconds.items()}


def _groups(measured: dict[str, dict[Contender, float]]) -> Sequence[Group]:
    return [
        Group(
            name,
            [
                Bar(contender.label, seconds, f"{seconds * 1e6:.0f} µs", contender is SLUICE)
                for contender, seconds in each.items()
            ],
        )
        for name, each in measured.items()
    ]


def _event(request: Request) -> dict[str, Any]:
    return event_of(request, request_id="JKJaXmPLvHcESHA=", now=1_795_000_000.0)
