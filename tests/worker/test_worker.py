"""Batches, from Lambda's event to what Treasure Data, the bucket and the ledger hold."""

import gc
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.treasure_data import Action, Fault, Kind
from shared import accounts
from shared.accounts import Account
from tests.support.delivery import (
    SHARD,
    TABLE,
    Delivery,
    envelope,
    is_settling,
    kill,
    lose_answer,
    member,
    once,
    row,
)
from tests.support.delivery import KilledError as Killed
from worker.span import Cut, Span

CLAIM = "put#"


def delivery(**changes: Any) -> Delivery:
    """Return a delivery with two accounts."""
    made = Delivery(**changes)
    made.map(shop="shop_db", blog="blog_db")
    return made


def spans(made: Delivery) -> list[Span]:
    """Return the spans in the ledger."""
    return [Span.from_item(item) for item in made.dynamodb.client.items(TABLE) if "first" in item]


def test_rows_arrive_once_in_order() -> None:
    """Rows of a batch end in their account's database, in order, and the whole batch is reported as settled."""
    made = delivery()
    made.put(
        envelope("shop", {"views": [row("e1"), row("e2")], "clicks": [row("e3")]}),
        envelope("blog", {"views": [row("e4")]}),
        envelope("shop", {"views": [row("e5")]}),
    )
    assert made.deliver() is None
    assert made.ids("shop_db", "views") == ["e1", "e2", "e5"]
    assert made.ids("shop_db", "clicks") == ["e3"]
    assert made.ids("blog_db", "views") == ["e4"]
    assert made.objects() == []
    assert made.journal.counts == {"RowsDelivered": 5}


def test_columns_arrive_as_they_were_sent() -> None:
    """A row in Treasure Data has the values that its envelope carries."""
    made = delivery()
    sent = row("e1", flag=True, nothing=None, text="ü", number=2**62, ratio=0.5)
    made.put(envelope("shop", {"views": [sent]}))
    made.deliver()
    assert made.td.rows("shop_db", "views") == [sent]


def test_redelivery_sends_nothing() -> None:
    """A settled batch that is delivered again, by a sandbox that remembers nothing, is not sent again."""
    made = delivery()
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(5)))
    made.deliver()
    made.clock.sleep(30 * 86_400)
    made.start()
    assert made.deliver() is None
    assert len(made.td.imports()) == 1


@pytest.mark.parametrize("outage", [False, True])
def test_garbage_is_looked_for_as_before(outage: bool) -> None:
    """No cycles are looked for while a batch is carried out, and afterwards as before, even when it was killed."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    seen: list[bool] = []

    def look(_: dict[str, Any]) -> None:
        seen.append(gc.isenabled())
        if outage:
            kill()

    made.dynamodb.before["put_item"] = look
    before = gc.isenabled()
    if outage:
        with pytest.raises(Killed):
            made.deliver()
    else:
        made.deliver()
    assert seen == [False]
    assert gc.isenabled() == before


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)), min_size=1, max_size=12), st.booleans())
def test_any_borders_give_each_row_once(batches: list[tuple[int, int]], forgetful: bool) -> None:
    """However the shard is cut into batches, and in whatever order they come, each row arrives once."""
    made = delivery(cut=Cut(3, 1 << 20))
    made.put(*(envelope("shop" if n % 3 else "blog", {"views": [row(f"e{n}")]}) for n in range(12)))
    for begin, size in [*batches, (0, 12)]:
        if forgetful:
            made.start()
        assert made.deliver(begin, begin + size) is None
    arrived = made.ids("shop_db", "views") + made.ids("blog_db", "views")
    assert sorted(arrived) == sorted(f"e{n}" for n in range(12))
    assert all(span.done for span in spans(made))


@pytest.mark.parametrize("size", [1, 300])
def test_ordinary_path_calls(size: int) -> None:
    """A batch costs three calls to the ledger in a cold sandbox and two in a warm one, whatever its size."""
    made = delivery()
    made.map(**{f"acct_{n}": f"db_{n}_x" for n in range(size)})
    for batch in range(3):
        made.put(
            *(
                envelope(f"acct_{n}", {f"table_{t}": [row(f"e{batch}{n}{t}")] for t in range(3)})
                for n in range(size)
            )
        )
    made.deliver(0, size)
    assert made.dynamodb.calls == ["create_table", "query", "put_item", "update_item"]
    made.dynamodb.calls.clear()
    made.deliver(size, 2 * size)
    made.deliver(2 * size, 3 * size)
    assert made.dynamodb.calls == ["put_item", "update_item"] * 2
    assert made.s3.calls == ["create_bucket"]


def test_one_round_trip_for_accounts() -> None:
    """All accounts of a batch are asked for at once, and not again while the answers are fresh."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}), envelope("blog", {"views": [row("e2")]}))
    trips = []
    pipeline = made.redis.pipeline
    made.redis.pipeline = lambda **options: (trips.append(options), pipeline(**options))[1]
    made.deliver()
    made.start()
    made.deliver(0, 1)
    made.put(envelope("shop", {"views": [row("e3")]}))
    made.deliver(2, 3)
    made.put(envelope("shop", {"views": [row("e4")]}))
    made.deliver(3, 4)
    assert trips == [{"transaction": False}] * 2


