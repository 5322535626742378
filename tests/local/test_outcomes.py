"""Set-aside rows, read from the bucket and the ledger without the worker's code."""

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from moto import mock_aws
from worker.delivery import State

from doubles.treasure_data import Action, Fault, Kind
from local import outcomes, reconciliation
from local.reconciliation import TableOutcome
from local.resources import LEDGER, Resources
from shared.accounts import Account
from tests.support.delivery import Delivery, envelope, row
from worker.ledger import Place

ACCOUNTS = {"shop": Account("goods")}
ORDERS = reconciliation.TablePlace("goods", "orders")


@pytest.fixture
def resources(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resources]:
    """An empty bucket and an empty ledger."""
    with mock_aws():
        made = Resources(None, "queue")  # type: ignore[arg-type]  # AWS's own endpoints, which moto answers for
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        made.client("dynamodb").create_table(TableName=made.ledger_table, **LEDGER)
        made.client("s3").create_bucket(Bucket=made.aside_bucket)
        yield made


def copy(made: Delivery, resources: Resources) -> None:
    """Copy a delivery's ledger items and objects to the resources."""
    items: Any = made.dynamodb.client.items("ledger")
    for item in items:
        resources.client("dynamodb").put_item(TableName=resources.ledger_table, Item=item)
    for name in made.objects():
        body = made.s3.get_object(Bucket="aside", Key=name)["Body"].read()
        resources.client("s3").put_object(Bucket=resources.aside_bucket, Key=name, Body=body)


def dead(*sizes: int) -> Delivery:
    """Return a delivery with rows of these sizes, all of which Treasure Data has refused."""
    made = Delivery()
    made.map(shop="goods")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=415))
    made.put(envelope("shop", {"orders": [row(str(n), text="x" * size) for n, size in enumerate(sizes)]}))
    made.deliver()
    made.td.faults.clear()
    return made


def test_a_dead_letter_is_reported_with_its_reason(resources: Resources) -> None:
    """The ids come from the object, the kind and the reason from the ledger."""
    copy(dead(1, 1), resources)

    expected = [TableOutcome(ORDERS, ("0", "1"), "dead_letter", "http_415")]
    assert expected == list(outcomes.set_aside(resources, ACCOUNTS))


def test_a_split_chunk_counts_only_its_set_aside_halves(resources: Resources) -> None:
    """Its object still contains all rows, including the delivered ones."""
    made = dead(1, 1, 1)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=413, count=1))
    made.redrive(State.DEAD_LETTER)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=415, count=1))
    made.redrive()
    copy(made, resources)

    left = tuple(sorted({"0", "1", "2"} - set(made.ids("goods", "orders"))))
    assert left in (("0",), ("1", "2"))  # the redrive tries the halves in any order
    assert [TableOutcome(ORDERS, left, "dead_letter", "http_415")] == list(
        outcomes.set_aside(resources, ACCOUNTS)
    )


def test_an_edited_chunk_counts_once(resources: Resources) -> None:
    """The object with the original rows is kept until the edited rows are delivered."""
    made = dead(1)
    (span,) = made.spans()
    (key,) = span.entries
    edited = msgpack.packb(row("0", text="mended"))
    made.redrive_wiring.edits.make(Place(span.chain, span.after), key, edited)
    copy(made, resources)

    assert 2 == len(made.objects())
    assert [("0",)] == [one.event_ids for one in outcomes.set_aside(resources, ACCOUNTS)]


def test_a_delivered_chunk_does_not_count_even_if_its_object_is_left(resources: Resources) -> None:
    """A redrive that is killed may leave the object behind."""
    made = dead(1)
    copy(made, resources)
    made.redrive(State.DEAD_LETTER)
    for item in made.dynamodb.client.items("ledger"):
        resources.client("dynamodb").put_item(TableName=resources.ledger_table, Item=item)

    assert [] == list(outcomes.set_aside(resources, ACCOUNTS))
