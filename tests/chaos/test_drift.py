"""Events that drift from a plan of thirty tables: a short form of `make drift`."""

from dataclasses import replace

import pytest

from chaos import drift
from chaos.drift import Drifted, run
from shared.tracking_plan import CODES


@pytest.fixture(scope="module")
def drifted() -> Drifted:
    """The result of 2,000 events."""
    return run(2000)


def test_every_violation_is_counted_and_nothing_is_lost(drifted: Drifted) -> None:
    """In quarantine each is set aside, repaired and delivered once; where the plan observes, all are delivered."""
    assert [] == list(drifted.faults())
    assert (2000, 200) == (drifted.verdict.delivered, drifted.strays.total())
    assert set(CODES) == {code for _, _, code in drifted.counted} == {code for _, _, code in drifted.observed}
    assert len({table for _, table, _ in drifted.counted}) > len(drift.PLANNED) // 2


def test_what_is_not_as_it_has_to_be_is_named(drifted: Drifted) -> None:
    """A count that is wrong, an event that was not repaired, and a row that is lacking."""
    verdict = replace(drifted.verdict, delivered=1999)
    wrong = replace(drifted, counted=drifted.observed, repaired=0, verdict=verdict)

    assert 3 == len(list(wrong.faults()))


def test_a_run_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells how many events are sent and repaired while it runs, and when it begins to check them."""
    monkeypatch.setattr(drift, "_TELL_EVERY", 0.0)
    told: list[str] = []

    repaired = run(200, told.append).repaired

    assert "0 of 200 events sent, 0 repaired" == told[0]
    assert f"200 of 200 events sent, {repaired} repaired" == told[-2]
    assert "everything has settled: checking every event" == told[-1]
