"""Batches, from Lambda's event to Treasure Data, bucket and ledger."""

import gc
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker.delivery import Entry, State
from worker.set_aside import SetAside

from doubles.treasure_data import Action, Fault, Kind, Settings
from shared.accounts import Account
from tests.support.delivery import (
    KEYS,
    SHARD,
    STREAM,
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
from worker.record import Record
from worker.span import ChunkKey, Cut

ROWS = [envelope("shop", {"views": [row(f"e{n}")]}) for n in range(3)]


def delivery(**changes: Any) -> Delivery:
    """Return a delivery with two accounts."""
    made = Delivery(**changes)
    made.map(shop="shop_db", blog="blog_db")
    return made


def open_span(*data: bytes, **changes: Any) -> Delivery:
    """Return a delivery with an open span of these records, of which nothing was sent."""
    made = delivery(**changes)
    made.put(*data)
    made.dynamodb.after["put_item"] = once(kill)
    with pytest.raises(Killed):
        made.deliver()
    return made.start()


def test_rows_arrive_once_in_order() -> None:
    """They arrive in their account's database, and the whole batch is reported as settled."""
    made = delivery()
    made.put(
        envelope("shop", {"views": [row("e1"), row("e2")], "clicks": [row("e3")]}),
        envelope("blog", {"views": [row("e4")]}),
        envelope("shop", {"views": [row("e5")]}),
    )

    assert made.deliver() is None
    assert ["e1", "e2", "e5"] == made.ids("shop_db", "views")
    assert ["e3"] == made.ids("shop_db", "clicks")
    assert ["e4"] == made.ids("blog_db", "views")
    assert [] == made.objects()
    assert (5, {}) == (made.telemetry.total("span", "delivered"), made.telemetry.counts)


def test_columns_arrive_as_they_were_sent() -> None:
    """A row in Treasure Data has the values of its envelope."""
    made = delivery()
    sent = row("e1", flag=True, nothing=None, text="ü", number=2**62, ratio=0.5)
    made.put(envelope("shop", {"views": [sent]}))
    made.deliver()

    assert [sent] == made.td.rows("shop_db", "views")


def test_a_redelivered_batch_costs_one_ledger_query() -> None:
    """A cold sandbox finds in the ledger that it is settled, and sends nothing."""
    made = delivery()
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(5)))
    made.deliver()
    made.clock.sleep(86_400)
    made.start()
    made.dynamodb.calls.clear()
    made.kinesis.calls.clear()

    assert made.deliver() is None
    assert (["query"], 1) == (made.dynamodb.calls, len(made.td.imports()))
    assert "get_records" not in made.kinesis.calls


