"""Sends random requests to the ingest, and measures time and memory."""

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from doubles.background import never
from doubles.clock import ManualClock
from ingest.app import Ingest, IngestEffects
from ingest.refusal import ANSWERS
from shared.settings import IngestSettings
from tests.fuzz.inputs import Inputs
from tests.support.dialects import accepted
from tests.support.ingest import START, Answer, Secrets
from tests.support.telemetry import CollectedTelemetry

SLOWEST_MS = 20.0
"""The longest time that 99 of 100 requests may take, in milliseconds."""
GROWTH_MIB = 32.0
"""The most that the process may grow after the first tenth of a run, in MiB."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_WARM = 0.1  # the share of a run that fills the caches


class _Sink:
    """A stream and a queue that discard what they receive."""

    def put_record(self, **_: Any) -> dict[str, str]:
        return {"SequenceNumber": "1"}

    def put_records(self, **entries: Any) -> dict[str, Any]:
        return {"Records": [{"SequenceNumber": "1"} for _ in entries["Records"]]}

    def update_item(self, **_: Any) -> dict[str, str]:
        return {}

    def send_message(self, **_: Any) -> dict[str, str]:
        return {"MessageId": "1"}


class _Faults(CollectedTelemetry):
    """Keeps only faults, so that its memory does not grow."""

    def info(self, message: str, **fields: Any) -> None:
        """Discard the line."""

    def warning(self, message: str, **fields: Any) -> None:
        """Discard the line."""

    def error(self, message: str, error: BaseException | None = None, **_fields: Any) -> None:
        """Raise the unexpected exception."""
        raise AssertionError(message) from error


@dataclass(slots=True)
class Report:
    """The results of a run.

    Attributes:
        statuses: the number of responses with each status.
        accepted: the number of accepted events.
        p50: the milliseconds within which half of the requests were answered.
        p99: the same for 99 of 100 requests.
        longest: the milliseconds of the slowest request.
        growth: the MiB by which the process grew after the first tenth of the run.
        faults: descriptions of everything that is wrong.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    accepted: int = 0
    p50: float = 0.0
    p99: float = 0.0
    longest: float = 0.0
    growth: float = 0.0
    faults: list[str] = field(default_factory=list)


def run(count: int, seed: int, texts: list[str]) -> Report:
    """Send `count` requests to an ingest."""
    inputs, report, telemetry, clock, sink = (
        Inputs(seed, texts),
        Report(),
        _Faults(),
        ManualClock(START),
        _Sink(),
    )
    settings = IngestSettings(
        "events",
        "queue",
        "keys",
        "aside",
        "notices",
        "counters",
        ("https://www.shop.example",),
        redirect_hosts=("www.shop.example",),
    )
    effects = IngestEffects(
        kinesis=sink,
        sqs=lambda: sink,
        dynamodb=lambda: sink,
        secrets=Secrets(),
        s3=None,
        clock=clock,
        entropy=os.urandom,
        telemetry=telemetry,
        start=never,
    )
    ingest = Ingest(settings, effects)
    tenths: Counter[int] = Counter()  # tenths of a millisecond: a histogram does not grow with the run
    warm = 0.0
    for number in range(count):
        if number == int(count * _WARM):
            warm = _resident()
        event = inputs.draw()
        began = time.perf_counter()
        try:
            answer = ingest(event, None)
        except AssertionError as error:
            report.faults.append(f"input {number}: {error.__cause__!r}")
            continue
        took = (time.perf_counter() - began) * 1000
        tenths[int(took * 10)] += 1
        report.longest = max(report.longest, took)
        report.statuses[answer["statusCode"]] += 1
        code = answer["headers"].get("x-sluice-error")
        report.accepted += accepted(event, Answer(answer))
        if answer["statusCode"] >= 500 or (code is not None and code not in ANSWERS):
            report.faults.append(f"input {number}: {answer['statusCode']} {code}")
        clock.time += 0.001
    report.growth = _resident() - warm
    report.p50, report.p99 = (_within(tenths, share) for share in (0.5, 0.99))
    if report.p99 >= SLOWEST_MS:
        report.faults.append(f"1 of 100 requests took more than {report.p99:.1f} ms")
    if report.growth >= GROWTH_MIB:
        report.faults.append(f"the process grew by {report.growth:.1f} MiB")
    return report


def _within(tenths: Counter[int], share: float) -> float:
    """Return the milliseconds within which this share of the requests was answered."""
    left = share * tenths.total()
    for tenth in sorted(tenths):
        left -= tenths[tenth]
        if left <= 0:
            return (tenth + 1) / 10
    return 0.0


def _resident() -> float:
    """Return this process's resident memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 2**20
