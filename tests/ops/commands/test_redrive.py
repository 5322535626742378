"""`sluice redrive`: what its options select and what it counts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from doubles.treasure_data import Action, Fault, Kind
from ops.commands.redrive import question
from ops.sending import balanced
from tests.support.delivery import Delivery, envelope, row
from worker.states import State

EVERYTHING = [State.WAITING.value, State.AGAIN.value, State.DEAD.value]


def waiting(*tables: str, rows: int = 4) -> Delivery:
    """Return a delivery with waiting rows of the account `ill` in each table."""
    made = Delivery()
    made.map(ill="ill", shop="shop")
    fault = Fault(kind=Kind.STATUS, action=Action.IMPORT, database="ill", status=429, retry_after=100)
    made.td.faults.add(fault)
    made.put(envelope("shop", {"views": [row("s")]}, request_id="s"))
    for table in tables:
        made.put(
            envelope(
                "ill",
                {table: [row(f"{table}{i}", text="x" * (300 if i else 600)) for i in range(rows)]},
                request_id=table,
            )
        )
    made.deliver()
    made.clock.sleep(600)
    made.td.faults.clear()
    return made.start()


def redrive(made: Delivery, **event: Any) -> Mapping[str, Any]:
    """Invoke the sender and return its counts that are not zero."""
    answer = made.invoke_sender({"kinds": EVERYTHING} | event)
    return {name: count for name, count in answer.items() if count and name != "complete"}


def test_waiting_rows_are_delivered_or_die() -> None:
    """Treasure Data refuses one of the two tables. Dead rows that it refuses again are kept."""
    made = waiting("views", "carts")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, table="carts", status=415))

    assert {"delivered": 4, "dead": 4} == redrive(made)
    assert {"kept": 4} == redrive(made)


def test_each_half_of_a_split_chunk_counts_by_its_own_outcome() -> None:
    """A chunk that is too large is split. A single row that is too large dies."""
    made = waiting("views", rows=5)
    made.td.settings = replace(made.td.settings, largest_import=400)

    assert {"delivered": 4, "dead": 1} == redrive(made)


def test_delivered_halves_count_once() -> None:
    """The entries of two halves with the same outcome are merged."""
    made = waiting("views")
    made.td.settings = replace(made.td.settings, largest_import=700)

    assert {"delivered": 4} == redrive(made)


def test_dropped_halves_count_once() -> None:
    """Their entries are merged under the name of the chunk that was split."""
    made = waiting("views", rows=2)
    made.td.settings = replace(made.td.settings, largest_import=10)

    assert {"dead": 2} == redrive(made)
    assert {"dropped": 2} == redrive(made, kinds=["dead"], decision="drop")


def test_rows_of_a_database_that_still_fails_are_kept() -> None:
    """Rows that were not tried are kept too."""
    made = waiting("views", "carts")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=429, retry_after=100))

    assert {"kept": 8} == redrive(made)


def test_dropped_rows_are_counted() -> None:
    """Afterwards nothing is left to redrive."""
    made = waiting("views", "carts")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, table="carts", status=415))
    redrive(made)

    assert {"dropped": 4} == redrive(made, kinds=["dead"], decision="drop")
    assert {} == redrive(made)
    assert {"ill/carts/0": ("dropped", "", 4)} == made.chunks()


def test_only_the_named_chunks_are_sent() -> None:
    """The command names what it has shown; what has come to wait since is left alone."""
    made = waiting("views", "carts")
    [span] = made.spans()
    [carts] = [key.name for key in span.chunks if key.group.table == "carts"]

    assert {"delivered": 4} == redrive(made, chunks=[[span.chain.name, span.after, carts]])
    assert ["ill/views/0"] == list(made.chunks())


def test_each_selected_row_counts_once() -> None:
    """Rows that somebody else settled in the meantime count as untried."""
    outcome = {"delivered": 2, "kept": 1, "dead": 0, "dropped": 0, "copies": 1, "complete": True}

    assert outcome | {"selected": 6, "untried": 2} == balanced(6, outcome)
    assert outcome | {"selected": 4, "untried": 0} == balanced(3, outcome)


@pytest.mark.parametrize(
    ("decision", "asked"),
    [
        ("drop", "This gives up 3 rows: they are never sent. Continue?"),
        (
            "send",
            "This sends 3 rows that Treasure Data may already have, and would then have twice. Continue?",
        ),
        (None, ""),
    ],
)
def test_what_may_lose_or_duplicate_rows_is_asked_first(decision: str | None, asked: str) -> None:
    """A redrive without a decision does neither."""
    assert asked == question(decision, 3)
