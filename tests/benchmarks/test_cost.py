"""The monthly cost of a stack, and of the alternatives."""

import pytest

from benchmarks import cost
from benchmarks.alternatives import ALTERNATIVES, Alternative, ranges_where_dearer
from benchmarks.report import Report
from ops.cost.prices import UNITS


def test_ranges_where_sluice_is_dearer() -> None:
    """A range in which Sluice costs more ends where both cost the same."""
    alternative = Alternative("other", "other", lambda events: events / 1e5, 1e8, "", "")

    (low,) = ranges_where_dearer(lambda _: 50.0, alternative)
    assert (1e4, 5e6) == pytest.approx(low, rel=0.01)
    (high,) = ranges_where_dearer(lambda events: events / 1e5 + events / 1e6 - 1.0, alternative)
    assert (1e6, 1e8) == pytest.approx(high, rel=0.01)
    assert all(ranges_where_dearer(lambda _: 1e9, one)[-1][1] == one.most for one in ALTERNATIVES)
    assert [] == ranges_where_dearer(lambda _: 0.0, alternative)


def test_alternatives_match_their_published_figures() -> None:
    """Each alternative's cost equals its published figure at the load that the figure is for."""
    earlier, clickstream, snowplow = ALTERNATIVES
    month = 730 * 3600

    assert 200 == earlier.usd(1e7)
    assert [189.8, 219.8, 592.8] == pytest.approx(
        [clickstream.usd(rate * 10 * month) for rate in (10, 100, 1000)]
    )
    assert 189.8 == clickstream.usd(1e4)
    assert 200 == snowplow.usd(100 * month)


def test_the_cost_report_has_every_price(capsys: pytest.CaptureFixture[str]) -> None:
    """The report lists every price with its page, and ten million events cost no more than promised."""
    report = Report("cost")
    cost.run(report)
    printed = "".join(capsys.readouterr().out.split())

    assert len(UNITS) <= printed.count("aws.amazon.com")
    assert report.ratios["cost_usd_external_lean"] <= 20
    assert report.ratios["cost_usd_managed_lean"] <= 28
