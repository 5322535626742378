"""Batches, from Lambda's event to what Treasure Data, the bucket and the ledger hold."""

import gc
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from worker.delivery import Entry, State
from worker.record import Record
from worker.set_aside import SetAside
from worker.span import ChunkKey, Cut

ROWS = [envelope("shop", {"views": [row(f"e{n}")]}) for n in range(3)]


def delivery(**changes: Any) -> Delivery:
    """Return a delivery with two accounts."""
    made = Delivery(**changes)
    made.map(shop="shop_db", blog="blog_db")
    return made


def open_span(*data: bytes, **changes: Any) -> Delivery:
    """Return a delivery with an open span of these records that nobody has begun to send."""
    made = delivery(**changes)
    made.put(*data)
    made.dynamodb.after["put_item"] = once(kill)
    with pytest.raises(Killed):
        made.deliver()
    return made.start()


def test_rows_arrive_once_in_order() -> None:
    """Rows of a batch end in their account's database, in order, and the whole batch is reported as settled."""
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
    """A row in Treasure Data has the values that its envelope carries."""
    made = delivery()
    sent = row("e1", flag=True, nothing=None, text="ü", number=2**62, ratio=0.5)
    made.put(envelope("shop", {"views": [sent]}))
    made.deliver()

    assert [sent] == made.td.rows("shop_db", "views")


def test_redelivery_sends_nothing() -> None:
    """A settled batch that is delivered again, by a sandbox that remembers nothing, costs one question."""
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
    """Whether the cyclic garbage collector is enabled before a batch."""
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


@pytest.mark.parametrize("outage", [False, True])
def test_the_cyclic_gc_is_off_during_a_batch_alone(outage: bool, gc_enabled: bool) -> None:
    """Afterwards it is as it was before, even when the batch was killed."""
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
def test_any_borders_give_each_row_once(batches: list[tuple[int, int]], forgetful: bool) -> None:
    """However the shard is cut into batches, and in whatever order they come, each row arrives once."""
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
def test_ordinary_path_calls(size: int) -> None:
    """A batch costs three calls to the ledger in a cold sandbox, two in a warm one and one to S3, however many chunks it has."""
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


def test_a_pause_in_which_shards_are_listed_again_costs_no_call_to_the_ledger() -> None:
    """The chain is the same as before, and so is its end."""
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

    assert [{"transaction": False}] * 2 == trips


def test_dead_letters_leave_their_neighbours() -> None:
    """What is undecodable, rejected, of unknown, disabled or invalid accounts or revoked keys goes to S3 alone."""
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


def test_a_set_aside_chunk_is_complete() -> None:
    """Its object says whose rows these are, where they came from, and holds them; why, the ledger says."""
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


def test_what_could_not_become_rows_keeps_its_bytes() -> None:
    """A person can look at what came."""
    made = delivery()
    made.put(b"junk")
    made.deliver()
    (name,) = made.objects()
    stored = made.store.read(name)

    assert ("original", b"junk") == (stored.payload_form, msgpack.unpackb(stored.payload))


def test_redis_without_data_judges_nobody() -> None:
    """While the sentinel is missing, an account that is not there is held, not called unknown."""
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


def test_span_ends_before_an_account_that_cannot_be_asked() -> None:
    """What comes before the record whose account cannot be asked for is delivered; from there on it is held."""
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


