"""The ingest corrects wrong client clocks by the rules in docs/http.md."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import rows
from tests.support.ingest import START, Site

NOW = int(START)
DAY = 86_400


def sent(events: list[dict[str, Any]], **said: Any) -> list[dict[str, Any]]:
    """Send a batch and return its rows."""
    site = Site()
    assert 200 == site.post({"table": "pageviews", "events": events, **said}).status
    return [row for _, row in site.rows()]


@pytest.mark.parametrize(
    ("time", "sent_at", "expected"),
    [
        # The clock is right, or unknown.
        (NOW - 10, NOW - 5, {"time": NOW - 10}),
        (NOW - 10, None, {"time": NOW - 10}),
        # A clock an hour behind, and one a year ahead.
        (NOW - 3610, NOW - 3600, {"time": NOW - 10, "time_raw": NOW - 3610, "time_drift": 3600}),
        (
            NOW + 365 * DAY - 10,
            NOW + 365 * DAY,
            {"time": NOW - 10, "time_raw": NOW + 365 * DAY - 10, "time_drift": -365 * DAY},
        ),
        # A device that has lost its time counts from 1970.
        (90, 100, {"time": NOW - 10, "time_raw": 90, "time_drift": NOW - 100}),
        # Other units keep their rule.
        (
            (NOW - 3610) * 1000,
            NOW - 3600,
            {
                "time": NOW - 10,
                "time_raw": (NOW - 3610) * 1000,
                "time_rule": "milliseconds",
                "time_drift": 3600,
            },
        ),
        # A time that is still out of range becomes the time of arrival.
        (
            1000,
            NOW - 3600,
            {"time": NOW, "time_raw": 1000, "time_rule": "out_of_range", "time_drift": 3600},
        ),
        ("soon", NOW - 3600, {"time": NOW, "time_raw": "soon", "time_rule": "unreadable"}),
        # The event has no timestamp of that clock.
        (None, NOW - 3600, {"time": NOW}),
    ],
)
def test_times_are_corrected_by_the_documented_rules(
    time: object, sent_at: object, expected: dict[str, Any]
) -> None:
    """Each case follows the rules in docs/http.md on time and clock correction, with the columns that record the correction."""
    [row] = sent([{} if time is None else {"time": time}], sent_at=sent_at)

    assert expected == {name: row[name] for name in row if name.startswith("time")}


stamps = st.integers(NOW - 400 * DAY, NOW + 400 * DAY) | st.floats(NOW - 400 * DAY, NOW + 400 * DAY)


@given(st.lists(stamps, min_size=1, max_size=8), stamps | st.none())
def test_correction_preserves_order_and_distances(times: list[float], sent_at: float | None) -> None:
    """All times of a request that are in range move by the same amount, whatever the clock said."""
    found = [
        (time, row["time"])
        for time, row in zip(times, sent([{"time": time} for time in times], sent_at=sent_at), strict=True)
        if row.get("time_rule") != "out_of_range"
    ]

    assert 1 >= len({time // 1 - moved for time, moved in found})


@given(stamps, stamps)
def test_a_corrected_time_is_off_by_at_most_the_transit_time(age: float, sent_at: float) -> None:
    """An event's age when it was sent becomes its age on arrival, give or take the transit time."""
    age = abs(age - NOW) % (300 * DAY)

    [row] = sent([{"time": sent_at - age}], sent_at=sent_at)

    assert abs(NOW - age - row["time"]) <= rows.TRANSIT_SECONDS + 1
