"""Edits of dead letters: other rows in the place of those that were rejected."""

from base64 import b64encode
from gzip import compress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles.treasure_data import Action, Fault, Kind
from shared import rows
from shared.errors import EditRefusedError, LedgerUnavailableError, SetAsideUnavailableError
from tests.support.delivery import BUCKET, Delivery, KilledError, envelope, kill, lose_answer, once, row
from worker.delivery import Entry, State
from worker.edit import decoded, revised, revised_row
from worker.ledger import Place
from worker.set_aside import SetAside
from worker.span import ChunkKey, Span

CHUNK = ChunkKey.parse("shop/views/0")
FIRST, SECOND = CHUNK.halves


def fail(made: Delivery, status: int, count: int | None = None) -> None:
    """Let imports fail."""
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=status, count=count))


def refused() -> Delivery:
    """Return a delivery whose two rows Treasure Data has rejected."""
    made = Delivery()
    made.map(shop="shop_db")
    made.td.create("shop_db", "views")
    made.put(envelope("shop", {"views": [row("e1", page="/a"), row("e2", page="/b")]}))
    fail(made, 422, count=1)
    assert made.deliver() is None
    assert {CHUNK.name: ("dead_letter", "http_422", 2)} == made.aside()
    return made


def halved() -> Delivery:
    """Return a delivery whose two rows were too large together, and rejected alone."""
    made = Delivery()
    made.map(shop="shop_db")
    made.td.create("shop_db", "views")
    made.put(envelope("shop", {"views": [row("e1", page="/a"), row("e2", page="/b")]}))
    fail(made, 413, count=1)
    fail(made, 422, count=2)
    assert made.deliver() is None
    assert {half.name: ("dead_letter", "http_422", 1) for half in (FIRST, SECOND)} == made.aside()
    return made


def packed(*changed: dict[str, Any]) -> bytes:
    """Return rows one after another."""
    return b"".join(map(msgpack.packb, changed))


def span(made: Delivery) -> Span:
    """Return the one span."""
    (one,) = made.spans()
    return one


def entry(made: Delivery, key: ChunkKey = CHUNK) -> Entry:
    """Return what the ledger says of a chunk."""
    return span(made).entry(key)


def letter(made: Delivery, key: ChunkKey = CHUNK) -> SetAside:
    """Return the object that the ledger refers to."""
    known = entry(made, key)
    return made.wiring.store.get(span(made), key, known.edit, known.digest)


def edit(made: Delivery, payload: bytes, key: ChunkKey = CHUNK) -> None:
    """Edit a chunk."""
    one = span(made)
    made.wiring.edits.make(Place(one.chain, one.after), key, payload)


def edit_and_send(made: Delivery, payload: bytes, key: ChunkKey = CHUNK) -> dict[str, Any]:
    """Let the redrive function edit a chunk and send it."""
    one = span(made)
    asked = {
        "chain": one.chain.name,
        "after": one.after,
        "chunk": key.name,
        "rows": b64encode(compress(payload)).decode(),
    }
    return made.invoke_redrive({"edit": asked})


def pages(made: Delivery) -> list[str]:
    """Return the pages of the rows in Treasure Data."""
    return [one["page"] for one in made.td.rows("shop_db", "views")]


EDITED = packed(row("e1", page="/a", note="corrected"), row("e2", page="/c"))


def test_edited_rows_are_delivered_once_and_nothing_of_the_old_ones_stays() -> None:
    """They take the dead letter's place under an id of their own; once delivered, all of its objects are gone."""
    made = refused()
    old_id = span(made).unique_id(CHUNK, "shop_db", 0)

    assert {"delivered": 2, "kept": 0, "dead": 0, "dropped": 0, "complete": True} == edit_and_send(
        made, EDITED
    )
    assert [("/a", "corrected"), ("/c", None)] == [
        (one["page"], one.get("note")) for one in made.td.rows("shop_db", "views")
    ]
    assert [span(made).unique_id(CHUNK, "shop_db", 1)] == [one.unique_id for one in made.td.imports()]
    assert old_id != made.td.imports()[0].unique_id
    assert 0 == made.redrive(State.DEAD_LETTER).delivered
    made.clock.sleep(3600)
    made.invoke_redrive({"sweep": True})
    assert ([], True) == (made.objects(), span(made).is_settled)


