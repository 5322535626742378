"""A forced replay sends rows again that Treasure Data has lost, once per tag."""

import json
from contextlib import suppress
from typing import Any

import msgpack
import pytest

from doubles.treasure_data.fault import Action, Fault, Kind
from shared.errors import InvalidReplayError, UnavailableError
from tests.support.delivery import (
    BUCKET,
    Delivery,
    KilledError,
    envelope,
    kill,
    lose_answer,
    once,
    row,
    shops,
)
from worker.forced_replay import Wanted
from worker.plan import Cut
from worker.span import ChunkKey
from worker.states import State

AT = 1_700_000_000_000


def force(made: Delivery, **asked: Any) -> dict[str, Any]:
    """Run a forced replay of all spans; return its answer."""
    places = [[span.chain.name, span.after] for span in made.spans()]
    answer = made.invoke_sender({"force": {"tag": "lost", "places": places} | asked})
    made.send()
    return answer


def lose(made: Delivery) -> None:
    """Make Treasure Data lose everything."""
    for database, tables in made.td.counts().items():
        for table in tables:
            made.td.lose(database, table, 0, 2_000_000_000)


@pytest.fixture
def delivery() -> Delivery:
    """Return four delivered records of two accounts, an hour apart, that Treasure Data has lost."""
    made = Delivery().map(shop="shop", news="media")
    for index, account in enumerate(("shop", "shop", "news", "shop")):
        tables = {"views": [row(f"v{index}")], "clicks": [row(f"c{index}")]}
        made.put(envelope(account, tables, request_id=f"r{index}"))
        made.clock.sleep(60)
    assert made.deliver() is None
    lose(made)
    return made


def test_a_forced_replay_restores_lost_rows_once_for_a_tag(delivery: Delivery) -> None:
    """Although the ledger has them as delivered. Lost twice, they can be sent twice; chains of forced replays are not replayed themselves."""
    counts = {"shop/views": 3, "shop/clicks": 3, "news/views": 1, "news/clicks": 1}
    for tag, is_repeated in (("lost", False), ("lost", True), ("lost-again", False)):
        spans = len(delivery.spans())
        answer = force(delivery, tag=tag)
        delivery.clock.sleep(60)
        expected = {"appended": {}, "repeated": {}, "left_out": {}, "done": spans}
        assert expected | {"repeated" if is_repeated else "appended": counts} == answer
        assert ["v0", "v1", "v3"] == delivery.ids("shop", "views")
        assert ["c2"] == delivery.ids("media", "clicks")
        if is_repeated:
            lose(delivery)


def test_a_tag_keeps_its_range(delivery: Delivery) -> None:
    """Another use is refused before anything is written."""
    force(delivery, account="news")
    before = delivery.spans()
    answer = force(delivery, account="shop")

    assert ("force_refused", True) == (answer["error"], "used for another range" in answer["message"])
    assert before == delivery.spans()
    assert [] == delivery.ids("shop", "views")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"account": "shop", "table": "views"}, ["v0", "v1", "v3"]),
        ({"table": "clicks"}, ["c0", "c1", "c2", "c3"]),
        ({"database": "media"}, ["c2", "v2"]),
        ({"since": AT + 61_000, "account": "shop"}, ["c3", "v3"]),
        ({"until": AT + 61_000}, ["c0", "c1", "v0", "v1"]),
        ({"since": AT + 60_000, "until": AT + 120_000, "table": "views"}, ["v1"]),
    ],
)
def test_a_forced_replay_has_limits(delivery: Delivery, asked: dict[str, Any], expected: list[str]) -> None:
    """By account, table, database, and the arrival of the rows' records."""
    force(delivery, **asked)

    found = [ids for tables in delivery.td.event_ids().values() for one in tables.values() for ids in one]
    assert expected == sorted(found)


@pytest.mark.parametrize("together", [1, 2, 4])
@pytest.mark.parametrize("bad", [{0, 1}, {2, 3}, {0}, {1}, {2}, {3}])
def test_delivered_halves_are_replayed_by_their_rows(bad: set[int], together: int) -> None:
    """Dead rows stay so, even if a record has rows in several halves, and are reported; rows outside of the range are not sent."""
    made = shops(cut=Cut(100, 1 << 20))
    for first in range(0, 4, together):
        rows = [row(f"e{n}", n=n) for n in range(first, first + together)]
        made.put(envelope("shop", {"views": rows}, request_id=str(first)))
    made.clock.sleep(60)
    until = round(made.clock.now() * 1000)
    made.put(envelope("shop", {"views": [row("late")]}, request_id="late"))
    made.td.settings = made.td.settings.__class__(rejects=lambda one: one.get("n") in bad)
    made.deliver()
    for _ in range(4):
        made.send()
    made.td.settings = made.td.settings.__class__()
    lose(made)
    answer = force(made, since=AT, until=until)

    assert {"shop/views": 4 - len(bad)} == answer["appended"]
    assert {"shop/views": len(bad)} == answer["left_out"]
    assert [f"e{n}" for n in range(4) if n not in bad] == sorted(made.ids("shop_db", "views"))


