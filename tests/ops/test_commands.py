"""Status, replay, redrive, record and doctor, run from the command line against the local stack."""

import json
import time
from base64 import b64decode
from pathlib import Path

import pytest

from ops.logs.answers import ANSWERS
from shared import envelope
from shared.counters import Counters, Spent
from tests.support.deployed import deployed
from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("ops")


def test_status_reconciles_every_row_and_what_the_gateway_accepted(lone: Sluice) -> None:
    """The verdict comes first. If the gateway accepted an event that neither the ledger nor the stream has, the reconciliation fails."""
    lone.send("shop", "status_rows", "a", "b")
    until(lambda: lone.rows("shop", "status_rows") == ["a", "b"])
    lone.settled()
    state = lone.json("status --local --since 1h")
    (table,) = (one for one in state["balance"]["tables"] if one["table"] == "status_rows")
    shown = lone.run("status --local --all")
    even = lone.json("status --local --all")["arrivals"]
    with (lone.stack.folder / ANSWERS).open("a") as answers:
        answers.write("accepted 1\n")
    lost = lone.run("status --local --all")

    assert ("HEALTHY: nothing is waiting.", True) == (state["verdict"], state["healthy"])
    assert {"received": 2, "delivered": 2, "in_flight": 0, "adds_up": True}.items() <= table.items()
    assert (0, "HEALTHY: nothing is waiting.") == (shown.exit_code, shown.stdout.splitlines()[0])
    assert "status_rows" in shown.stdout
    assert (2, 2, 0) == (even["counted"], even["seen"], even["lost"])
    assert 3 == lost.exit_code
    assert lost.stdout.startswith(
        "ATTENTION: reconciliation failed: the gateway counted 3 events, and 1 of them are neither in the ledger"
    )
    assert "the gateway, in events  all         3                         2  NO" in lost.stdout


def test_what_an_account_spends_is_shown(sluice: Sluice) -> None:
    """`accounts show` has its budget; `status` shows accounts of which requests were refused."""
    made = sluice.stack.resources
    counters = Counters(int(time.time()) // 60, Spent(0, 45), 7, 500)
    made.client("dynamodb").update_item(**counters.update(made.counters_table, "outlet"))

    shown = sluice.run("accounts show outlet --local").stdout
    [budget] = (one for one in sluice.json("status --local")["budgets"] if one["account"] == "outlet")

    assert "Budget: 4,294,967,296 bytes and 10,000,000 events an hour" in shown
    assert "at least: 7 requests with 500 events" in shown
    assert (7, 500) == (budget["refused_requests"], budget["refused_events"])
    assert "Budgets of accounts" in sluice.run("status --local").stdout


def test_record_writes_the_records_of_the_stream_as_an_event(sluice: Sluice, tmp_path: Path) -> None:
    """The worker can be invoked with the event; with --scrub, equal addresses get the same replacement."""
    for event_id in ("a", "b"):
        sluice.send("shop", "recorded_rows", event_id)
    shards = [one["shard"] for one in sluice.json("status --local")["shards"]]
    found = []
    (tmp_path / "events").mkdir()
    for shard in shards:
        file = tmp_path / "events" / f"{shard}.json"
        result = sluice.run(f"record --local --shard {shard} --count 500 --scrub -o {file}")
        if result.exit_code == 0:
            found += json.loads(file.read_text())["Records"]
    data = [b64decode(one["kinesis"]["data"]) for one in found]
    decoded = [envelope.decode(one) for one in data if b"recorded_rows" in one]  # others' may be no envelopes
    rows = b"".join(table.rows for one in decoded for table in one.tables if table.table == "recorded_rows")

    assert {"aws:kinesis"} == {one["eventSource"] for one in found}
    assert 2 == rows.count(b"event_id")
    assert b"127.0.0.1" not in rows
    assert 2 == rows.count(b"198.51.100.")


def test_status_shows_the_latest_errors_of_a_deployed_stack(sluice: Sluice) -> None:
    """Errors in the functions' logs are counted by kind; a log that cannot be read is named."""
    day, time_ = "2026-11-24", "10:42:00"
    with deployed(sluice.stack) as stack:
        held = {"level": "WARNING", "timestamp": f"{day} {time_}", "message": "held", "reason": "http_401"}
        stack.log += [("2026/11/24/WorkerFunction[$LATEST]0f1e2d", json.dumps(held))] * 2
        state = json.loads(stack.run(["status", "--json"]).stdout)
        with stack.refusing("logs", 400, "AccessDeniedException"):
            shown = stack.run(["status"])

    held = {"what": "held", "why": "http_401", "last": f"{day}T{time_}", "times": 2}
    assert {"function": "worker", **held} in state["errors"]
    assert [] == state["unreadable_logs"]
    assert "the functions: AccessDeniedException" in shown.stdout
    assert "" == shown.stderr
