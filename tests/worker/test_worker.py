"""Batches, from Lambda's event to Treasure Data, bucket and ledger."""

import gc
import json
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.lambda_context import Context
from doubles.treasure_data import API_KEY, Action, Fault, Kind
from local.functions import WORKER
from shared.accounts import Account
from shared.envelope import RejectedEvent, decode
from tests.support.delivery import (
    STREAM,
    envelope,
    kill,
    lose_answer,
    member,
    once,
    other_sandbox,
    row,
    shops,
)
from tests.support.delivery import KilledError as Killed
from tests.support.telemetry import Output
from worker.plan import Cut
from worker.span import ChunkKey
from worker.states import Entry, State
from worker.turn import UNSETTLED_SECONDS
from worker.worker import SEND_SECONDS

ROWS = [envelope("shop", {"views": [row(f"e{n}")]}) for n in range(3)]


@pytest.mark.parametrize(
    ("service", "moment", "call"),
    [
        ("s3", "before", "put_object"),
        ("s3", "after", "put_object"),
        ("dynamodb", "before", "query"),
        ("dynamodb", "before", "put_item"),
    ],
)
def test_without_s3_or_the_ledger_nothing_is_appended_or_sent(service: str, moment: str, call: str) -> None:
    """The batch is held, with an alarm at once."""
    made = shops()
    numbers = made.put(*ROWS)
    made.wiring.guard.check()
    hooks = getattr(getattr(made, service), moment)
    hooks[call] = lambda _: lose_answer()

    assert numbers[0] == made.deliver()
    assert ([], []) == (made.spans(), made.td.imports())
    assert {"Holds": 1} == made.telemetry.counts
    assert [True] == ["Connection was closed" in line["reason"] for line in made.telemetry.said("held")]
    hooks.clear()
    assert made.start().deliver() is None
    assert ["e0", "e1", "e2"] == made.ids("shop_db", "views")


@pytest.mark.parametrize(("moment", "left"), [("before", 3), ("after", 0)])
def test_a_span_whose_settlement_fails_is_found_by_the_sender(moment: str, left: int) -> None:
    """The append has put it on the worklist. It is not there any more if only the answer was lost."""
    made = shops(*ROWS)
    getattr(made.dynamodb, moment)["update_item"] = once(lose_answer)
    assert made.deliver() is None
    assert 1 == len(made.telemetry.said("a span is not settled"))
    made.clock.sleep(UNSETTLED_SECONDS)

    assert (left, left // 3) == (made.send().delivered, made.td.duplicates)


def test_no_send_begins_after_five_seconds() -> None:
    """What is left waits without a doubt; what has begun may end."""
    made = shops(*ROWS, cut=Cut(1, 1 << 20))
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.IMPORT, seconds=3.0))

    assert made.deliver() is None
    assert 2 == len(made.td.imports()) == int(SEND_SECONDS // 3) + 1
    assert {"shop/views/2": ("waiting", "deadline", 1)} == made.chunks()
    [span] = made.spans()
    assert span.entry(ChunkKey.parse("shop/views/2")).since is None


def test_a_redelivered_batch_costs_one_ledger_query() -> None:
    """After a look at which table it is, a cold sandbox finds in the ledger that it is in a span, and sends nothing."""
    made = shops(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(5)))
    made.deliver()
    made.clock.sleep(86_400)
    made.start()
    made.wiring.guard.check()
    made.dynamodb.calls.clear()
    made.s3.calls.clear()

    assert made.deliver() is None
    assert (["query"], 1) == (made.dynamodb.calls, len(made.td.imports()))
    assert [] == made.s3.calls


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 11), min_size=1), st.booleans()), max_size=8), st.booleans())
def test_each_row_arrives_once_in_any_batches(batches: list[tuple[set[int], bool]], forgetful: bool) -> None:
    """Batches may have any records, come in any order, and come from a replay. That leaves what is behind the chain's end."""
    accounts = ("shop" if n % 3 else "blog" for n in range(12))
    data = (envelope(one, {"views": [row(f"e{n}")]}, request_id=f"r{n}") for n, one in enumerate(accounts))
    made = shops(*data, cut=Cut(3, 1 << 20))
    records, end = made.event()["Records"], -1
    for chosen, is_replay in [*batches, (set(range(12)), False)]:
        if forgetful:
            made.start()
        event: dict[str, Any] = {"Records": [one for n, one in enumerate(records) if n in chosen]}
        left = [n for n in sorted(chosen) if n > end] if is_replay else []
        failed = [{"itemIdentifier": records[n]["kinesis"]["sequenceNumber"]} for n in left[:1]]
        assert {"batchItemFailures": failed} == made.run(event | ({"replay": True} if is_replay else {}))
        end = end if is_replay else max(end, *chosen)

    arrived = made.ids("shop_db", "views") + made.ids("blog_db", "views")
    assert sorted(f"e{n}" for n in range(12)) == sorted(arrived)
    assert all(span.settled for span in made.spans())
    assert 12 == sum(span.records for span in made.spans())


