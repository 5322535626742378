"""Edits of dead letters: other rows in place of the rejected ones."""

from dataclasses import replace
from gzip import decompress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles.treasure_data import Action, Fault
from doubles.treasure_data import Kind as FaultKind
from shared import rows
from shared.errors import BucketUnavailableError, EditRefusedError
from tests.support.delivery import BUCKET, Delivery, KilledError, envelope, kill, lose_answer, once, row
from worker.delivery import State
from worker.edit import decoded, revised, revised_row
from worker.ledger import Place
from worker.redrive import RedriveReport
from worker.set_aside import SetAside, decode
from worker.span import ChunkKey, Span
from worker.sweeper import YOUNGEST_SECONDS

CHUNK = ChunkKey.parse("shop/views/0")
FIRST, SECOND = CHUNK.halves


def packed(*changed: dict[str, Any]) -> bytes:
    """Return rows packed back to back."""
    return b"".join(map(msgpack.packb, changed))


ORIGINAL = packed(row("e1", page="/a"), row("e2", page="/b"))
EDITED = packed(row("e1", page="/a", note="fixed"), row("e2", page="/c"))


def fault(made: Delivery, status: int, count: int | None = None) -> None:
    """Make imports fail with a status."""
    made.td.faults.add(Fault(kind=FaultKind.STATUS, action=Action.IMPORT, status=status, count=count))


def rejected(*, halved: bool = False) -> Delivery:
    """Return a delivery of two rows that Treasure Data rejected, together or one by one."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(envelope("shop", {"views": [row("e1", page="/a"), row("e2", page="/b")]}))
    if halved:
        fault(made, 413, count=1)
    fault(made, 415)
    assert made.deliver() is None
    made.td.faults.clear()
    chunks = (FIRST, SECOND) if halved else (CHUNK,)
    assert {key.name: ("dead_letter", "http_415", 2 // len(chunks)) for key in chunks} == made.aside()
    return made


def span(made: Delivery) -> Span:
    """Return the only span."""
    (found,) = made.spans()
    return found


def edit(made: Delivery, payload: bytes = EDITED, key: ChunkKey = CHUNK) -> None:
    """Edit a chunk's rows."""
    found = span(made)
    made.redrive_wiring.edits.make(Place(found.chain, found.after), key, payload)


def letter(made: Delivery, key: ChunkKey = CHUNK) -> SetAside:
    """Return the set-aside object that holds a chunk's rows."""
    entry = span(made).entry(key)
    return made.store.get(span(made), key, entry.edit, entry.digest)


def redrive(made: Delivery, key: ChunkKey) -> RedriveReport:
    """Redrive one dead letter."""
    found = span(made)
    return made.redrive(State.DEAD_LETTER, place=Place(found.chain, found.after), chunk=key)


def pages(made: Delivery) -> list[str]:
    """Return the `page` column of the rows in Treasure Data."""
    return [one["page"] for one in made.td.rows("shop_db", "views")]


def change_entry(made: Delivery, **changes: Any) -> None:
    """Change the chunk's entry in the ledger."""
    found = span(made)
    won, _ = made.ledger.update(found.with_entries({CHUNK: replace(found.entry(CHUNK), **changes)}))
    assert won


def test_edited_rows_are_delivered_once() -> None:
    """They replace the dead letter under a new id. Once delivered, nothing of the chunk is set aside."""
    made = rejected()
    old = letter(made)
    edit(made)
    new = letter(made)

    assert (EDITED, ORIGINAL, 1) == (new.payload, new.original, new.edit)
    assert (old.object_id, old.chunk, old.sequence_numbers) == (
        new.object_id,
        new.chunk,
        new.sequence_numbers,
    )
    assert RedriveReport(delivered=2) == redrive(made, CHUNK)
    assert [("/a", "fixed"), ("/c", None)] == [
        (one["page"], one.get("note")) for one in made.td.rows("shop_db", "views")
    ]
    assert {} == span(made).entries
    assert RedriveReport() == made.redrive(State.DEAD_LETTER)


def test_edited_rows_are_sent_under_another_id() -> None:
    """Treasure Data may remember the id of the rejected rows."""
    made = rejected()
    before, found = span(made).entry(CHUNK), span(made)
    edit(made)
    after = span(made).entry(CHUNK)
    redrive(made, CHUNK)
    ids = [found.unique_id(CHUNK, "shop_db", entry.generation) for entry in (before, after)]

    assert ids[0] != ids[1]
    assert [ids[1]] == [one.unique_id for one in made.td.imports()]


def test_an_edit_keeps_state_reason_and_age() -> None:
    """A selection by any of them still finds the dead letter."""
    made = rejected()
    before = span(made).entry(CHUNK)
    made.clock.sleep(60)
    edit(made)
    expected = replace(before, edit=1, generation=before.generation + 1, digest=letter(made).digest)

    assert expected == span(made).entry(CHUNK)


