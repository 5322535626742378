"""Spans that were left open are listed with the command that settles them."""

import os
import shlex
from collections.abc import Mapping
from typing import Any

import pytest
from ops.books.long_open_spans import LEFT_SECONDS, MOST, LongOpenSpans, OpenSpan, find
from worker.delivery import Entry, State

from ops.stream.reader import RangeEnd, StreamReader
from ops.stream.replayer import Replay, Stretch
from shared.clock import SystemClock
from shared.telemetry import NullTelemetry
from tests.support.delivery import SHARD, STREAM, TABLE, Delivery, KilledError, envelope, kill, row
from tests.support.sluice import Sluice
from worker.chain import ChainId
from worker.forced_replay import ForcedReplay
from worker.ledger import Ledger, Place
from worker.record import START
from worker.shards import Shards
from worker.span import ChunkKey, Cut, Database, Group, Owner, Span

SHOP = Owner("shop")


def found(made: Delivery, **options: Any) -> LongOpenSpans:
    """Search a delivery's ledger."""
    return find(made.ledger, made.clock, **{"seconds": 60.0} | options)


def replay(made: Delivery, stretch: Stretch) -> None:
    """Replay a stretch of the delivery's shard."""
    stream = StreamReader(Shards(made.kinesis.client, STREAM, made.clock), made.clock)
    Replay(stream, lambda event: made.run(event, 120_000), made.clock).shard(SHARD, stretch, lambda _: None)


def delivered() -> Delivery:
    """Return a delivery with three records that are in Treasure Data."""
    made = Delivery()
    made.map(shop="shop")
    for event_id in ("a", "b", "c"):
        made.put(envelope("shop", {"views": [row(event_id)]}, request_id=event_id))
    made.deliver()
    return made


def broken_off(made: Delivery, forced: ForcedReplay | None, begin: int) -> None:
    """Kill a replay before it has sent anything."""
    made.s3.before.clear()
    made.clock.sleep(1)
    event = made.event(begin)
    if forced is not None:
        event["forced"] = {"tag": forced.tag, "account": forced.account, "table": forced.table}
    made.dynamodb.after["put_item"] = lambda _: kill()
    with pytest.raises(KilledError):
        made.run(event, 120_000)
    made.dynamodb.after.clear()
    made.start()


def test_the_command_shown_settles_a_span_that_a_forced_replay_left_open() -> None:
    """The command repeats the tag, the account, the table and the span's borders."""
    made = delivered()
    made.td.lose("shop", "views", 0, 2_000_000_000)
    broken_off(made, ForcedReplay("lost", "shop", "views"), 1)
    made.clock.sleep(LEFT_SECONDS + 1)
    (span,) = found(made).spans
    numbers = [record["SequenceNumber"] for record in made.records()]
    words = shlex.split(span.command("--stack sluice-dev --region eu-central-1"))

    assert words == [
        *("sluice", "replay", "--stack", "sluice-dev", "--region", "eu-central-1", "--shard", SHARD),
        *("--from", numbers[1], "--to", numbers[2], "--force", "--tag", "lost"),
        *("--account", "shop", "--table", "views"),
    ]
    assert (2, "lost") == (span.rows, span.tag)
    borders = RangeEnd(number=int(span.first)), RangeEnd(number=int(span.last))
    replay(made, Stretch(*borders, ForcedReplay(span.tag, span.account, span.table)))
    assert ["b", "c"] == made.ids("shop", "views")
    assert LongOpenSpans() == found(made)


def test_the_command_shown_settles_a_span_that_a_plain_replay_left_open() -> None:
    """Records before the first planned span form a chain of their own. Its name contains the shard."""
    made = Delivery()
    made.map(shop="shop")
    for event_id in ("a", "b"):
        made.put(envelope("shop", {"views": [row(event_id)]}, request_id=event_id))
    made.deliver(1)
    broken_off(made, None, 0)
    made.clock.sleep(LEFT_SECONDS + 1)
    (span,) = found(made).spans

    assert (SHARD, 1, "") == (span.shard, span.rows, span.tag)
    assert f"sluice replay --local --shard {SHARD} --from {span.first} --to {span.last}" == span.command(
        "--local"
    )
    replay(made, Stretch(RangeEnd(number=int(span.first)), RangeEnd(number=int(span.last))))
    assert ["b", "a"] == made.ids("shop", "views")
    assert () == found(made).spans


