"""How the ingest starts, beside handlers that load boto3: CPU and time of INIT, modules, and the first request."""

from statistics import median
from typing import NamedTuple

from benchmarks.chart import Bar, Group, bars
from benchmarks.ingest import requests
from benchmarks.report import Report, times
from benchmarks.sandboxes import BARE, BOTO3_ONLY, RESOLVER, SLUICE, Contender, Sandboxes, sandboxes, spent

CONTENDERS = (SLUICE, BOTO3_ONLY, BARE, RESOLVER)
ROUNDS = 11


class Start(NamedTuple):
    """One cold start.

    Attributes:
        cpu: CPU seconds of the handler's INIT.
        wall: elapsed ones.
        modules: that INIT loaded.
        first: CPU seconds of the first pixel.
        peak_mib: the most memory that the process has had by then.
    """

    cpu: float
    wall: float
    modules: float
    first: float
    peak_mib: float


def run(report: Report) -> None:
    """Measure, and add a table, a chart and the ratio."""
    report.say(
        "A new sandbox for each measurement, in Lambda's real runtime (the runtime interface emulator and `awslambdaric`), with the"
        f" ingest as built by `make build`: median of {ROUNDS} rounds, alternating between handlers. INIT is the time from when the"
        " runtime requests the handler until it is loaded. Sluice's INIT includes reading the signing secrets; the others read"
        " nothing. The first request includes connecting to the stream."
    )
    found: dict[Contender, list[Start]] = {contender: [] for contender in CONTENDERS}
    with sandboxes() as place:
        for _ in range(ROUNDS + 1):
            for contender, starts in found.items():
                starts.append(_start(place, contender))
    medians = {
        contender: Start(*(median(column) for column in zip(*starts[1:], strict=True)))
        for contender, starts in found.items()
    }
    report.table(
        ("handler", "INIT, CPU", "INIT, elapsed", "modules loaded", "first pixel, CPU", "peak memory"),
        [
            [
                contender.label,
                *(f"{seconds * 1e3:.0f} ms" for seconds in (start.cpu, start.wall)),
                f"{start.modules:.0f}",
                "" if contender is BOTO3_ONLY else f"{start.first * 1e3:.1f} ms",
                f"{start.peak_mib:.0f} MiB",
            ]
            for contender, start in medians.items()
        ],
    )
    ratio = medians[SLUICE].cpu / medians[BOTO3_ONLY].cpu
    report.say(
        f"Sluice's INIT takes {times(ratio)} the CPU of importing boto3 and creating a Kinesis client."
    )
    report.ratio("init_vs_boto3", ratio)
    report.ratio("init_wall_vs_boto3", medians[SLUICE].wall / medians[BOTO3_ONLY].wall)
    report.chart("coldstart", "CPU of a cold start", bars("CPU of a cold start", [_group(medians)]))


def _start(place: Sandboxes, contender: Contender) -> Start:
    event, data_bytes = requests()["one pixel"]
    with place.running(contender, data_bytes) as sandbox:
        told = sandbox.invoke({})
        if not isinstance(told, dict) or "cpu" not in told:
            raise RuntimeError(told)
        return Start(told["cpu"], told["wall"], told["modules"], *spent(sandbox, event, 1))


def _group(medians: dict[Contender, Start]) -> Group:
    return Group(
        "INIT",
        [
            Bar(contender.label, start.cpu, f"{start.cpu * 1e3:.0f} ms", contender is SLUICE)
            for contender, start in medians.items()
        ],
    )