def test_the_sweeper_removes_the_objects_of_an_edit() -> None:
    """Once the edited rows are delivered, the object of the original rows goes as well."""
    made = rejected()
    edit(made)
    assert 2 == len(made.objects())
    redrive(made, CHUNK)
    made.clock.sleep(YOUNGEST_SECONDS)
    made.invoke_redrive({"sweep": True})

    assert [] == made.objects()


def test_the_original_rows_are_kept_until_the_edited_ones_are_delivered() -> None:
    """If edited rows are rejected again and edited once more, the first original is still there."""
    made = rejected()
    fault(made, 405)
    for times, page in enumerate(("/c", "/d"), 1):
        edited = packed(row("e1", page="/a"), row("e2", page=page))
        edit(made, edited)
        made.redrive(State.DEAD_LETTER)
        found = letter(made)

        assert (edited, ORIGINAL, times) == (found.payload, found.original, found.edit)
        assert {"shop/views/0": ("dead_letter", "http_405", 2)} == made.aside()
    made.td.faults.clear()

    assert 2 == made.redrive(State.DEAD_LETTER).delivered
    assert ["/a", "/d"] == pages(made)


def test_an_edit_of_a_half_keeps_the_other_half() -> None:
    """Its object holds the whole planned chunk, with only the rows of the half replaced."""
    made = rejected(halved=True)
    other = span(made).entry(SECOND)
    edit(made, packed(row("e1", page="/c")), FIRST)
    found = letter(made, FIRST)

    assert (packed(row("e1", page="/c"), row("e2", page="/b")), ORIGINAL) == (found.payload, found.original)
    assert other == span(made).entry(SECOND)
    assert ORIGINAL == letter(made, SECOND).payload
    assert RedriveReport(delivered=1) == redrive(made, FIRST)
    assert ["/c"] == pages(made)
    assert {"shop/views/0.1": ("dead_letter", "http_415", 1)} == made.aside()
    assert RedriveReport(delivered=1) == redrive(made, SECOND)
    assert ["/c", "/b"] == pages(made)


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_both_halves_can_be_edited(order: tuple[ChunkKey, ChunkKey]) -> None:
    """Each edit has its own object, and neither undoes the other."""
    made = rejected(halved=True)
    for key in order:
        edit(made, packed(row("e1", page="/c") if key == FIRST else row("e2", page="/d")), key)
    made.redrive(State.DEAD_LETTER)
    made.clock.sleep(YOUNGEST_SECONDS)
    made.invoke_redrive({"sweep": True})

    assert ["/c", "/d"] == sorted(pages(made))
    assert ({}, []) == (span(made).entries, made.objects())


def test_an_edit_of_a_half_accepts_only_rows_of_the_half() -> None:
    """Rows of the other half are refused."""
    made = rejected(halved=True)

    with pytest.raises(EditRefusedError, match="the number of rows is 2, not 1"):
        edit(made, EDITED, FIRST)
    with pytest.raises(EditRefusedError, match="event_id identifies the event and must stay 'e2'"):
        edit(made, packed(row("e1", page="/c")), SECOND)


def test_an_edit_killed_before_its_object_is_written_changes_nothing() -> None:
    """The ledger still names the original rows, which are delivered once."""
    made = rejected()
    made.s3.before["put_object"] = lambda _: kill()
    with pytest.raises(KilledError):
        edit(made)
    made.s3.before.clear()

    assert 2 == made.redrive(State.DEAD_LETTER).delivered
    assert ["/a", "/b"] == pages(made)


def test_an_edit_killed_between_object_and_ledger_changes_nothing() -> None:
    """The ledger still names the original rows, and the edit can be repeated."""
    made = rejected()
    made.dynamodb.before["update_item"] = once(kill)
    with pytest.raises(KilledError):
        edit(made)
    assert ORIGINAL == letter(made).payload
    edit(made)

    assert 2 == made.redrive(State.DEAD_LETTER).delivered
    assert ["/a", "/c"] == pages(made)


def test_an_edit_whose_object_is_not_acknowledged_is_not_made() -> None:
    """Without S3's answer the ledger is not changed."""
    made = rejected()
    before = span(made)
    made.s3.after["put_object"] = lambda _: lose_answer()

    with pytest.raises(BucketUnavailableError):
        edit(made)
    assert before == span(made)


@pytest.mark.parametrize("state", [State.PARKED, State.IN_DOUBT, State.PENDING])
def test_only_dead_letters_can_be_edited(state: State) -> None:
    """Treasure Data may have the rows of other chunks, and would then have the edited ones as well."""
    made = rejected()
    change_entry(made, state=state, since=1 if state is State.IN_DOUBT else None)
    before = span(made)

    with pytest.raises(EditRefusedError, match="this is not a dead letter of rows, or is one no longer"):
        edit(made)
    assert before == span(made)


def test_an_edit_is_refused_if_a_send_begins_meanwhile() -> None:
    """Whichever writes to the ledger first wins."""
    made = rejected()

    def send_meanwhile(_: dict[str, Any]) -> None:
        made.dynamodb.before.clear()
        assert 2 == redrive(made, CHUNK).delivered

    made.dynamodb.before["update_item"] = send_meanwhile

    with pytest.raises(EditRefusedError, match="being sent right now"):
        edit(made)
    assert ["/a", "/b"] == pages(made)
    assert {} == span(made).entries