@pytest.mark.parametrize("status", [415, 500])
def test_rows_that_were_not_delivered_are_not_forced(status: int) -> None:
    """The sender sends them once. They are reported as left out."""
    made = shops(envelope("shop", {"views": [row("v0")]}), envelope("blog", {"views": [row("v2")]}))
    made.fail(status, database="shop_db")
    assert made.deliver() is None
    lose(made)
    answer = made.invoke_sender({"force": {"tag": "t", "places": [[made.spans()[0].chain.name, "000"]]}})
    assert answer == json.loads(json.dumps(answer))
    assert ({"blog/views": 1}, {"shop/views": 1}) == (answer["appended"], answer["left_out"])
    made.td.faults.clear()
    made.send(State.WAITING, State.DEAD)
    answer = force(made, tag="t")

    assert ({"blog/views": 1}, {"shop/views": 1}) == (answer["repeated"], answer["left_out"])
    assert (["v0"], ["v2"]) == (made.ids("shop_db", "views"), made.ids("blog_db", "views"))


def test_rows_that_are_still_there_do_not_answer_for_lost_ones() -> None:
    """A forced chunk has the rows of several imports. With some of them, Treasure Data proves neither to have the chunk nor to lack it."""
    made = Delivery(cut=Cut(1, 16 << 20)).map(shop="shop_db")
    for number, one in enumerate("abc"):
        made.put(envelope("shop", {"views": [row(one, AT // 1000 + number)]}, request_id=one))
    made.deliver()
    made.td.lose("shop_db", "views", AT // 1000 + 1, AT // 1000 + 2)
    made.clock.sleep(7200)
    made.start().td.faults.add(Fault(kind=Kind.CLOSE, action=Action.IMPORT, table="views"))
    force(made)
    made.td.faults.clear()
    made.clock.sleep(7200)
    made.start().send()

    assert ["a", "c"] == made.ids("shop_db", "views")
    assert ["shop/views/0"] == [*made.chunks(State.WAITING)]


def test_copies_and_originals_are_not_forced() -> None:
    """They were never delivered."""
    copy = envelope("shop", {"views": [row("v0")]}, request_id="r", claim=1)
    json_events = b'{"account":"shop","events":[{"table":"?"},{"table":"views","event_id":"v5"}]}'
    made = shops(copy, copy, b"junk", json_events)
    assert made.deliver() is None
    lose(made)
    answer = force(made)

    assert ({"shop/views": 2}, {}) == (answer["appended"], answer["left_out"])
    assert ["v0", "v5"] == sorted(made.ids("shop_db", "views"))


@pytest.mark.parametrize(("service", "call"), [("s3", "put_object"), ("dynamodb", "put_item")])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("act", [kill, lose_answer])
def test_a_replay_can_be_repeated(delivery: Delivery, service: str, call: str, moment: str, act: Any) -> None:
    """Whatever it has written, the rows are sent once."""
    hook = getattr(getattr(delivery, service), moment)
    hook[call] = once(act, lambda request: "g" in request.get("Item", {"g": 1}))
    with suppress(KilledError, UnavailableError):
        force(delivery)
    hook.clear()
    delivery.start()
    force(delivery)

    assert ["v0", "v1", "v3"] == delivery.ids("shop", "views")
    assert ["c2"] == delivery.ids("media", "clicks")


def test_a_replay_short_of_time_says_how_far_it_came(delivery: Delivery) -> None:
    """The command goes on there. Rows that are no longer kept are left out."""
    places = [span.place for span in delivery.spans()]
    outcome, done = delivery.sender_wiring.forced_replays.run(Wanted("lost"), places, delivery.deadline(100))
    assert (0, {}) == (done, dict(outcome))
    for name in delivery.span_objects():
        delivery.s3.delete_object(Bucket=BUCKET, Key=name)
    delivery.start()
    answer = force(delivery)

    assert ({}, 3) == (answer["appended"], answer["left_out"]["shop/views"])


def test_an_edited_span_can_be_forced(delivery: Delivery) -> None:
    """Its chain's name is part of the replay's. It has no records, so the receipt of its rows counts."""
    delivery.fail(status=415, count=1)
    delivery.put(envelope("shop", {"views": [row("v9")]}, request_id="r9"))
    delivery.deliver(4)
    place, key = delivery.spans()[-1].place, ChunkKey.parse("shop/views/0")
    delivery.sender_wiring.replacements.edit(place, key, msgpack.packb(row("v9", edited=1)))
    delivery.send()
    lose(delivery)
    assert {} == force(delivery, tag="earlier", until=AT)["appended"]
    force(delivery, table="views", account="shop")

    assert ["v0", "v1", "v3", "v9"] == sorted(delivery.ids("shop", "views"))


@pytest.mark.parametrize(
    "asked",
    [
        *({"tag": tag} for tag in ("", "-", "a#b", "a/b", "A", "ä", "a" * 65)),
        {"tag": "t", "account": "#"},
        {"tag": "t", "table": "-x"},
    ],
)
def test_names_that_do_not_fit_a_chain_s_name_are_refused(asked: dict[str, str]) -> None:
    """A tag, account or table that could be read as something else is refused before anything is sent."""
    with pytest.raises(InvalidReplayError):
        Wanted.from_event(asked)
