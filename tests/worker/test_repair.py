"""Repaired events and rows of tables over the limit go back to the stream and count once."""

from base64 import b64encode
from typing import Any

import msgpack
import pytest

from doubles.aws_errors import client_error
from ops.books.accounting import by_group
from shared.accounts import Account
from shared.errors import EditRefusedError
from shared.policy import AccountLimits
from tests.support.delivery import BUCKET, KEYS, Delivery
from tests.worker.test_rejected import AT, delivered, envelope, event, objects
from tests.worker.test_tables import delivery, put
from worker.chunk import compress
from worker.delivery import State
from worker.repair import row_of

GOOD = '{"table":"views","event_id":"mended","a":1}'


def asked(made: Delivery, *events: tuple[int, str]) -> dict[str, Any]:
    """Return a redrive event that repairs the only rejected chunk."""
    [(span, key)] = [
        (span, key)
        for span in made.spans()
        for key, entry in span.entries.items()
        if entry.state is State.REJECTED
    ]
    place = {"chain": span.chain.name, "after": span.after, "chunk": key.name}
    return {"repair": {**place, "events": b64encode(compress(msgpack.packb(events))).decode()}}


def rejected(made: Delivery) -> int:
    """Return the ledger's count of rejected events."""
    return sum(
        states.total()
        for span in made.spans()
        for group, states in by_group(span).items()
        if group.is_rejected
    )


def test_a_repaired_event_is_delivered() -> None:
    """It keeps its time of arrival. The rejected event stays counted, and its object goes."""
    made = delivered(envelope(event("missing_table", "", b'{"a":1}')))

    assert {"repaired": 1} == made.invoke_redrive(asked(made, (AT, GOOD)))
    assert made.deliver(1) is None
    [row] = made.td.rows("shop_db", "views")
    assert ("mended", AT // 1000, AT, 1) == (row["event_id"], row["time"], row["received_at"], row["a"])
    assert (1, []) == (rejected(made), objects(made))


def test_a_repair_that_is_repeated_counts_once() -> None:
    """This holds even if the ledger did not record the first one."""
    made = delivered(envelope(event()))
    repair = asked(made, (AT, GOOD))

    def fail(_request: dict[str, Any]) -> None:
        raise client_error("InternalServerError", "UpdateItem", status=500)

    made.dynamodb.before["update_item"] = fail
    with pytest.raises(Exception, match="InternalServerError"):
        made.invoke_redrive(repair)
    del made.dynamodb.before["update_item"]
    assert {"repaired": 1} == made.invoke_redrive(repair)
    assert "repair_refused" == made.invoke_redrive(repair)["error"]

    assert made.deliver(1) is None
    assert ["mended"] == made.ids("shop_db", "views")


def test_a_repaired_event_without_a_table_keeps_its_own() -> None:
    """It is the table that its request named."""
    made = delivered(envelope(event(table="orders")))
    made.invoke_redrive(asked(made, (AT, '{"event_id":"mended"}')))
    made.deliver(1)

    assert ["mended"] == made.ids("shop_db", "orders")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("7", "JSON object"),
        ('{"a":1}', "table"),
        ('{"table":"Bad"}', "table name"),
        ('{"table":"views",' + ",".join(f'"c{n}":1' for n in range(600)) + "}", "columns"),
    ],
)
def test_an_invalid_repair_is_refused(text: str, why: str) -> None:
    """Nothing is put, and the rejected events stay as they are."""
    made = delivered(envelope(event("missing_table", "", b"{}")))

    answer = made.invoke_redrive(asked(made, (AT, GOOD), (AT, text)))

    assert ("repair_refused", True) == (answer["error"], why in answer["message"])
    assert (1, 1) == (len(made.records()), len(objects(made)))
    with pytest.raises(EditRefusedError, match=why):
        row_of(text, AT, "", str)


@pytest.mark.parametrize("answer", [{}, {"SequenceNumber": None}, {"SequenceNumber": "a page"}])
def test_a_repair_counts_only_if_its_put_is_acknowledged(answer: dict[str, Any]) -> None:
    """Otherwise the command can be repeated."""
    made = delivered(envelope(event()))

    class Silent:
        """A stream that does not acknowledge puts."""

        def put_record(self, **_request: Any) -> dict[str, Any]:
            """Return the answer."""
            return answer

    made.redrive_wiring = made.wiring_of(_redrive(), kinesis=Silent())

    assert "repair_refused" == made.invoke_redrive(asked(made, (AT, GOOD)))["error"]
    made.redrive_wiring = made.wiring_of(_redrive())
    assert "error" not in made.invoke_redrive(asked(made, (AT, GOOD)))


def _redrive() -> Any:
    from local.functions import REDRIVE

    return REDRIVE


def test_rows_of_tables_over_the_limit_can_be_returned() -> None:
    """A person returns them once the limit is higher, and the reconciliation counts them once."""
    made = delivery(tables=10)
    put(made, 0, 30)
    made.deliver()
    account = Account("shop_db", limits=AccountLimits(tables=99))
    made.redis.hset(KEYS.of("shop"), mapping=account.to_fields())
    made.start()
    assert 0 == made.invoke_redrive({})["returned"]

    assert 20 == made.invoke_redrive({"kinds": ["dead_letter"]})["returned"]
    assert made.deliver(2) is None
    assert 30 == len(made.td.counts()["shop_db"])
    states = [states for span in made.spans() for states in by_group(span).values()]
    assert 30 == sum(one[State.DELIVERED] for one in states) == sum(one.total() for one in states)
    assert ({}, []) == (made.aside(), [name for name in made.s3.objects(BUCKET) if "aside/" in name])