def test_the_original_rows_are_kept_until_the_edited_ones_are_delivered() -> None:
    """What is rejected again stays with both; edited once more, the first original is still there."""
    made = refused()
    original = letter(made).payload
    fail(made, 400)
    for number, page in enumerate(("/c", "/d"), 1):
        edited = packed(row("e1", page="/a"), row("e2", page=page))
        edit(made, edited)
        made.redrive(State.DEAD_LETTER)

        assert (edited, original, number) == (letter(made).payload, letter(made).original, entry(made).edit)
        assert {CHUNK.name: ("dead_letter", "http_400", 2)} == made.aside()
    made.td.faults.clear()
    assert 2 == made.redrive(State.DEAD_LETTER).delivered
    assert ["/a", "/d"] == pages(made)


@pytest.mark.parametrize(
    ("client", "hooks", "call", "sent"),
    [
        ("s3", "before", "put_object", ["/a", "/b"]),
        ("s3", "after", "put_object", ["/a", "/b"]),
        ("dynamodb", "before", "update_item", ["/a", "/b"]),
        ("dynamodb", "after", "update_item", ["/a", "/c"]),
    ],
)
def test_an_edit_that_is_broken_off_changes_all_rows_or_none(
    client: str, hooks: str, call: str, sent: list[str]
) -> None:
    """The ledger decides which of the objects counts, and the rows are delivered once."""
    made = refused()
    getattr(getattr(made, client), hooks)[call] = once(kill)
    with pytest.raises(KilledError):
        edit(made, EDITED)

    assert 2 == made.redrive(State.DEAD_LETTER).delivered
    assert sent == pages(made)
    made.clock.sleep(3600)
    made.invoke_redrive({"sweep": True})
    assert [] == made.objects()


def test_an_edit_that_was_broken_off_can_be_made_again() -> None:
    """The object that is there already is the same."""
    made = refused()
    made.dynamodb.before["update_item"] = once(kill)
    with pytest.raises(KilledError):
        edit(made, EDITED)

    assert 2 == edit_and_send(made, EDITED)["delivered"]
    assert ["/a", "/c"] == pages(made)


def test_a_send_that_begins_meanwhile_makes_the_edit_refuse() -> None:
    """The ledger decides: whoever writes first."""
    made = refused()
    other = Delivery.__new__(Delivery)
    vars(other).update(vars(made))
    other.dynamodb = made.dynamodb.client
    other.start()
    made.dynamodb.before["update_item"] = once(lambda: other.redrive(State.DEAD_LETTER))

    with pytest.raises(EditRefusedError, match="being sent at this moment"):
        edit(made, EDITED)
    assert ["/a", "/b"] == pages(made)


def test_an_edit_within_a_redrive_is_not_sent_by_it() -> None:
    """The redrive has read the old rows: it decides again, and sends the new ones."""
    made = refused()
    made.dynamodb.before["update_item"] = once(lambda: edit(made, EDITED))

    assert 2 == made.redrive(State.DEAD_LETTER).delivered
    assert ["/a", "/c"] == pages(made)


@pytest.mark.parametrize("state", [State.PARKED, State.IN_DOUBT, State.DELIVERED, State.DROPPED, State.SPLIT])
def test_only_dead_letters_are_edited(state: State) -> None:
    """What Treasure Data may have, or what goes out by itself, stays as it is."""
    made = refused()
    one = span(made)
    made.ledger.update(
        one.with_entries({CHUNK: Entry(state, 2, since=1 if state is State.IN_DOUBT else None)})
    )
    objects = made.objects()

    with pytest.raises(EditRefusedError, match="not a dead letter of rows, or not any more"):
        edit(made, EDITED)
    assert objects == made.objects()


def test_what_is_not_there_or_holds_no_rows_is_not_edited() -> None:
    """A span that is unknown, a chunk without an entry, and what could not become rows."""
    made = refused()
    one = span(made)
    for place, key in (
        (Place(one.chain, one.last), CHUNK),
        (Place(one.chain, one.after), CHUNK._replace(part=1)),
        (Place(one.chain, one.after), FIRST),
    ):
        with pytest.raises(EditRefusedError, match="not a dead letter"):
            made.wiring.edits.make(place, key, EDITED)
    made.put(b"\xffnonsense")
    made.deliver(1)
    junk = made.spans()[1]

    with pytest.raises(EditRefusedError, match="not a dead letter of rows"):
        made.wiring.edits.make(Place(junk.chain, junk.after), ChunkKey.parse("-/-undecodable/0"), EDITED)


def test_what_cannot_be_read_is_not_edited() -> None:
    """An object with other bytes is not a base for new ones."""
    made = refused()
    (name,) = made.objects()
    made.s3.client.delete_object(Bucket=BUCKET, Key=name)

    with pytest.raises(EditRefusedError, match="cannot be read"):
        edit(made, EDITED)


