"""Markers: records without rows, which show that a shard has passed a time."""

from tests.support.delivery import SHARD, STREAM, Delivery, lose_answer
from worker.markers import EVERY_SECONDS, Markers
from worker.shards import HASH_KEYS, Shard, Shards


def delivery() -> Delivery:
    """Return a delivery with a stream that was split."""
    made = Delivery()
    made.split()
    return made


def open_shards(made: Delivery) -> list[Shard]:
    """Return the open shards."""
    return [one for one in Shards(made.kinesis, STREAM, made.clock).all() if one.is_open]


def markers(made: Delivery) -> Markers:
    """Return a sandbox's markers."""
    return Markers(made.kinesis, STREAM, made.clock, made.telemetry)


def test_a_shard_gets_one_marker_a_minute() -> None:
    """Each shard has its own."""
    made = delivery()
    some, (first, second) = markers(made), open_shards(made)
    for shard in (first, first, second):
        some.put(shard)
    assert 2 == made.kinesis.calls.count("put_record")
    made.clock.sleep(EVERY_SECONDS)
    some.put(first)

    assert 3 == made.kinesis.calls.count("put_record")


def test_a_marker_reaches_its_shard_however_few_keys_that_has() -> None:
    """A shard that was split off for one busy key has only that key: no search finds a text with its hash."""
    made = Delivery()
    busy = str(HASH_KEYS // 3)
    made.kinesis.split_shard(StreamName=STREAM, ShardToSplit=SHARD, NewStartingHashKey=busy)
    upper = open_shards(made)[1].shard_id
    made.kinesis.split_shard(
        StreamName=STREAM, ShardToSplit=upper, NewStartingHashKey=str(HASH_KEYS // 3 + 1)
    )
    put: list[dict[str, str]] = []
    made.kinesis.before["put_record"] = put.append
    some, shards = markers(made), open_shards(made)
    for shard in shards:
        some.put(shard)

    assert 3 == len(shards)
    assert [True] * 3 == [
        int(one["ExplicitHashKey"]) in shard.keys for one, shard in zip(put, shards, strict=True)
    ]


def test_a_failed_marker_is_put_later() -> None:
    """It stops nothing."""
    made = Delivery()
    some, [shard] = markers(made), open_shards(made)
    made.kinesis.before["put_record"] = lambda _: lose_answer()
    some.put(shard)
    made.kinesis.before.clear()
    made.clock.sleep(EVERY_SECONDS)
    some.put(shard)

    assert 1 == len(made.records())
    assert 1 == len(made.telemetry.said("a marker was not put"))
