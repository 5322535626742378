"""An account may have a limited number of tables. Rows over the limit become one dead letter per span."""

from typing import Any

import msgpack

from shared.accounts import Account
from shared.policy import AccountLimits
from tests.support.delivery import TABLE, Delivery, envelope, once, row
from worker.span import ChunkKey

LIMIT = 200


def delivery(**limits: int) -> Delivery:
    """Return a delivery with one account that has these limits, and another account."""
    return Delivery().map(news="news_db", shop=Account("shop_db", limits=AccountLimits(**limits)))


def tables(begin: int, end: int) -> dict[str, list[dict[str, Any]]]:
    """Return a row for each of these tables."""
    return {f"table_{number:05}": [row(f"e{number}")] for number in range(begin, end)}


def put(made: Delivery, begin: int, end: int, each: int = 20, account: str = "shop") -> None:
    """Put rows of these tables on the stream, `each` tables to a record."""
    parts = {first: tables(first, min(end, first + each)) for first in range(begin, end, each)}
    made.put(*(envelope(account, one, request_id=f"r{account}{first}") for first, one in parts.items()))


def test_tables_are_created_up_to_the_limit() -> None:
    """The rows of all other tables become one dead letter in one object. Other accounts are not affected."""
    made = delivery()
    put(made, 0, 1000)
    put(made, 0, 50, account="news")

    assert made.deliver() is None
    assert [LIMIT, 50] == [len(made.td.counts()[one]) for one in ("shop_db", "news_db")]
    assert {"shop/-too_many_tables/0": ("dead", "too_many_tables", 800)} == made.chunks()
    [span] = made.spans()
    unpacker = msgpack.Unpacker()
    unpacker.feed(made.objects.payload(span, ChunkKey.parse("shop/-too_many_tables/0")))
    kept = {table: (count, msgpack.unpackb(rows)) for table, count, rows in unpacker}
    assert {name: (1, one[0]) for name, one in tables(LIMIT, 1000).items()} == kept


def test_existing_tables_stay_in_use_at_the_limit() -> None:
    """Only new tables of later spans are over the limit. A fresh sandbox knows that from the ledger."""
    made = delivery(tables=30)
    put(made, 0, 30)
    assert made.deliver() is None
    for begin in (2, 4):
        put(made, 20, 60)
        assert made.deliver(begin) is None
        made.start()

    counts = made.td.counts()["shop_db"].values()
    assert (30, 30 + 2 * 10) == (len(counts), sum(counts))
    assert 0 == made.td.duplicates
    assert {("dead", "too_many_tables")} == {entry[:2] for entry in made.chunks().values()}


def test_few_new_tables_become_separate_dead_letters() -> None:
    """They are too few for the limit to be checked before the plan. In the next span they share one."""
    made = delivery(tables=2)
    for record in range(3):
        put(made, 2 * record, 2 * record + 2)
        assert made.deliver(record) is None

    dead = {f"shop/table_{number:05}/0": ("dead", "too_many_tables", 1) for number in (2, 3)}
    assert dead | {"shop/-too_many_tables/0": ("dead", "too_many_tables", 2)} == made.chunks()


def test_an_account_within_its_limit_costs_no_call() -> None:
    """The ledger is read only for new tables, or if a span has more than the account may have."""
    made = delivery()
    for number in range(LIMIT):
        made.wiring.treasure_data.create_database("shop_db", 1)
        made.wiring.treasure_data.create_table("shop_db", f"table_{number:05}", 1)
    made.wiring.guard.check()
    made.dynamodb.calls.clear()
    put(made, 0, LIMIT)

    assert made.deliver() is None
    assert ["query", "put_item", "put_item", "update_item"] == made.dynamodb.calls


def test_concurrent_creations_keep_to_the_limit() -> None:
    """Both want the same number, and the loser reads again."""
    made = delivery()
    ledger = made.ledger
    other = once(lambda: ledger.note_table("shop", "other", 2), lambda request: "name" in request["Item"])
    made.dynamodb.before["put_item"] = other

    assert ledger.note_table("shop", "views", 2)
    assert {"other", "views"} == ledger.tables("shop")
    assert not ledger.note_table("shop", "more", 2)
    assert ledger.note_table("shop", "views", 2)


def test_a_note_that_a_backup_lacks_keeps_nobody() -> None:
    """Its number is free, and a later one taken."""
    made = delivery()
    for table in ("views", "clicks", "orders"):
        assert made.ledger.note_table("shop", table, 9)
    made.dynamodb.delete_item(TableName=TABLE, Key={"pk": {"S": "tables#shop"}, "sk": {"S": "00001"}})
    made.dynamodb.calls.clear()

    assert made.ledger.note_table("shop", "carts", 9)
    assert {"views", "orders", "carts"} == made.ledger.tables("shop")
    assert not made.ledger.note_table("shop", "more", 3)
