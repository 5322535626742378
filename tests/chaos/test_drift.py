"""A short form of `make drift`: events that drift from a plan of thirty tables."""

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
    """Quarantined events are kept, repaired and delivered once; with a plan that observes, all are delivered."""
    assert [] == list(drifted.faults())
    assert (2000, 200) == (drifted.verdict.delivered, drifted.strays.total())
    assert set(CODES) == {code for _, _, code in drifted.counted} == {code for _, _, code in drifted.observed}
    assert len({table for _, table, _ in drifted.counted}) > len(drift.PLANNED) // 2


def test_each_fault_of_a_run_is_reported(drifted: Drifted) -> None:
    """A wrong count, an event that was not repaired and a missing row are reported."""
    verdict = replace(drifted.verdict, delivered=1999)
    wrong = replace(drifted, counted=drifted.observed, repaired=0, verdict=verdict)

    assert 3 == len(list(wrong.faults()))


def test_a_run_reports_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run reports how many events were sent and repaired so far, and when it begins to check them."""
    monkeypatch.setattr(drift, "_TELL_EVERY", 0.0)
    told: list[str] = []

    repaired = run(200, told.append).repaired

    assert "0 of 200 events sent, 0 repaired" == told[0]
    assert f"200 of 200 events sent, {repaired} repaired" == told[-2]
    assert "everything has settled: checking every event" == told[-1]
