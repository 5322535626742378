"""Statements that find and delete rows in Treasure Data."""

from dataclasses import replace

import pytest

from doubles.treasure_data import Action, Fault, Kind
from tests.support.delivery import Delivery, envelope, row, shops
from worker.forget.sql import by_id, by_value, columns_of_tables, counting, deleting, selecting
from worker.treasure_data.answer import TdAnswer
from worker.treasure_data.statement import End, Job, RowId, Statements

HOUR = 3600.0


def delivery() -> tuple[Delivery, Statements]:
    """Return a delivery of two rows, which queries see."""
    rows = [row("a", email="o'hara@example.com"), row("b", email="x", user=5)]
    made = shops(envelope("shop", {"views": rows}))
    made.deliver()
    made.clock.sleep(HOUR)
    return made, made.sender_wiring.treasure_data.statements


def test_rows_are_counted_read_and_deleted_by_value() -> None:
    """A value is compared as text, whatever signs it has; rows that came later stay. No statement begins once the time is up."""
    made, statements = delivery()
    condition = by_value("email", ["o'hara@example.com"], 1_700_000_000_000)
    early = by_value("email", ["o'hara@example.com"], 1_699_999_999_999)
    until = made.deadline()

    for number, one in ((1, condition), (0, early), (1, by_value("user", ["5"], 10**13))):
        assert number == statements.run("shop_db", counting("views", one), until).count
    assert End.UNKNOWN is statements.run("shop_db", deleting("views", condition), made.deadline(0)).end
    assert [["a"]] == statements.run("shop_db", selecting("views", ["event_id"], condition), until).rows
    assert End.SUCCESS is statements.run("shop_db", deleting("views", condition), until).end
    assert ["b"] == made.ids("shop_db", "views")


def test_rows_are_deleted_by_their_ids_in_whatever_order_they_were_found() -> None:
    """The condition has the earliest and the latest time."""
    made, statements = delivery()
    made.put(envelope("shop", {"views": [row("late", 1_700_086_400)]}))
    made.deliver(1)
    made.clock.sleep(HOUR)
    rows = list(filter(None, map(RowId.of, made.td.rows("shop_db", "views"))))

    ended = statements.run("shop_db", deleting("views", by_id(rows[:0:-1])), made.deadline())
    assert End.SUCCESS is ended.end
    assert ["a"] == made.ids("shop_db", "views")


def test_a_result_of_hours_ago_counts_nothing() -> None:
    """A cache may answer with the one of the same statement."""
    made, statements = delivery()
    made.td.settings = replace(made.td.settings, job_age=1000.0)
    condition = by_value("email", ["x"], 10**13)
    job = statements.run("shop_db", counting("views", condition), made.deadline(30_000))

    assert (End.UNKNOWN, None) == (job.end, job.count)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_page_of_a_proxy_settles_nothing(status: int) -> None:
    """Rows of persons would be taken for deleted with their database, or for those that somebody else must delete."""
    made, _ = delivery()
    statements = Statements(lambda *_, **__: TdAnswer(status, b"<html>"), made.clock)

    assert End.UNKNOWN is statements.run("shop_db", "SELECT 1", made.deadline(30_000)).end


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"[1]\n[2"), (200, b"[\xff]"), (200, b"[" * 100_000), (503, b"[1]")],
    ids=["cut off", "no text", "too deep", "status"],
)
def test_a_result_that_is_cut_off_has_no_rows(status: int, body: bytes) -> None:
    """Nor has one that is no JSON, or an error."""
    job = Job(End.SUCCESS, 1, 0.0, TdAnswer(status, body))

    assert ([], None) == (job.rows, job.count)


def test_tables_are_listed_with_their_columns() -> None:
    """A database that does not exist has none; without an answer nobody knows."""
    made, statements = delivery()
    tables = columns_of_tables(statements.api, "shop_db")

    assert tables is not None
    assert {"time", "event_id", "received_at", "email", "user"} == set(tables["views"])
    assert {} == columns_of_tables(statements.api, "no_such_db")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.LIST, status=500))
    assert columns_of_tables(statements.api, "shop_db") is None
