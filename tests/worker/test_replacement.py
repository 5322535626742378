"""New rows in place of a chunk: edited rows, repaired events, and rows of tables that were too many."""

from base64 import b64encode
from itertools import batched
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.books.chunks import chunks
from shared import rows
from shared.accounts import Account
from shared.errors import BucketUnavailableError, EditRefusedError, LedgerUnavailableError
from shared.policy import AccountLimits
from tests.support.delivery import BUCKET, Delivery, KilledError, envelope, kill, lose_answer, row, stored
from tests.worker.test_rejected import AT, delivered, event, rejecting
from tests.worker.test_tables import delivery as with_limits
from tests.worker.test_tables import put
from worker.replacement import revised, revised_row, row_of
from worker.rows import compress
from worker.selection import Selection
from worker.span import ChunkKey, Place
from worker.states import State

CHUNK = ChunkKey.parse("shop/views/0")
FIRST, SECOND = CHUNK.halves


def packed(*changed: Any) -> bytes:
    """Return rows packed back to back."""
    return b"".join(map(msgpack.packb, changed))


EDITED = packed(row("e1", page="/a", note="fixed"), row("e2", page="/c"))

TWO = envelope("shop", {"views": [row("e1", page="/a"), row("e2", page="/b")]})


def place(made: Delivery) -> Place:
    """Return the place of the rows' own span."""
    [found] = [span.place for span in made.spans() if span.chain.is_of_stream]
    return found


def edit(made: Delivery, payload: bytes = EDITED, key: ChunkKey = CHUNK) -> Place:
    """Edit a chunk's rows."""
    return made.sender_wiring.replacements.edit(place(made), key, payload).place


def test_edited_rows_are_a_span_of_their_own() -> None:
    """The old chunk is replaced; the new ones go to the account's database of today."""
    made = stored(415, TWO)
    before = made.spans()[0].unique_id(CHUNK, "shop_db")
    where = edit(made)
    new = made.ledger.get(where)
    assert new is not None
    assert {"shop/views/0": ("waiting", "", 2)} == made.chunks(State.WAITING)
    assert (f"{place(made).name}/shop/views/0", {CHUNK: 2}) == (new.origin, new.chunks)
    assert EDITED == made.objects.payload(new, CHUNK)
    made.map(shop="new_db")
    made.start()

    assert 2 == made.send().delivered
    rows = made.td.rows("new_db", "views")
    assert [("/a", "fixed"), ("/c", None)] == [(one["page"], one.get("note")) for one in rows]
    assert [before] != [one.unique_id for one in made.td.imports() if one.rows]
    assert {"replaced"} == {one[0] for one in made.chunks().values()}


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_halves_are_edited_independently(order: tuple[ChunkKey, ChunkKey]) -> None:
    """Each edit is a span of its own, and rows of the other half are refused."""
    made = stored(413, TWO)
    made.fail(415, table="views")
    made.send()
    made.td.faults.clear()
    with pytest.raises(EditRefusedError, match="the number of rows is 2, not 1"):
        edit(made, EDITED, FIRST)
    for key in order:
        edit(made, packed(row("e1", page="/c") if key == FIRST else row("e2", page="/d")), key)
    made.send()

    assert ["/c", "/d"] == sorted(one["page"] for one in made.td.rows("shop_db", "views"))


@pytest.mark.parametrize(("service", "call"), [("s3", "put_object"), ("dynamodb", "transact_write_items")])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("act", [kill, lose_answer])
def test_an_edit_happens_whole_or_not_at_all(service: str, call: str, moment: str, act: Any) -> None:
    """It may be repeated, and the rows arrive once whatever became of the first try."""
    made = stored(415, TWO)
    hooks = getattr(getattr(made, service), moment)
    hooks[call] = lambda _: act()
    with pytest.raises((KilledError, BucketUnavailableError, LedgerUnavailableError)):
        edit(made)
    hooks.clear()
    done = made.chunks(State.REPLACED) != {}
    assert done is (service == "dynamodb" and moment == "after")
    if done:
        with pytest.raises(EditRefusedError, match="is not dead any more"):
            edit(made)
    else:
        edit(made)
    made.send()
    made.send(State.DEAD)

    assert ["/a", "/c"] == sorted(one["page"] for one in made.td.rows("shop_db", "views"))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"chunk": "shop/clicks/0"}, "this chunk is not dead any more"),
        ({"chunk": "views"}, "'views' does not name a chunk"),
        ({"chain": "stream"}, "'stream' does not name a chain"),
        ({"rows": b64encode(b"junk")}, "a gzip member cannot be decompressed"),
        *(
            ({"rows": b64encode(compress(one))}, "these are not rows")
            for one in (b"\xc1", msgpack.packb({"a": 1}) + b"\x81\xa1", packed({1: 2}, {1: 2}))
        ),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused(changed: dict[str, Any], why: str) -> None:
    """The answer says why, and nothing is sent."""
    made = stored(415, TWO)
    where = {"chain": place(made).chain.name, "after": place(made).after, "chunk": CHUNK.name}
    answer = made.invoke_sender({"edit": where | {"rows": b64encode(compress(EDITED))} | changed})

    assert ("edit_refused", True) == (answer["error"], why in answer["message"])
    assert {"shop/views/0": ("dead", "http_415", 2)} == made.chunks()


