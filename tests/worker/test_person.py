"""Recognising persons' rows by keyed hashes, without decoding most of them."""

from typing import Any

import msgpack
from hypothesis import example, given
from hypothesis import strategies as st

from shared.person_hash import hasher, text_of
from worker.forget.person import Person, Persons
from worker.span import Group, RowSender

KEY = b"a key"
VIEWS = Group(RowSender("shop"), "views")
VALUES = st.one_of(
    st.text(max_size=50),
    st.sampled_from(
        ["åemail", "\u0165email", "email", "a" * 31, "a" * 32, "a" * 255, "a" * 256, "a" * 70_000]
    ),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
)


def persons(*values: Any, column: str = "email", before: int = 10) -> Persons:
    """Return persons by the values of a column."""
    hashes = tuple(hasher(KEY, "shop", column)(text_of(value)) for value in values)
    return Persons(KEY, (Person("request", "shop", column, hashes, before),))


@given(st.lists(st.dictionaries(st.sampled_from(["email", "xemail", "a"]), VALUES), max_size=5), VALUES)
@example([{"email": "åemail"}], "åemail")
@example([{"a": "\u0165email"}, {"email": 5}, {"email": "x"}], "x")
@example([{"a": "\u0165emai", "b": b"\xa5email\xa1x"}], "x")
@example([{"a": f"åemail\u0780\x01\u0700\x01{'a' * (1 << 16)}"}], "x")  # a map with an array as a key
def test_no_row_is_missed_by_the_look_at_the_bytes(rows: list[dict[str, Any]], value: Any) -> None:
    """Whatever the values are, also if one contains the bytes of the column's name, or even of the column."""
    matcher = persons(value).of("shop")
    assert matcher is not None
    payload = b"".join(map(msgpack.packb, rows))
    theirs = [row for row in rows if row.get("email") is not None and text_of(row["email"]) == text_of(value)]

    pieces = matcher.pieces(payload, VIEWS)
    assert (len(theirs), bool(theirs)) == (sum(len(piece.forgotten) for piece in pieces), bool(pieces))


def test_hashes_depend_on_the_key_the_account_and_the_column() -> None:
    """Nobody can compare persons across accounts, or columns."""
    found = {hasher(key, one, column)(b"x") for key in (b"k", b"l") for one in "ab" for column in "cd"}

    assert 8 == len(found)
    assert {16} == {len(one) for one in found}


def test_a_row_that_came_later_or_of_another_account_is_of_nobody() -> None:
    """A row without a time of receipt counts as earlier."""
    matcher = persons("x", before=10).of("shop")
    assert matcher is not None

    assert [True, False] == [persons("x", before=10).of("shop", at) is not None for at in (10, 11)]
    both = Persons(b"key", persons("x", before=10).persons + persons("y", before=20).persons)
    assert [True, False] == [both.of("shop", at) is not None for at in (20, 21)]
    assert persons("x").of("blog") is None
    arrivals = ({"received_at": 10}, {"received_at": 11}, {})
    assert ["request", "", "request"] == [matcher.request({"email": "x"} | more) for more in arrivals]


def test_an_event_is_recognised_by_any_member_with_its_column_s_name() -> None:
    """As it would be as a row, whatever its sender calls its time of receipt; what is no JSON object is nobody's."""
    matcher = persons("x", '[1,{"a":"b"}]').of("shop")
    assert matcher is not None

    theirs = (
        b'{"email": "x", "EMAIL": "", "received_at": 99}',
        b'{"email": null, "EMail": "x"}',
        b'{"email": [1, {"a": "b"}]}',
    )
    others = (b'{"email": "y"}', b'["x"]', b"{", b'{"email": %b}' % (b"[" * 300 + b"]" * 300))
    assert ["request"] * 3 == [matcher.request_of_event(text, 5) for text in theirs]
    assert [*["request"] * 3, *[""] * 4] == [matcher.request_of_event(text) for text in theirs + others]