@pytest.fixture(params=[False, True])
def gc_enabled(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Enable or disable the cyclic garbage collector before a batch."""
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


@pytest.mark.parametrize("outage", [False, True])
def test_the_cyclic_gc_is_off_only_during_a_batch(outage: bool, gc_enabled: bool) -> None:
    """Afterwards it is as before, even if the batch was killed."""
    made = delivery()
    made.td.create("shop_db", "views")
    made.put(envelope("shop", {"views": [row("e1")]}))
    seen: list[bool] = []

    def look(_: dict[str, Any]) -> None:
        seen.append(gc.isenabled())
        if outage:
            kill()

    made.dynamodb.before["put_item"] = look
    if outage:
        with pytest.raises(Killed):
            made.deliver()
    else:
        made.deliver()

    assert [False] == seen
    assert gc_enabled == gc.isenabled()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)), min_size=1, max_size=12), st.booleans())
def test_each_row_arrives_once_for_any_batch_borders(batches: list[tuple[int, int]], forgetful: bool) -> None:
    """Batches may be cut anywhere and come in any order."""
    made = delivery(cut=Cut(3, 1 << 20))
    made.put(*(envelope("shop" if n % 3 else "blog", {"views": [row(f"e{n}")]}) for n in range(12)))
    for begin, size in [*batches, (0, 12)]:
        if forgetful:
            made.start()
        assert made.deliver(begin, begin + size) is None

    arrived = made.ids("shop_db", "views") + made.ids("blog_db", "views")

    assert sorted(f"e{n}" for n in range(12)) == sorted(arrived)
    assert all(span.done for span in made.spans())


@pytest.mark.parametrize("size", [1, 150])
def test_a_batch_costs_few_calls(size: int) -> None:
    """It costs three ledger calls in a cold sandbox, two in a warm one, and one S3 call, for any number of chunks."""
    made = delivery()
    made.map(**{f"acct_{n}": f"db_{n}_x" for n in range(size)})
    for n in range(size):
        made.td.create(f"db_{n}_x", *(f"table_{t}" for t in range(3)))
    for batch in range(3):
        made.put(
            *(
                envelope(f"acct_{n}", {f"table_{t}": [row(f"e{batch}{n}{t}")] for t in range(3)})
                for n in range(size)
            )
        )
    made.deliver(0, size)
    assert ["create_table", "query", "put_item", "update_item"] == made.dynamodb.calls
    made.dynamodb.calls.clear()
    made.deliver(size, 2 * size)
    made.deliver(2 * size, 3 * size)

    assert ["put_item", "update_item"] * 2 == made.dynamodb.calls
    assert ["create_bucket", *["put_object"] * 3] == made.s3.calls


def test_listing_shards_again_costs_no_ledger_call() -> None:
    """After a pause the chain is the same as before, and so is its end."""
    made = Delivery()
    made.map(shop="shop_db")
    made.td.create("shop_db", "views")
    for number in range(4):
        made.put(envelope("shop", {"views": [row(f"e{number}")]}))
    assert made.deliver(0, 1) is None
    made.dynamodb.calls.clear()
    for number in range(1, 4):
        made.clock.sleep(60)
        assert made.deliver(number, number + 1) is None

    assert ["put_item", "update_item"] * 3 == made.dynamodb.calls


def test_accounts_cost_one_round_trip() -> None:
    """All accounts of a batch are read at once, and not again while the answers are fresh."""
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

    assert [{"transaction": False}] * 2 == trips


def test_dead_letters_do_not_affect_their_neighbours() -> None:
    """They come from bytes or events that are invalid, from revoked keys, and from accounts that are not active."""
    made = delivery()
    made.redis.hset(KEYS.of("gone"), mapping=Account("gone_db", "disabled").to_fields())
    made.redis.hset(KEYS.of("odd"), mapping={"database": "No!", "status": "active"})
    revoked = Account("shop_db", "active", frozenset({"k2"}))
    made.redis.hset(KEYS.of("shop"), mapping=revoked.to_fields())
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
    assert ["e1", "e7"] == made.ids("shop_db", "views")
    assert {
        "-/-undecodable/0": ("dead_letter", "undecodable", 1),
        "nobody/views/0": ("dead_letter", "unknown_account", 1),
        "gone/views/0": ("dead_letter", "disabled_account", 1),
        "odd/views/0": ("dead_letter", "invalid_account", 1),
        "shop:k2/views/0": ("dead_letter", "revoked_key", 2),
        "shop/-invalid_table/0": ("dead_letter", "invalid_table", 1),
    } == made.aside()
    assert 6 == len(made.objects()) == made.s3.calls.count("put_object") - 1
    assert {"RowsDeadLettered": 7} == made.telemetry.counts
    assert {
        "shop/views": 2,
        "-/-undecodable": 1,
        "nobody/views": 1,
        "gone/views": 1,
        "odd/views": 1,
        "shop:k2/views": 2,
        "shop/-invalid_table": 1,
    } == {group.name: count for group, count in made.spans()[0].counts.items()}


def test_a_set_aside_object_is_complete() -> None:
    """It holds the rows, their owner and their origin. The ledger has the reason."""
    made = delivery()
    began = round(made.clock.now() * 1000)
    numbers = []
    for tables in (
        {"nobody": {"views": [row("e1")]}},
        {"shop": {"views": [row("e2")]}},
        {"nobody": {"clicks": [row("e3")], "views": [row("e4")]}},
    ):
        ((account, rows),) = tables.items()
        numbers += made.put(envelope(account, rows))
        made.clock.sleep(60)
    made.deliver()
    (span,) = made.spans()
    key = ChunkKey.parse("nobody/views/0")
    entry = span.entries[key]

    assert SetAside(
        account="nobody",
        table="views",
        rows=2,
        payload_form="rows",
        shard=SHARD,
        sequence_numbers=(numbers[0], numbers[2]),
        first_seen=began,
        last_seen=began + 120_000,
        chain=span.chain.name,
        after=span.after,
        chunk="nobody/views/0",
        object_id=span.object_id(key),
        payload=msgpack.packb(row("e1")) + msgpack.packb(row("e4")),
    ) == made.store.get(span, key, 0, entry.digest)
    assert (None, round(made.clock.now() * 1000)) == (entry.since, entry.aside_at)


def test_an_undecodable_record_keeps_its_bytes() -> None:
    """A person can look at what came."""
    made = delivery()
    made.put(b"junk")
    made.deliver()
    (name,) = made.objects()
    stored = made.store.read(name)

    assert ("original", b"junk") == (stored.payload_form, msgpack.unpackb(stored.payload))


def test_an_empty_redis_holds_every_account() -> None:
    """While the sentinel is missing, an account that Redis lacks is not unknown."""
    made = delivery()
    made.redis.flushall()
    numbers = made.put(envelope("shop", {"views": [row("e1")]}))
    assert numbers[0] == made.deliver()
    assert ([], [], []) == (made.objects(), made.td.imports(), made.spans())
    assert {"Holds": 1} == made.telemetry.counts
    made.redis.hset(KEYS.sentinel, mapping={"at": "now"})
    made.map(shop="shop_db")

    assert made.deliver() is None
    assert ["e1"] == made.ids("shop_db", "views")


def test_a_span_ends_before_an_unavailable_account() -> None:
    """Records before it are delivered, and those from it on are held."""
    made = delivery()
    made.redis.flushall()
    made.map(shop="shop_db")  # no sentinel
    numbers = made.put(
        envelope("shop", {"views": [row("e1")]}),
        envelope("blog", {"views": [row("e2")]}),
        envelope("shop", {"views": [row("e3")]}),
    )

    assert numbers[1] == made.deliver()
    assert ["e1"] == made.ids("shop_db", "views")


def test_a_warm_sandbox_uses_stale_accounts_while_redis_fails() -> None:
    """It counts the accounts that it resolves this way."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.deliver()
    made.clock.sleep(3600)
    made.redis.flushall()
    made.put(envelope("shop", {"views": [row("e2")]}))

    assert made.deliver(1, 2) is None
    assert ["e1", "e2"] == made.ids("shop_db", "views")
    assert 1 == made.telemetry.counts["AccountsStale"]


def test_without_the_ledger_everything_is_held() -> None:
    """Nothing is sent."""
    made = delivery()
    numbers = made.put(envelope("shop", {"views": [row("e1")]}))
    for call in ("query", "put_item"):
        made.start()
        made.dynamodb.before = {call: lambda _: lose_answer()}
        assert numbers[0] == made.deliver()

    assert [] == made.td.imports()
    made.dynamodb.before = {}
    made.start()

    assert made.deliver() is None


def test_an_unforeseen_error_holds_the_rest_of_the_batch() -> None:
    """It neither passes for success nor escapes, and settled records stay settled."""
    made = delivery()
    numbers = made.put(envelope("shop", {"views": [row("e1")]}), envelope("shop", {"views": [row("e2")]}))
    made.deliver(0, 1)

    def break_down(_: Any) -> None:
        raise ZeroDivisionError

    made.start()
    made.dynamodb.before = {"put_item": break_down}

    assert numbers[1] == made.deliver()
    assert {"UnforeseenErrors": 1, "Holds": 1} == made.telemetry.counts


def test_without_time_nothing_is_sent() -> None:
    """The invocation holds, and its chunks are not in doubt."""
    made = delivery()
    numbers = made.put(envelope("shop", {"views": [row("e1")]}))

    assert numbers[0] == made.deliver(remaining_ms=100)
    assert [] == made.td.imports()
    assert made.spans()[0].entry(ChunkKey.parse("shop/views/0")).since is None
    assert made.deliver() is None
    assert ["e1"] == made.ids("shop_db", "views")


def test_without_time_an_open_span_is_left_alone() -> None:
    """It is neither fenced nor read from the shard."""
    made = open_span(*ROWS)
    before = made.spans()
    made.kinesis.calls.clear()

    assert made.deliver(1, 3, remaining_ms=100) is not None
    assert before == made.spans()
    assert "get_records" not in made.kinesis.calls


def recreate_stream(made: Delivery) -> None:
    """Delete the stream and recreate it instantly, with the same first sequence numbers."""
    made.kinesis.delete_stream(StreamName=STREAM)
    made.kinesis.restart_numbers()
    made.kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    made.read.clear()


def test_a_stream_recreated_under_a_warm_sandbox_has_its_own_chains() -> None:
    """Its records are never taken for delivered ones of the old stream, nor added to the old chain."""
    made = delivery()
    made.put(*ROWS)
    assert made.deliver() is None
    [before] = made.spans()
    recreate_stream(made)
    made.put(envelope("shop", {"views": [row("new-1")]}))
    made.clock.sleep(10)
    assert made.deliver() is None
    made.put(envelope("shop", {"views": [row("new-2")]}))
    assert made.deliver(1) is None

    assert ["e0", "e1", "e2", "new-1", "new-2"] == made.ids("shop_db", "views")
    chains = [span.chain for span in made.spans()]
    assert (1, 2) == (chains.count(before.chain), chains.count(made.wiring.shards.chain(SHARD)))


def test_records_of_a_deleted_stream_are_held() -> None:
    """The new stream's chain does not show which of them the old one delivered."""
    made = delivery()
    numbers = made.put(*ROWS)
    event = made.event()
    made.kinesis.delete_stream(StreamName=STREAM)
    made.kinesis.create_stream(StreamName=STREAM, ShardCount=1)

    failures = made.run(event, 60_000)["batchItemFailures"]

    assert [{"itemIdentifier": numbers[0]}] == failures
    assert ([], []) == (made.spans(), made.td.imports())
    assert ["the records come from a stream that was deleted"] == [
        fields["reason"] for fields in made.telemetry.said("held")
    ]


def test_an_overtaken_warm_sandbox_reads_the_chain_again() -> None:
    """The end that it remembers is outdated, so it executes what another sandbox planned."""
    made = delivery()
    made.put(*ROWS)
    made.deliver(0, 1)
    other = Delivery.__new__(Delivery)
    vars(other).update(vars(made))
    other.start()
    made.dynamodb.before["put_item"] = once(lambda: other.deliver(1, 2))

    assert made.deliver(1, 3) is None
    assert ["e0", "e1", "e2"] == made.ids("shop_db", "views")
    assert [1, 1, 1] == [span.records for span in made.spans()]


def test_without_s3_chunks_to_set_aside_stay_pending() -> None:
    """Their neighbours are delivered once."""
    made = delivery()
    numbers = made.put(envelope("nobody", {"views": [row("e1")]}), envelope("shop", {"views": [row("e2")]}))
    made.s3.before = {"put_object": lambda _: lose_answer()}
    assert numbers[0] == made.deliver()
    assert {} == made.aside()

    made.s3.before = {}

    assert made.deliver() is None
    assert (1, ["e2"]) == (len(made.objects()), made.ids("shop_db", "views"))


def test_an_open_span_is_executed_beyond_the_batch() -> None:
    """If a batch has only part of it, the rest is read from the shard."""
    made = delivery()
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(6)))
    made.dynamodb.after = {"put_item": once(kill)}
    with pytest.raises(Killed):
        made.deliver(0, 4)
    made.start()

    assert made.deliver(2, 6) is None
    assert [f"e{n}" for n in range(6)] == made.ids("shop_db", "views")
    assert [4, 2] == [len(one.rows) for one in made.td.imports()]


