"""Measuring how long Treasure Data remembers ids, and how soon it shows rows: here in simulated time."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from doubles.aws_errors import client_error
from doubles.treasure_data import Action, Fault, Kind, Settings
from ops.failure import Failure
from ops.state.measurement import AGES, MOST_DELAY, Measured, Measurement, measured
from tests.support.delivery import Delivery
from tests.support.sam import template
from tests.support.sluice import Sluice
from worker.probe_rows import MEASURE_TABLE

ASSUMED = {"memory_minutes": 60, "query_delay_minutes": 10}


def delivery(memory: float, delay: float, **settings: Any) -> Delivery:
    """Return a delivery whose Treasure Data remembers ids for `memory` seconds and shows rows after `delay` seconds."""
    made = Delivery(memory=memory, query_delay=delay)
    made.td.settings = Settings(id_memory=memory, query_delay=delay, **settings)
    made.map(shop="shop")
    return made


def measurement(made: Delivery, said: list[str] | None = None) -> Measurement:
    """Return a measurement that calls a delivery's administration."""
    wiring = made.wiring
    admin = wiring.admin

    def administer(**event: Any) -> dict[str, Any]:
        return admin.run(event, made.deadline(60_000))

    return Measurement(administer, made.clock, "shop", "m", (said if said is not None else []).append)


@pytest.mark.parametrize("status", [200, 409])
@pytest.mark.parametrize("delay", [0.0, 90.0, 590.0])
@pytest.mark.parametrize(
    ("memory", "remembered", "forgotten"),
    [(3600.0 + 60, 3600.0, 4500.0), (1000.0, 600.0, 1200.0), (50.0, 0.0, 60.0), (1e6, 5400.0, None)],
)
def test_memory_and_delay_are_found_between_two_ages(
    memory: float, remembered: float, forgotten: float | None, delay: float, status: int
) -> None:
    """The measured range contains the true value, whatever status a repeated id gets and however late rows appear."""
    made = delivery(memory, delay, duplicate_status=status)
    began = made.clock.now()
    found = measurement(made).run([age for age in AGES if age <= 5400])

    assert (remembered, forgotten) == (found.remembered, found.forgotten)
    assert found.shown is not None
    assert found.hidden <= delay <= found.shown <= max(delay * 1.4, 10)
    assert made.clock.now() - began <= 5400 + delay * 2 + 200


def test_no_more_rows_are_written_than_announced() -> None:
    """One row, and three for each age; once an id is forgotten, older ages get no further rows."""
    made = delivery(1e6, 0)
    measurement(made).run([60.0, 300.0])
    assert {"shop": {MEASURE_TABLE: 1 + 2 * 2}} == made.td.counts()  # two of them were de-duplicated

    made = delivery(10, 0)
    measurement(made).run([60.0, 300.0, 600.0])
    assert {"shop": {MEASURE_TABLE: 1 + 3 + 2}} == made.td.counts()


def test_the_measurement_ends_if_rows_never_appear() -> None:
    """It waits up to a limit, and reports that nothing is known."""
    made = delivery(3600, 1e6)
    began = made.clock.now()
    found = measurement(made).run([60.0])

    assert (None, 0.0, None) == (found.shown, found.remembered, found.forgotten)
    assert found.hidden >= MOST_DELAY
    assert made.clock.now() - began < 2 * MOST_DELAY + 300


def test_failing_queries_do_not_falsify_the_result() -> None:
    """An unanswered query is repeated, and its id does not count as remembered."""
    made = delivery(30, 0)
    for _ in range(4):
        made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=500, count=3))
    found = measurement(made).run([60.0])

    assert (0.0, 60.0) == (found.remembered, found.forgotten)


