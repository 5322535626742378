"""A forced replay sends again what the ledger has as delivered, once per tag."""

from typing import Any

import pytest

from tests.support.delivery import Delivery, KilledError, envelope, kill, once, row
from worker.forced import Forced, InvalidReplayError


def forced(delivery: Delivery, begin: int = 0, end: int | None = None, **asked: str) -> list[Any]:
    """Invoke the worker with a forced replay of records by their position; return what it holds."""
    event = delivery.event(begin, end) | {"forced": {"tag": "lost"} | asked}
    return list(delivery.worker.run(event, 120_000)["batchItemFailures"])


@pytest.fixture
def delivery() -> Delivery:
    """Four delivered records of two accounts, of which Treasure Data has lost everything."""
    made = Delivery()
    made.map(shop="shop", news="media")
    for index in range(4):
        account = "news" if index == 2 else "shop"
        tables = {"views": [row(f"v{index}")], "clicks": [row(f"c{index}")]}
        made.put(envelope(account, tables, request_id=f"r{index}"))
    assert made.deliver() is None
    for database, table in (("shop", "views"), ("shop", "clicks"), ("media", "views")):
        made.td.lose(database, table, 0, 2_000_000_000)
    return made


def test_what_was_lost_is_there_again(delivery: Delivery) -> None:
    """Everything in the range is sent, although the ledger has it as delivered."""
    assert [] == forced(delivery, 0, 2)

    assert ["v0", "v1"] == delivery.ids("shop", "views")
    assert ["c0", "c1"] == delivery.ids("shop", "clicks")
    assert [] == delivery.ids("media", "views")


def test_the_same_tag_sends_nothing_twice(delivery: Delivery) -> None:
    """Run again, over other borders and in a new sandbox, it changes nothing."""
    forced(delivery, 1, 3)
    delivery.start()
    forced(delivery, 0, 4)
    forced(delivery, 0, 2)

    assert ["v1", "v0", "v3"] == delivery.ids("shop", "views")
    assert ["v2"] == delivery.ids("media", "views")


def test_another_tag_sends_again(delivery: Delivery) -> None:
    """What is lost twice is sent twice."""
    forced(delivery, 0, 1)
    forced(delivery, 0, 1, tag="lost-again")

    assert ["v0", "v0"] == delivery.ids("shop", "views")


def test_one_account_or_table_alone(delivery: Delivery) -> None:
    """What is narrowed to an account's table sends nothing else."""
    forced(delivery, account="shop", table="views")

    assert ["v0", "v1", "v3"] == delivery.ids("shop", "views")
    assert [] == delivery.ids("shop", "clicks") + delivery.ids("media", "views")


def test_broken_off_in_the_middle_and_run_again_with_other_borders(delivery: Delivery) -> None:
    """A span that was planned and not carried out is read from the shard, narrowed as it was planned."""
    delivery.dynamodb.after["put_item"] = once(kill)
    with pytest.raises(KilledError):
        forced(delivery, 0, 4, table="views")
    delivery.start()
    forced(delivery, 2, 3, table="views")

    assert ["v0", "v1", "v3"] == delivery.ids("shop", "views")
    assert [] == delivery.ids("shop", "clicks")


def test_the_shards_own_chain_is_left_alone(delivery: Delivery) -> None:
    """What the live worker has still to deliver stays its own."""
    delivery.put(envelope("shop", {"views": [row("v4")]}, request_id="r4"))
    forced(delivery, 4)
    delivery.deliver(0)

    assert ["v4", "v4"] == delivery.ids("shop", "views")


@pytest.mark.parametrize(
    "asked",
    [{"tag": ""}, {"tag": "a#b"}, {"tag": "A"}, {"tag": "t", "account": "#"}, {"tag": "t", "table": "-x"}],
)
def test_what_cannot_stand_in_a_chain_is_refused(asked: dict[str, str]) -> None:
    """A tag, account or table that could be mistaken for something else is refused before anything is sent."""
    with pytest.raises(InvalidReplayError):
        Forced.from_event({"forced": asked})