def test_a_hole_is_its_own_chain() -> None:
    """Unplanned records in front of a span are delivered, and the span's own rows only once."""
    made = delivery()
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(6)))
    made.deliver(3, 5)
    made.start()
    assert made.deliver(1, 6) is None
    made.start()

    assert made.deliver(0, 6) is None
    assert [f"e{n}" for n in range(6)] == sorted(made.ids("shop_db", "views"))
    assert 4 == len(made.td.imports())


def test_a_plan_survives_a_change_of_mapping() -> None:
    """An open span goes to its planned database, even if the account has another by now."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.dynamodb.before = {"update_item": once(kill, is_settling)}
    with pytest.raises(Killed):
        made.deliver()
    made.map(shop="other_db")
    made.start()

    assert made.deliver() is None
    assert {"shop_db": {"views": 1}} == made.td.counts()


def test_a_plan_survives_a_change_of_limits() -> None:
    """An open span keeps its chunks after a deploy with other limits."""
    made = delivery(cut=Cut(2, 1 << 20))
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(5)))
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=503, begin=0, count=1))
    made.dynamodb.before = {"update_item": once(kill, is_settling)}
    with pytest.raises(Killed):
        made.deliver()
    made.cut = Cut(50_000, 16 << 20)
    made.start()

    assert made.deliver() is None
    assert [f"e{n}" for n in range(5)] == sorted(made.ids("shop_db", "views"))
    assert [2, 2, 1] == [len(one.rows) for one in made.td.imports()]


def test_a_plan_survives_a_key_s_revocation() -> None:
    """A key revoked after its rows were planned does not change their destination."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.dynamodb.after = {"put_item": once(kill)}
    with pytest.raises(Killed):
        made.deliver()
    made.redis.hset(KEYS.of("shop"), mapping=Account("shop_db", "active", frozenset({"k1"})).to_fields())
    made.start()
    made.deliver()

    assert ["e1"] == made.ids("shop_db", "views")


