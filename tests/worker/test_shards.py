"""The shards of the stream: which there are, whose chains are whose, and what a closed one still has."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from doubles.clock import ManualClock
from doubles.kinesis import HASH_KEYS
from shared.errors import ShardUnreadableError, UnprovenError
from tests.ops.stream.test_readable_shards import FAILING, THROTTLED
from tests.support.delivery import SHARD, STREAM, Delivery, lose_answer
from worker.chain import ChainId
from worker.record import START, number
from worker.shards import BELIEVED_SECONDS, RETENTION_FRESH_SECONDS, SECONDS_BETWEEN_READS, Shards


def one_shard() -> tuple[Any, Shards, ManualClock]:
    """Return a stream of one shard with its calls recorded."""
    made = Delivery()
    return made.kinesis, Shards(made.kinesis, STREAM, made.clock), made.clock


def start_of(kinesis: Any) -> str:
    """Return the first possible sequence number of the first shard."""
    return next(Shards(kinesis.client, STREAM, ManualClock()).all()).chain.start


def test_a_recreated_stream_has_other_chains() -> None:
    """A chain is named by its shard's first number. Shards are listed again after a pause, or if the clock went back."""
    kinesis, shards, clock = one_shard()
    for _ in range(9):
        assert ChainId(STREAM, start_of(kinesis), SHARD) == shards.chain(SHARD)
        clock.sleep(BELIEVED_SECONDS)
    assert 1 == kinesis.calls.count("list_shards")
    for pause in (BELIEVED_SECONDS + 0.1, -1.0):
        before = shards.chain(SHARD)
        kinesis.delete_stream(StreamName=STREAM)
        kinesis.create_stream(StreamName=STREAM, ShardCount=1)
        clock.time += pause

        assert ChainId(STREAM, start_of(kinesis), SHARD) == shards.chain(SHARD) != before
        assert (False, True) == (shards.is_gone(shards.chain(SHARD)), shards.is_gone(before))


def test_a_shard_that_is_not_listed_has_no_chain() -> None:
    """A missing shard is neither guessed nor remembered as missing, so one from a reshard is found."""
    kinesis, shards, _ = one_shard()
    shards.chain(SHARD)
    child = "shardId-000000000001"
    with pytest.raises(ShardUnreadableError, match=child):
        shards.chain(child)
    kinesis.split_shard(StreamName=STREAM, ShardToSplit=SHARD, NewStartingHashKey=str(HASH_KEYS // 2))

    assert child == shards.chain(child).shard


@pytest.mark.parametrize("error", [*THROTTLED, *FAILING])
@pytest.mark.parametrize(
    "act",
    [lambda one: one.chain(SHARD), lambda one: list(one.all()), lambda one: list(one.behind(SHARD, START))],
)
def test_a_stream_that_does_not_answer_is_an_error(act: Callable[[Shards], Any], error: Exception) -> None:
    """The stream's state is never guessed."""
    kinesis, shards, _ = one_shard()
    calls = "describe_stream_summary", "get_records", "list_shards"
    kinesis.before = dict.fromkeys(calls, Mock(side_effect=error))

    with pytest.raises(ShardUnreadableError):
        act(shards)


def split_stream() -> tuple[Any, Shards]:
    """Return a stream of one shard that was split in half."""
    made = Delivery()
    made.put(b"")  # keeps the parent
    made.split()
    return made.kinesis, made.wiring.shards


def list_only(kinesis: Any, part: slice) -> None:
    """Have Kinesis list only some of the shards."""
    real = kinesis.client.list_shards

    def some(**request: Any) -> Any:
        answer = real(**request)
        return {**answer, "Shards": answer["Shards"][part]}

    kinesis.client.list_shards = some


def test_lists_all_shards_with_their_hash_keys() -> None:
    """Parents come before children, and each range includes its last key. The list may have several pages."""
    kinesis, shards = split_stream()
    kinesis.before["list_shards"] = lambda request: request.update(MaxResults=1)

    assert [
        (SHARD, range(HASH_KEYS), False),
        ("shardId-000000000001", range(HASH_KEYS // 2), True),
        ("shardId-000000000002", range(HASH_KEYS // 2, HASH_KEYS), True),
    ] == [(shard.shard_id, shard.keys, shard.is_open) for shard in shards.all()]
    assert 3 == kinesis.calls.count("list_shards")


def test_a_whole_listing_covers_every_key() -> None:
    """One that lacks an open shard proves nothing, also about a shard that it lacks."""
    kinesis, shards = split_stream()
    assert 3 == len(shards.whole())
    list_only(kinesis, slice(-1))

    with pytest.raises(UnprovenError, match="does not list all shards"):
        shards.whole()
    assert not shards.is_gone(ChainId(STREAM, "1", "shardId-000000000009"))


def test_a_shard_that_a_child_names_or_a_listing_cannot_know_is_not_gone() -> None:
    """The first was there, listed or not. There may be two listings that are older than a shard, and whole without it."""
    kinesis, shards = split_stream()
    newest = ChainId(STREAM, str(10**56), "shardId-000000000009")
    parent = shards.chain(SHARD)
    assert not shards.is_gone(newest)
    list_only(kinesis, slice(1, None))  # as after the parent's retention

    assert [False, True] == [shards.is_gone(one) for one in (parent, ChainId(STREAM, "1", "shardId-9"))]


def test_the_retention_is_the_stream_s_own() -> None:
    """It is asked for once an hour, so a change by hand is noticed. Without an answer, it is believed to be the same."""
    kinesis, shards, clock = one_shard()
    assert [86_400, 86_400] == [shards.retention_seconds() for _ in range(2)]
    assert 1 == kinesis.calls.count("describe_stream_summary")
    kinesis.client.increase_stream_retention_period(StreamName=STREAM, RetentionPeriodHours=48)
    clock.sleep(RETENTION_FRESH_SECONDS)

    assert 2 * 86_400 == shards.retention_seconds()

    kinesis.before["describe_stream_summary"] = lambda _: lose_answer()
    clock.sleep(RETENTION_FRESH_SECONDS)
    assert 2 * 86_400 == shards.retention_seconds()


def test_a_closed_shard_tells_which_records_it_has_behind_a_number() -> None:
    """Reads leave the event source mapping its own, and one that fails for now is made again."""
    made = Delivery()
    shards, errors, began = made.wiring.shards, [THROTTLED[0], *FAILING[:2]], made.clock.now()
    numbers = list(map(number, made.put(*[b""] * 4)))
    made.split()

    def read(request: dict[str, Any]) -> None:
        request.update(Limit=2)
        if errors:
            raise errors.pop()

    made.kinesis.before["get_records"] = read
    assert [numbers[:2], numbers[2:]] == list(shards.behind(SHARD, START))
    assert 3.5 + SECONDS_BETWEEN_READS == made.clock.now() - began
    assert [numbers[2:]] == list(shards.behind(SHARD, numbers[1]))
