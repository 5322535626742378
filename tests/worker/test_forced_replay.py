"""A forced replay resends what the ledger has as delivered, once per tag."""

from typing import Any

import pytest
from worker.delivery import State

from doubles.treasure_data import Action, Fault, Kind
from shared.errors import InvalidReplayError
from tests.support.delivery import Delivery, KilledError, envelope, is_settling, kill, once, row
from worker.forced_replay import ForcedReplay


def forced(delivery: Delivery, begin: int = 0, end: int | None = None, **asked: str) -> list[Any]:
    """Run the worker on a forced replay of records by their position, and return what it holds."""
    event = delivery.event(begin, end) | {"forced": {"tag": "lost"} | asked}
    return list(delivery.run(event, 120_000)["batchItemFailures"])


def lose(delivery: Delivery) -> None:
    """Make Treasure Data lose everything."""
    for database, tables in delivery.td.counts().items():
        for table in tables:
            delivery.td.lose(database, table, 0, 2_000_000_000)


@pytest.fixture
def delivery() -> Delivery:
    """Return four delivered records of two accounts that Treasure Data has lost."""
    made = Delivery()
    made.map(shop="shop", news="media")
    for index in range(4):
        account = "news" if index == 2 else "shop"
        tables = {"views": [row(f"v{index}")], "clicks": [row(f"c{index}")]}
        made.put(envelope(account, tables, request_id=f"r{index}"))
    assert made.deliver() is None
    lose(made)
    return made


def test_a_forced_replay_restores_lost_rows(delivery: Delivery) -> None:
    """Everything in the range is sent, although the ledger has it as delivered."""
    assert [] == forced(delivery, 0, 2)

    assert ["v0", "v1"] == delivery.ids("shop", "views")
    assert ["c0", "c1"] == delivery.ids("shop", "clicks")
    assert [] == delivery.ids("media", "views")


def test_the_same_tag_sends_nothing_twice(delivery: Delivery) -> None:
    """Run again with other borders and in a new sandbox, it adds nothing."""
    forced(delivery, 1, 3)
    delivery.start()
    forced(delivery, 0, 4)
    forced(delivery, 0, 2)

    assert ["v1", "v0", "v3"] == delivery.ids("shop", "views")
    assert ["v2"] == delivery.ids("media", "views")


def test_another_tag_sends_again(delivery: Delivery) -> None:
    """Rows that were lost twice can be sent twice."""
    forced(delivery, 0, 1)
    forced(delivery, 0, 1, tag="lost-again")

    assert ["v0", "v0"] == delivery.ids("shop", "views")


def test_a_forced_replay_can_be_limited_to_an_account_and_table(delivery: Delivery) -> None:
    """Nothing else is sent."""
    forced(delivery, account="shop", table="views")

    assert ["v0", "v1", "v3"] == delivery.ids("shop", "views")
    assert [] == delivery.ids("shop", "clicks") + delivery.ids("media", "views")


@pytest.mark.parametrize(("begin", "end"), [(0, 4), (2, 3)])
def test_an_interrupted_replay_can_be_repeated_with_other_borders(
    delivery: Delivery, begin: int, end: int
) -> None:
    """A planned span that was not executed is read from the shard, with the limits of its plan."""
    delivery.dynamodb.after["put_item"] = once(kill)
    with pytest.raises(KilledError):
        forced(delivery, 0, 4, table="views")
    delivery.start()
    forced(delivery, begin, end, table="views")

    assert ["v0", "v1", "v3"] == delivery.ids("shop", "views")
    assert [] == delivery.ids("shop", "clicks")


# Rows that the shard's own chain has not delivered are delivered without a forced replay