def test_rows_held_for_half_the_retention_are_set_aside() -> None:
    """Their account is unavailable. They are parked before they expire, and redriven once it is available."""
    made = delivery(retention=86_400.0)
    made.redis.flushall()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.clock.sleep(43_300)
    made.put(envelope("shop", {"views": [row("e2")]}))
    assert made.deliver() is not None
    assert {"shop/views/0": ("parked", "unresolved", 1)} == made.aside()

    made.redis.hset(KEYS.sentinel, mapping={"at": "now"})
    made.map(shop="shop_db")
    made.start()

    assert made.deliver() is None
    assert 1 == made.redrive().delivered
    assert ["e1", "e2"] == sorted(made.ids("shop_db", "views"))
    assert [] == made.objects()


def test_a_batch_with_too_many_accounts_for_an_item_becomes_several_spans() -> None:
    """Each span's plan fits its ledger item."""
    made = Delivery()
    names = [f"account_with_a_long_name_{n:05d}" for n in range(1200)]
    made.map(**{name: f"db_{name}" for name in names})
    made.put(*(envelope(name, {"views": [row(name)]}) for name in names))

    assert made.deliver() is None
    assert 1200 == len(made.td.imports())
    assert len(made.spans()) > 1
    assert all(span.done for span in made.spans())