def test_what_was_measured_before_an_error_is_kept() -> None:
    """Ninety minutes are longer than many credentials last."""
    made, said = delivery(1e6, 0), list[str]()
    begun = measurement(made, said)
    administer, began = begun.administer, made.clock.now()

    def expire(**event: Any) -> dict[str, Any]:
        if made.clock.now() - began > 5000:
            raise client_error("ExpiredTokenException", "Invoke")
        return administer(**event)

    begun.administer = expire
    found = begun.run(AGES)

    assert (4500.0, None) == (found.remembered, found.forgotten)
    assert said[-1].startswith("your AWS credentials have expired: ")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(kind=Kind.STATUS, action=Action.QUERY, status=403), "the API key may not query"),
        (
            Fault(kind=Kind.STATUS, action=Action.IMPORT, status=503),
            r"did not accept a test row \(http_503\)",
        ),
    ],
)
def test_an_impossible_measurement_says_why(fault: Fault, said: str) -> None:
    """A key without permission to query and a refused import each end it."""
    made = delivery(3600, 0)
    made.td.faults.add(fault)

    with pytest.raises(Failure, match=said):
        measurement(made).run([60.0])


@pytest.mark.parametrize(
    ("found", "states", "said"),
    [
        (
            Measured(20, 30, {60, 3600}, {4500}),
            ["ok", "ok"],
            "remembers an id for 1 h and forgets it within 1 h 15 min",
        ),
        (
            Measured(20, 30, {60, 1800}, {2700}),
            ["ok", "fault"],
            "set TdMemoryMinutes to 30 and run `sam deploy`",
        ),
        (Measured(20, 30, {60, 600}, {1200}), ["ok", "fault"], "set TdMemoryMinutes to 16, its minimum"),
        (
            Measured(20, 30, {60, 600}),
            ["ok", "unknown"],
            "Treasure Data remembers an id for 10 min; the worker relies on 1 h",
        ),
        (
            Measured(580, 640, {3600}),
            ["fault", "ok"],
            "queries show new rows after 9 min 40 s to 10 min 40 s",
        ),
        (Measured(700, None), ["fault", "unknown"], "raise TdQueryDelayMinutes"),
        (Measured(5, None), ["unknown", "unknown"], "queries did not show a new row within 5 s"),
        (Measured(5, 9, {7200}, {3600}), ["ok", "fault"], "forgets an id within 1 h"),
    ],
)
def test_results_are_compared_with_what_the_worker_relies_on(
    found: Measured, states: Sequence[str], said: str
) -> None:
    """A result that could duplicate rows, or make the worker ask too soon, is a fault; what was not measured is unknown."""
    findings = measured(found, ASSUMED)

    assert states == [finding.state for finding in findings]
    assert said in "\n".join(finding.said for finding in findings)


def test_the_advice_is_valid_for_the_template() -> None:
    """It never recommends less than the minimum of TdMemoryMinutes."""
    least = template()["Parameters"]["TdMemoryMinutes"]["MinValue"]

    assert f"set TdMemoryMinutes to {least}, its minimum" in measured(Measured(gone={60}), ASSUMED)[1].said


def measured_rows(sluice: Sluice) -> list[dict[str, Any]]:
    """Return the rows that the measurement wrote."""
    return [one["row"] for one in sluice.td("rows?limit=1000")["rows"] if one["table"] == MEASURE_TABLE]


@pytest.mark.xdist_group("ops")
def test_the_command_asks_before_it_writes(sluice: Sluice) -> None:
    """After a no, it writes nothing; with --up-to shorter than the first age, it measures only the delay."""
    line = "doctor --local --account shop --no-event --measure --up-to 1s"
    refused = sluice.run(line, answer="n\n")
    written = measured_rows(sluice)
    done = sluice.json(f"{line} --yes")

    assert (1, []) == (refused.exit_code, written)
    assert "This writes up to 1 test rows to shop.sluice_measure" in refused.stderr
    assert ("query delay", "ok") == tuple(done["findings"][-2][name] for name in ("what", "state"))
    assert 1 == len(measured_rows(sluice))
    assert json.dumps(done["findings"]).count("id memory") == 1