def test_records_that_were_never_planned_are_held(delivery: Delivery) -> None:
    """The live worker delivers them first. Forced after that, they are sent again."""
    (number,) = delivery.put(envelope("shop", {"views": [row("v4")]}, request_id="r4"))

    assert [{"itemIdentifier": number}] == forced(delivery, 4)
    assert [] == delivery.ids("shop", "views")
    delivery.deliver(4)
    lose(delivery)
    assert [] == forced(delivery, 4)
    assert ["v4"] == delivery.ids("shop", "views")


def test_records_of_an_open_span_are_held(delivery: Delivery) -> None:
    """Until it is settled, nobody can say which of its rows are delivered."""
    (number,) = delivery.put(envelope("shop", {"views": [row("v4")]}, request_id="r4"))
    delivery.dynamodb.before["update_item"] = once(kill, is_settling)
    with pytest.raises(KilledError):
        delivery.deliver(4)

    assert [{"itemIdentifier": number}] == forced(delivery, 4)
    assert ["v4"] == delivery.ids("shop", "views")


REFUSED = {"status": 415, "table": "views"}
FAILING = {"status": 500}
THROTTLING = {"status": 429, "retry_after": 99}


def partly_aside(fault: dict[str, Any]) -> Delivery:
    """Return a delivery with rows of the shop set aside and the others lost by Treasure Data."""
    made = Delivery()
    made.map(shop="shop", news="media")
    made.td.create("shop", "views", "clicks")
    made.td.create("media", "views")
    made.put(
        *(
            envelope("shop", {"views": [row(f"v{n}")], "clicks": [row(f"c{n}")]}, request_id=f"r{n}")
            for n in (0, 1)
        ),
        envelope("news", {"views": [row("v2")]}, request_id="r2"),
    )
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, database="shop", **fault))
    assert made.deliver() is None
    made.td.faults.clear()
    lose(made)
    return made


@pytest.mark.parametrize("broken_off", [None, (0, 3), (1, 2)])
@pytest.mark.parametrize(
    ("fault", "states", "clicks"),
    [
        (REFUSED, {"dead_letter"}, ["c0", "c1"]),
        (FAILING, {"in_doubt"}, []),
        (THROTTLING, {"parked"}, []),
    ],
)
def test_set_aside_rows_are_not_forced(
    fault: dict[str, Any], states: set[str], clicks: list[str], broken_off: tuple[int, int] | None
) -> None:
    """The redrive sends them once, even if the replay is interrupted.

    Delivered rows beside them are forced.
    """
    made = partly_aside(fault)
    aside = made.aside()
    assert states == {one[0] for one in aside.values()}
    if broken_off:
        made.dynamodb.after["put_item"] = once(kill)
        with pytest.raises(KilledError):
            forced(made)
        made.start()
    assert [] == forced(made, *(broken_off or (0, 3)))

    assert (clicks, ["v2"]) == (made.ids("shop", "clicks"), made.ids("media", "views"))
    assert (aside, []) == (made.aside(), made.ids("shop", "views"))
    made.redrive(State.PARKED, State.IN_DOUBT, State.DEAD_LETTER)
    forced(made)
    assert (["v0", "v1"], ["c0", "c1"]) == (made.ids("shop", "views"), made.ids("shop", "clicks"))


def test_skipped_rows_are_reported() -> None:
    """Delivered rows planned with others that were not are counted by account and table."""
    made = partly_aside({"status": 422, "table": "views"})
    event = {**made.event(0, 3), "forced": {"tag": "lost"}}

    answer = made.run(event, 60_000)

    assert {"batchItemFailures": [], "passed_over": {"shop/views": 2}} == answer
    assert [("shop", "views", 2)] == [
        tuple(fields.values())
        for fields in made.telemetry.said(
            "a forced replay skips rows: others that were planned with them have not been delivered"
        )
    ]
    assert {"batchItemFailures": [], "passed_over": {}} == made.run(event, 60_000)


