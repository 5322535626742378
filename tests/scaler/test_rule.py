"""How many shards a stream gets."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.rule import SHARD_BYTES, SHARD_RECORDS, SHRINK_BELOW, WINDOWS_APART_SECONDS, Minute, target

WINDOW, OUTSIDE = 4.0 * WINDOWS_APART_SECONDS, 4.0 * WINDOWS_APART_SECONDS + 3600
minutes = st.builds(
    Minute,
    records=st.integers(0, 10**7).map(float),
    size=st.integers(0, 10**10).map(float),
    throttled=st.sampled_from([0.0, 0.0, 1.0, 1e6]),
)


def busy(shards: float, throttled: float = 0.0) -> Minute:
    """Return a minute that fills this many shards with records."""
    return Minute(60 * SHARD_RECORDS * shards, 60 * SHARD_RECORDS * shards, throttled)


def test_a_minute_fills_shards_by_records_or_by_bytes() -> None:
    """The larger number counts, and throttled puts count with their attempts and their size."""
    assert 2.0 == Minute(records=60 * 2 * SHARD_RECORDS, size=1.0).shards
    assert 3.0 == Minute(records=1.0, size=60 * 3 * SHARD_BYTES).shards
    assert 2.0 == Minute(records=60 * SHARD_RECORDS, size=1.0, throttled=60 * 5 * SHARD_RECORDS).shards
    assert 6.0 == Minute(records=60.0, size=60 * 3 * SHARD_BYTES, throttled=60 * 5).shards
    assert 0.0 == Minute().shards


@pytest.mark.parametrize(
    ("shards", "recent", "expected"),
    [
        (1, busy(0.69), 1),
        (1, busy(0.71), 2),
        (2, busy(5.6), 8),
        (1, busy(0.1, throttled=1.0), 2),
        (4, busy(2.0, throttled=1.0), 6),
        (8, busy(6.5, throttled=1.0), 20),
        (8, busy(1.0, throttled=1.0), 8),  # a single partition key is too busy for any shard
        (4, busy(100.0), 143),
    ],
)
def test_a_stream_grows_with_its_busiest_recent_minute(shards: int, recent: Minute, expected: int) -> None:
    """It gets as many shards as this minute needs, or twice as many if puts were throttled."""
    assert expected == target(shards, [recent], [recent], OUTSIDE)


@pytest.mark.parametrize(
    ("shards", "peak", "now", "expected"),
    [
        (5, 0.0, WINDOW, 3),
        (1, 0.0, WINDOW, 1),
        (8, 0.0, OUTSIDE, 8),
        (8, 2.0, WINDOW, 4),
        (8, 2.1, WINDOW, 8),
    ],
)
def test_a_stream_is_halved_within_a_window(shards: int, peak: float, now: float, expected: int) -> None:
    """The window must be open, and the day's busiest minute must fill at most half of the smaller stream."""
    assert expected == target(shards, [busy(peak)] if peak else [], [], now)


@given(st.integers(1, 200), st.lists(minutes, max_size=30), st.integers(0, 30), st.floats(0, 1e9))
def test_a_stream_never_shrinks_below_what_the_day_needed(
    shards: int, day: list[Minute], recent: int, now: float
) -> None:
    """A smaller stream has room for twice the busiest minute, and no minute makes a stream grow twice."""
    found = target(shards, day, day[len(day) - recent :], now)

    if found < shards:
        assert found == math.ceil(shards / 2)
        assert max((minute.shards for minute in day), default=0.0) <= found * SHRINK_BELOW
    else:
        assert found == target(found, day, day[len(day) - recent :], now)
