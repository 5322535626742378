"""The administration's door: marked rows, by which Treasure Data is measured."""

from typing import Any

import pytest
from worker.marked import MEASURE_TABLE

from doubles.clock import START
from doubles.treasure_data import Action, Fault, Kind
from tests.support.delivery import Delivery
from worker.admin import Admin
from worker.deadline import Deadline

SENT = {"do": "send_marked", "database": "shop_db", "mark": "m-1", "id": "i-1", "time": int(START)}


def delivery() -> Delivery:
    """Return a delivery whose register holds one active account and a disabled one."""
    made = Delivery()
    fields = {"database": "closed_db", "status": "disabled", "revoked_key_ids": ""}
    assert "error" not in ask(
        made,
        do="apply",
        accounts={"shop": fields | {"database": "shop_db", "status": "active"}, "closed": fields},
    )
    return made


def ask(made: Delivery, **event: Any) -> dict[str, Any]:
    """Have the administration do something."""
    client = made.means.uploader.sender.treasure_data
    admin = Admin(lambda: made.redis, client, made.clock, {"memory_minutes": 60})
    return admin.run(event, Deadline.of(made.clock, 60_000))


def test_a_marked_row_says_what_it_is_and_is_found_again() -> None:
    """Table and database are made where they are missing; a query finds the row by its mark."""
    made = delivery()

    assert {"taken": True, "reason": ""} == ask(made, **SENT)
    assert ["sluice-measure-m-1"] == made.ids("shop_db", MEASURE_TABLE)
    made.clock.sleep(made.query_delay + 1)
    asked = {"do": "ask_marked", "database": "shop_db", "time": int(START)}
    assert {"shown": True, "reason": ""} == ask(made, **asked, mark="m-1")
    assert {"shown": False, "reason": ""} == ask(made, **asked, mark="m-2")


def test_another_row_under_the_same_id_is_taken_for_the_first() -> None:
    """What a name stands for is the same id each time."""
    made = delivery()
    for mark in ("m-1", "m-2"):
        ask(made, **SENT | {"mark": mark})
    ask(made, **SENT | {"mark": "m-3", "id": "i-2"})

    assert ["sluice-measure-m-1", "sluice-measure-m-3"] == made.ids("shop_db", MEASURE_TABLE)


@pytest.mark.parametrize("database", ["closed_db", "elsewhere"])
def test_only_databases_of_active_accounts_are_written_to(database: str) -> None:
    """The door writes nowhere else."""
    made = delivery()

    assert "unknown_database" == ask(made, **SENT | {"database": database})["error"]
    assert {} == made.td.counts()


@pytest.mark.parametrize("mark", ["", "Up", "it's", "a" * 65])
def test_a_mark_that_is_none_is_refused(mark: str) -> None:
    """A mark cannot be anything that means something to a query."""
    assert "error" in ask(delivery(), **SENT | {"mark": mark})


def test_what_treasure_data_does_not_take_or_tell_is_said() -> None:
    """The reason is handed on."""
    made = delivery()
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=503))
    assert {"taken": False, "reason": "http_503"} == ask(made, **SENT)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=403))
    said = ask(made, do="ask_marked", database="shop_db", mark="m", time=1)
    assert {"shown": None, "reason": "forbidden"} == said


def test_a_check_tells_what_the_worker_assumes() -> None:
    """So that a measurement can be compared with it."""
    assert {"memory_minutes": 60} == ask(delivery(), do="check")["assumed"]
