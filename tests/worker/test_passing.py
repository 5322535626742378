"""Whether every shard has passed a time, and the markers that show it."""

from typing import Any

import pytest

from shared.errors import ShardUnreadableError, UnprovenError
from tests.support.delivery import SHARD, STREAM, Delivery, envelope, lose_answer, once, row
from tests.support.spans import span as a_span
from tests.worker.test_shards import list_only
from worker.chain import ChainId
from worker.ledger import BEHIND_ALL
from worker.passing import EVERY_SECONDS, MARGIN_SECONDS
from worker.shards import HASH_KEYS, Shard, Shards

AT = 1_700_000_000
CHILDREN = ("shardId-000000000001", "shardId-000000000002")


def obstacle(made: Delivery, **more: Any) -> str:
    """Return why not all shards have passed AT."""
    return made.sender_wiring.passing.obstacle(AT * 1000, **more)


def delivery(seconds: float = 0.0) -> Delivery:
    """Return a delivery of a record that arrived this long after the margin."""
    made = Delivery().map(shop="shop_db")
    made.clock.sleep(MARGIN_SECONDS + seconds)
    made.put(envelope("shop", {"views": [row("e")]}))
    made.deliver()
    return made


@pytest.mark.parametrize(("late", "expected"), [(1, ""), (0, f"the shard {SHARD} has not passed that time")])
def test_an_open_shard_has_passed_when_a_later_record_is_in_a_span(late: float, expected: str) -> None:
    """Later by the margin, because arrival times run back a little."""
    made = delivery(late)
    made.clock.sleep(10)

    assert expected == obstacle(made)
    assert (1 if expected else 0) == made.kinesis.calls.count("put_record") - 1


def test_an_idle_shard_passes_by_its_marker() -> None:
    """Once the worker has it in a span. The listing is made after the time and the margin by this machine's clock: it knows all shards."""
    made = Delivery()
    made.clock.sleep(MARGIN_SECONDS)
    assert "it is too early" == obstacle(made)
    assert [] == made.records()
    made.clock.sleep(1)
    assert obstacle(made) != ""
    made.clock.sleep(1)
    made.deliver()

    assert "" == obstacle(made)


def test_a_closed_shard_passes_when_its_chain_is_closed() -> None:
    """By an empty span without end: what a worker still brings lies in a gap, and must claim."""
    made = delivery(-1)
    made.split()
    made.clock.sleep(10)
    assert "" != obstacle(made)
    [closing] = [one for one in made.spans() if one.last == BEHIND_ALL]
    assert (SHARD, 0, {}, True) == (closing.chain.shard, closing.records, closing.chunks, closing.settled)
    made.clock.sleep(1)
    made.deliver_all()

    assert "" == obstacle(made)
    assert 1 == sum(one.last == BEHIND_ALL for one in made.spans())


def test_a_shard_that_a_child_names_counts_even_if_it_is_not_listed() -> None:
    """It was noted when the worker appended to its chain, as the listed ones are: so their spans are found later."""
    made = delivery(-1)
    made.split()
    list_only(made.kinesis, slice(1, None))
    made.clock.sleep(10)
    shards = [shard.chain.shard for shard in made.sender_wiring.passing.shards()]

    assert [*CHILDREN, SHARD] == shards
    assert {*shards} == {chain.shard for chain in made.ledger.chains()}
    assert "" != obstacle(made)
    assert [SHARD] == [one.chain.shard for one in made.spans() if one.last == BEHIND_ALL]


def test_a_chain_is_closed_once() -> None:
    """Another turn of the sender may close it between the look at its end and the close."""
    made = delivery(-1)
    made.split()
    made.clock.sleep(10)
    made.sender_wiring.passing.has_passed = lambda *_: False  # type: ignore[method-assign]  # as it was before the other turn
    for _ in range(2):
        obstacle(made)

    assert 1 == sum(one.last == BEHIND_ALL for one in made.spans())


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_listing_older_than_a_chain_or_its_end_proves_nothing(is_closed: bool) -> None:
    """It covers every key, but with a shard as open whose chain was closed, or whose child has received records since."""
    made = delivery(-1 if is_closed else 1)
    older = made.kinesis.client.list_shards(StreamName=STREAM)
    made.split()
    made.clock.sleep(10)
    if is_closed:
        obstacle(made)  # closes the chain
    else:
        made.put(envelope("shop", {"views": [row("later")]}))
        made.deliver_all()
    made.kinesis.client.list_shards = lambda **_: older

    with pytest.raises(UnprovenError, match="the newest shards" if is_closed else "as they were"):
        obstacle(made)
    made.sender_wiring.passing.mark((AT + 1000) * 1000)
    assert len(made.records()) == 1


