"""Questions about many chunks at once: each gets the answer that it would get alone."""

from collections.abc import Sequence

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from doubles.clock import ManualClock
from doubles.treasure_data import TreasureData
from tests.support.delivery import row
from tests.worker.test_treasure_data_client import client_of
from worker.deadline import Deadline
from worker.rows import compress
from worker.states import Presence

CHUNKS = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=4, unique_by=lambda one: one[0]),
    min_size=1,
    max_size=6,
)
"""Chunks of rows: each row's number, and whether Treasure Data has it."""
STRANGE = "it's \" {0} %s; --\n"


def asked(td: TreasureData, chunks: Sequence[Sequence[object]]) -> list[Presence]:
    """Return the client's answer."""
    clock = ManualClock()
    return client_of(td.handle, clock).ask("shop_db", "views", chunks, Deadline(clock, clock.now() + 60))


def imported(rows: Sequence[object]) -> TreasureData:
    """Return a Treasure Data that has these rows."""
    td = TreasureData()
    td.create("shop_db", "views")
    clock = ManualClock()
    body = compress(b"".join(msgpack.packb(one) for one in (row("other"), *rows)))
    client_of(td.handle, clock).send("shop_db", "views", "0" * 32, body, 5)
    return td


@given(chunks=CHUNKS, unidentified=st.sets(st.integers(0, 5)))
def test_each_chunk_gets_its_own_answer_from_one_query(
    chunks: list[list[tuple[int, bool]]], unidentified: set[int]
) -> None:
    """Present if all its rows are there, absent if none is, else undecided; unaskable only if no query can identify its rows."""
    rows = [
        [row(f"{place}-{number}{STRANGE}") for number, _ in chunk] + [{"time": 1}] * (place in unidentified)
        for place, chunk in enumerate(chunks)
    ]
    there = [
        one
        for chunk, found in zip(chunks, rows, strict=True)
        for (_, is_there), one in zip(chunk, found, strict=False)
        if is_there
    ]
    td = imported(there)

    def expected(place: int) -> Presence:
        if not chunks[place] or place in unidentified:
            return Presence.UNASKABLE
        found = {is_there for _, is_there in chunks[place]}
        if found == {True}:
            return Presence.PRESENT
        return Presence.ABSENT if found == {False} else Presence.UNDECIDED

    answers = asked(td, rows)

    assert [expected(place) for place in range(len(chunks))] == answers
    assert td.queries <= 1
    assert answers == [answer for one in rows for answer in asked(td, [one])]


def test_a_table_that_does_not_show_our_columns_is_asked_by_time_for_all_chunks_at_once() -> None:
    """The second query has a count for each chunk too: only the one of a second without rows is absent."""
    td = TreasureData()
    td.create("shop_db", "views")
    clock = ManualClock()
    body = compress(msgpack.packb({"time": 1_700_000_000, "x": 1}))
    client_of(td.handle, clock).send("shop_db", "views", "0" * 32, body, 5)
    chunks = [[row("e1")], [row("e2", time=1_700_000_001)]]

    assert [Presence.UNDECIDED, Presence.ABSENT] == asked(td, chunks)
    assert 2 == td.queries