def test_an_event_may_hold_several_shards() -> None:
    """Each shard is processed separately, and its lowest unsettled number is reported."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}), envelope("who", {"views": [row("e2")]}))
    made.redis.delete(KEYS.sentinel)
    one, two = made.records()
    event = {"Records": [member(one), member(two, "shardId-000000000001")]}

    assert {"batchItemFailures": [{"itemIdentifier": two["SequenceNumber"]}]} == made.run(event, 60_000)
    assert ["e1"] == made.ids("shop_db", "views")


# Open spans with unreadable records


def expire(made: Delivery, records: int) -> dict[str, Any]:
    """Make the stream drop the first records, and return the event with the others."""
    event = made.event(records)
    read = made.wiring.shards.read

    def left(shard: str, first: str, last: str, expected: int, deadline: Any) -> list[Record]:
        numbers = {one["kinesis"]["sequenceNumber"] for one in event["Records"]}
        return [one for one in read(shard, first, last, expected, deadline) if one.number[3:] in numbers]

    made.wiring.shards.read = left  # type: ignore[method-assign]  # the stream in memory forgets by time alone
    return event


def test_an_open_span_that_is_read_incompletely_is_held() -> None:
    """The missing records may be there next time."""
    made = open_span(*ROWS)
    event = expire(made, 1)

    assert event["Records"][0]["kinesis"]["sequenceNumber"] == held(made, event)
    assert [] == made.td.imports()
    made.start()

    assert made.deliver(1) is None
    assert ["e0", "e1", "e2"] == made.ids("shop_db", "views")


def test_records_are_waited_for_until_the_retention_has_passed() -> None:
    """A span is planned after its records arrived, so records as old as the retention may still be there."""
    made = open_span(*ROWS)
    event = expire(made, 1)
    made.clock.sleep(made.retention)
    assert held(made, event) is not None

    made.clock.sleep(0.001)

    assert held(made, event) is None
    assert {"shop/views/-1": ("missing", 1), "shop/views/0": ("in_doubt", 2)} == states(made)


def held(made: Delivery, event: dict[str, Any]) -> str | None:
    """Run the worker and return the sequence number that it reports."""
    failures = made.run(event, 120_000)["batchItemFailures"]
    return failures[0]["itemIdentifier"] if failures else None


def states(made: Delivery) -> dict[str, tuple[str, int]]:
    """Return the states and rows of the first span's entries."""
    return {key.name: (entry.state.value, entry.rows) for key, entry in made.spans()[0].entries.items()}