@pytest.mark.parametrize(
    ("ahead", "late"), [(0, 0), (MARGIN_SECONDS, MARGIN_SECONDS), (86_400, 0), (0, 86_400)]
)
def test_a_deleted_stream_with_higher_numbers_holds_nobody(ahead: int, late: int) -> None:
    """Even if its last record was stamped ahead of the new stream's creation, or its chain was closed late."""
    made = delivery(1)
    high = ChainId(STREAM, "9" * 56, SHARD)
    at = round(made.clock.now())
    made.ledger.note_chain(high)
    made.ledger.append(a_span(chain=high, latest=(at + ahead) * 1000, planned_at=(at + late) * 1000))
    made.clock.sleep(10)
    made.kinesis.delete_stream(StreamName=STREAM)
    made.kinesis.create_stream(StreamName=STREAM, ShardCount=1)

    assert [SHARD] == [shard.chain.shard for shard in made.sender_wiring.passing.shards()]


def test_without_a_whole_listing_nothing_has_passed() -> None:
    """A missing shard is never taken for one that is gone."""
    made = delivery(1)
    made.clock.sleep(10)
    made.kinesis.client.list_shards = lambda **_: {"Shards": []}

    with pytest.raises(UnprovenError):
        obstacle(made)
    made.kinesis.before["list_shards"] = lambda _: lose_answer()
    with pytest.raises(ShardUnreadableError):
        obstacle(made)


def open_shards(made: Delivery) -> list[Shard]:
    """Return the open shards."""
    return [one for one in Shards(made.kinesis, STREAM, made.clock).all() if one.is_open]


def mark(made: Delivery) -> None:
    """Have idle shards marked."""
    made.sender_wiring.passing.mark(round(made.clock.now() * 1000))


def test_a_shard_gets_one_marker_a_minute() -> None:
    """Each shard has its own. One that fails is put later, and stops nothing."""
    made = Delivery()
    made.split()
    made.kinesis.before["put_record"] = once(lose_answer)
    for _ in range(2):
        mark(made)
    assert 2 == made.kinesis.calls.count("put_record")
    made.clock.sleep(EVERY_SECONDS)
    mark(made)

    assert 4 == made.kinesis.calls.count("put_record")
    assert 1 == len(made.telemetry.said("a marker was not put"))


def test_markers_that_take_long_are_put_by_several_runs() -> None:
    """Of hundreds, each could take seconds, and who waits for Treasure Data's answers waits for them, too."""
    made = Delivery()
    made.split()
    made.kinesis.before["put_record"] = lambda _: made.clock.sleep(60)
    for _ in range(2):
        mark(made)

    assert [0, 1, 1] == list(map(len, made.by_shard().values()))


def test_a_marker_reaches_its_shard_however_few_keys_that_has() -> None:
    """A shard that was split off for one busy key has only that key: no search finds a text with its hash."""
    made = Delivery()
    busy = HASH_KEYS // 3
    made.kinesis.split_shard(StreamName=STREAM, ShardToSplit=SHARD, NewStartingHashKey=str(busy))
    upper = open_shards(made)[1].shard_id
    made.kinesis.split_shard(StreamName=STREAM, ShardToSplit=upper, NewStartingHashKey=str(busy + 1))
    put: list[dict[str, str]] = []
    made.kinesis.before["put_record"] = put.append
    mark(made)
    shards = open_shards(made)

    assert 3 == len(shards)
    assert all(int(one["ExplicitHashKey"]) in shard.keys for one, shard in zip(put, shards, strict=True))