def test_stale_answers_while_redis_fails() -> None:
    """A warm sandbox goes on with what it knows while Redis fails."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.deliver()
    made.clock.sleep(3600)
    made.redis.flushall()
    made.put(envelope("shop", {"views": [row("e2")]}))

    assert made.deliver(1, 2) is None
    assert ["e1", "e2"] == made.ids("shop_db", "views")
    assert 1 == made.telemetry.counts["AccountsStale"]


def test_ledger_away_holds_everything() -> None:
    """Without the ledger nothing is sent."""
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


def test_unforeseen_error_holds_what_is_not_settled() -> None:
    """An error that no rule foresaw neither passes for success nor escapes; what is settled stays settled."""
    made = delivery()
    numbers = made.put(envelope("shop", {"views": [row("e1")]}), envelope("shop", {"views": [row("e2")]}))
    made.deliver(0, 1)

    def break_down(_: Any) -> None:
        raise ZeroDivisionError

    made.start()
    made.dynamodb.before = {"put_item": break_down}

    assert numbers[1] == made.deliver()
    assert {"UnforeseenErrors": 1, "Holds": 1} == made.telemetry.counts


def test_no_time_left_sends_nothing() -> None:
    """An invocation whose time is up sends nothing and holds, without doubt about its chunks."""
    made = delivery()
    numbers = made.put(envelope("shop", {"views": [row("e1")]}))

    assert numbers[0] == made.deliver(remaining_ms=100)
    assert [] == made.td.imports()
    assert made.spans()[0].entry(ChunkKey.parse("shop/views/0")).since is None
    assert made.deliver() is None
    assert ["e1"] == made.ids("shop_db", "views")


def test_no_time_left_leaves_an_open_span_alone() -> None:
    """It is neither fenced nor read from the shard."""
    made = open_span(*ROWS)
    before = made.spans()
    made.kinesis.calls.clear()

    assert made.deliver(1, 3, remaining_ms=100) is not None
    assert before == made.spans()
    assert "get_records" not in made.kinesis.calls


def create_stream_again(made: Delivery) -> None:
    """Delete the stream and create it again, in no time, with sequence numbers that begin where they began before."""
    made.kinesis.delete_stream(StreamName=STREAM)
    made.kinesis.restart_numbers()
    made.kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    made.read.clear()


def test_a_stream_that_is_created_again_under_a_warm_sandbox_has_chains_of_its_own() -> None:
    """None of its records is taken for one that the old stream has delivered, and none goes into the old stream's chain."""
    made = delivery()
    made.put(*ROWS)
    assert made.deliver() is None
    [before] = made.spans()
    create_stream_again(made)
    made.put(envelope("shop", {"views": [row("new-1")]}))
    made.clock.sleep(10)
    assert made.deliver() is None
    made.put(envelope("shop", {"views": [row("new-2")]}))
    assert made.deliver(1) is None

    assert ["e0", "e1", "e2", "new-1", "new-2"] == made.ids("shop_db", "views")
    chains = [span.chain for span in made.spans()]
    assert (1, 2) == (chains.count(before.chain), chains.count(made.wiring.shards.chain(SHARD)))


def test_records_of_a_stream_that_was_deleted_are_held() -> None:
    """Which of them the old stream has delivered, nobody can tell from the new one's chain."""
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


def test_a_warm_sandbox_that_was_overtaken_looks_again() -> None:
    """What it remembers of the chain's end is no longer so: it executes what another one has planned."""
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


def test_s3_away_holds_what_must_be_set_aside() -> None:
    """A chunk that S3 does not take stays pending; its neighbours are delivered, once."""
    made = delivery()
    numbers = made.put(envelope("nobody", {"views": [row("e1")]}), envelope("shop", {"views": [row("e2")]}))
    made.s3.before = {"put_object": lambda _: lose_answer()}
    assert numbers[0] == made.deliver()
    assert {} == made.aside()

    made.s3.before = {}

    assert made.deliver() is None
    assert (1, ["e2"]) == (len(made.objects()), made.ids("shop_db", "views"))


def test_an_open_span_is_executed_beyond_the_batch() -> None:
    """A span that is met again by a batch that holds only a part of it is executed as a whole: the rest is read from the shard."""
    made = delivery()
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(6)))
    made.dynamodb.after = {"put_item": once(kill)}
    with pytest.raises(Killed):
        made.deliver(0, 4)
    made.start()

    assert made.deliver(2, 6) is None
    assert [f"e{n}" for n in range(6)] == made.ids("shop_db", "views")
    assert [4, 2] == [len(one.rows) for one in made.td.imports()]