def test_an_overtaken_warm_sandbox_locates_again() -> None:
    """The end that it remembers is outdated; what another sandbox has appended is not appended again."""
    made = shops(*ROWS)
    made.deliver(0, 1)
    other = other_sandbox(made)
    made.dynamodb.before["put_item"] = once(lambda: other.deliver(1, 2))

    assert made.deliver(1, 3) is None
    assert ["e0", "e1", "e2"] == made.ids("shop_db", "views")
    assert [1, 1, 1] == [span.records for span in made.spans()]


def test_the_latest_arrival_only_grows_along_a_chain() -> None:
    """A warm sandbox remembers it: records are late by it, however far their own arrivals run back."""
    made = shops(*ROWS[:2])
    first, second = made.event()["Records"]
    first["kinesis"]["approximateArrivalTimestamp"] += 400
    for record in (first, second):
        made.run({"Records": [record]})

    assert 1 == len({span.latest for span in made.spans()})


@pytest.mark.parametrize("outage", [False, True])
@pytest.mark.parametrize("is_enabled", [False, True])
def test_the_cyclic_gc_is_off_only_during_a_batch(is_enabled: bool, outage: bool) -> None:
    """Afterwards it is as before, even if the batch was killed."""
    made, before, seen = shops(), gc.isenabled(), list[bool]()
    made.put(ROWS[0])
    made.s3.before["put_object"] = lambda _: (seen.append(gc.isenabled()), outage and kill())
    (gc.enable if is_enabled else gc.disable)()
    try:
        with suppress(Killed):
            made.deliver()
        assert ([False], is_enabled) == (seen, gc.isenabled())
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.parametrize("size", [1, 150])
def test_a_batch_costs_few_calls(size: int) -> None:
    """In a warm sandbox, two ledger calls and one S3 call for any number of chunks but none; one ledger call less if nothing can be sent."""
    made = shops()
    made.map(**{f"acct_{n}": f"db_{n}_x" for n in range(size)})
    for n in range(size):
        made.td.create(f"db_{n}_x", *(f"table_{t}" for t in range(3)))
    for batch in range(3):
        rows = [{f"table_{t}": [row(f"e{batch}{n}{t}")] for t in range(3)} for n in range(size)]
        made.put(*(envelope(f"acct_{n}", tables) for n, tables in enumerate(rows)))
    made.wiring.guard.check()
    made.dynamodb.calls.clear()
    made.s3.calls.clear()
    made.deliver(0, size)
    assert ["query", "put_item", "put_item", "update_item"] == made.dynamodb.calls
    made.dynamodb.calls.clear()
    for batch in (1, 2):
        made.clock.sleep(20)
        made.deliver(batch * size, (batch + 1) * size)

    assert ["put_item", "update_item"] * 2 == made.dynamodb.calls
    assert ["put_object"] * 3 == made.s3.calls
    made.put(envelope("-", {}), envelope("-", {}))
    made.deliver(3 * size)
    assert (["put_object"] * 3, True) == (made.s3.calls, made.spans()[-1].settled)
    made.put(*[envelope("-", {})] * 3)
    made.deliver(3 * size + 2)
    assert 4 == made.s3.calls.count("put_object")  # borders name two records; of more, an index
    made.put(envelope("unknown", {"views": [row("w")]}))
    made.redis.flushall()
    made.dynamodb.calls.clear()
    made.deliver(3 * size + 5)
    assert ["put_item"] == made.dynamodb.calls
    assert made.spans()[-1].settled


def test_a_batch_is_logged_and_measured_without_its_rows_and_without_secrets() -> None:
    """One line describes the span, and one has the metrics, also if Treasure Data refuses the key."""
    made = shops()
    output = Output(made.clock)
    made.put(envelope("shop", {"views": [row("e1", name="Taro"), row("e2")]}), b"junk")
    made.fail(status=401)
    context = Context(function_name="worker", deadline=made.clock.now() + 60, now=made.clock.now)
    with output.telemetry.invocation(context):
        made.wiring_of(WORKER, telemetry=output.telemetry).worker.run(made.event(), made.deadline())
    (span,) = [line for line in output.log() if line["message"] == "span"]
    (metrics,) = output.metrics()

    assert (2, 2, 2) == (span["records"], span["chunks"], span["waiting"])
    assert ([1], 1, 2) == (metrics["NeedsAttention"], metrics["RowsDead"], metrics["RowsWaiting"])
    assert not [one for one in (API_KEY, "event_id", "Taro") if one in json.dumps(output.lines())]