def test_young_or_known_spans_are_not_listed() -> None:
    """A worker may still be busy with a young span, and the status shows each shard's current span anyway."""
    made = delivered()
    made.put(envelope("shop", {"views": [row("d")]}, request_id="d"))
    broken_off(made, None, 3)
    assert () == found(made).spans
    made.clock.sleep(LEFT_SECONDS + 1)
    (span,) = found(made).spans
    (known,) = (one for one in made.spans() if not one.done)

    assert 1 == span.rows
    assert () == found(made, beside={Place(known.chain, known.after)}).spans


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("events@1700000000#shardId-1", ("shardId-1", "", "", "")),
        ("events@1700000000#shardId-1#0007", ("shardId-1", "", "", "")),
        ("events@1700000000#shardId-1#force#t-1/*/*", ("shardId-1", "t-1", "", "")),
        ("events@1700000000#shardId-1#force#t:1.a/shop/*#0007#0008", ("shardId-1", "t:1.a", "shop", "")),
    ],
)
def test_a_chain_name_contains_the_shard_and_the_replay(
    chain: str, expected: tuple[str, str, str, str]
) -> None:
    """The chain of a forced replay has its tag, account and table too. Suffixes for holes are ignored."""
    settled = {ChunkKey(Group(SHOP, "views"), 0): Entry(State.DELIVERED, rows=2)}
    made = OpenSpan.of(span(ChainId.parse(chain), "1", "2", 5, settled))

    assert expected == (made.shard, made.tag, made.account, made.table)
    assert 3 == made.rows


def span(
    chain: ChainId, first: str, last: str, count: int, entries: Mapping[ChunkKey, Entry] | None = None
) -> Span:
    """Return an open span."""
    views = Group(SHOP, "views")
    destinations = {SHOP: Database("shop")}
    planned_at = 1_700_000_000_000
    cut = Cut(10, 1)
    return Span(
        chain, START, first, last, planned_at, destinations, cut, {views: count}, entries=entries or {}
    )


def test_the_search_is_limited_in_time_and_in_results() -> None:
    """On a large ledger the search stops when its time is up, and it lists a limited number of spans."""
    made = delivered()
    broken_off(made, ForcedReplay("lost"), 0)
    (item,) = (one for one in made.dynamodb.client.items(TABLE) if one.get("st") == {"S": "open"})
    for number in range(MOST + 50):
        made.dynamodb.client.put_item(TableName=TABLE, Item=item | {"sk": {"S": f"{number:04}"}})
    made.clock.sleep(LEFT_SECONDS + 1)

    assert MOST == len(found(made).spans)
    for number in range(5000):
        settled = {"pk": {"S": "events@1#s"}, "sk": {"S": f"{number:04}"}, "st": {"S": "done"}}
        made.dynamodb.client.put_item(TableName=TABLE, Item=item | settled)
    assert not found(made, seconds=0.0).is_complete


@pytest.mark.xdist_group("ops")
def test_status_shows_open_spans_and_how_to_settle_them(sluice: Sluice) -> None:
    """The verdict counts them, and each is listed with its command until it is settled."""
    made = sluice.stack.resources
    dynamodb, table = made.client("dynamodb"), made.ledger_table
    chain = ChainId.parse("sluice-local@1700000000#shardId-000000000000#force#left/shop/*")
    ledger = Ledger(dynamodb, table, clock=SystemClock(), entropy=os.urandom, telemetry=NullTelemetry())
    ledger.append(span(chain, "0017", "0019", 3))
    try:
        shown, state = sluice.run("status --local"), sluice.json("status --local")
    finally:
        dynamodb.delete_item(TableName=table, Key={"pk": {"S": chain.name}, "sk": {"S": START}})

    command = (
        "sluice replay --local --shard shardId-000000000000 --from 7 --to 9 --force --tag left --account shop"
    )
    assert 3 == shown.exit_code
    assert "1 span left open since 2023-11-14T22:13:20Z" in shown.stdout.splitlines()[0]
    assert command in shown.stdout
    assert [(3, "left")] == [(one["rows"], one["tag"]) for one in state["open_spans"]]
    assert [] == sluice.json("status --local")["open_spans"]