def test_hole_is_a_chain_of_its_own() -> None:
    """Records in front of a span that nobody has planned are delivered, and the span's own rows only once."""
    made = delivery()
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(6)))
    made.deliver(3, 5)
    made.start()
    assert made.deliver(1, 6) is None
    made.start()

    assert made.deliver(0, 6) is None
    assert [f"e{n}" for n in range(6)] == sorted(made.ids("shop_db", "views"))
    assert 4 == len(made.td.imports())


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
    assert {"shop_db": {"views": 1}} == made.td.counts()


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
    assert [f"e{n}" for n in range(5)] == sorted(made.ids("shop_db", "views"))
    assert [2, 2, 1] == [len(one.rows) for one in made.td.imports()]


def test_plan_outlives_a_change_of_keys() -> None:
    """A key that is revoked after its rows were planned does not change where they go."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.dynamodb.after = {"put_item": once(kill)}
    with pytest.raises(Killed):
        made.deliver()
    made.redis.hset(KEYS.of("shop"), mapping=Account("shop_db", "active", frozenset({"k1"})).to_fields())
    made.start()
    made.deliver()

    assert ["e1"] == made.ids("shop_db", "views")


def test_held_for_half_the_retention_is_set_aside() -> None:
    """Rows whose account cannot be asked for are parked before the retention ends, and redriven once it can."""
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


def test_small_items_whatever_the_batch() -> None:
    """A batch with more accounts than an item can hold becomes several spans."""
    made = Delivery()
    names = [f"account_with_a_long_name_{n:05d}" for n in range(1200)]
    made.map(**{name: f"db_{name}" for name in names})
    made.put(*(envelope(name, {"views": [row(name)]}) for name in names))

    assert made.deliver() is None
    assert 1200 == len(made.td.imports())
    assert len(made.spans()) > 1
    assert all(span.done for span in made.spans())


def test_many_shards_in_one_event() -> None:
    """Records of several shards are worked on per shard, and each shard's lowest unsettled number is reported."""
    made = delivery()
    made.put(envelope("shop", {"views": [row("e1")]}), envelope("who", {"views": [row("e2")]}))
    made.redis.delete(KEYS.sentinel)
    one, two = made.records()
    event = {"Records": [member(one), member(two, "shardId-000000000001")]}

    assert {"batchItemFailures": [{"itemIdentifier": two["SequenceNumber"]}]} == made.run(event, 60_000)
    assert ["e1"] == made.ids("shop_db", "views")


# Open spans of which records cannot be read


def expire(made: Delivery, records: int) -> dict[str, Any]:
    """Let the stream forget the first records; return the event with the others."""
    event = made.event(records)
    read = made.wiring.shards.read

    def left(shard: str, first: str, last: str, expected: int, deadline: Any) -> list[Record]:
        numbers = {one["kinesis"]["sequenceNumber"] for one in event["Records"]}
        return [one for one in read(shard, first, last, expected, deadline) if one.number[3:] in numbers]

    made.wiring.shards.read = left  # type: ignore[method-assign]  # the stream in memory forgets by time alone
    return event


def test_an_open_span_that_cannot_be_read_as_a_whole_is_held() -> None:
    """An incomplete read is not believed: what it lacks may be there the next time."""
    made = open_span(*ROWS)
    event = expire(made, 1)

    assert event["Records"][0]["kinesis"]["sequenceNumber"] == held(made, event)
    assert [] == made.td.imports()
    made.start()

    assert made.deliver(1) is None
    assert ["e0", "e1", "e2"] == made.ids("shop_db", "views")


def test_records_are_waited_for_until_the_stream_cannot_have_them_any_more() -> None:
    """A span is planned after its records have arrived: what is as old as the retention is still there."""
    made = open_span(*ROWS)
    event = expire(made, 1)
    made.clock.sleep(made.retention)
    assert held(made, event) is not None

    made.clock.sleep(0.001)

    assert held(made, event) is None
    assert {"shop/views/-1": ("missing", 1), "shop/views/0": ("in_doubt", 2)} == states(made)


