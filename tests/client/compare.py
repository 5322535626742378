"""Runs the same program under the same failures with each client: `python -m tests.client.compare [--write]`.

Prints a table, and with --write puts it into docs/internals/performance.md. The clients run in `.venv-trackers`.
"""

import argparse
import re
import subprocess
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from doubles.http_server import Request, Response
from tests.support.flaky_ingest import Fault, FlakyIngest
from tests.support.ingest import KEY

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-trackers/bin/python"
PAGE = ROOT / "docs/internals/performance.md"
RUN_SECONDS = 120
HANG_SECONDS = 30.0
"""Longer than any client waits for a response."""
PACKAGES = {
    "sluice": ("Sluice", ""),
    "td-client": ("td-client", "td-client"),
    "snowplow": ("snowplow-python-tracker", "snowplow-tracker"),
    "posthog": ("posthog-python", "posthog"),
    "segment": ("analytics-python", "segment-analytics-python"),
}
"""Each contender's name in the table, and its package."""
_MARK = re.compile(rb"mark-\d{5}")
_TAKEN = b'{"elapsed_time": 0.1, "success": true, "status": 1}'


@dataclass(frozen=True)
class Trouble:
    """A failure and the program that runs during it.

    Attributes:
        name: as the table shows it.
        program: the steps, as contender.py reads them.
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
        self.marks.update(mark.decode() for mark in _MARK.findall(body))
        return Response(200, _TAKEN, (("content-type", "application/json"),))

    def counted(self) -> Counter[str]:
        """Return the number of rows of each mark."""
        return self.marks + Counter(str(row["mark"]) for row in self.rows())


@dataclass
class Outcome:
    """The result of one client under one failure, in events."""

    made: int
    delivered: int
    duplicated: int
    requests: int

    @property
    def lost(self) -> int:
        """The events that did not become a row although `track` returned."""
        return self.made - self.delivered


def play(name: str, trouble: Trouble) -> Outcome:
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
        run(name, collector.url, spool, trouble.program)
        collector.fault = "none"
        run(name, collector.url, spool, "wait:2 close")
        marks = collector.counted()
        return Outcome(
            trouble.made,
            len(marks),
            sum(count > 1 for count in marks.values()),
            len(collector.requests),
        )


def run(name: str, url: str, spool: str, program: str) -> None:
    """Run a program to its end, for at most RUN_SECONDS."""
    command = [PYTHON, "-W", "ignore", ROOT / "tests/client/contender.py", name, url, KEY, spool, program]
    environment = {"PYTHONPATH": str(ROOT / "client"), "PATH": ""}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(RUN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def version(package: str) -> str:
    """Return the installed version of a package."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def table(outcomes: Sequence[tuple[Trouble, str, Outcome]]) -> str:
    """Return the table in Markdown: for each failure and client, the events lost and those duplicated."""
    shown = [f"{title} {version(package)}" if package else title for title, package in PACKAGES.values()]
    lines = [("failure", "events", *shown), ("---", *("---:",) * (1 + len(shown)))]
    for trouble in dict.fromkeys(trouble for trouble, _, _ in outcomes):
        own = {name: outcome for other, name, outcome in outcomes if other == trouble}
        cells = (f"{own[name].lost}/{own[name].duplicated}" for name in PACKAGES)
        lines.append((trouble.name, str(trouble.made), *cells))
    totals = [[outcome for _, other, outcome in outcomes if other == name] for name in PACKAGES]
    made = sum(outcome.made for outcome in totals[0])
    missed = (f"{sum(one.lost for one in own)}/{sum(one.duplicated for one in own)}" for own in totals)
    lines.append(("**total**", str(made), *missed))
    lines.append(("requests", "", *(f"{sum(one.requests for one in own):,}" for own in totals)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run every failure with every client."""
    parser = argparse.ArgumentParser(prog="python -m tests.client.compare", description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="write the table into docs/internals/performance.md"
    )
    options = parser.parse_args()
    outcomes = []
    with ThreadPoolExecutor(len(PACKAGES)) as pool:
        for trouble in TROUBLES:
            played = pool.map(play, PACKAGES, [trouble] * len(PACKAGES))
            outcomes += [(trouble, name, outcome) for name, outcome in zip(PACKAGES, played, strict=True)]
            print(trouble.name, flush=True)  # noqa: T201 -- a command
    text = table(outcomes)
    print(text)  # noqa: T201
    if options.write:
        marked = re.compile(
            r"(<!-- begin-client-comparison -->\n).*(<!-- end-client-comparison -->)", re.DOTALL
        )
        PAGE.write_text(marked.sub(lambda mark: f"{mark[1]}\n{text}\n\n{mark[2]}", PAGE.read_text()))


if __name__ == "__main__":
    main()
