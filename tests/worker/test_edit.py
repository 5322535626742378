"""Edits of dead letters: other rows in the place of those that were refused."""

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker.aside import SetAside, decode

from doubles.treasure_data import Action, Fault
from doubles.treasure_data import Kind as FaultKind
from shared import rows
from tests.support.delivery import TABLE, Delivery, envelope, row
from worker.deadline import Deadline
from worker.edit import EditRefusedError, Edits, decoded, revised, revised_row
from worker.redrive import Selection
from worker.span import Kind, Span, State

CHUNK = "shop/views/0"


def refused(status: int = 422) -> Delivery:
    """Return a delivery whose two rows Treasure Data has refused."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(envelope("shop", {"views": [row("e1", page="/a"), row("e2", page="/b")]}))
    made.td.faults.add(Fault(kind=FaultKind.STATUS, action=Action.IMPORT, status=status))
    assert made.deliver() is None
    made.td.faults.clear()
    assert [name.split("/")[1] for name in made.objects()] == ["dead_letter"]
    return made


def edits(made: Delivery) -> Edits:
    """Return what edits a delivery's dead letters."""
    return Edits(made.aside, made.ledger, made.journal)


def packed(*changed: dict[str, Any]) -> bytes:
    """Return rows one after another."""
    return b"".join(map(msgpack.packb, changed))


def letter(made: Delivery) -> SetAside:
    """Return the one object."""
    (name,) = made.objects()
    found = made.aside.get(name)
    assert found is not None
    return found


def span(made: Delivery) -> Span:
    """Return the one span."""
    return next(Span.from_item(item) for item in made.dynamodb.client.items(TABLE) if "first" in item)


EDITED = packed(row("e1", page="/a", note="mended"), row("e2", page="/c"))


def test_edited_rows_are_delivered_once_and_nothing_of_the_old_ones_stays() -> None:
    """They take the dead letter's place under an id of their own; delivered, object and entry are gone."""
    made = refused()
    old = letter(made)
    edits(made).make(old.name, EDITED)
    new = letter(made)
    report = made.redrive.run(Deadline.of(made.clock, 60_000), Selection.of_object(old.name))

    assert (EDITED, old.payload, old.name) == (new.payload, new.original, new.name)
    assert new.unique_id != old.unique_id
    assert new.unique_id == made.td.imports()[-1].unique_id
    assert (2, 0, 0) == (report.delivered, report.kept, report.dead)
    assert [("/a", "mended"), ("/c", None)] == [
        (one["page"], one.get("note")) for one in made.td.rows("shop_db", "views")
    ]
    assert ([], {}) == (made.objects(), span(made).chunks)
    assert made.send_aside(Kind.DEAD_LETTER).delivered == 0


def test_the_original_rows_are_kept_until_the_edited_ones_are_delivered() -> None:
    """What is refused again stays with both; edited once more, the first original is still there."""
    made = refused()
    original = letter(made).payload
    made.td.faults.add(Fault(kind=FaultKind.STATUS, action=Action.IMPORT, status=400))
    for page in ("/c", "/d"):
        edited = packed(row("e1", page="/a"), row("e2", page=page))
        edits(made).make(letter(made).name, edited)
        made.send_aside(Kind.DEAD_LETTER)

        assert (edited, original, "http_400") == (
            letter(made).payload,
            letter(made).original,
            letter(made).reason,
        )
    made.td.faults.clear()
    assert made.send_aside(Kind.DEAD_LETTER).delivered == 2
    assert ["/a", "/d"] == [one["page"] for one in made.td.rows("shop_db", "views")]


def test_an_edit_that_is_broken_off_changes_nothing_for_the_rows() -> None:
    """Between ledger and object the old rows stand there, and are delivered once."""
    made = refused()

    def broken_off(_: Any) -> None:
        raise KeyboardInterrupt

    made.s3.before["put_object"] = broken_off
    with pytest.raises(KeyboardInterrupt):
        edits(made).make(letter(made).name, EDITED)
    made.s3.before.clear()

    assert made.send_aside(Kind.DEAD_LETTER).delivered == 2
    assert ["/a", "/b"] == [one["page"] for one in made.td.rows("shop_db", "views")]