def held(made: Delivery, event: dict[str, Any]) -> str | None:
    """Invoke the worker; return the sequence number that it reports."""
    failures = made.run(event, 120_000)["batchItemFailures"]
    return failures[0]["itemIdentifier"] if failures else None


def states(made: Delivery) -> dict[str, tuple[str, int]]:
    """Return the states and rows of the first span's entries."""
    return {key.name: (entry.state.value, entry.rows) for key, entry in made.spans()[0].entries.items()}


def test_what_was_delivered_of_other_groups_is_not_taken_for_what_has_expired() -> None:
    """Each group's rows are counted for themselves."""
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


def test_rows_whose_records_have_expired_are_missing() -> None:
    """They are counted and said, never called delivered; what is there of other groups is delivered."""
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


def test_an_open_span_that_has_expired_as_a_whole_keeps_no_batch_behind_it_waiting() -> None:
    """Nothing of it is left to read or to send."""
    made = open_span(*ROWS)
    made.clock.sleep(made.retention + 1)
    made.put(envelope("shop", {"views": [row("later")]}, request_id="later"))
    event = expire(made, 3)

    assert held(made, event) is None
    assert (["later"], 3) == (made.ids("shop_db", "views"), made.telemetry.counts["RowsMissing"])


def test_a_group_that_lacks_rows_is_missing_but_for_what_is_settled() -> None:
    """Which of its rows a chunk held can no longer be told: none of them is sent under another one's id."""
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
    assert made.spans()[0].settled_at is not None
    assert 0 == sum(
        rows for name, (state, rows) in states(made).items() if name != "shop/views/-1" and state == "missing"
    )


def test_missing_rows_are_written_once() -> None:
    """A span that is held after it was found incomplete does not count them again."""
    made = open_span(*ROWS, envelope("nobody", {"views": [row("e3")]}))
    event = expire(made, 3)
    made.clock.sleep(made.retention + 1)
    made.s3.before["put_object"] = lambda _: lose_answer()
    assert held(made, event) is not None
    made.s3.before.clear()

    assert held(made, event) is None
    assert {"shop/views/-1": ("missing", 3), "nobody/views/0": ("dead_letter", 1)} == states(made)
    assert 3 == made.telemetry.counts["RowsMissing"]


def test_rows_that_are_left_are_kept_when_the_span_is_held() -> None:
    """What was found to be missing before is told from what has been settled."""
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
def test_missing_rows_are_told_whoever_else_writes_the_span(done: bool) -> None:
    """They are written and counted with the version that wins; not where another invocation had all rows."""
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
    """Rows would travel under the id of others; all are missing, each once, and nothing is left pending."""
    made = open_span(*ROWS, cut=cut)
    if entries:
        [span] = made.spans()
        made.ledger.update(span.with_entries({key: Entry(state, 3) for key, state in entries.items()}))
    event = expire(made, 1)
    made.clock.sleep(made.retention + 1)

    assert held(made, event) is None
    assert ("missing", 3) == states(made)["shop/views/-1"]
    assert 3 == sum(rows for state, rows in states(made).values() if state == "missing")
    assert made.spans()[0].settled_at is not None
    assert [] == made.td.imports()


def test_a_chunk_that_was_held_may_expire_as_a_whole() -> None:
    """It is not left pending in a span that is done."""
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
    """Which records count is known by their place among all of the span's."""
    copy = envelope("shop", {"views": [row("e0")]}, request_id="q", claim=1)
    made = open_span(copy, copy, ROWS[1])
    event = expire(made, 1)
    made.clock.sleep(made.retention + 1)

    assert held(made, event) is None
    assert {"shop/views/-1": ("missing", 2)} == states(made)
    assert [] == made.td.imports()
