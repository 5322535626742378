"""The monthly cost of the alternatives."""

import pytest

from benchmarks.alternatives import ALTERNATIVES


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