def test_rows_that_treasure_data_may_have_are_not_edited() -> None:
    """While a send of them is in doubt other rows would stand beside them: it is refused."""
    made = refused()
    entry = span(made).chunk(CHUNK)
    made.ledger.update(span(made).with_chunks({CHUNK: replace(entry, since=1)}))

    with pytest.raises(EditRefusedError, match="may have its rows already"):
        edits(made).make(letter(made).name, EDITED)
    assert b"" == letter(made).original


def test_a_send_that_begins_meanwhile_makes_the_edit_refuse() -> None:
    """The ledger decides: whoever writes first."""
    made = refused()

    def meanwhile(_: dict[str, Any]) -> None:
        made.dynamodb.before.clear()
        entry = span(made).chunk(CHUNK)
        made.ledger.update(span(made).with_chunks({CHUNK: replace(entry, since=1)}))

    made.dynamodb.before["update_item"] = meanwhile
    with pytest.raises(EditRefusedError, match="being sent at this moment"):
        edits(made).make(letter(made).name, EDITED)
    assert b"" == letter(made).original


def test_what_has_gone_or_is_no_dead_letter_is_not_edited() -> None:
    """Each is refused with the reason."""
    made = refused()
    name = letter(made).name
    made.send_aside(Kind.DEAD_LETTER)
    with pytest.raises(EditRefusedError, match="it has gone"):
        edits(made).make(name, EDITED)

    made.put(b"\xffnonsense")
    made.deliver(1)
    with pytest.raises(EditRefusedError, match="only rows of dead letters"):
        edits(made).make(letter(made).name, EDITED)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ([row("e1")], "there were 2 rows and are 1"),
        ([row("e2"), row("e1")], "event_id tells one event from another and stays 'e1'"),
        ([row("e1") | {"received_at": 1}, row("e2")], "received_at tells one event from another"),
        ([row("e1") | {"time": "2026-11-24"}, row("e2")], "time is UNIX seconds, a whole number"),
        ([row("e1") | {"time": 1}, row("e2")], "time is UNIX seconds between the year 2000"),
        ([row("e1", **{f"c{n}": 1 for n in range(600)}), row("e2")], "at most 512 columns"),
        ([row("e1", text="x" * 300_000), row("e2")], "the event takes 300"),
    ],
)
def test_rows_that_break_the_rules_are_refused(changed: list[dict[str, Any]], said: str) -> None:
    """An edited row keeps to the rules of rows, and stays the row of its event."""
    with pytest.raises(EditRefusedError, match=said):
        revised(packed(row("e1"), row("e2")), packed(*changed))


def test_columns_follow_the_rules_of_rows() -> None:
    """Names and values become what the ingest makes of an event's."""
    new = row("e1", **{"Page Name": "a", "v": 1, "list": [1, 2], "table": "t"})

    assert {**row("e1"), "page_name": "a", "_v": 1, "list": "[1,2]", "table": "t"} == msgpack.unpackb(
        revised_row(row("e1"), new)
    )


@given(
    st.dictionaries(
        st.text(), st.none() | st.booleans() | st.integers() | st.floats() | st.text(), max_size=20
    )
)
def test_a_row_that_is_left_alone_stays_as_it_is(event: dict[str, Any]) -> None:
    """What the ingest made of an event, whatever it held, is taken byte by byte."""
    made = rows.encode(event, rows.Arrival(received_at=1_700_000_000_000), lambda: "e1")

    assert made == revised(made, made)


@pytest.mark.parametrize("payload", [b"\x01", b"\xc1", msgpack.packb({"a": 1}) + b"\x81\xa1"])
def test_bytes_that_are_no_rows_are_refused(payload: bytes) -> None:
    """Nothing but maps is taken for rows."""
    with pytest.raises(EditRefusedError, match="these are no rows"):
        decoded(payload)


def test_an_object_that_nobody_edited_is_as_before() -> None:
    """It says nothing of original rows, and what was written before there were edits is read."""
    made = refused()
    one = letter(made)

    assert b"original" not in one.encode()
    assert one == decode(one.encode())
    assert replace(one, original=b"\x80") == decode(replace(one, original=b"\x80").encode())
    assert State.ASIDE is span(made).chunk(CHUNK).state