def test_missing_rows_are_counted_per_group() -> None:
    """Delivered rows of other groups do not make up for expired ones."""
    made = delivery(archive_days=0)
    made.put(*ROWS[:2], envelope("blog", {"views": [row("e3")]}))
    made.td.create("shop_db", "views")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, database="shop_db", status=503))
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=503))
    made.deliver()
    made.start()
    event = expire(made, 2)
    made.clock.sleep(made.retention + 1)
    held(made, event)

    assert ("missing", 2) == states(made)["shop/views/-1"]


def test_rows_of_expired_records_are_missing() -> None:
    """They are counted and logged, never called delivered. Other groups' rows are still delivered."""
    made = open_span(*ROWS, envelope("blog", {"views": [row("e3")]}))
    event = expire(made, 3)
    made.clock.sleep(made.retention + 1)
    made.td.settings = Settings(id_memory=2 * made.retention)

    assert held(made, event) is None
    assert {"shop/views/-1": ("missing", 3), "blog/views/0": ("in_doubt", 1)} == states(made)
    assert (3, 1) == (made.telemetry.counts["RowsMissing"], made.telemetry.counts["RowsInDoubt"])
    assert [{"account": "shop", "table": "views", "rows": 3}] == made.telemetry.said(
        "planned rows have expired"
    )
    assert made.spans()[0].done


def test_a_fully_expired_open_span_does_not_delay_later_batches() -> None:
    """Nothing of it is left to read or send."""
    made = open_span(*ROWS)
    made.clock.sleep(made.retention + 1)
    made.put(envelope("shop", {"views": [row("later")]}, request_id="later"))
    event = expire(made, 3)

    assert held(made, event) is None
    assert (["later"], 3) == (made.ids("shop_db", "views"), made.telemetry.counts["RowsMissing"])


def test_a_group_that_lacks_rows_is_missing_except_for_settled_chunks() -> None:
    """Which rows a chunk held is unknown, so none is sent under another one's id."""
    made = delivery(cut=Cut(1, 1 << 20), archive_days=0)
    made.put(*ROWS)
    made.td.create("shop_db", "views")
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.IMPORT, seconds=7.4))
    assert made.deliver(remaining_ms=10_000) is not None
    assert [1] == [len(one.rows) for one in made.td.imports()]
    made.td.faults.clear()
    made.start()
    event = expire(made, 1)
    made.clock.sleep(made.retention + 1)

    assert held(made, event) is None
    assert ("missing", 2) == states(made)["shop/views/-1"]
    assert 1 == len(made.td.imports())
    assert made.spans()[0].final_at is not None
    assert 0 == sum(
        rows for name, (state, rows) in states(made).items() if name != "shop/views/-1" and state == "missing"
    )


