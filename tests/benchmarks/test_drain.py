"""The backlog's benchmark, on a backlog that is soon gone, and the cost's, which measures nothing."""

import pytest

from benchmarks import cost
from benchmarks.drain import ACCOUNTS, drain
from benchmarks.report import Report
from ops.prices import UNITS


def test_a_backlog_is_drained() -> None:
    """Every batch is carried out, with one import for each account, and its time is counted."""
    drained = drain(1_200, per_envelope=10, per_batch=400)

    assert 3 == len(drained.seconds)
    assert 3 * ACCOUNTS == drained.uploads
    assert drained.rate > 0


def test_the_cost_page_has_every_price(capsys: pytest.CaptureFixture[str]) -> None:
    """It names each price with its page, and ends with what ten million events cost."""
    report = Report("cost")
    cost.run(report)
    printed = "".join(capsys.readouterr().out.split())

    assert len(UNITS) <= printed.count("aws.amazon.com")
    assert report.ratios["cost_usd_external_lean"] <= 25
    assert report.ratios["cost_usd_managed_lean"] <= 80
