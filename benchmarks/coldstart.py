"""Measures cold starts of the ingest and of handlers that load boto3: INIT, loaded modules and the first request."""

from collections.abc import Sequence
from operator import sub
from statistics import median
from typing import NamedTuple

from benchmarks.chart import Bar, Group
from benchmarks.ingest import requests
from benchmarks.report import Report, times
from benchmarks.runtimes import (
    BARE,
    BOTO3_ONLY,
    PLANNED,
    RESOLVER,
    SLUICE,
    Contender,
    Runtimes,
    runtimes,
    spent,
)

CONTENDERS = (SLUICE, PLANNED, BOTO3_ONLY, BARE, RESOLVER)
ROUNDS = 21


class Start(NamedTuple):
    """One cold start.

    Attributes:
        cpu: CPU seconds of INIT.
        wall: elapsed seconds of INIT.
        modules: the number of modules that INIT loads.
        first: CPU seconds of the first pixel.
        peak_mib: peak memory of the process after the first pixel.
    """

    cpu: float
    wall: float
    modules: float
    first: float
    peak_mib: float


def run(report: Report) -> None:
    """Measure, and report a table, a chart and ratios."""
    report.say(
        "A new function instance for each measurement, in Lambda's real runtime (the runtime interface emulator and `awslambdaric`):"
        f" median of {ROUNDS} rounds, alternating between handlers. INIT lasts until the handler is loaded; Sluice's includes reading the"
        " signing secrets and the edge policy, with a tracking plan of 30 tables with 20 columns each or without one."
    )
    measured: dict[Contender, list[Start]] = {contender: [] for contender in CONTENDERS}
    with runtimes() as started:
        for _ in range(ROUNDS + 1):
            for contender, starts in measured.items():
                starts.append(_start(started, contender))
    medians = {contender: _median(starts[1:]) for contender, starts in measured.items()}
    report.table(
        ("handler", "INIT, CPU ms", "modules", "first pixel, CPU ms", "peak MiB"),
        [
            [
                contender.label,
                f"{start.cpu * 1e3:.0f}",
                f"{start.modules:.0f}",
                "" if contender is BOTO3_ONLY else f"{start.first * 1e3:.1f}",
                f"{start.peak_mib:.0f}",
            ]
            for contender, start in medians.items()
        ],
    )
    ratio = medians[SLUICE].cpu / medians[BOTO3_ONLY].cpu
    report.say(
        f"Sluice's INIT takes {times(ratio)} the CPU of importing boto3 and creating a Kinesis client."
    )
    pairs = zip(measured[PLANNED][1:], measured[SLUICE][1:], strict=True)
    more = _median([Start(*map(sub, planned, plain)) for planned, plain in pairs])
    report.ratio("init_vs_boto3", ratio)
    report.ratio("init_plan_ms", more.cpu * 1e3)
    report.ratio("init_wall_vs_boto3", medians[SLUICE].wall / medians[BOTO3_ONLY].wall)
    report.chart("CPU of a cold start", [_group(medians)])


def _start(started: Runtimes, contender: Contender) -> Start:
    event, data_bytes = requests()["one pixel"]
    with started.running(contender, data_bytes) as runtime:
        start = runtime.invoke({})
        if not isinstance(start, dict) or "cpu" not in start:
            raise RuntimeError(start)
        return Start(start["cpu"], start["wall"], start["modules"], *spent(runtime, event, 1))


def _median(starts: Sequence[Start]) -> Start:
    return Start(*map(median, zip(*starts, strict=True)))


def _group(medians: dict[Contender, Start]) -> Group:
    return Group(
        "INIT",
        [
            Bar(contender.label, start.cpu, f"{start.cpu * 1e3:.0f} ms", contender in (SLUICE, PLANNED))
            for contender, start in medians.items()
        ],
    )