def test_missing_rows_are_written_once() -> None:
    """A span held after it was found incomplete does not count them again."""
    made = open_span(*ROWS, envelope("nobody", {"views": [row("e3")]}))
    event = expire(made, 3)
    made.clock.sleep(made.retention + 1)
    made.s3.before["put_object"] = lambda _: lose_answer()
    assert held(made, event) is not None
    made.s3.before.clear()

    assert held(made, event) is None
    assert {"shop/views/-1": ("missing", 3), "nobody/views/0": ("dead_letter", 1)} == states(made)
    assert 3 == made.telemetry.counts["RowsMissing"]


def test_remaining_rows_are_kept_if_the_span_is_held() -> None:
    """Rows found missing before are distinguished from settled ones."""
    made = open_span(*ROWS)
    event = expire(made, 1)
    made.clock.sleep(made.retention + 1)
    made.s3.before["put_object"] = lambda _: lose_answer()
    assert held(made, event) is not None
    made.s3.before.clear()

    assert held(made, event) is None
    assert {"shop/views/-1": ("missing", 1), "shop/views/0": ("in_doubt", 2)} == states(made)
    assert 1 == made.telemetry.counts["RowsMissing"]


@pytest.mark.parametrize("done", [False, True])
def test_missing_rows_are_counted_despite_concurrent_writes(done: bool) -> None:
    """They are written with the version that wins, unless another invocation had all rows and settled the span."""
    made = open_span(*ROWS)
    event = expire(made, 1)
    made.clock.sleep(made.retention + 1)
    [span] = made.spans()
    made.dynamodb.before["update_item"] = once(lambda: made.ledger.update(span.with_entries({}, done=done)))

    assert held(made, event) is None
    assert ({} if done else {"shop/views/-1": ("missing", 1), "shop/views/0": ("in_doubt", 2)}) == states(
        made
    )
    assert (0 if done else 1) == made.telemetry.counts["RowsMissing"]


HALVES = ChunkKey.parse("shop/views/0").halves


@pytest.mark.parametrize(
    ("cut", "entries"),
    [
        (Cut(1000, 1000), {}),
        (Cut(2, 16 << 20), {}),
        (Cut(1000, 16 << 20), {HALVES[0].planned: State.SPLIT, **dict.fromkeys(HALVES, State.PENDING)}),
    ],
)
def test_chunks_are_not_cut_again_from_fewer_rows(cut: Cut, entries: dict[ChunkKey, State]) -> None:
    """Rows would be sent under the ids of others. All are missing, each once, and nothing stays pending."""
    made = open_span(*ROWS, cut=cut)
    if entries:
        [span] = made.spans()
        made.ledger.update(span.with_entries({key: Entry(state, 3) for key, state in entries.items()}))
    event = expire(made, 1)
    made.clock.sleep(made.retention + 1)

    assert held(made, event) is None
    assert ("missing", 3) == states(made)["shop/views/-1"]
    assert 3 == sum(rows for state, rows in states(made).values() if state == "missing")
    assert made.spans()[0].final_at is not None
    assert [] == made.td.imports()


def test_a_held_chunk_may_expire_completely() -> None:
    """It is not left pending in a done span."""
    made = open_span(*ROWS, envelope("blog", {"views": [row("e3")]}))
    [span] = made.spans()
    made.ledger.update(span.with_entries({ChunkKey.parse("shop/views/0"): Entry(rows=3)}))
    event = expire(made, 3)
    made.clock.sleep(made.retention + 1)

    assert held(made, event) is None
    assert {
        "shop/views/0": ("missing", 0),
        "shop/views/-1": ("missing", 3),
        "blog/views/0": ("in_doubt", 1),
    } == states(made)


def test_copies_of_an_incomplete_span_are_not_guessed() -> None:
    """Their positions among all of the span's records say which of them count."""
    copy = envelope("shop", {"views": [row("e0")]}, request_id="q", claim=1)
    made = open_span(copy, copy, ROWS[1])
    event = expire(made, 1)
    made.clock.sleep(made.retention + 1)

    assert held(made, event) is None
    assert {"shop/views/-1": ("missing", 2)} == states(made)
    assert [] == made.td.imports()
