"""`sluice redrive`: what its options select and what it counts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from doubles.treasure_data import Action, Fault, Kind
from ops.commands.redrive import question
from tests.support.delivery import Delivery, envelope, row
from tests.support.sluice import Sluice
from worker.delivery import ASIDE

EVERYTHING = [state.value for state in ASIDE]


def parked(*tables: str, rows: int = 4) -> Delivery:
    """Return a delivery with parked rows of the account `ill` in each table."""
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
    made.clock.sleep(5000)
    made.td.faults.clear()
    return made.start()


def redrive(made: Delivery, **event: Any) -> Mapping[str, Any]:
    """Invoke the redrive and return its counts that are not zero."""
    answer = made.invoke_redrive({"kinds": EVERYTHING} | event)
    return {name: count for name, count in answer.items() if count and name != "complete"}


def test_parked_rows_are_delivered_or_become_dead_letters() -> None:
    """Treasure Data refuses one of the two tables. Dead letters that it refuses again are kept."""
    made = parked("views", "carts")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, table="carts", status=415))

    assert {"delivered": 4, "dead": 4} == redrive(made)
    assert {"kept": 4} == redrive(made)


def test_each_half_of_a_split_chunk_counts_by_its_own_outcome() -> None:
    """A chunk that is too large is split. A single row that is too large becomes a dead letter."""
    made = parked("views", rows=5)
    made.td.settings = replace(made.td.settings, largest_import=400)

    assert {"delivered": 4, "dead": 1} == redrive(made)


def test_delivered_halves_count_once() -> None:
    """The entries of two halves with the same outcome are merged."""
    made = parked("views")
    made.td.settings = replace(made.td.settings, largest_import=700)

    assert {"delivered": 4} == redrive(made)


def test_dropped_halves_count_once() -> None:
    """Their entries are merged under the name of the chunk that was split."""
    made = parked("views", rows=2)
    made.td.settings = replace(made.td.settings, largest_import=10)

    assert {"dead": 2} == redrive(made)
    assert {"dropped": 2} == redrive(made, kinds=["dead_letter"], decision="drop")


def test_halves_outside_the_selection_are_kept() -> None:
    """A dead letter that is too large is split into parked halves, which the scheduled redrive sends."""
    made = parked("views")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=415))
    redrive(made)
    made.td.faults.clear()
    made.td.settings = replace(made.td.settings, largest_import=700)

    assert {"kept": 4} == redrive(made, kinds=["dead_letter"])
    assert {"delivered": 4} == redrive(made)


def test_rows_of_a_database_that_still_fails_are_kept() -> None:
    """The breaker lets one span at a time try the database. Rows that were not tried are kept too."""
    made = parked("views", "carts")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=429, retry_after=100))

    assert {"kept": 8} == redrive(made)


def test_dropped_dead_letters_are_counted() -> None:
    """Afterwards nothing is left to redrive, and the bucket is empty."""
    made = parked("views", "carts")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, table="carts", status=415))
    redrive(made)

    assert {"dropped": 4} == redrive(made, kinds=["dead_letter"], decision="drop")
    assert {} == redrive(made)
    assert [] == made.objects()


@pytest.mark.xdist_group("ops")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--send --kind dead", "--send works only with --kind doubt"),
        ("--send --kind parked", "--send works only with --kind doubt"),
        ("--drop --kind parked", "--drop works only with --kind doubt and --kind dead"),
        ("--edit --json", "--edit is interactive and works on dead letters"),
    ],
)
def test_options_that_exclude_each_other_are_rejected(sluice: Sluice, options: str, said: str) -> None:
    """The command exits with 2 and says which combination works."""
    result = sluice.run(f"redrive --local {options}")

    assert (2, True) == (result.exit_code, said in result.stderr)


@pytest.mark.parametrize(
    ("decision", "asked"),
    [
        ("drop", "This gives up 3 rows and deletes Sluice's copies. Continue?"),
        ("send", "Treasure Data may already have these 3 rows, and would then have them twice. Send them?"),
        (None, ""),
    ],
)
def test_what_may_lose_or_duplicate_rows_is_asked_first(decision: str | None, asked: str) -> None:
    """A redrive without a decision does neither."""
    assert asked == question(decision, 3)
