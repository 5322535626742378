"""The ingest corrects wrong client clocks by the rules in docs/http.md."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import rows
from tests.support.ingest import START, Site

NOW = int(START)
DAY = 86_400


def sent(times: list[Any], sent_at: Any) -> list[dict[str, Any]]:
    """Send a batch of events with these times and return its rows."""
    site, events = Site(), [{} if time is None else {"time": time} for time in times]
    assert 200 == site.post({"table": "pageviews", "events": events, "sent_at": sent_at}).status
    return [row for _, row in site.rows()]


@pytest.mark.parametrize(
    ("time", "sent_at", "expected", "drift", "rule"),
    [
        (NOW - 10, NOW - 5, NOW - 10, None, None),
        (NOW - 10, None, NOW - 10, None, None),
        (NOW - 3610, NOW - 3600, NOW - 10, 3600, None),
        (NOW + 365 * DAY - 10, NOW + 365 * DAY, NOW - 10, -365 * DAY, None),
        (90, 100, NOW - 10, NOW - 100, None),  # a device that has lost its time counts from 1970
        ((NOW - 3610) * 1000, NOW - 3600, NOW - 10, 3600, "milliseconds"),
        (1000, NOW - 3600, NOW, 3600, "out_of_range"),
        ("soon", NOW - 3600, NOW, None, "unreadable"),
        (None, NOW - 3600, NOW, None, None),
    ],
)
def test_times_are_corrected_by_the_documented_rules(
    time: object, sent_at: object, expected: int, drift: int | None, rule: str | None
) -> None:
    """Each case follows the rules in docs/http.md on time and clock correction, with the columns that record the correction."""
    [row] = sent([time], sent_at)

    raw = time if drift or rule else None
    columns = {"time": expected, "time_raw": raw, "time_rule": rule, "time_drift": drift}
    assert {name: value for name, value in columns.items() if value is not None} == {
        name: row[name] for name in row if name.startswith("time")
    }


stamps = st.integers(NOW - 400 * DAY, NOW + 400 * DAY) | st.floats(NOW - 400 * DAY, NOW + 400 * DAY)


@given(st.lists(stamps, min_size=1, max_size=8), stamps | st.none())
def test_correction_preserves_order_and_distances(times: list[float], sent_at: float | None) -> None:
    """All times of a request that are in range move by the same amount, whatever the clock said."""
    found = [
        (time, row["time"])
        for time, row in zip(times, sent(times, sent_at), strict=True)
        if row.get("time_rule") != "out_of_range"
    ]

    assert 1 >= len({time // 1 - moved for time, moved in found})


@given(stamps, stamps)
def test_a_corrected_time_is_off_by_at_most_the_transit_time(age: float, sent_at: float) -> None:
    """An event's age when it was sent becomes its age on arrival, give or take the transit time."""
    age = abs(age - NOW) % (300 * DAY)

    [row] = sent([sent_at - age], sent_at)

    assert abs(NOW - age - row["time"]) <= rows.TRANSIT_SECONDS + 1
