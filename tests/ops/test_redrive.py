"""`sluice redrive`: what its options select, and that its sums add up."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from doubles.treasure_data import Action, Fault, Kind
from tests.support.delivery import Delivery, envelope, row
from tests.support.sluice import Sluice
from worker.delivery import ASIDE

EVERYTHING = [state.value for state in ASIDE]


def parked(*tables: str, rows: int = 4) -> Delivery:
    """Return a delivery whose account ill has rows that are parked, by table."""
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
    """Invoke the redrive; return what became of rows, where anything did."""
    answer = made.invoke_redrive({"kinds": EVERYTHING} | event)
    return {name: count for name, count in answer.items() if count and name != "complete"}


def test_a_row_is_delivered_or_a_dead_letter() -> None:
    """Of what was parked, one table is refused; a dead letter that is refused again is kept."""
    made = parked("views", "carts")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, table="carts", status=415))

    assert {"delivered": 4, "dead": 4} == redrive(made)
    assert {"kept": 4} == redrive(made)


def test_halves_count_as_what_became_of_them() -> None:
    """A chunk that is too large is divided; a row that is too large is a dead letter."""
    made = parked("views", rows=5)
    made.td.settings = replace(made.td.settings, largest_import=400)

    assert {"delivered": 4, "dead": 1} == redrive(made)


def test_halves_that_are_delivered_count_once() -> None:
    """The entries of two halves that end alike become one."""
    made = parked("views")
    made.td.settings = replace(made.td.settings, largest_import=700)

    assert {"delivered": 4} == redrive(made)


def test_halves_that_are_dropped_count_once() -> None:
    """Their entries become one, under the name of what they are halves of."""
    made = parked("views", rows=2)
    made.td.settings = replace(made.td.settings, largest_import=10)

    assert {"dead": 2} == redrive(made)
    assert {"dropped": 2} == redrive(made, kinds=["dead_letter"], decision="drop")


def test_halves_that_are_not_selected_any_more_are_kept() -> None:
    """A dead letter that turns out to be too large is parked in halves, which the schedule sends."""
    made = parked("views")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=415))
    redrive(made)
    made.td.faults.clear()
    made.td.settings = replace(made.td.settings, largest_import=700)

    assert {"kept": 4} == redrive(made, kinds=["dead_letter"])
    assert {"delivered": 4} == redrive(made)


def test_what_is_not_reached_or_fails_is_kept() -> None:
    """A database that fails still, and one whose breaker lets one span at a time try it."""
    made = parked("views", "carts")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=429, retry_after=100))

    assert {"kept": 8} == redrive(made)


def test_what_a_person_drops_is_counted() -> None:
    """Dead letters and rows in doubt go; what is parked is not theirs to decide."""
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
def test_options_that_do_not_go_together_are_refused(sluice: Sluice, options: str, said: str) -> None:
    """It ends with 2 and says what would."""
    result = sluice.run(f"redrive --local {options}")

    assert (2, True) == (result.exit_code, said in result.stderr)