def test_dead_chunks_do_not_affect_their_neighbours() -> None:
    """They come from bytes or events that are invalid, revoked keys and accounts that are not active, and are counted once if the append is repeated."""
    made = shops(
        envelope("shop", {"views": [row("e1")]}),
        b"junk",
        envelope("nobody", {"views": [row("e2")]}),
        envelope("blog", {"views": [row("e3")]}),
        envelope("shop", {"views": [row("e5"), row("e6")]}, key_id="k2"),
        b'{"account":"shop","events":[{"table":"?"},{"table":"views","event_id":"e7"}]}',
    )
    made.map(shop=Account("shop_db", "active", frozenset({"k2"})), blog=Account("blog_db", "disabled"))
    put = made.dynamodb.client.put_item
    made.dynamodb.before["put_item"] = lambda request: put(**request)  # as if an answer was lost

    assert made.deliver() is None
    assert ["e1", "e7"] == made.ids("shop_db", "views")
    assert {
        "-/-undecodable/0": ("dead", "undecodable", 1),
        "nobody/views/0": ("dead", "unknown_account", 1),
        "blog/views/0": ("dead", "disabled_account", 1),
        "shop:k2/views/0": ("dead", "revoked_key", 2),
        "shop/-invalid_table/0": ("dead", "invalid_table", 1),
    } == made.chunks()
    assert {"RowsDead": 6} == made.telemetry.counts
    [span] = made.spans()
    junk = made.objects.payload(span, ChunkKey.parse("-/-undecodable/0"))
    assert b"junk" == msgpack.unpackb(junk)


def test_an_unforeseen_error_or_too_little_time_holds_the_rest_of_the_batch() -> None:
    """It neither passes for success nor escapes, and records in a span stay there."""
    made = shops()
    numbers = made.put(*ROWS)
    made.deliver(0, 1)
    made.start()
    made.dynamodb.before = {"put_item": Mock(side_effect=ZeroDivisionError)}
    assert numbers[1] == made.deliver()
    assert {"UnforeseenErrors": 1, "Holds": 1} == made.telemetry.counts
    made.dynamodb.before = {}
    assert numbers[1] == made.start().deliver(1, remaining_ms=100)
    assert (["e0"], 1) == (made.ids("shop_db", "views"), len(made.spans()))

    assert made.deliver() is None
    assert ["e0", "e1", "e2"] == made.ids("shop_db", "views")


def test_an_event_may_hold_several_shards() -> None:
    """Each shard is processed separately, and its lowest number that is in no span is reported."""
    made = shops(*ROWS[:2])
    one, two = made.records()
    event = {"Records": [member(one), member(two, "shardId-000000000001")]}

    assert {"batchItemFailures": [{"itemIdentifier": two["SequenceNumber"]}]} == made.run(event, 60_000)
    assert ["e0"] == made.ids("shop_db", "views")


@pytest.mark.parametrize("same_numbers", [False, True])
def test_a_stream_recreated_under_a_warm_sandbox_has_its_own_chains(same_numbers: bool) -> None:
    """Its records are never taken for those of the old one, and those of the old one that still come are held."""
    made = shops()
    numbers = made.put(*ROWS)
    assert made.deliver() is None
    old = made.event()
    made.kinesis.delete_stream(StreamName=STREAM)
    if same_numbers:
        made.kinesis.restart_numbers()
    made.kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    if not same_numbers:
        assert [{"itemIdentifier": numbers[0]}] == other_sandbox(made).run(old)["batchItemFailures"]
    made.read.clear()
    made.put(*(envelope("shop", {"views": [row(f"new-{n}")]}) for n in range(9)))
    made.clock.sleep(10)
    assert made.deliver() is None

    assert [f"e{n}" for n in range(3)] + [f"new-{n}" for n in range(9)] == made.ids("shop_db", "views")
    assert [3, 9] == sorted(span.records for span in made.spans())
    assert 2 == len({span.chain for span in made.spans()})


def test_rejected_events_with_countless_codes_hold_nothing() -> None:
    """Only who writes to the stream directly can send them. They are all counted, though not each by its code."""
    made = shops()
    tables = {f"{n:0>128}": [row(f"e{n}")] for n in range(100)}
    sent = decode(envelope("shop", tables, claim=1_700_000_000_000))
    rejected = tuple(RejectedEvent(n, f"{n:0>64}", f"{n % 9:0>128}", b"{}") for n in range(5000))
    made.put(sent._replace(rejected=rejected).encode())

    assert made.deliver() is None
    [one] = made.spans()
    assert 5000 == sum(rows for key, rows in one.chunks.items() if key.group.is_rejected)
    waiting = {key: Entry(State.DEAD, 1, "d" * 128, 1, "r" * 32, 1) for key in one.chunks}
    assert made.ledger.update(one.with_entries(waiting))[0]