def test_services_that_are_away_are_said_so() -> None:
    """The same edit may succeed later."""
    made = refused()
    made.s3.before["put_object"] = once(lose_answer)
    with pytest.raises(SetAsideUnavailableError):
        edit(made, EDITED)
    made.dynamodb.before["get_item"] = once(lose_answer)
    with pytest.raises(LedgerUnavailableError):
        edit(made, EDITED)

    assert 2 == edit_and_send(made, EDITED)["delivered"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chain": "nowhere"}, "does not name a chain"),
        ({"chunk": "nothing"}, "does not name a chunk"),
        ({"rows": "%"}, ""),
        ({"rows": b64encode(b"x").decode()}, "gzip"),
        ({"rows": b64encode(compress(b"\xc1")).decode()}, "not rows"),
    ],
)
def test_the_redrive_function_says_what_is_wrong_with_an_edit(change: dict[str, str], said: str) -> None:
    """And sends nothing."""
    made = refused()
    one = span(made)
    asked = {
        "chain": one.chain.name,
        "after": one.after,
        "chunk": CHUNK.name,
        "rows": b64encode(compress(EDITED)).decode(),
    }
    answer = made.invoke_redrive({"edit": asked | change})

    assert "edit_refused" == answer["error"]
    assert said in answer["message"]
    assert [] == made.td.imports()


# Halves


def test_an_edit_of_a_half_changes_that_half_alone() -> None:
    """Its object holds the whole planned chunk, so that each half finds its rows; the other half keeps its own."""
    made = halved()
    edit(made, packed(row("e2", page="/c")), SECOND)

    assert packed(row("e1", page="/a"), row("e2", page="/c")) == letter(made, SECOND).payload
    assert packed(row("e1", page="/a"), row("e2", page="/b")) == letter(made, FIRST).payload
    assert (0, 1) == (entry(made, FIRST).edit, entry(made, SECOND).edit)
    assert 2 == made.redrive(State.DEAD_LETTER).delivered
    assert ["/a", "/c"] == sorted(pages(made))


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_both_halves_can_be_edited(order: tuple[ChunkKey, ChunkKey]) -> None:
    """One after the other, each from its own object: no edit is lost."""
    made = halved()
    new = {FIRST: row("e1", page="/x"), SECOND: row("e2", page="/y")}
    for key in order:
        edit(made, packed(new[key]), key)

    assert 2 == made.redrive(State.DEAD_LETTER).delivered
    assert ["/x", "/y"] == sorted(pages(made))
    made.clock.sleep(3600)
    made.invoke_redrive({"sweep": True})
    assert ([], True) == (made.objects(), span(made).is_settled)


def test_an_edited_half_is_sent_alone() -> None:
    """Its object stays as long as the other half needs one."""
    made = halved()

    assert 1 == edit_and_send(made, packed(row("e1", page="/x")), FIRST)["delivered"]
    assert ["/x"] == pages(made)
    assert {SECOND.name: ("dead_letter", "http_422", 1)} == made.aside()
    assert 1 == made.redrive(State.DEAD_LETTER).delivered
    assert ["/x", "/b"] == pages(made)


def test_a_half_has_its_own_rows_alone() -> None:
    """As many as the half has, not as its planned chunk has."""
    made = halved()

    with pytest.raises(EditRefusedError, match="there were 1 rows and are 2"):
        edit(made, EDITED, FIRST)
    with pytest.raises(EditRefusedError, match="event_id"):
        edit(made, packed(row("e2", page="/c")), FIRST)


def test_an_edited_chunk_that_is_too_large_is_halved() -> None:
    """Halves come from the edited object."""
    made = refused()
    fail(made, 413, count=1)

    assert 2 == edit_and_send(made, EDITED)["delivered"]
    assert ["/a", "/c"] == sorted(pages(made))
    assert [1, 1] == [len(one.rows) for one in made.td.imports()]


# Rows


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ([row("e1")], "there were 2 rows and are 1"),
        ([row("e2"), row("e1")], "event_id tells one event from another and stays 'e1'"),
        ([row("e1") | {"received_at": 1}, row("e2")], "received_at tells one event from another"),
        ([row("e1") | {"time": "2026-11-24"}, row("e2")], "time is UNIX seconds, a whole number"),
        ([row("e1") | {"time": True}, row("e2")], "time is UNIX seconds, a whole number"),
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
def test_bytes_that_are_not_rows_are_refused(payload: bytes) -> None:
    """Nothing but maps is taken for rows."""
    with pytest.raises(EditRefusedError, match="these are not rows"):
        decoded(payload)