def test_an_edit_that_another_write_overtakes_is_refused() -> None:
    """The rows may have been sent."""
    made = stored(415, TWO)
    made.dynamodb.before["transact_write_items"] = lambda _: made.send(State.DEAD)
    with pytest.raises(EditRefusedError, match="being written right now"):
        edit(made)

    assert ["e1", "e2"] == made.ids("shop_db", "views")


@pytest.mark.parametrize("status", [500, 429])
def test_only_dead_chunks_without_a_doubt_can_be_edited(status: int) -> None:
    """Treasure Data may have the rows of others, or they are about to be sent. Nor can what is unknown, undecodable or gone."""
    with pytest.raises(EditRefusedError, match="is not dead any more"):
        edit(stored(status, TWO))
    for failure, why in ((500, "redrive --kind dead` asks it first"), (415, "cannot be read")):
        made = stored(failure, TWO)
        with pytest.raises(EditRefusedError, match="is not dead any more"):
            edit(made, key=CHUNK._replace(part=1))
        made.s3.delete_object(Bucket=BUCKET, Key=made.span_objects()[0])
        made.send()
        with pytest.raises(EditRefusedError, match=why):
            edit(made)
    junk = Delivery()
    junk.put(b"\xffnonsense")
    junk.deliver()
    with pytest.raises(EditRefusedError, match="does not hold rows"):
        edit(junk, key=ChunkKey.parse("-/-undecodable/0"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([row("e1")], "the number of rows is 1, not 2"),
        ([row("e2"), row("e1")], "event_id identifies the event and must stay 'e1'"),
        ([row("e1") | {"received_at": 1}, row("e2")], "received_at identifies the event"),
        ([row("e1") | {"time": "2026-11-24"}, row("e2")], "time must be UNIX seconds, a whole number"),
        ([row("e1") | {"time": 1}, row("e2")], "time must be UNIX seconds between the year 2000"),
        ([1, row("e2")], "these are not rows"),
        ([row("e1", **{f"c{n}": 1 for n in range(600)}), row("e2")], "more than 512 columns"),
        ([row("e1", text="x" * 300_000), row("e2")], "300045 bytes"),
    ],
)
def test_rows_that_break_the_rules_are_refused(changed: list[Any], message: str) -> None:
    """An edited row obeys the rules for rows and stays the row of its event."""
    with pytest.raises(EditRefusedError, match=message):
        revised(packed(row("e1"), row("e2")), packed(*changed))


def test_edited_columns_are_normalised() -> None:
    """Names and values become what the ingest would make of an event's."""
    new = row("e1", **{"Page Name": "a", "v": 1, "list": [1, 2], "table": "t"})

    made = msgpack.unpackb(revised_row(row("e1"), new))
    assert {**row("e1"), "page_name": "a", "_v": 1, "list": "[1,2]", "table": "t"} == made


@given(
    st.dictionaries(
        st.text(), st.none() | st.booleans() | st.integers() | st.floats() | st.text(), max_size=20
    )
)
def test_an_unchanged_row_keeps_its_bytes(event: dict[str, Any]) -> None:
    """This holds for whatever the ingest made of an event."""
    made = rows.encode(event, rows.Arrival(received_at=1_700_000_000_000), lambda: "e1")

    assert made == b"".join(revised(made, made))


GOOD = '{"table":"views","event_id":"mended","a":1}'


def asked(made: Delivery, *events: tuple[int, str]) -> dict[str, Any]:
    """Return an event for the sender that repairs the only rejected chunk."""
    [(span, key)] = [(span, key) for span in made.spans() for key in span.chunks if key.group.is_rejected]
    where = {"chain": span.chain.name, "after": span.after, "chunk": key.name}
    return {"repair": {**where, "events": b64encode(compress(msgpack.packb(events))).decode()}}