def test_an_edit_before_a_send_s_fence_wins() -> None:
    """The redrive has read the original rows, but decides again and sends only the edited ones."""
    made = rejected()

    def edit_meanwhile(_: dict[str, Any]) -> None:
        made.dynamodb.before.clear()
        edit(made)

    made.dynamodb.before["update_item"] = edit_meanwhile

    assert RedriveReport(delivered=2) == redrive(made, CHUNK)
    assert ["/a", "/c"] == pages(made)


def test_delivered_and_unknown_chunks_cannot_be_edited() -> None:
    """The refusal says why."""
    made = rejected()
    found = span(made)
    made.redrive(State.DEAD_LETTER)
    refusal = "this is not a dead letter of rows, or is one no longer"

    with pytest.raises(EditRefusedError, match=refusal):
        edit(made)
    with pytest.raises(EditRefusedError, match=refusal):
        made.redrive_wiring.edits.make(Place(found.chain, found.last), CHUNK, EDITED)
    with pytest.raises(EditRefusedError, match=refusal):
        edit(made, key=CHUNK._replace(part=1))


def test_undecodable_records_cannot_be_edited() -> None:
    """They have no rows that the rules could be applied to."""
    made = Delivery()
    made.put(b"\xffnonsense")
    made.deliver()
    (name,) = made.aside()

    with pytest.raises(EditRefusedError, match="this is not a dead letter of rows"):
        edit(made, EDITED, ChunkKey.parse(name))


def test_a_dead_letter_without_its_object_cannot_be_edited() -> None:
    """The original rows are needed to check which rows the edited ones replace."""
    made = rejected()
    (name,) = made.objects()
    made.s3.delete_object(Bucket=BUCKET, Key=name)

    with pytest.raises(EditRefusedError, match="the set-aside object with its rows cannot be read"):
        edit(made)
    assert [] == made.objects()


def test_an_edit_is_logged_without_its_rows() -> None:
    """The line gives the account, the table and the number of rows."""
    made = rejected()
    edit(made)

    assert [{"account": "shop", "table": "views", "rows": 2}] == made.telemetry.said("edited")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([row("e1")], "the number of rows is 1, not 2"),
        ([row("e2"), row("e1")], "event_id identifies the event and must stay 'e1'"),
        ([row("e1") | {"received_at": 1}, row("e2")], "received_at identifies the event"),
        ([row("e1") | {"time": "2026-11-24"}, row("e2")], "time must be UNIX seconds, a whole number"),
        ([row("e1") | {"time": 1}, row("e2")], "time must be UNIX seconds between the year 2000"),
        ([row("e1", **{f"c{n}": 1 for n in range(600)}), row("e2")], "more than 512 columns"),
        ([row("e1", text="x" * 300_000), row("e2")], "300045 bytes"),
    ],
)
def test_rows_that_break_the_rules_are_refused(changed: list[dict[str, Any]], message: str) -> None:
    """An edited row obeys the rules for rows and stays the row of its event."""
    with pytest.raises(EditRefusedError, match=message):
        revised(packed(row("e1"), row("e2")), packed(*changed))


def test_edited_columns_are_normalised() -> None:
    """Names and values become what the ingest would make of an event's."""
    new = row("e1", **{"Page Name": "a", "v": 1, "list": [1, 2], "table": "t"})

    assert {**row("e1"), "page_name": "a", "_v": 1, "list": "[1,2]", "table": "t"} == msgpack.unpackb(
        revised_row(row("e1"), new)
    )


@given(
    st.dictionaries(
        st.text(), st.none() | st.booleans() | st.integers() | st.floats() | st.text(), max_size=20
    )
)
def test_an_unchanged_row_keeps_its_bytes(event: dict[str, Any]) -> None:
    """This holds for whatever the ingest made of an event."""
    made = rows.encode(event, rows.Arrival(received_at=1_700_000_000_000), lambda: "e1")

    assert made == revised(made, made)


@pytest.mark.parametrize("payload", [b"\x01", b"\xc1", msgpack.packb({"a": 1}) + b"\x81\xa1"])
def test_bytes_that_are_not_rows_are_refused(payload: bytes) -> None:
    """Only maps are rows."""
    with pytest.raises(EditRefusedError, match="these are not rows"):
        decoded(payload)


@pytest.mark.parametrize("original", [b"", ORIGINAL])
def test_an_object_says_whether_it_was_edited(original: bytes) -> None:
    """It holds original rows only if somebody edited them, and round-trips."""
    one = replace(letter(rejected()), original=original)

    assert one == decode(one.encode())
    assert bool(original) is (b'"original": "' in decompress(one.encode()))


def test_an_unedited_object_has_no_original_rows() -> None:
    """The worker sets chunks aside without them."""
    assert (b"", 0) == (letter(rejected()).original, letter(rejected()).edit)