def test_dead_letters_leave_their_neighbours() -> None:
    """What is undecodable, rejected, of unknown, disabled or invalid accounts or revoked keys goes to S3 alone."""
    made = delivery()
    made.redis.hset(accounts.redis_key("gone"), mapping=Account("gone_db", "disabled").to_fields())
    made.redis.hset(accounts.redis_key("odd"), mapping={"database": "No!", "status": "active"})
    revoked = Account("shop_db", "active", frozenset({"k2"}))
    made.redis.hset(accounts.redis_key("shop"), mapping=revoked.to_fields())
    made.put(
        envelope("shop", {"views": [row("e1")]}),
        b"junk",
        envelope("nobody", {"views": [row("e2")]}),
        envelope("gone", {"views": [row("e3")]}),
        envelope("odd", {"views": [row("e4")]}),
        envelope("shop", {"views": [row("e5"), row("e6")]}, key_id="k2"),
        b'{"account":"shop","events":[{"table":"?"},{"table":"views","event_id":"e7"}]}',
    )
    assert made.deliver() is None
    assert made.ids("shop_db", "views") == ["e1", "e7"]
    found = {(one.account, one.table): one for one in map(made.aside.get, made.objects()) if one}
    assert {place: (one.reason, one.rows, one.payload_form) for place, one in found.items()} == {
        ("-", "-undecodable"): ("undecodable", 1, "original"),
        ("nobody", "views"): ("unknown_account", 1, "rows"),
        ("gone", "views"): ("disabled_account", 1, "rows"),
        ("odd", "views"): ("invalid_account", 1, "rows"),
        ("shop", "views"): ("revoked_key", 2, "rows"),
        ("shop", "-invalid_table"): ("invalid_table", 1, "original"),
    }
    assert made.journal.counts["RowsDeadLettered"] == 7
    assert spans(made)[0].counts == {
        "shop/views": 2,
        "-/-undecodable": 1,
        "nobody/views": 1,
        "gone/views": 1,
        "odd/views": 1,
        "shop:k2/views": 2,
        "shop/-invalid_table": 1,
    }


def test_set_aside_chunk_is_complete() -> None:
    """An object says everything about its chunk: why, whose, where from, and the rows themselves."""
    made = delivery()
    first, second, third = made.put(
        envelope("nobody", {"views": [row("e1")]}),
        envelope("shop", {"views": [row("e2")]}),
        envelope("nobody", {"clicks": [row("e3")], "views": [row("e4")]}),
    )
    made.deliver()
    arrival = round(made.clock.now() * 1000)
    views, _ = sorted(
        (one for one in map(made.aside.get, made.objects()) if one), key=lambda one: one.table, reverse=True
    )
    assert (views.kind, views.reason, views.account, views.table, views.database) == (
        "dead_letter",
        "unknown_account",
        "nobody",
        "views",
        "",
    )
    assert (views.shard, views.sequence_numbers, views.rows) == (SHARD, (first, third), 2)
    assert (views.first_seen, views.last_seen, views.set_aside_at) == (arrival, arrival, arrival)
    assert len(views.unique_id) == len(views.object_id) == 32
    assert second not in views.sequence_numbers
    assert views.payload.count(b"event_id") == 2


def test_redis_without_data_judges_nobody() -> None:
    """While the sentinel is missing, an account that is not there is held, not called unknown."""
    made = delivery()
    made.redis.flushall()
    numbers = made.put(envelope("shop", {"views": [row("e1")]}))
    assert made.deliver() == numbers[0]
    assert (made.objects(), made.td.imports(), spans(made)) == ([], [], [])
    made.redis.hset(accounts.SENTINEL, mapping={"at": "now"})
    made.map(shop="shop_db")
    assert made.deliver() is None
    assert made.ids("shop_db", "views") == ["e1"]


