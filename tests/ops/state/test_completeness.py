"""`sluice wait`, and the time up to which rows are complete as `sluice status --complete` shows it."""

import json
import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from ops.failure import Failure
from ops.state.completeness import Wait, document, section
from shared.clock import SystemClock
from shared.telemetry import NullTelemetry
from tests.support.deployed import deployed
from tests.support.sluice import Sluice, until
from worker.ledger import DRAINED, Ledger
from worker.watermark import Completeness

SHOP = ("shop", "pageviews")
NOON = 1_764_000_000.0


def complete(
    before: float, pending: float | None = None, tables: tuple[tuple[str, str], ...] = (SHOP,)
) -> Completeness:
    """Return the time up to which rows are complete, with an earlier one for a table that has pending rows."""
    waiting = {} if pending is None else {SHOP: round(pending * 1000)}
    return Completeness(NOON, round(before * 1000), waiting, {}, frozenset(tables))


def wait(
    *answers: Completeness | Exception,
    seconds: float | None = None,
    look_seconds: float = 0.0,
    **marking: Any,
) -> tuple[Completeness, list[str], float]:
    """Wait until noon; each look takes `look_seconds` and has the next answer, or the last. Return what was found, the messages and the seconds."""
    clock, told, left = ManualClock(NOON), list[str](), list(answers)

    def take(seconds: float) -> Completeness:
        clock.sleep(min(look_seconds, seconds))
        if look_seconds > seconds:
            return Completeness(clock.now(), None, obstacle="the time was up")
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    looks: Any = SimpleNamespace(take=take)
    until = None if seconds is None else NOON + seconds
    waiting = Wait(looks, clock, told.append, start=lambda job: job(), **marking)
    return waiting.until(*SHOP, NOON, until), told, clock.now() - NOON


def test_waiting_ends_as_soon_as_the_table_is_complete() -> None:
    """It checks again when the table may be complete, and at least every fifteen seconds. A table without rows may be misspelt."""
    found, told, seconds = wait(complete(NOON - 60), complete(NOON - 5), complete(NOON))
    _, said, _ = wait(complete(NOON, tables=()))

    assert (NOON * 1000, [], 20.0) == (found.before(*SHOP), told, seconds)
    empty = "no rows of shop.pageviews arrived in the last ten minutes, and none wait: is its name right?"
    assert [empty] == said


def test_waiting_ends_at_the_timeout() -> None:
    """It returns the last known completeness. A look that does not end in time proves nothing, and counts into the timeout."""
    pending, at = complete(NOON, pending=NOON - 60), (NOON - 60) * 1000
    found, told, seconds = wait(pending, seconds=40)
    slow, _, slowly = wait(pending, seconds=20, look_seconds=4)
    once, _, longer = wait(pending, seconds=1, look_seconds=4)

    assert (at, ["waiting: rows wait"], 40.0) == (found.before(*SHOP), told, seconds)
    assert (at, 20.0) == (slow.before(*SHOP), slowly)
    assert (at, 4.0) == (once.before(*SHOP), longer)


def test_the_timeout_holds_while_the_stack_hangs() -> None:
    """Nobody waits for the function that puts markers, or for a look that does not end."""
    clock, jobs, waited = ManualClock(NOON), list[Callable[[], None]](), list[float]()

    def within(seconds: float, _job: Callable[[], Completeness]) -> None:
        waited.append(seconds)
        clock.sleep(seconds)

    silent: Any = None
    waiting = Wait(silent, clock, lambda _: None, start=jobs.append, within=within)
    found = waiting.until(*SHOP, NOON, NOON + 20)

    assert ("the stack does not answer in time", 1) == (found.obstacle, len(jobs))
    assert 20.5 == clock.now() - NOON
    jobs.pop()()
    waiting.until(*SHOP, NOON, clock.now())
    assert 1 == len(jobs)


