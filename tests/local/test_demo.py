"""`make demo` sends recorded requests and reconciles them."""

import copy
import io
import json
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from rich.console import Console

from local import demo, recording
from local.accounts import KEYS
from local.functions import treasure_data_at
from local.recording import RecordedRequest
from local.stack import LocalStack
from ops.stack import described
from ops.state.stack_state import accounting

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.xdist_group("stack")


def orders(table: str, *event_ids: str) -> RecordedRequest:
    """Return a request with one event per id."""
    events = [{"table": table, "event_id": event_id, "time": 1_764_000_000} for event_id in event_ids]
    headers = (("Host", "collect.example"), ("x-write-key", KEYS["shop"]))
    return RecordedRequest("POST", "/v1/events", headers, json.dumps(events).encode())


def test_the_recording_adds_up_until_a_row_is_lost(tmp_path: Path) -> None:
    """Every accepted event becomes one row, delivered or dead. Rows that Treasure Data then loses are reported by id."""
    with LocalStack(tmp_path / "stack") as stack:
        requests = [*recording.read(), orders("lost", "a"), orders("lost", "b")]
        count = demo.send_recording(stack, requests, lambda _: None)
        demo.wait_for_outcomes(stack, count, lambda _: None)
        reconciled = copy.deepcopy(count)
        lose = {"database": "shop", "table": "lost", "begin": 1_764_000_000, "end": 1_764_000_001}
        urlopen(f"{stack.addresses.treasure_data}/-/lose", json.dumps(lose).encode(), timeout=60).close()
        demo.count_outcomes(stack, accounting(described(stack.describe())), count)

    assert reconciled.adds_up
    assert reconciled.delivered.total() > 400
    # in the first second after a start, before the ingest has read the edge policy again, rows of unknown accounts become dead
    assert set(reconciled.dead) <= {"unknown_account"}
    assert {"disabled_account", "revoked_key"} <= set(reconciled.refused)
    assert {"missing_key", "invalid_key", "invalid_json"} <= set(reconciled.refused)
    assert {"invalid_table", "missing_table", "event_too_large", "not_an_object"} <= set(reconciled.rejected)
    assert not count.adds_up
    assert {event_id for _, event_id in count.mismatched_ids} == {"a", "b"}


def test_the_demo_fails_if_rows_are_not_delivered(tmp_path: Path) -> None:
    """It says that it does not add up, and where the rows are."""
    out = io.StringIO()

    adds_up = demo.run(
        tmp_path / "stack",
        [orders("stuck", "a", "b")],
        Console(file=out, width=200),
        patience=1.5,
        parameters=treasure_data_at("http://127.0.0.1:9"),
    )

    assert not adds_up
    assert "It does not add up." in out.getvalue()
    assert "Still in flight: " in out.getvalue()


def test_the_command_reports_a_broken_recording(tmp_path: Path) -> None:
    """The error gives the line, and the exit status is 1."""
    (tmp_path / "broken.jsonl").write_text('{"step": "x"}\n')

    line = [sys.executable, "-m", "local.demo", "--requests", str(tmp_path / "broken.jsonl")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (1, True) == (done.returncode, "broken.jsonl, line 1" in done.stdout)
