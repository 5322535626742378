"""Markers: records without rows, for shards on which nothing else would be."""

from botocore.exceptions import ConnectionClosedError

from tests.support import delivery as support
from tests.support.delivery import Delivery
from worker.markers import IDLE_SECONDS, partition_key
from worker.record import NOBODY, decode, number
from worker.shards import Position, Shards


def _split() -> Delivery:
    """Return a delivery whose stream has two open shards, on one of which a row was delivered."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(support.envelope("shop", {"pageviews": [support.row("e1")]}))
    made.deliver()
    made.kinesis.split_shard(
        StreamName=support.STREAM, ShardToSplit=support.SHARD, NewStartingHashKey=str(1 << 127)
    )
    return made


def _numbers(made: Delivery) -> list[int]:
    """Return how many records each of the stream's shards has."""
    shards = Shards(made.kinesis, support.STREAM, made.clock)
    return [len(next(shards.pages(shard.shard_id, Position())).records) for shard in shards.all()]  # type: ignore[union-attr]


def test_each_open_shard_without_records_gets_one() -> None:
    """A closed one gets none."""
    made = _split()
    made.invoke_redrive({})

    assert [1, 1, 1] == _numbers(made)


def test_a_shard_that_had_records_lately_gets_none() -> None:
    """Six hours later it gets one: its records have half of a day left."""
    made = Delivery()
    made.invoke_redrive({})
    made.deliver()
    made.invoke_redrive({})
    soon = _numbers(made)
    made.clock.time += IDLE_SECONDS
    made.invoke_redrive({})

    assert ([1], [2]) == (soon, _numbers(made))


def test_one_item_of_the_ledger_tells_that_a_shard_is_busy() -> None:
    """However many spans it has: the redrive asks every five minutes."""
    made = Delivery()
    asked: list[object] = []
    made.invoke_redrive({})
    made.deliver()
    made.dynamodb.before["query"] = lambda request: asked.append(request.get("Limit"))
    made.invoke_redrive({})

    assert 1 == asked[0]


def test_a_replay_does_not_count() -> None:
    """What it brings may expire at any moment."""
    made = Delivery()
    made.invoke_redrive({})
    made.run(made.event() | {"replay": True}, support.INVOCATION_MS)
    made.invoke_redrive({})

    assert [2] == _numbers(made)


def test_the_worker_plans_a_marker_and_does_nothing_more() -> None:
    """It names no account: Redis, which has lost its data here, does not hold it, and nothing is sent or set aside."""
    made = Delivery()
    made.invoke_redrive({})
    failed = made.deliver()

    (span,) = made.spans()
    assert (None, {}, {}, True) == (failed, span.counts, span.entries, span.done)
    assert [] == made.archived()


def test_a_marker_is_read_as_a_record_without_rows() -> None:
    """Its account is nobody."""
    made = Delivery()
    made.invoke_redrive({})
    (stored,) = made.records()
    record = decode(stored["Data"], support.SHARD, number(stored["SequenceNumber"]), 0.0)

    assert (NOBODY, (), (), ()) == (record.account, record.blocks, record.refused, record.rejected)


def test_what_fails_does_not_keep_the_redrive() -> None:
    """The next run puts it."""
    made = Delivery()

    def fail(_request: object) -> None:
        raise ConnectionClosedError(endpoint_url="https://kinesis.invalid")

    made.kinesis.before["put_record"] = fail
    made.invoke_redrive({})
    del made.kinesis.before["put_record"]
    failed = _numbers(made)
    made.invoke_redrive({})

    assert ([0], [1]) == (failed, _numbers(made))


def test_partition_keys_lead_to_their_shards() -> None:
    """No explicit hash key is needed, by which the search for envelopes would take the record for misplaced."""
    made = _split()
    shards = [one for one in Shards(made.kinesis, support.STREAM, made.clock).all() if one.is_open]

    found = [
        made.kinesis.put_record(StreamName=support.STREAM, Data=b"x", PartitionKey=partition_key(one))
        for one in shards
    ]

    assert [one.shard_id for one in shards] == [one["ShardId"] for one in found]
