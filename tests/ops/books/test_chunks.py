"""Chunks that wait or are dead are found through the ledger's worklist and read from their spans."""

from types import SimpleNamespace
from typing import Any

import pytest

from doubles.clock import START
from ops.books.chunks import KINDS, ListedChunk, chunks
from shared.envelope import RejectedEvent, decode
from tests.support.delivery import Delivery, KilledError, envelope, is_settling, kill, once, row
from worker.selection import SCHEDULED, Selection
from worker.states import UNSETTLED, Entry, State

WAITING, DEAD = ("waiting", "ill/views/0"), ("dead", "shop/carts/0")
STRAY, REJECTED = ("dead", "stray/views/0"), ("rejected", "shop/views!too_deep/0")
EVERYTHING = tuple(KINDS.values())


@pytest.fixture(scope="module")
def made() -> Delivery:
    """A delivery with a span of one waiting, one refused and one rejected table, and a later span of dead rows only."""
    found = Delivery().map(ill="ill", shop="shop")
    found.fail(415, table="carts")
    found.fail(429, database="ill", retry_after=100)
    rejected = RejectedEvent(0, "too_deep", "views", b"{}")
    shop = decode(envelope("shop", {"views": [row("s")], "carts": [row("c")]}, request_id="s"))
    found.put(shop._replace(rejected=(rejected,)).encode())
    found.put(envelope("ill", {"views": [row("v")]}, request_id="v"))
    found.deliver()
    found.clock.sleep(3600)
    found.put(envelope("stray", {"views": [row("b")]}, request_id="b"))
    found.deliver(2)
    return found


@pytest.mark.parametrize(
    ("states", "selected", "expected"),
    [
        (EVERYTHING, {}, {WAITING, DEAD, STRAY, REJECTED}),
        (SCHEDULED, {}, {WAITING}),
        ({State.DEAD}, {}, {DEAD, STRAY}),
        ({State.AGAIN}, {}, set()),
        ({State.REJECTED}, {"since": START}, {REJECTED}),
        (EVERYTHING, {"account": "stray"}, {STRAY}),
        ({State.WAITING, State.DEAD}, {"table": "views"}, {WAITING, STRAY}),
        (EVERYTHING, {"reason": "http_415"}, {DEAD}),
        (EVERYTHING, {"reason": "http_429"}, {WAITING}),
        (EVERYTHING, {"since": START + 1800}, {STRAY}),
    ],
)
def test_chunks_can_be_selected(
    made: Delivery, states: set[State], selected: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    """State, account, table, reason and time select them from any part of the worklist; what somebody must look at has a kind."""
    found = chunks(made.ledger, Selection(tuple(states), **selected))

    assert UNSETTLED | {State.DEAD, State.REJECTED} == set(KINDS.values())
    assert expected == {(one.entry.state.value, one.key.name) for one in found}


def test_a_chunk_tells_its_rows_its_reason_and_since_when(made: Delivery) -> None:
    """Waiting rows count from their plan, dead ones from when they died."""
    found = {one.key.name: one for one in chunks(made.ledger, Selection((State.WAITING, State.DEAD)))}
    dead = found["stray/views/0"]

    assert (1, "unknown_account") == (dead.rows, dead.reason)
    assert dead.since == pytest.approx(START + 3600, abs=5)
    assert 7.0 == ListedChunk(dead.span, dead.key, Entry(State.DEAD, at=7000)).since
    assert "http_429" == found["ill/views/0"].reason
    assert "put_again" == ListedChunk(dead.span, dead.key, Entry(State.AGAIN)).reason


def test_rows_without_a_reason_are_selected_by_the_word_that_is_shown_for_them() -> None:
    """Nobody has settled their span yet: they are being sent, or their worker was killed."""
    made = Delivery().map(shop="shop")
    made.put(envelope("shop", {"views": [row("a")]}))
    made.dynamodb.before["update_item"] = once(kill, is_settling)
    with pytest.raises(KilledError):
        made.deliver()
    [shown] = chunks(made.ledger, Selection())

    assert [shown] == list(chunks(made.ledger, Selection(reason=shown.reason)))
    assert [] == list(chunks(made.ledger, Selection(reason="")))


def test_a_span_that_the_worklist_names_twice_counts_once(made: Delivery) -> None:
    """This happens if a span moves to the dead ones while the worklist is read."""

    def worklist(kind: str, number: int, since: float) -> Any:
        return [*made.ledger.worklist("waiting", number, since), *made.ledger.worklist(kind, number)]

    calls = {"get_all": made.ledger.get_all, "rejected": made.ledger.rejected, "worklist": worklist}
    ledger: Any = SimpleNamespace(**calls)
    found = [one.key.name for one in chunks(ledger, Selection(EVERYTHING))]

    assert sorted({WAITING[1], DEAD[1], STRAY[1], REJECTED[1]}) == sorted(found)