def test_a_repaired_event_is_delivered_at_once() -> None:
    """It keeps its time of arrival, and without a table its own. One without an id gets the same one however often it is tried."""
    made = delivered(rejecting(event("missing_table", "", b'{"a":1}')))
    assert 1 == made.invoke_sender(asked(made, (AT, GOOD)))["delivered"]
    [one] = made.td.rows("shop_db", "views")
    assert ("mended", AT // 1000, AT, 1) == (one["event_id"], one["time"], one["received_at"], one["a"])
    assert {"shop/!missing_table/0": ("replaced", "", 1)} == made.chunks()

    made = delivered(rejecting(event(table="orders")))
    made.invoke_sender(asked(made, (AT, '{"a":1}'), (AT, '{"a":1}')))
    assert 2 == len(set(made.ids("shop_db", "orders")))


def test_an_event_is_repaired_once() -> None:
    """Whoever repairs it again, replays its record, or repeats its request: nothing more is sent."""
    again = rejecting(event("missing_table", "", b'{"a":1}'), claim=1)
    made = delivered(again)
    repair = asked(made, (AT, GOOD))
    made.invoke_sender(repair)
    made.put(again)

    assert "not rejected any more" in made.invoke_sender(repair)["message"]
    assert (None, None) == (made.deliver(1), made.deliver())
    made.run(made.event() | {"replay": True})
    made.send(*Selection().states, State.DEAD)
    assert ["mended"] == made.ids("shop_db", "views")
    assert {"shop/!missing_table/0": ("replaced", "", 1)} == made.chunks()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("7", "JSON object"),
        ('{"a":1}', "table"),
        ('{"table":"Bad"}', "table name"),
        ('{"table":"views",' + ",".join(f'"c{n}":1' for n in range(600)) + "}", "columns"),
    ],
)
def test_an_invalid_repair_is_refused(text: str, why: str) -> None:
    """Nothing is sent, and the rejected events stay as they are."""
    made = delivered(rejecting(event("missing_table", "", b"{}")))

    answer = made.invoke_sender(asked(made, (AT, GOOD), (AT, text)))

    assert ("repair_refused", True) == (answer["error"], why in answer["message"])
    assert {"shop/!missing_table/0": ("rejected", "", 1)} == made.chunks()
    with pytest.raises(EditRefusedError, match=why):
        row_of(text, AT, "", str)


def test_rows_of_tables_over_the_limit_are_sent_once_there_is_room() -> None:
    """Selected dead rows of that kind become a span with a chunk for each table, also if they are named, as by `sluice redrive`."""
    made = with_limits(tables=10)
    put(made, 0, 30)
    made.deliver()
    made.map(shop=Account("shop_db", limits=AccountLimits(tables=99)))
    made.start()
    assert 0 == made.invoke_sender({})["replaced"]
    named = [listed.name for listed in chunks(made.ledger, Selection((State.DEAD,)))]

    assert 20 == made.invoke_sender({"kinds": ["dead"], "chunks": named})["replaced"]
    made.send()
    assert 30 == len(made.td.counts()["shop_db"])
    assert {("replaced", "", 20)} == set(made.chunks().values())


def test_more_tables_than_fit_into_an_item_are_sent_in_several_turns() -> None:
    """A hostile sender may name thousands in a span. The rest stays as it was, and nobody else's dead rows wait for it."""
    made = with_limits(tables=1)
    names = [f"{n:0>128}" for n in range(1500)]
    for some in batched(names, 300, strict=True):
        made.put(envelope("shop", {name: [row(name[-8:])] for name in some}, request_id=some[0]))
    made.deliver()
    selection = Selection((State.DEAD,))
    while made.sender_wiring.replacements.resend_all(selection, made.deadline()):
        made.clock.sleep(1)

    waiting = [key for one in made.spans() for key, entry in one.all_leaves() if entry.state is State.WAITING]
    assert set(names[1:]) == {key.group.table for key in waiting}
    states = frozenset().union(*(one.states() for one in made.spans()))
    assert {State.DELIVERED, State.REPLACED} == states - {State.WAITING}


def test_rows_of_tables_over_the_limit_with_a_wrong_count_stay_dead() -> None:
    """They do not keep others from being sent."""
    made = with_limits(tables=1)
    made.put(envelope("shop", {f"t_{n}xx": [row(f"x{n}")] for n in range(3)}, counted=2))
    made.deliver()
    made.map(shop=Account("shop_db", limits=AccountLimits(tables=99)))
    made.start()

    assert 0 == made.invoke_sender({"kinds": ["dead"]})["replaced"]
    assert {"dead"} == {one[0] for one in made.chunks().values()}
