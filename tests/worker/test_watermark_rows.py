"""Watermarks in Treasure Data: every few minutes a row for each table, and one for all tables of an account."""

from typing import Any

from doubles.treasure_data import Action, Fault, Kind
from tests.support import delivery as support
from tests.support.virtual_time import SideBySide, VirtualClock
from tests.worker.test_watermark import INGEST_MARGIN
from tests.worker.test_watermark import Stack as Proof
from worker.watermark_rows import WatermarkRows

TABLE = "sluice_watermarks"


class Stack(Proof):
    """A delivery and the writer of its watermarks."""

    def __init__(self, table: str = TABLE) -> None:
        clock = VirtualClock()
        super().__init__(clock=clock, executors=lambda: SideBySide(clock))
        wiring, made = self.delivery.sender_wiring, self.delivery
        self.rows = WatermarkRows(
            made.ledger,
            self.watermarks,
            wiring.accounts,
            wiring.treasure_data,
            table,
            made.executors,
            made.clock,
            made.telemetry,
        )

    def write(self, pause: float = 400) -> Any:
        """Write watermarks after a while, in which every shard has passed the time at which the queue was empty."""
        self.proved = round((self.clock.now() - INGEST_MARGIN) * 1000)
        self.watermarks.note()
        self.clock.sleep(pause)
        self.delivery.sender_wiring.passing.mark(round(self.clock.now() * 1000))
        self.deliver()
        return self.rows.write(self.delivery.deadline(support.INVOCATION_MS))

    def watermarks_in(self, database: str) -> list[tuple[str, int, int]]:
        """Return each row's table, time before which it is complete, and number of dead rows."""
        rows = self.delivery.td.rows(database, TABLE)
        return [(row["table_name"], row["complete_before"], row["dead"]) for row in rows]


def test_each_account_gets_watermarks_of_its_tables() -> None:
    """They go to a table, created if missing, in its own database. An unknown account gets none."""
    stack = Stack()
    for account in ("shop", "blog", "nobody"):
        stack.put(account)
    stack.deliver()
    written = stack.write()

    assert {"written": 2} == written
    for database in ("shop_db", "blog_db"):
        watermarks = stack.watermarks_in(database)
        assert ["*", "pageviews"] == [table for table, _, _ in watermarks]
        assert {stack.proved} == {at for _, at, _ in watermarks}


def test_a_waiting_row_limits_the_watermark_of_all_tables() -> None:
    """Both watermarks are the time at which the first waiting row was received, and both count what is dead."""
    stack = Stack()
    stack.delivery.td.create("shop_db", "pageviews")
    stack.delivery.fail(422, table="pageviews", count=1)
    stack.put()
    stack.deliver()
    stack.clock.sleep(60)
    received_at = round(stack.put() * 1000)
    stack.clock.sleep(60)
    stack.delivery.fail(503, table="pageviews")
    stack.write()

    assert [("*", received_at, 1), ("pageviews", received_at, 1)] == stack.watermarks_in("shop_db")


def test_a_period_has_one_watermark_per_table() -> None:
    """A run repeated within it changes nothing. An idle account's tables are remembered after their records have expired."""
    stack = Stack()
    stack.put()
    stack.deliver()
    for pause, written in ((400, 2), (1, 2), (9 * 86_400, 4)):
        stack.write(pause)
        assert ["*", "pageviews"] * (written // 2) == [one for one, *_ in stack.watermarks_in("shop_db")]


def test_unknown_watermarks_are_not_written() -> None:
    """Nor are any without a configured table, or while Treasure Data fails. The next run writes them."""
    none, stack = Stack(table=""), Stack()
    stack.put()
    stack.deliver()
    stack.delivery.fail(status=503)
    failed = stack.write()
    stack.delivery.dynamodb.before["query"] = lambda _: support.lose_answer()

    assert {"written": 0, "unknown": "no table is set"} == none.write()
    assert {"written": 0} == failed
    answer = stack.rows.write(stack.delivery.deadline(support.INVOCATION_MS))
    assert {"written": 0, "unknown": "LedgerUnavailableError"} == answer


def test_databases_that_do_not_answer_keep_no_others_from_their_watermarks() -> None:
    """Those of the first accounts would use up the time of each run."""
    stack = Stack()
    accounts = [f"a{number:02}" for number in range(14)]
    stack.delivery.map(**{account: f"{account}_db" for account in accounts})
    for account in (*accounts, "shop"):
        stack.put(account, stack.delivery.clock.now())
    stack.delivery.deliver()
    for account in accounts:
        hang = Fault(kind=Kind.HANG, action=Action.IMPORT, database=f"{account}_db")
        stack.delivery.td.faults.add(hang)

    assert {"written": 1} == stack.write()
    assert stack.watermarks_in("shop_db")
