"""Problems that the functions' logs report."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from doubles.clock import ManualClock
from ops.logs.notes import Note, troubles
from ops.stack import Stack
from ops.template import sluice_template
from shared.clock import SystemClock
from tests.support.cloudwatch_logs import FunctionLog
from tests.support.telemetry import Output

NOW = datetime.now(UTC)
MINUTES = [f"{NOW - timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%S}" for minutes in range(90)]
"""The times so many minutes ago."""
REPORT = {"time": f"{MINUTES[2]}Z", "type": "platform.report", "record": {"status": "timeout"}}


def line(level: str, message: str, *, minutes: int = 1, **fields: Any) -> str:
    """Return a log line from so many minutes ago."""
    at = f"{MINUTES[minutes]}.123+00:00"
    return json.dumps({"level": level, "timestamp": at, "message": message} | fields)


def local(folder: Path, **logs: str) -> Stack:
    """Return a local stack with its logs in a folder. It has no scaler."""
    services = {name: one for name, one in sluice_template().services().items() if one != "scale"}
    for service in services.values():
        (folder / f"{service}.log").write_text(logs.get(service, ""))
    outputs = {name: name for name in services}
    return Stack("local", outputs, boto3.Session(region_name="us-east-1"), functions={}, folder=folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (line("INFO", "span", reason="held"), []),
        (line("WARNING", "held", reason="http_503"), [("held", "http_503")]),
        (
            line("WARNING", "breaker opened", database="shop_db", reason="http_500"),
            [("breaker opened", "shop_db: http_500")],
        ),
        (line("WARNING", "refused", code="stream_unavailable"), [("refused", "stream_unavailable")]),
        (line("ERROR", "the ledger is damaged"), [("the ledger is damaged", "")]),
        (line("ERROR", "", errorType="KeyError", errorMessage="'x'"), [("KeyError", "'x'")]),
        (json.dumps(REPORT), [("an invocation ended with timeout", "")]),
        (json.dumps(REPORT | {"record": {"status": "success"}}), []),
        (json.dumps({"_aws": {}, "Holds": [1.0]}), []),
        ("Traceback (most recent call last):", []),
        ("[1, 2]", []),
    ],
    ids=range(11),  # the texts differ from one process to another
)
def test_warnings_and_failures_are_trouble(
    tmp_path: Path, text: str, expected: list[tuple[str, str]]
) -> None:
    """Other lines, such as metrics, traces and successful reports, are skipped."""
    notes, unreadable = troubles(local(tmp_path, worker=text), 3600)

    assert expected == [(note.what, note.why) for note in notes]
    assert [] == unreadable


def test_lines_that_the_telemetry_writes_are_parsed(tmp_path: Path) -> None:
    """An exception is described by its type and by the place that raised it."""
    output = Output(ManualClock())
    output.telemetry.info("span", rows=3)
    output.telemetry.warning("held", reason="http_503")
    try:
        json.loads("203.0.113.9")
    except ValueError as error:
        output.telemetry.error("unexpected exception", error, code="JSONDecodeError")
    text = "\n".join(json.dumps(one) for one in output.log())
    held, unexpected = troubles(local(tmp_path, worker=text), 3600)[0]

    assert ("held", "http_503") == (held.what, held.why)
    assert "unexpected exception" == unexpected.what
    assert re.fullmatch(r"JSONDecodeError at \S*decoder\.py:\d+ decode", unexpected.why)
    assert held.at <= unexpected.at


def test_notes_of_all_functions_are_sorted_by_time(tmp_path: Path) -> None:
    """However many lines came since. A log that cannot be read is named; of the template's, only the scaler's is left out."""
    old, usual = line("WARNING", "old", minutes=80), line("INFO", "span")
    found = (old, line("WARNING", "fails", minutes=20), line("WARNING", "held"), json.dumps(REPORT))
    of_worker = "\n".join((*found, *[usual] * 10_000))
    stack = local(tmp_path, worker=of_worker, ingest=line("ERROR", "unexpected exception"))
    names = {path.stem for path in tmp_path.glob("*.log")}
    (tmp_path / "drain.log").unlink()
    notes, unreadable = troubles(stack, 3600)

    assert notes == [
        Note("worker", MINUTES[20], "fails"),
        Note("worker", MINUTES[2], "an invocation ended with timeout"),
        Note("ingest", MINUTES[1], "unexpected exception"),
        Note("worker", MINUTES[1], "held"),
    ]
    assert ["drain: FileNotFoundError"] == unreadable
    assert {"ingest", "worker", "sender", "drain", "admin"} == names


def log_of(*ages: float) -> FunctionLog:
    """Return a log with lines of these ages, in seconds, a line a page."""
    clock = SystemClock()
    made = FunctionLog("worker", clock, lines_per_page=1)
    made.lines = [(clock.now() - age, 0.0, line("WARNING", f"{age:.0f} s ago")) for age in ages]
    return made


def deployed(log: FunctionLog) -> Stack:
    """Return a deployed stack with this log."""
    return Stack("sluice-dev", {"WorkerFunction": "worker"}, log)  # type: ignore[arg-type]  # a double


def test_the_latest_lines_of_a_log_are_read() -> None:
    """They say what is wrong now; what a long log leaves out is named. A short one is read completely, and no line twice."""
    long, short = log_of(*range(10, 3600, 60)), log_of(-20, 5, 299, 301, 1500, 3590, 3700)
    notes, unreadable = troubles(deployed(long), 3600)
    all_notes, nothing = troubles(deployed(short), 3600)

    assert {"10 s ago", "70 s ago", "250 s ago"} <= {note.what for note in notes}
    assert 20 == len(notes) == long.pages
    assert [True] == [one.endswith("there is too much to read") for one in unreadable]
    ages = (-20, 1500, 299, 301, 3590, 5)  # the last one is from before the time
    assert [f"{age} s ago" for age in ages] == sorted(note.what for note in all_notes)
    assert [] == nothing