def test_span_ends_before_an_account_that_cannot_be_asked() -> None:
    """What stands before the record whose account cannot be asked for is delivered; from there on it is held."""
    made = delivery()
    made.redis.flushall()
    made.map(shop="shop_db")  # no sentinel
    numbers = made.put(
        envelope("shop", {"views": [row("e1")]}),
        envelope("blog", {"views": [row("e2")]}),
        envelope("shop", {"views": [row("e3")]}),
    )
    assert made.deliver() == numbers[1]
    assert made.ids("shop_db", "views") == ["e1"]


def test_stale_answers_while_redis_fails() -> None:
    """A warm sandbox goes on with what it knows while Redis fails."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.deliver()
    made.clock.sleep(3600)
    made.redis.flushall()
    made.put(envelope("shop", {"views": [row("e2")]}))
    assert made.deliver(1, 2) is None
    assert made.ids("shop_db", "views") == ["e1", "e2"]
    assert made.journal.counts["AccountsStale"] == 1


def test_ledger_away_holds_everything() -> None:
    """Without the ledger nothing is sent."""
    made = delivery()
    numbers = made.put(envelope("shop", {"views": [row("e1")]}))
    for call in ("query", "put_item"):
        made.start()
        made.dynamodb.before = {call: lambda _: lose_answer()}
        assert made.deliver() == numbers[0]
    assert made.td.imports() == []
    made.dynamodb.before = {}
    made.start()
    assert made.deliver() is None


def test_unforeseen_error_holds_what_is_not_settled() -> None:
    """An error that no rule foresaw neither passes for success nor escapes; what is settled stays settled."""
    made = delivery()
    numbers = made.put(envelope("shop", {"views": [row("e1")]}), envelope("shop", {"views": [row("e2")]}))
    made.deliver(0, 1)

    def break_down(_: Any) -> None:
        raise ZeroDivisionError

    made.start()
    made.dynamodb.before = {"put_item": break_down}
    assert made.deliver() == numbers[1]
    assert made.journal.counts["UnforeseenErrors"] == 1


def test_no_time_left_sends_nothing() -> None:
    """An invocation whose time is up sends nothing and holds, without doubt about its chunks."""
    made = delivery()
    numbers = made.put(envelope("shop", {"views": [row("e1")]}))
    assert made.deliver(remaining_ms=100) == numbers[0]
    assert made.td.imports() == []
    assert spans(made)[0].chunk("shop/views/0").since is None
    assert made.deliver() is None
    assert made.ids("shop_db", "views") == ["e1"]


def test_s3_away_holds_what_must_be_set_aside() -> None:
    """A chunk that S3 does not take stays pending; its neighbours are delivered, once."""
    made = delivery()
    numbers = made.put(envelope("nobody", {"views": [row("e1")]}), envelope("shop", {"views": [row("e2")]}))
    made.s3.before = {"put_object": lambda _: lose_answer()}
    assert made.deliver() == numbers[0]
    made.s3.before = {}
    assert made.deliver() is None
    assert (len(made.objects()), made.ids("shop_db", "views")) == (1, ["e2"])


def test_open_span_is_carried_out_beyond_the_batch() -> None:
    """A span met again by a batch that holds only a part of it is carried out whole: the rest is read from the shard."""
    made = delivery()
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(6)))
    made.dynamodb.after = {"put_item": once(kill)}
    with pytest.raises(Killed):
        made.deliver(0, 4)
    made.start()
    assert made.deliver(2, 6) is None
    assert made.ids("shop_db", "views") == [f"e{n}" for n in range(6)]
    assert [len(one.rows) for one in made.td.imports()] == [4, 2]


def test_hole_is_a_chain_of_its_own() -> None:
    """Records in front of a span that nobody has planned are delivered, and the span's own rows only once."""
    made = delivery()
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(6)))
    made.deliver(3, 5)
    made.start()
    assert made.deliver(1, 6) is None
    made.start()
    assert made.deliver(0, 6) is None
    assert sorted(made.ids("shop_db", "views")) == [f"e{n}" for n in range(6)]
    assert len(made.td.imports()) == 4


