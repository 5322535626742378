"""Rows that wait or are dead, read from the bucket and the ledger."""

import pytest

from local import outcomes, reconciliation
from local.reconciliation import TableOutcome
from shared.accounts import Account
from tests.support.delivery import Delivery, envelope, row, shops, stored

ORDERS = reconciliation.TablePlace("shop_db", "orders")


def undelivered(made: Delivery) -> list[TableOutcome]:
    """Return what has become of the rows that a delivery's bucket and ledger have."""
    return list(outcomes.undelivered(made.ledger, made.objects, {"shop": Account("shop_db")}))


@pytest.mark.parametrize(("status", "state"), [(415, "dead"), (503, "waiting")])
def test_undelivered_rows_are_reported_with_their_reason(status: int, state: str) -> None:
    """The ids come from the object, the state and the reason from the ledger."""
    made = stored(status, envelope("shop", {"orders": [row("0"), row("1")]}))

    assert [TableOutcome(ORDERS, ("0", "1"), state, f"http_{status}")] == undelivered(made)


def test_a_split_chunk_counts_only_its_undelivered_halves() -> None:
    """Its object still contains all rows, including the delivered ones."""
    made = shops(envelope("shop", {"orders": [row(str(n)) for n in range(3)]}))
    for status in (413, 415):  # the probe of the database is of no table
        made.fail(status, table="orders", count=1)
    made.deliver()
    made.send()

    left = tuple(sorted({"0", "1", "2"} - set(made.ids("shop_db", "orders"))))
    assert left in (("0",), ("1", "2"))  # the halves are sent in any order
    assert [TableOutcome(ORDERS, left, "dead", "http_415")] == undelivered(made)
