"""Rows that wait or are dead, read from the bucket and the ledger without the worker's code."""

from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from doubles.treasure_data import Action, Fault, Kind
from local import outcomes, reconciliation
from local.reconciliation import TableOutcome
from local.resources import LEDGER, Resources
from shared.accounts import Account
from tests.support.delivery import BUCKET, Delivery, envelope, row
from worker.states import State

ACCOUNTS = {"shop": Account("goods")}
ORDERS = reconciliation.TablePlace("goods", "orders")


@pytest.fixture
def resources(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resources]:
    """An empty bucket and an empty ledger."""
    with mock_aws():
        made = Resources(None, "queue")  # type: ignore[arg-type]  # AWS's own endpoints, which moto answers for
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        made.client("dynamodb").create_table(TableName=made.ledger_table, **LEDGER)
        made.client("s3").create_bucket(Bucket=made.data_bucket)
        yield made


def copy(made: Delivery, resources: Resources) -> None:
    """Copy a delivery's ledger items and objects to the resources."""
    items: Any = made.dynamodb.client.items("ledger")
    for item in items:
        resources.client("dynamodb").put_item(TableName=resources.ledger_table, Item=item)
    for name in made.span_objects():
        body = made.s3.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        resources.client("s3").put_object(Bucket=resources.data_bucket, Key=name, Body=body)


def refused(status: int, rows: int) -> Delivery:
    """Return a delivery with one chunk, whose import Treasure Data has answered with a status."""
    made = Delivery()
    made.map(shop="goods")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=status))
    made.put(envelope("shop", {"orders": [row(str(n)) for n in range(rows)]}))
    made.deliver()
    made.td.faults.clear()
    return made


@pytest.mark.parametrize(("status", "state"), [(415, "dead"), (503, "waiting")])
def test_undelivered_rows_are_reported_with_their_reason(
    resources: Resources, status: int, state: str
) -> None:
    """The ids come from the object, the state and the reason from the ledger."""
    copy(refused(status, 2), resources)

    expected = [TableOutcome(ORDERS, ("0", "1"), state, f"http_{status}")]
    assert expected == list(outcomes.undelivered(resources, ACCOUNTS))


def test_a_split_chunk_counts_only_its_undelivered_halves(resources: Resources) -> None:
    """Its object still contains all rows, including the delivered ones."""
    made = Delivery()
    made.map(shop="goods")
    for status in (413, 415):  # the probe of the database is of no table
        made.td.faults.add(
            Fault(kind=Kind.STATUS, action=Action.IMPORT, table="orders", status=status, count=1)
        )
    made.put(envelope("shop", {"orders": [row(str(n)) for n in range(3)]}))
    made.deliver()
    made.send()
    copy(made, resources)

    left = tuple(sorted({"0", "1", "2"} - set(made.ids("goods", "orders"))))
    assert left in (("0",), ("1", "2"))  # the halves are sent in any order
    assert [TableOutcome(ORDERS, left, "dead", "http_415")] == list(outcomes.undelivered(resources, ACCOUNTS))


def test_delivered_rows_do_not_count_although_their_object_is_kept(resources: Resources) -> None:
    """Objects are kept for ArchiveDays."""
    made = refused(415, 1)
    made.send(State.DEAD)
    copy(made, resources)

    assert 1 == len(made.span_objects())
    assert [] == list(outcomes.undelivered(resources, ACCOUNTS))
