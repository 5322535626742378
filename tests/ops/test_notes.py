"""What the functions' logs tell of trouble."""

import json
from pathlib import Path

import boto3

from ops.notes import TROUBLE, Note, troubles
from ops.stack import Stack
from tests.support.sam import ROOT


def line(message: str, **fields: object) -> str:
    """Return a line of a log."""
    return json.dumps(
        {"level": "INFO", "timestamp": "2026-11-24 10:42:00,123+0000", "message": message} | fields
    )


def local(folder: Path) -> Stack:
    """Return a local stack whose logs are in a folder."""
    return Stack("local", {}, boto3.Session(region_name="us-east-1"), functions={}, folder=folder)


def test_lines_that_tell_of_trouble_are_picked_out(tmp_path: Path) -> None:
    """Warnings, errors, what Lambda says of an invocation, and notes of trouble; all else is left out."""
    timeout = {"time": "2026-11-24T10:41:00Z", "type": "platform.report", "record": {"status": "timeout"}}
    (tmp_path / "worker.log").write_text(
        "\n".join(
            (
                line("span", records=3),
                line("held", reason="http_503"),
                line("breaker opened", database="shop_db", reason="http_500"),
                "Traceback (most recent call last):",
                "[1, 2]",
                json.dumps(timeout),
                json.dumps(timeout | {"record": {"status": "success"}}),
            )
        )
    )
    failure = {"level": "ERROR", "errorType": "KeyError", "errorMessage": "'x'"}
    (tmp_path / "ingest.log").write_text(
        line("", **failure) + "\n" + line("refused", level="WARNING", code="x")
    )
    (tmp_path / "redrive.log").write_text("")
    notes, unreadable = troubles(local(tmp_path), 3600)

    assert notes == [
        Note("worker", "2026-11-24T10:41:00", "an invocation ended with timeout"),
        Note("ingest", "2026-11-24T10:42:00", "KeyError", "'x'"),
        Note("ingest", "2026-11-24T10:42:00", "refused", "x"),
        Note("worker", "2026-11-24T10:42:00", "held", "http_503"),
        Note("worker", "2026-11-24T10:42:00", "breaker opened", "shop_db: http_500"),
    ]
    assert ["drain: FileNotFoundError"] == unreadable


def test_messages_of_trouble_are_the_worker_s() -> None:
    """What is looked for in the logs is what the code writes there."""
    code = "".join(path.read_text() for path in (ROOT / "worker").glob("*.py"))

    assert [] == [message for message in TROUBLE if f'"{message}"' not in code]