def test_waiting_survives_temporary_errors() -> None:
    """Each is reported once. A permanent one, such as a missing permission, is raised."""
    away = EndpointConnectionError(endpoint_url="http://aws")
    _, told, seconds = wait(away, away, Completeness(NOON, None, obstacle="it is raining"), complete(NOON))

    assert (2, True, "waiting: it is raining", 6.0) == (len(told), "aws" in told[0], told[1], seconds)
    with pytest.raises(ClientError):
        wait(client_error("AccessDenied", "GetQueueAttributes", status=403))


def test_waiting_ends_if_nothing_may_have_watermarks_advance(sluice: Sluice) -> None:
    """Unless they have come far enough, so that only rows wait, or advance by themselves. The command says what it lacks."""
    mark = Mock(side_effect=client_error("AccessDeniedException", "Invoke", status=403))
    with pytest.raises(Failure, match=r"do not allow Invoke: .* only if WatermarkTable is set"):
        wait(complete(NOON - 60), mark=mark)
    with deployed(sluice.stack) as stack, stack.refusing("lambda", 403, "AccessDeniedException"):
        refused = stack.run(["wait", "--account=app", "--table=rights", "--until=2999-01-01"])

    assert (1, True) == (refused.exit_code, "do not allow Invoke: " in refused.stderr)
    assert 2.0 == wait(complete(NOON, pending=NOON - 2), complete(NOON), mark=mark)[2]
    assert 5.0 == wait(complete(NOON - 5), complete(NOON), mark=mark, needs_mark=False)[2]


def test_tables_are_shown_with_their_dead_rows() -> None:
    """In the table and in the JSON output. Until there are times, what keeps them, and what makes them advance, is shown."""
    at, shop = (round((NOON - seconds) * 1000) for seconds in (50, 90))
    found = Completeness(NOON, at, {SHOP: shop}, {SHOP: 2}, frozenset({SHOP}))
    _, columns, rows = section(found)
    shown = document(found)
    obstacle = "the shard 1 has delivered no record yet"
    title, _, _ = section(Completeness(NOON, None, obstacle=obstacle))

    assert ("shop", "pageviews", "2025-11-24T15:58:30Z", "1 min 30 s") == rows[0][:4]
    assert 2 == rows[0][columns.index("dead")]
    assert "2025-11-24T15:59:10Z" == shown["before"]
    assert (90.0, 2) == (shown["tables"][0]["lag_seconds"], shown["tables"][0]["dead"])
    assert title.startswith(f"Complete: {obstacle}. These times are some seven minutes behind")


def test_the_command_waits_until_a_table_is_complete(sluice: Sluice) -> None:
    """It exits with 4 at the timeout, and with 3 because of dead rows, which it counts; it says what shows them."""
    sluice.produce("nobody_waits", "waited_for", "a")
    until(lambda: any(one["account"] == "nobody_waits" for one in sluice.json("dead list --local")))
    made, passed = sluice.stack.resources, time.time() - 400  # of every shard, as soon as it has a marker
    ledger = Ledger(made.client("dynamodb"), made.ledger_table, SystemClock(), os.urandom, NullTelemetry())
    ledger.note(DRAINED, [(passed, passed)])
    line = "wait --local --account nobody_waits --table waited_for --until"
    dead = sluice.run(f"{line} 3h --timeout 60s")
    late = sluice.run(f"{line} 2999-01-01 --timeout 1s")
    as_json = sluice.run(f"{line} 2999-01-01 --timeout 1s --json")
    mistyped = sluice.run("wait --local --account shp --table waited_for --until 3h --timeout 60s")

    assert (1, "") == (mistyped.exit_code, mistyped.stdout)
    assert "Error: there is no account shp. Similar names: shop." in mistyped.stderr
    assert 3 == dead.exit_code, dead.output
    assert "except for 1 dead row: `sluice dead list --local` shows them" in dead.stdout
    assert 4 == late.exit_code
    assert "nobody_waits.waited_for is not complete before 2999-01-01" in late.stdout
    assert (4, False) == (as_json.exit_code, json.loads(as_json.stdout)["complete"])
