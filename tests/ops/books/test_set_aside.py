"""Set-aside chunks are found through the ledger's worklist and read from their spans."""

from typing import Any

import pytest
from ops.books.set_aside import KINDS, chunks
from worker.delivery import ASIDE, State

from doubles.clock import START
from doubles.treasure_data import Action, Fault, Kind
from tests.support.delivery import Delivery, envelope, row
from worker.selection import Selection

PARKED, DEAD = ("parked", "ill/views/0"), ("dead_letter", "shop/carts/0")
STRAY = ("dead_letter", "stray/views/0")


@pytest.fixture(scope="module")
def made() -> Delivery:
    """A delivery with a span of one parked and one refused table, and a later span of dead letters only."""
    found = Delivery()
    found.map(ill="ill", shop="shop")
    found.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, table="carts", status=422))
    fault = Fault(kind=Kind.STATUS, action=Action.IMPORT, database="ill", status=429, retry_after=100)
    found.td.faults.add(fault)
    found.put(
        envelope("shop", {"views": [row("s")], "carts": [row("c")]}, request_id="s"),
        envelope("ill", {"views": [row("v")]}, request_id="v"),
    )
    found.deliver()
    found.clock.sleep(3600)
    found.put(envelope("stray", {"views": [row("b")]}, request_id="b"))
    found.deliver(2)
    return found


@pytest.mark.parametrize(
    ("states", "selected", "expected"),
    [
        (ASIDE, {}, {PARKED, DEAD, STRAY}),
        ({State.PARKED}, {}, {PARKED}),
        ({State.DEAD_LETTER}, {}, {DEAD, STRAY}),
        ({State.IN_DOUBT}, {}, set()),
        (ASIDE, {"account": "stray"}, {STRAY}),
        (ASIDE, {"table": "views"}, {PARKED, STRAY}),
        (ASIDE, {"reason": "http_422"}, {DEAD}),
        (ASIDE, {"since": START + 1800}, {STRAY}),
    ],
)
def test_chunks_can_be_selected(
    made: Delivery, states: set[State], selected: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    """State, account, table, reason and time select them from either part of the worklist."""
    found = chunks(made.ledger, Selection(tuple(states), **selected))

    assert expected == {(one.entry.state.value, one.key.name) for one in found}


def test_a_span_that_the_worklist_names_twice_counts_once(made: Delivery) -> None:
    """This happens if a span moves to the dead letters while the worklist is read."""
    listed = list(made.ledger.worklist(dead=False))

    class Moving:
        get = made.ledger.get

        def worklist(self, *, dead: bool) -> Any:
            return iter([*listed, *made.ledger.worklist(dead=True)] if dead else listed)

    ledger: Any = Moving()
    found = [one.key.name for one in chunks(ledger, Selection(tuple(ASIDE)))]

    assert sorted(found) == sorted(set(found))


def test_every_set_aside_state_has_a_kind() -> None:
    """The command line and `sluice status` name states by their kinds."""
    assert ASIDE | {State.REJECTED} == set(KINDS.values())