def test_each_span_decides_separately_what_was_delivered() -> None:
    """A later span's set-aside rows are not forced because an earlier span delivered the same table."""
    made = Delivery()
    made.map(shop="shop")
    made.put(*(envelope("shop", {"views": [row(f"v{n}")]}, request_id=f"r{n}") for n in range(3)))
    made.deliver(0, 1)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, count=1, status=415))
    made.deliver(1, 2)
    made.deliver(2, 3)
    lose(made)

    assert [] == forced(made)
    assert ["v0", "v2"] == made.ids("shop", "views")
    assert 1 == len(made.aside())


def with_copies() -> Delivery:
    """Return a delivery without an archive, of two envelopes and two copies of the first, with all rows lost."""
    made = Delivery(archive_days=0)
    made.map(shop="shop")
    made.put(
        envelope("shop", {"views": [row("v0")]}, request_id="r", claim=1),
        envelope("shop", {"views": [row("v1")]}, request_id="s"),
        *(envelope("shop", {"views": [row("v0")]}, request_id="r", claim=1) for _ in range(2)),
    )
    assert made.deliver() is None
    lose(made)
    return made


@pytest.mark.parametrize(("begin", "end"), [(0, 4), (2, 4), (1, 3)])
def test_copies_that_do_not_count_are_not_forced(begin: int, end: int) -> None:
    """The span of the shard's chain says which copy counts, so no claim is read again."""
    made = with_copies()
    made.dynamodb.calls.clear()
    assert [] == forced(made, begin, end)

    assert ["v0", "v1"][begin:] == made.ids("shop", "views")
    assert "batch_execute_statement" not in made.dynamodb.calls


def test_an_interrupted_replay_does_not_force_copies() -> None:
    """When its span is met again, the copies that its plan ignores stay ignored."""
    made = with_copies()
    made.dynamodb.after["put_item"] = once(kill)
    with pytest.raises(KilledError):
        forced(made)
    made.start()
    assert [] == forced(made)

    assert ["v0", "v1"] == made.ids("shop", "views")


def test_nothing_is_forced_after_an_incomplete_read() -> None:
    """The plan names copies by position, so every record of the span is needed."""
    made = with_copies()
    read = made.wiring.shards.read
    made.wiring.shards.read = lambda *stretch: read(*stretch)[1:]  # type: ignore[method-assign]  # the first one has expired

    assert 1 == len(forced(made, 1, 4))
    assert [] == made.ids("shop", "views")


def test_originals_that_are_not_rows_are_not_forced(delivery: Delivery) -> None:
    """They were never delivered."""
    delivery.put(b"junk", b'{"account":"shop","events":[{"table":"?"},{"table":"views","event_id":"v5"}]}')
    delivery.deliver(4)
    objects = delivery.objects()
    assert [] == forced(delivery, 4)

    assert ["v5", "v5"] == delivery.ids("shop", "views")
    assert objects == delivery.objects()


@pytest.mark.parametrize(
    "asked",
    [
        {"tag": ""},
        {"tag": "-"},
        {"tag": "a#b"},
        {"tag": "a/b"},
        {"tag": "A"},
        {"tag": "ä"},
        {"tag": "a" * 65},
        {"tag": "t", "account": "#"},
        {"tag": "t", "account": "*"},
        {"tag": "t", "table": "-x"},
    ],
)
def test_names_that_do_not_fit_a_chain_s_name_are_refused(asked: dict[str, str]) -> None:
    """A tag, account or table that could be read as something else is refused before anything is sent."""
    with pytest.raises(InvalidReplayError):
        ForcedReplay.from_event({"forced": asked})


@pytest.mark.parametrize(
    "asked", [{"tag": "a" * 64}, {"tag": "2026-11-25_10:00.1", "account": "shop", "table": "views"}]
)
def test_replay_names_round_trip(asked: dict[str, str]) -> None:
    """A chain's name says which replay it belongs to."""
    replay = ForcedReplay.from_event({"forced": asked})

    assert replay == ForcedReplay.parse(replay.name)