def test_plan_outlives_a_change_of_mapping() -> None:
    """An open span goes to the database it was planned for, also after the account's rows go elsewhere."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.dynamodb.before = {"update_item": once(kill, is_settling)}
    with pytest.raises(Killed):
        made.deliver()
    made.map(shop="other_db")
    made.start()
    assert made.deliver() is None
    assert made.td.counts() == {"shop_db": {"views": 1}}


def test_plan_outlives_a_change_of_limits() -> None:
    """The parts of an open span are those of its plan, also after a deploy with other limits."""
    made = delivery(cut=Cut(2, 1 << 20))
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(5)))
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=503, begin=0, count=1))
    made.dynamodb.before = {"update_item": once(kill, is_settling)}
    with pytest.raises(Killed):
        made.deliver()
    made.cut = Cut(50_000, 16 << 20)
    made.start()
    assert made.deliver() is None
    assert sorted(made.ids("shop_db", "views")) == [f"e{n}" for n in range(5)]
    assert [len(one.rows) for one in made.td.imports()] == [2, 2, 1]


def test_plan_outlives_a_change_of_keys() -> None:
    """A key that is revoked after its rows were planned does not change where they go."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.dynamodb.after = {"put_item": once(kill)}
    with pytest.raises(Killed):
        made.deliver()
    made.redis.hset(
        accounts.redis_key("shop"), mapping=Account("shop_db", "active", frozenset({"k1"})).to_fields()
    )
    made.start()
    made.deliver()
    assert made.ids("shop_db", "views") == ["e1"]


def test_repeated_envelope_counts_once() -> None:
    """Of an envelope that stands on the stream twice by our own doing, one record's rows count, in any order."""
    made = delivery()
    made.put(
        envelope("shop", {"views": [row("e1")]}, request_id="q", attempt=1),
        envelope("shop", {"views": [row("e2")]}),
        envelope("shop", {"views": [row("e1")]}, request_id="q", attempt=1),
    )
    assert made.deliver(2, 3) is None
    made.start()
    assert made.deliver(0, 3) is None
    assert sorted(made.ids("shop_db", "views")) == ["e1", "e2"]
    assert sum(sum(span.counts.values()) for span in spans(made)) == 2


def test_chunk_without_rows_is_settled_without_a_send() -> None:
    """A batch of nothing but repeats is settled and sends nothing."""
    made = delivery()
    made.put(*[envelope("shop", {"views": [row("e1")]}, request_id="q", attempt=1)] * 2)
    made.deliver(0, 1)
    assert made.deliver(1, 2) is None
    assert len(made.td.imports()) == 1


def test_held_for_half_the_retention_is_set_aside() -> None:
    """Rows whose account cannot be asked for are parked before the retention ends, and redriven once it can."""
    made = delivery(retention=86_400.0)
    made.redis.flushall()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.clock.sleep(43_300)
    made.put(envelope("shop", {"views": [row("e2")]}))
    assert made.deliver() is not None
    assert [name.split("/")[1:4] for name in made.objects()] == [["parked", "shop", "views"]]
    made.redis.hset(accounts.SENTINEL, mapping={"at": "now"})
    made.map(shop="shop_db")
    made.start()
    assert made.deliver() is None
    assert made.send_aside().delivered == 1
    assert sorted(made.ids("shop_db", "views")) == ["e1", "e2"]
    assert made.objects() == []


def test_small_items_whatever_the_batch() -> None:
    """A batch with more accounts than an item can hold becomes several spans."""
    made = Delivery()
    names = [f"account_with_a_long_name_{n:05d}" for n in range(2500)]
    made.map(**{name: f"db_{name}" for name in names})
    made.put(*(envelope(name, {"views": [row(name)]}) for name in names))
    records = list(itertools.islice(made.records(), None))
    assert len(records) == 2500
    assert made.deliver() is None
    assert len(made.td.imports()) == 2500
    assert len(spans(made)) > 1
    assert all(span.done for span in spans(made))


def test_many_shards_in_one_event() -> None:
    """Records of several shards are worked on per shard, and each shard's lowest unsettled number is reported."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}), envelope("who", {"views": [row("e2")]}))
    made.redis.delete(accounts.SENTINEL)
    one, two = made.records()
    event = {"Records": [member(one), member(two, "shardId-000000000001")]}
    answer = made.worker.run(event, 60_000)
    assert answer == {"batchItemFailures": [{"itemIdentifier": two["SequenceNumber"]}]}
    assert made.ids("shop_db", "views") == ["e1"]
