"""Counts the events that server clients lose or duplicate, when the same program runs with each under the same failures.

The clients run in `.venv-trackers`. One client takes up to two minutes for each failure; all run at the same time.
"""

import subprocess
import tempfile
import threading
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from benchmarks.contenders.tracker import MARK
from benchmarks.report import ROOT, Report
from doubles.http_server import Request, Response
from tests.support.flaky_ingest import Fault, FlakyIngest
from tests.support.ingest import KEY

PYTHON = ROOT / ".venv-trackers/bin/python"
PACKAGES = ("sluice", "td-client", "snowplow-tracker", "posthog", "segment-analytics-python")
RUN_SECONDS = 120
HANG_SECONDS = 30.0
"""Longer than any client waits for a response."""


class Trouble(NamedTuple):
    """A failure and the program that runs during it.

    Attributes:
        name: as the table shows it.
        program: the steps, as contenders/tracker.py reads them.
        made: the number of events that the program tracks.
        fault: of the collector, from the beginning.
        fault_seconds: how long the fault lasts after the first request; 0 for as long as the program runs.
    """

    name: str
    program: str
    made: int
    fault: Fault = "none"
    fault_seconds: float = 0.0


TROUBLES = (
    Trouble("no failure", "track:1-40 close", 40),
    Trouble("kill -9 while tracking", "track:1-45 kill", 45),
    Trouble("kill -9, endpoint down", "track:1-40 wait:1 kill", 40, "unavailable"),
    Trouble("program ends while the endpoint is down", "track:1-40 close", 40, "unavailable"),
    Trouble("endpoint returns 503 for 20 s", "track:1-40 wait:30 track:41-50 close", 50, "unavailable", 20.0),
    Trouble("endpoint hangs for 20 s", "track:1-40 wait:30 track:41-50 close", 50, "hanging", 20.0),
    Trouble("a proxy answers 200 for 5 s", "track:1-40 wait:15 track:41-50 close", 50, "page", 5.0),
    Trouble("connections die after the request was taken, for 5 s", "track:1-40 wait:15 track:41-50 close", 50, "reset", 5.0),
    Trouble("answers are lost for 20 s", "track:1-40 wait:30 track:41-50 close", 50, "deaf", 20.0),
    Trouble("used before a fork, then in the child", "track:1-10 fork:track:11-40;wait:3;close close", 40),
    Trouble("child killed with kill -9", "track:1-10 fork:track:11-40;kill wait:12 close", 40),
)  # fmt: skip


class Collector(FlakyIngest):
    """Accepts every client's events in its own format, with the same failures."""

    def __init__(self) -> None:
        self.marks: Counter[str] = Counter()
        super().__init__(HANG_SECONDS)

    def take(self, request: Request) -> Response:
        """Answer a request that reaches the collector."""
        if request.target.startswith("/v1/events"):
            return super().take(request)
        body = request.body
        if body[:2] == b"\x1f\x8b":
            body = zlib.decompressobj(31).decompress(body)
        self.marks.update(MARK.findall(body.decode(errors="replace")))
        taken = b'{"elapsed_time": 0.1, "success": true, "status": 1}'
        return Response(200, taken, (("content-type", "application/json"),))

    def counted(self) -> Counter[str]:
        """Return the number of rows of each mark."""
        return self.marks + Counter(str(row["mark"]) for row in self.rows())


class Outcome(NamedTuple):
    """How many events were lost after the program had tracked them, and duplicated, and how many requests the client sent."""

    lost: int
    duplicated: int
    requests: int


def run(report: Report) -> None:
    """Run every failure with every client, and report a table."""
    with ThreadPoolExecutor(len(PACKAGES)) as pool:
        outcomes = [list(pool.map(partial(_play, trouble), PACKAGES)) for trouble in TROUBLES]
    rows = [
        [trouble.name, str(trouble.made), *(f"{one.lost}/{one.duplicated}" for one in row)]
        for trouble, row in zip(TROUBLES, outcomes, strict=True)
    ]
    totals = [Outcome(*map(sum, zip(*own, strict=True))) for own in zip(*outcomes, strict=True)]
    made = sum(trouble.made for trouble in TROUBLES)
    rows.append(["**total**", str(made), *(f"{own.lost}/{own.duplicated}" for own in totals)])
    rows.append(["requests", "", *(f"{own.requests:,}" for own in totals)])
    report.say(
        "A program tracks 40 to 50 events under a failure, and runs once more without it. Events lost after `track` had returned /"
        " duplicated:"
    )
    report.table(("failure", "events", "Sluice", *map(_named, PACKAGES[1:])), rows)
    report.ratio("client_lost_or_duplicated", totals[0].lost + totals[0].duplicated)


def _play(trouble: Trouble, package: str) -> Outcome:
    """Run the program during a failure; then start it again without the failure, and let it end normally."""
    with tempfile.TemporaryDirectory() as spool, Collector() as collector:
        collector.fault = trouble.fault
        if trouble.fault_seconds:
            end = threading.Timer(trouble.fault_seconds, setattr, (collector, "fault", "none"))
            end.daemon = True

            def begin() -> None:
                with suppress(RuntimeError):  # already started
                    end.start()

            collector.on_request = begin
        for program in (trouble.program, "wait:2 close"):
            script = ROOT / "benchmarks/contenders/tracker.py"
            command = [PYTHON, "-W", "ignore", script, package, collector.url, KEY, spool, program]
            with suppress(subprocess.TimeoutExpired):
                environment = {"PYTHONPATH": str(ROOT / "client"), "PATH": ""}
                subprocess.run(
                    command, env=environment, capture_output=True, timeout=RUN_SECONDS, check=False
                )
            collector.fault = "none"
        marks = collector.counted()
        duplicated = sum(count > 1 for count in marks.values())
        return Outcome(trouble.made - len(marks), duplicated, len(collector.requests))


def _named(package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout
    return f"{package} {found.strip()}"
