"""Markers: records without rows, for shards that would otherwise have none."""

from botocore.exceptions import ConnectionClosedError

from tests.support import delivery as support
from tests.support.delivery import Delivery
from worker.markers import IDLE_SECONDS, partition_key
from worker.record import NOBODY, decode, number
from worker.shards import Position, Shards


def _split() -> Delivery:
    """Return a delivery with two open shards; a row was delivered from their parent."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(support.envelope("shop", {"pageviews": [support.row("e1")]}))
    made.deliver()
    made.kinesis.split_shard(
        StreamName=support.STREAM, ShardToSplit=support.SHARD, NewStartingHashKey=str(1 << 127)
    )
    return made


def _record_counts(made: Delivery) -> list[int]:
    """Return the number of records on each shard."""
    shards = Shards(made.kinesis, support.STREAM, made.clock)
    return [len(next(shards.pages(shard.shard_id, Position())).records) for shard in shards.all()]  # type: ignore[union-attr]


def test_each_open_shard_without_records_gets_a_marker() -> None:
    """A closed shard gets none."""
    made = _split()
    made.invoke_redrive({})

    assert [1, 1, 1] == _record_counts(made)


def test_a_shard_with_recent_records_gets_no_marker() -> None:
    """It gets one after six hours, while its records have half a day left."""
    made = Delivery()
    made.invoke_redrive({})
    made.deliver()
    made.invoke_redrive({})
    soon = _record_counts(made)
    made.clock.time += IDLE_SECONDS
    made.invoke_redrive({})

    assert ([1], [2]) == (soon, _record_counts(made))


def test_one_ledger_item_shows_that_a_shard_is_busy() -> None:
    """The redrive asks every five minutes, so it must not read all of a shard's spans."""
    made = Delivery()
    asked: list[object] = []
    made.invoke_redrive({})
    made.deliver()
    made.dynamodb.before["query"] = lambda request: asked.append(request.get("Limit"))
    made.invoke_redrive({})

    assert 1 == asked[0]


def test_a_replay_does_not_make_a_shard_busy() -> None:
    """Its records may expire at any moment."""
    made = Delivery()
    made.invoke_redrive({})
    made.run(made.event() | {"replay": True}, support.INVOCATION_MS)
    made.invoke_redrive({})

    assert [2] == _record_counts(made)


def test_the_worker_plans_and_settles_a_marker_at_once() -> None:
    """A marker names no account, so an empty Redis does not hold it, and nothing is sent or set aside."""
    made = Delivery()
    made.invoke_redrive({})
    failed = made.deliver()

    (span,) = made.spans()
    assert (None, {}, {}, True) == (failed, span.counts, span.entries, span.done)
    assert [] == made.archived()


def test_a_marker_decodes_to_a_record_without_rows() -> None:
    """It has no account."""
    made = Delivery()
    made.invoke_redrive({})
    (stored,) = made.records()
    record = decode(stored["Data"], support.SHARD, number(stored["SequenceNumber"]), 0.0)

    assert (NOBODY, (), (), ()) == (record.account, record.blocks, record.refused, record.rejected)


def test_a_failed_marker_does_not_stop_the_redrive() -> None:
    """The next run puts it."""
    made = Delivery()

    def fail(_request: object) -> None:
        raise ConnectionClosedError(endpoint_url="https://kinesis.invalid")

    made.kinesis.before["put_record"] = fail
    made.invoke_redrive({})
    del made.kinesis.before["put_record"]
    failed = _record_counts(made)
    made.invoke_redrive({})

    assert ([0], [1]) == (failed, _record_counts(made))


def test_partition_keys_lead_to_their_shards() -> None:
    """An explicit hash key would make the search for envelopes take the record for misplaced."""
    made = _split()
    shards = [one for one in Shards(made.kinesis, support.STREAM, made.clock).all() if one.is_open]

    found = [
        made.kinesis.put_record(StreamName=support.STREAM, Data=b"x", PartitionKey=partition_key(one))
        for one in shards
    ]

    assert [one.shard_id for one in shards] == [one["ShardId"] for one in found]
