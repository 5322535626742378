"""The index of a span object: its form, and what it says of records."""

from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidObjectError
from tests.support.spans import KEY, destinations, keys, numbers, senders
from worker.index import DIGEST_BYTES, Index, Member, SpanPlan, decode, digest_of
from worker.record import number
from worker.span import Destination, RowSender

times = st.integers(0, 2**45)
counts = st.integers(0, 2**31)


@st.composite
def indexes(draw: st.DrawFn) -> Index:
    """Return an index of some records, sorted like a shard's."""
    found = sorted(set(draw(st.lists(numbers, max_size=8))))
    size = len(found)

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    positions = st.integers(0, max(0, size - 1))
    member = st.lists(st.tuples(positions, counts, counts), max_size=5).flatmap(
        lambda own: st.builds(
            Member,
            keys.map(lambda one: one.planned),
            counts,
            counts,
            counts,
            st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES),
            *(st.just([one[place] for one in own]) for place in range(3)),
        )
    )
    return Index(
        " ".join(found),
        column(times),
        column(times),
        column(st.text(max_size=9)),
        column(st.sampled_from([0, 1, 1_700_000_000_000])),
        frozenset(draw(st.sets(positions, max_size=3))) if size else frozenset(),
        draw(st.lists(member, max_size=3)),
        draw(
            st.builds(SpanPlan, numbers, times, st.lists(st.tuples(senders, destinations)), st.text(), times)
        ),
    )


@given(indexes(), numbers)
def test_indexes_round_trip(index: Index, other: str) -> None:
    """This holds for every index; the same index always has the same bytes. It has exactly its numbers, in the shard's order."""
    assert index == decode(index.encode())
    assert index.encode() == decode(index.encode()).encode()
    assert (other in index.numbers) is (other in index.positions)
    assert list(index.numbers) == [one for one, _ in sorted(index.positions.items(), key=lambda one: one[1])]


def test_the_form_of_an_index_is_stable() -> None:
    """Objects outlive the code that wrote them. Digests of indexes are in the ledger and in names."""
    index = Index(
        "00217 003180",
        [5, 6],
        [3, 4],
        ["q", ""],
        [1, 0],
        frozenset((1, 0)),
        [Member(KEY, 3, 0, 40, b"d" * 16, (0, 1, 0), (1, 1, 1), (7, 8, 9))],
        SpanPlan(number("9"), 2, [(RowSender("shop"), Destination("shop_db"))], "o", 1),
    )
    key = ((("shop", ""), "views", "", False, ""), 0, "")
    members = ((key, 3, 0, 40, b"d" * 16, (0, 1, 0), (1, 1, 1), (7, 8, 9)),)
    plan = (number("9"), 2, ((("shop", ""), ("shop_db", "", False)),), "o", 1)

    packed = msgpack.unpackb(index.encode(), use_list=False, strict_map_key=False)
    assert (1, "00217 003180", (5, 6), (3, 4), ("q", ""), (1, 0), (0, 1), members, plan) == packed
    assert "e3b0c44298fc1c149afbf4c8996fb924" == digest_of(b"").hex()


def test_a_record_s_rows_and_bytes_are_known() -> None:
    """A record may have several parts of a chunk."""
    member = Member(KEY, 6, 0, 40, b"", (0, 1, 0), (1, 2, 3), (7, 8, 9))
    rows, parts = (range(1), range(1, 3), range(3, 6)), (slice(0, 7), slice(7, 15), slice(15, 24))

    assert list(zip((0, 1, 0), rows, parts, strict=True)) == list(member.parts())


VALID = [1, "0011 0012", [1, 2], [1, 2], ["", ""], [0, 0], [], [], ["000", 0, [], "", 0]]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 2, r"cannot read .* value 2 - at `\$\[0\]`"),
        (1, 7, r"cannot read .* at `\$\[1\]`"),
        (1, "0011", "differ in length"),
        (2, [1], "differ in length"),
        (2, [1, 2.5], "cannot read"),
        (3, [], "differ in length"),
        (4, [""], "differ in length"),
        (5, [0, 0, 0], "differ in length"),
        (6, None, "cannot read"),
        (7, [[KEY]], "cannot read"),
        (7, [["views", 1, 2, 3, b"d" * 16, [], [], []]], "cannot read"),
        (7, [[KEY, 1, 2, 3, b"d" * 17, [], [], []]], "cannot read"),
        (7, 7, "cannot read"),
        (8, ["000", 0, [], ""], "cannot read"),
    ],
)
def test_anything_else_is_refused(place: int, value: object, message: str) -> None:
    """An index that cannot be understood is never taken for one without a record."""
    assert [number("1"), number("2")] == decode(msgpack.packb(VALID)).numbers
    changed = [*VALID[:place], value, *VALID[place + 1 :]]

    with pytest.raises(InvalidObjectError, match=message):
        decode(msgpack.packb(changed))


@given(st.binary(max_size=40))
def test_any_bytes_are_an_index_or_refused(data: bytes) -> None:
    """No other error escapes."""
    with suppress(InvalidObjectError):
        decode(data)
