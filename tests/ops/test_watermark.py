"""`sluice wait`, and up to when rows are complete as `sluice status --complete` shows it."""

import json
from collections import Counter

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from ops.watermark import Wait, document, section
from tests.support.sluice import Sluice, until
from worker.delivery import State
from worker.watermark import Completeness

SHOP = ("shop", "pageviews")
NOON = 1_764_000_000.0


class Answers:
    """Answers in turn, the last one for ever; errors are raised."""

    def __init__(self, *answers: Completeness | Exception) -> None:
        self._answers = list(answers)

    def take(self) -> Completeness:
        """Return the next answer."""
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def complete(
    before: float, pending: float | None = None, tables: tuple[tuple[str, str], ...] = (SHOP,)
) -> Completeness:
    """Return up to when rows are complete, all of them or but for a table."""
    waiting = {} if pending is None else {SHOP: round(pending * 1000)}
    return Completeness(NOON, round(before * 1000), waiting, {}, frozenset(tables))


def wait(
    *answers: Completeness | Exception, seconds: float | None = None
) -> tuple[Completeness, list[str], float]:
    """Wait until noon; return what was found, what was told and how long it took."""
    clock, told = ManualClock(NOON), list[str]()
    waiting = Wait(Answers(*answers), clock, told.append)  # type: ignore[arg-type]  # a double
    found = waiting.until(*SHOP, NOON, None if seconds is None else NOON + seconds)
    return found, told, clock.now() - NOON


def test_waiting_ends_as_soon_as_the_table_is_complete() -> None:
    """It looks again when that may be so, after fifteen seconds at most."""
    found, told, seconds = wait(complete(NOON - 60), complete(NOON - 5), complete(NOON))

    assert (NOON * 1000, [], 20.0) == (found.before(*SHOP), told, seconds)


def test_waiting_ends_at_its_time_out() -> None:
    """With what is known then."""
    found, told, seconds = wait(complete(NOON, pending=NOON - 60), seconds=40)

    assert ((NOON - 60) * 1000, ["waiting: rows are pending"], 40.0) == (found.before(*SHOP), told, seconds)


def test_what_passes_is_waited_for() -> None:
    """It is told once."""
    away = EndpointConnectionError(endpoint_url="http://aws")
    _, told, seconds = wait(away, away, Completeness(NOON, None, obstacle="it is raining"), complete(NOON))

    assert (2, True, "waiting: it is raining", 6.0) == (len(told), "aws" in told[0], told[1], seconds)


def test_what_stays_is_not_waited_for() -> None:
    """A right that is missing, for example."""
    with pytest.raises(ClientError):
        wait(client_error("AccessDenied", "GetQueueAttributes", status=403))


def test_a_table_that_nobody_knows_is_pointed_out() -> None:
    """Its name may be wrong."""
    _, told, _ = wait(complete(NOON, tables=()))

    assert ["no rows of shop.pageviews were received recently. Check the name."] == told


def test_tables_are_shown_with_what_is_set_aside() -> None:
    """As a table and as JSON."""
    aside = {SHOP: Counter({State.DEAD_LETTER: 2})}
    found = Completeness(
        NOON, round((NOON - 50) * 1000), {SHOP: round((NOON - 90) * 1000)}, aside, frozenset({SHOP})
    )
    _, columns, rows = section(found)
    shown = document(found)

    assert ("shop", "pageviews", "2025-11-24T15:58:30.000Z", "1 min 30 s") == rows[0][:4]
    assert 2 == rows[0][columns.index("dead")]
    assert ("2025-11-24T15:59:10.000Z", 90.0) == (shown["before"], shown["tables"][0]["lag_seconds"])


def test_what_is_not_known_is_said(sluice: Sluice) -> None:
    """And the command ends with 4."""
    sluice.send("shop", "waited_for", "a")
    line = "wait --local --account shop --table waited_for --until 2999-01-01 --timeout 1s"
    result = sluice.run(line)
    as_json = sluice.run(f"{line} --json")

    assert (4, True) == (
        result.exit_code,
        "shop.waited_for is not complete before 2999-01-01" in result.stdout,
    )
    assert (4, False) == (as_json.exit_code, json.loads(as_json.stdout)["complete"])


def test_rows_that_are_set_aside_end_it_with_3(sluice: Sluice) -> None:
    """They are counted."""
    sluice.produce("nobody_waits", "waited_for", "a")
    until(lambda: any(one["account"] == "nobody_waits" for one in sluice.json("dead list --local")))
    result = sluice.run("wait --local --account nobody_waits --table waited_for --until 3h --timeout 60s")

    assert 3 == result.exit_code, result.output
    assert "except for set-aside rows: 1 dead. `sluice redrive` sends them" in result.stdout
