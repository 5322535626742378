"""Rows as chunks hold them: compressed, cut into halves, and sampled."""

import gzip
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidObjectError, WrongCountError
from tests.support.spans import KEY
from worker.rows import compress, decompress, sample, slice_of, spread

values = st.integers(-(2**63), 2**63 - 1) | st.text(max_size=9)
rows = st.lists(st.dictionaries(st.text(max_size=5), values), max_size=30)


@given(st.binary())
def test_compression_round_trips(data: bytes) -> None:
    """Any gzip reader can read it. The same rows give the same bytes: the header has no time and no file name."""
    body = compress(data)

    assert data == decompress(body) == gzip.decompress(body)
    assert b"\x1f\x8b\x08\x00\x00\x00\x00\x00" == body[:8]
    assert body == compress(data)


@given(st.integers(0, 40), st.integers(0, 255))
def test_damaged_gzip_is_refused(place: int, value: int) -> None:
    """It never passes for other rows."""
    body = bytearray(compress(b"a" * 99 + b"b" * 99))
    place %= len(body)
    before, body[place] = body[place], value
    try:
        assert b"a" * 99 + b"b" * 99 == decompress(bytes(body))
    except InvalidObjectError:
        assert before != value
    with pytest.raises(InvalidObjectError):
        decompress(bytes(body[:-1]))


@given(rows)
def test_halves_hold_the_rows_in_order(values: list[dict[str, Any]]) -> None:
    """However often a chunk is halved, its leaves together hold its rows."""
    packed = list(map(msgpack.packb, values))
    payload, keys = b"".join(packed), [KEY]
    for _ in range(5):
        keys = [half for key in keys for half in key.halves]
    slices = [slice_of(payload, key.within(len(packed)), len(packed)) for key in keys]

    assert packed == [one for one in slices if one]
    assert payload == b"".join(slices)


@pytest.mark.parametrize("counted", [1, 3])
def test_a_payload_with_another_number_of_rows_has_no_halves(counted: int) -> None:
    """Which rows a half has would be a guess."""
    payload = msgpack.packb({"n": 1}) * 2

    with pytest.raises(WrongCountError, match="rows than planned"):
        slice_of(payload, range(1), counted)


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ([7], [0]),
        ([7, 8], [0, 1]),
        ([7, 8, 9], [0, 2]),
        ([0, 3599, 3600, 1, 7200, 7201, 0], [0, 2, 4, 6]),
        ([0, 3600], [0, 1]),
        ([None, 0, 7], [0, 1, 2]),
        ([3600 * hour for hour in range(50)], [*range(24), 49]),
    ],
)
def test_a_sample_has_both_ends_and_a_row_per_hour(times: list[int | None], found: list[int]) -> None:
    """Treasure Data writes a file for each hour, so any of them may be missing on its own."""
    rows = [{"time": time, "event_id": str(n)} for n, time in enumerate(times)]
    payload = b"".join(msgpack.packb(one | {"text": "x"}) for one in rows)

    assert [rows[n] for n in found] == sample(payload)
    assert rows == spread(payload)


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b"", []),
        (b"\xc1", []),
        (b"\x81\x90\x01", []),
        (msgpack.packb({1: 2}), [{}]),
        (msgpack.packb([1]) + msgpack.packb(7), [[1], 7]),
        (msgpack.packb({"time": 1}) + b"\xc1", [{"time": 1}]),
    ],
)
def test_sampling_tolerates_bytes_that_are_not_rows(payload: bytes, found: list[Any]) -> None:
    """Values that are no rows are returned as they are."""
    assert found == sample(payload) == spread(payload)


@pytest.mark.parametrize(("count", "step"), [(800, 1), (801, 2), (2000, 3)])
def test_of_many_rows_an_even_selection_is_asked_for(count: int, step: int) -> None:
    """The last is one of them."""
    found = [row["time"] for row in spread(b"".join(msgpack.packb({"time": n}) for n in range(count)))]

    assert sorted({*range(0, count, step), count - 1}) == found
