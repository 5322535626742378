"""Envelopes round-trip, other bytes are rejected, and splitting a request keeps its rows in order."""

from contextlib import suppress

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared import envelope
from shared.envelope import Envelope, RejectedEvent, TableRows
from shared.errors import EnvelopeError

accounts = st.from_regex(r"[a-z0-9_]{3,64}", fullmatch=True)
table_names = st.from_regex(r"[a-z0-9_]{3,128}", fullmatch=True)
tables = st.builds(TableRows, table_names, st.integers(1, 500), st.binary(min_size=1, max_size=50))
rejected = st.builds(
    RejectedEvent,
    st.integers(0, 499),
    st.sampled_from(["missing_table", "too_deep"]),
    st.sampled_from(["", "pageviews"]),
    st.binary(max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
envelopes = st.builds(
    Envelope,
    account=accounts,
    key_id=st.from_regex(r"([a-z0-9]{1,16}(-[0-9]{1,4})?)?", fullmatch=True),
    received_at=st.integers(0, 2**53),
    request_id=st.from_regex(r"[A-Za-z0-9#_.:-]{0,40}|r{128}", fullmatch=True),
    claim=st.integers(0, 1),
    tables=st.lists(tables, min_size=1, max_size=4).map(tuple),
    rejected=st.lists(rejected, max_size=3).map(tuple),
)
ENVELOPE = Envelope("shop", "k1", 1_764_000_000_000, "r1", 0, (TableRows("pageviews", 1, b"\x80"),))


@given(envelopes)
def test_envelopes_round_trip(made: Envelope) -> None:
    """Decoding an encoded envelope returns an equal one. It does not begin like a record in JSON form."""
    data = made.encode()

    assert made == envelope.decode(data)
    assert b"{" != data[:1]


def test_the_wire_format_is_as_documented() -> None:
    """The format is fixed, because another version of the worker may decode the envelope."""
    expected = [1, "shop", "k1", 1_764_000_000_000, "r1", 0, [["pageviews", 1, b"\x80"]], []]
    event = [3, "too_deep", "pageviews", b"{}", "why"]

    made = ENVELOPE._replace(tables=(), rejected=(RejectedEvent(3, "too_deep", "pageviews", b"{}", "why"),))
    assert expected == msgpack.unpackb(ENVELOPE.encode())
    assert [*expected[:-2], [], [event]] == msgpack.unpackb(made.encode())
    assert (made, 0) == (envelope.decode(made.encode()), made.row_count)


@pytest.mark.parametrize(
    ("rest", "message"), [([""], ""), (["why"], "why"), (["why", 7], "why"), (["x" * 999], "x" * 256)]
)
def test_what_a_later_release_adds_to_a_rejected_event_is_left_out(rest: list[object], message: str) -> None:
    """It may write a longer message, or more members."""
    event = [0, "too_deep", "pageviews", b"{}", *rest]

    decoded = envelope.decode(msgpack.packb([*MEMBERS[:-1], [event]]))

    assert [message] == [one.message for one in decoded.rejected]
    assert "" == RejectedEvent(0, "too_deep", "pageviews", b"{}").message


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw an envelope that was changed and truncated."""
    whole = bytearray(draw(envelopes).encode())
    whole[draw(st.integers(0, len(whole) - 1))] = draw(st.integers(0, 255))
    return bytes(whole[: draw(st.integers(0, len(whole)))])


@given(st.binary(max_size=80) | damaged())
def test_other_bytes_raise_only_envelope_errors(data: bytes) -> None:
    """Whatever else is on the stream, or a damaged envelope, is rejected, or still decodes."""
    with suppress(EnvelopeError):
        envelope.decode(data)
    with pytest.raises(EnvelopeError, match="not MessagePack: "):
        envelope.decode(b"\xc1" + data)


MEMBERS = [1, "shop", "k1", 1, "r1", 0, [["pageviews", 1, b"\x80"]], []]

ILLEGAL = {1: ["Shop"], 2: [None, "K1"], 3: [1.5], 4: [7, "r 1", "r" * 129], 5: ["0"], 6: [[]], 7: [None]}
"""Values that a member cannot have, by position."""
ILLEGAL_TABLES = [
    *(["pageviews", 0, b"\x80"], ["pageviews", 1, b""], ["pageviews", 1, "\x80"]),
    *(["Pageviews", 1, b"\x80"], ["pageviews", 1], 7),
]
ILLEGAL_EVENTS = [
    *(7, [-1, "too_deep", "pageviews", b"", ""], [0, "Too/deep", "pageviews", b"", ""]),
    *([0, "too_deep", "p", b"", ""], [0, "too_deep", "pageviews", "", ""]),
    *([0, "too_deep", "pageviews", b""], [0, "too_deep", "pageviews", b"", 7]),
]


def changed(position: int, value: object) -> list[object]:
    """Return the members of an envelope with another value at a position."""
    return [*MEMBERS[:position], value, *MEMBERS[position + 1 :]]


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (changed(0, 2), "version 2"),
        *[(changed(place, value), "not an envelope") for place in ILLEGAL for value in ILLEGAL[place]],
        *[(changed(6, [table]), "illegal table") for table in ILLEGAL_TABLES],
        *[(changed(7, [event]), "illegal rejected event") for event in ILLEGAL_EVENTS],
        *[(members, "not an envelope") for members in (MEMBERS[:-1], [*MEMBERS, 1], [], {}, 7, None)],
    ],
    ids=repr,
)
def test_every_member_is_checked(members: object, why: str) -> None:
    """One of the wrong type, or another number of them, rejects the envelope, and the error says what is wrong."""
    with pytest.raises(EnvelopeError, match=why):
        envelope.decode(msgpack.packb(members))


@st.composite
def requests(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """Draw a request's rows: few or many, small or as large as possible."""
    sizes = st.one_of(st.integers(1, 50), st.integers(1, 256 * 1024))
    names = st.sampled_from(["pageviews", "clicks", "t" * 128])
    drawn = draw(st.lists(st.tuples(names, sizes), max_size=12))
    return [(name, number.to_bytes(4) + bytes(size)) for number, (name, size) in enumerate(drawn)]


@given(requests())
@example([("pageviews", bytes([number]) * 200_000) for number in range(8)])
def test_dividing_keeps_rows_in_order_and_within_the_limit(made: list[tuple[str, bytes]]) -> None:
    """Each envelope has consecutive rows, grouped by table, and none is too large. Those of a batch with an id are the same, with a claim."""
    rest = list(made)
    for number, item in enumerate(envelope.divide(made, "a" * 64, "k" * 16, 2**53, "r1")):
        mine, rest = rest[: item.row_count], rest[item.row_count :]
        by_table = {name: [row for table, row in mine if table == name] for name, _ in mine}

        tables = tuple(TableRows(name, len(rows), b"".join(rows)) for name, rows in by_table.items())
        name = f"r1#{number}" if number else "r1"
        assert Envelope("a" * 64, "k" * 16, 2**53, name, 0, tables) == item
        assert item._replace(claim=1) == envelope.gather(mine, "a" * 64, "k" * 16, 2**53, name)
        assert "r1" == envelope.request_of(item.request_id)
        assert len(item.encode()) <= envelope.MAX_ENVELOPE_BYTES
    assert [] == rest


FULL = 700 * 1024 - 512 - len("pageviews") - 16
"""The number of bytes of rows that fit into an envelope with the single table pageviews."""


@pytest.mark.parametrize(
    ("made", "counts"),
    [
        ([("pageviews", FULL - 1), ("pageviews", 1), ("pageviews", 1)], [2, 1]),
        ([("pageviews", FULL), ("pageviews", 1)], [1, 1]),
        ([("pageviews", FULL - 1 - 6 - 16), ("clicks", 1), ("clicks", 1)], [2, 1]),
        ([("pageviews", FULL - 6 - 16), ("clicks", 1)], [1, 1]),
        ([("pageviews", FULL), ("pageviews", FULL - 1), ("pageviews", 1), ("pageviews", 1)], [1, 2, 1]),
    ],
)
def test_borders_between_envelopes_are_fixed(made: list[tuple[str, int]], counts: list[int]) -> None:
    """Another version divides a request alike, so that an id names the same rows. A table costs its name and 16 bytes."""
    rows = [(table, bytes(size)) for table, size in made]

    assert counts == [item.row_count for item in envelope.divide(rows, "shop", "k1", 1, "r1")]


def test_the_largest_envelope_fits_the_queue() -> None:
    """In base64 and with its attributes, it stays below the 1 MiB of an SQS message."""
    assert (envelope.MAX_ENVELOPE_BYTES + 2) // 3 * 4 + 1024 < 1024 * 1024


def test_a_marker_is_an_envelope_without_account_and_rows() -> None:
    """A marker that has rows or rejected events is not a legal envelope."""
    made = envelope.marker(1_764_000_000_000)
    rejected = (RejectedEvent(0, "c", "", b""),)

    assert Envelope("-", "", 1_764_000_000_000, "", 0, ()) == made == envelope.decode(made.encode())
    for wrong in (made._replace(tables=ENVELOPE.tables), made._replace(rejected=rejected)):
        with pytest.raises(EnvelopeError):
            envelope.decode(wrong.encode())
