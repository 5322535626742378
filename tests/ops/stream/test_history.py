"""The stream and the archive, read as one."""

from typing import Any

import pytest
from ops.stream.history import StreamHistory

from doubles.clock import START
from ops.failure import Failure
from ops.stream.reader import RangeEnd, ShardRecords, batches_of
from ops.stream.replayer import Progressing, Replay, Stretch
from tests.support.delivery import SHARD, STREAM, Delivery, envelope, row
from worker.forced_replay import ForcedReplay
from worker.shards import Shards

HOUR = 3600.0
DAY = 24 * HOUR
EVERYTHING = RangeEnd(at=START)
NOW = RangeEnd()


def history_of(made: Delivery, days: int = 30) -> StreamHistory:
    """Return a delivery's stream and archive."""
    shards = Shards(made.kinesis.client, STREAM, made.clock)
    return StreamHistory(shards, STREAM, made.archive, days, made.clock)


def delivered(hours: int, **options: Any) -> Delivery:
    """Return a delivery of one record an hour, each in its own span, on a stream that keeps records for a day."""
    made = Delivery(**{"retention": DAY} | options)
    made.map(shop="shop")
    for hour in range(hours):
        put(made, f"e{hour}")
        assert made.deliver(hour) is None
        made.clock.sleep(HOUR)
    return made


def put(made: Delivery, name: str) -> None:
    """Put a record with one row on the stream."""
    made.put(envelope("shop", {"views": [row(name)]}, request_id=name))


def read(history: StreamHistory, start: RangeEnd, end: RangeEnd = NOW, shard: str = SHARD) -> list[str]:
    """Return the source of each batch of a shard, `archive` or `stream`, and its number of records."""
    return [
        f"{'archive' if piece.chain else 'stream'} {len(piece.records)}"
        for piece in batches_of(history.pieces(shard, start, end))
    ]


def ignore(_: Progressing) -> None:
    """Ignore progress."""


def replay(made: Delivery, start: RangeEnd, end: RangeEnd = NOW, tag: str = "") -> int:
    """Replay a range as the command does; return how many records were read."""
    history = history_of(made)
    forced = ForcedReplay(tag) if tag else None
    done = Replay(history, lambda event: made.run(event, 120_000), made.clock)
    return sum(
        done.shard(name, Stretch(start, end, forced), ignore).records for name in history.names(start, end)
    )


def test_records_on_the_stream_are_read_from_the_stream() -> None:
    """The archive is not read at all."""
    made = delivered(5)
    made.s3.calls.clear()

    assert ["stream 5"] == read(history_of(made), EVERYTHING)
    assert [] == made.s3.calls


def test_expired_records_are_read_from_the_archive() -> None:
    """Each record is read once, although the archive also has spans that are still on the stream."""
    made = delivered(40)

    assert ["archive 16", "stream 24"] == read(history_of(made), EVERYTHING)
    assert ["archive 16", "stream 4"] == read(history_of(made), EVERYTHING, RangeEnd(at=START + 20 * HOUR))
    assert ["archive 3"] == read(
        history_of(made), RangeEnd(at=START + 2 * HOUR), RangeEnd(at=START + 5 * HOUR)
    )


def test_a_partly_expired_span_comes_in_two_pieces() -> None:
    """No record is missing, and none is repeated."""
    made = Delivery(retention=DAY)
    made.map(shop="shop")
    for hour in range(40):
        put(made, f"e{hour}")
        made.clock.sleep(HOUR / 2)
    made.deliver()
    made.clock.sleep(8 * HOUR)

    assert ["archive 8", "stream 32"] == read(history_of(made), EVERYTHING)


def test_sequence_numbers_are_borders_in_the_archive_too() -> None:
    """Both borders are inclusive."""
    made = delivered(30)
    numbers = [int(one["SequenceNumber"]) for one in made.records()]
    made.clock.sleep(10 * HOUR)

    assert ["archive 3"] == read(history_of(made), RangeEnd(number=numbers[2]), RangeEnd(number=numbers[4]))
    assert ["archive 14", "stream 14"] == read(history_of(made), RangeEnd(number=numbers[2]))


def test_an_expired_sequence_number_is_refused() -> None:
    """Without an archive, the message is the stream's own."""
    made = delivered(2, archive_days=0)
    number = int(made.records()[0]["SequenceNumber"])
    made.clock.sleep(DAY - HOUR)

    with pytest.raises(Failure, match="has expired"):
        read(history_of(made), RangeEnd(number=number))


def test_a_sequence_number_that_the_archive_lacks_is_refused() -> None:
    """The records after it would not be all that was requested."""
    made = delivered(40)
    begin = RangeEnd(number=int(made.records()[0]["SequenceNumber"]) - 1)
    history = history_of(made)

    with pytest.raises(Failure, match=r"is not a sequence number of .* or has expired in the archive too"):
        read(history, begin)


def test_records_that_expire_during_a_read_come_from_the_archive() -> None:
    """The stream is asked again for its first record."""
    made = delivered(30)
    pieces = history_of(made).pieces(SHARD, EVERYTHING, RangeEnd())
    found = [next(pieces)]
    made.clock.sleep(10 * HOUR)
    found += pieces
    numbers = [one["SequenceNumber"] for piece in found for one in piece.records]

    assert [one["SequenceNumber"] for one in made.records()] == numbers


def test_an_unarchived_record_that_expires_during_a_read_is_a_gap() -> None:
    """The worker was holding it. Reading stops, and the message says where."""
    made = delivered(40)
    put(made, "held")
    made.clock.sleep(DAY - HOUR / 2)  # it is the only one left
    numbers = [record["SequenceNumber"] for record in made.records()]
    pieces = history_of(made).pieces(SHARD, EVERYTHING, NOW)
    first = next(pieces)
    made.clock.sleep(HOUR)

    assert numbers[0] == first.records[0]["SequenceNumber"]
    with pytest.raises(Failure, match=f"{numbers[-1]} .* has expired in the archive too"):
        list(pieces)


def test_a_range_that_has_expired_is_refused() -> None:
    """The message says where the kept records begin."""
    made = delivered(2)
    made.clock.sleep(30 * DAY)
    history = history_of(made)

    with pytest.raises(
        Failure, match=r"the archive has no records from .*: use --from 2023-11-15T00:13:21Z or later"
    ):
        history.check(RangeEnd(at=START))
    with pytest.raises(Failure, match="the stream has no records from"):
        history_of(made, days=0).check(RangeEnd(at=START))
    history.check(RangeEnd(at=START + 2 * HOUR))


def test_a_replay_after_a_month_sends_nothing_again() -> None:
    """It runs beside live traffic; a forced replay restores rows that were lost since, once."""
    made = delivered(30)
    made.clock.sleep(27 * DAY)
    put(made, "live")
    assert 31 == replay(made, EVERYTHING)
    assert [*(f"e{hour}" for hour in range(30)), "live"] == made.ids("shop", "views")
    made.td.lose("shop", "views", 0, 2_000_000_000)
    start, end = RangeEnd(at=START + 3 * HOUR), RangeEnd(at=START + 5 * HOUR)
    for _ in range(2):
        assert 2 == replay(made, start, end, "lost")

    assert ["e3", "e4"] == made.ids("shop", "views")
    assert 31 == len(made.archived())


def test_shards_of_a_deleted_stream_are_named_by_their_chains() -> None:
    """They are replayed under these names, and found by their shard ids where those are unambiguous."""
    made = delivered(3)
    before = made.wiring.shards.chain(SHARD)
    made.kinesis.delete_stream(StreamName=STREAM)
    made.kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    made.read.clear()
    made.start()
    history = history_of(made)

    assert [before.name, SHARD] == history.names(EVERYTHING, RangeEnd())
    assert [SHARD] == history.names(RangeEnd(), RangeEnd())
    assert [SHARD] == history.names(RangeEnd(at=made.clock.now()), RangeEnd())
    assert [before.name] == history.names(EVERYTHING, RangeEnd(), before.name)
    assert ["archive 3"] == read(history, EVERYTHING, shard=before.name)
    with pytest.raises(Failure, match="is not a sequence number"):
        read(history, RangeEnd(number=1), shard=before.name)
    assert 3 == replay(made, EVERYTHING)
    assert ["e0", "e1", "e2"] == made.ids("shop", "views")
    with pytest.raises(
        Failure, match=f"there is no shard other: the stream and the archive have {before.name}, {SHARD}"
    ):
        history.names(EVERYTHING, RangeEnd(), "other")


def test_a_shard_that_was_closed_long_ago_is_found_by_its_id() -> None:
    """The stream no longer lists it."""
    made = delivered(3)
    middle = str(1 << 127)
    made.kinesis.split_shard(StreamName=STREAM, ShardToSplit=SHARD, NewStartingHashKey=middle)
    made.clock.sleep(3 * DAY)
    history = history_of(made)
    [name] = history.names(EVERYTHING, RangeEnd(), SHARD)

    assert SHARD not in history.shards()
    assert ["archive 3"] == read(history, EVERYTHING, shard=name)
    assert (SHARD, 3) == (history.chain(name).shard, replay(made, EVERYTHING))


def test_batches_never_mix_stream_and_archive() -> None:
    """The worker is told where each batch comes from."""
    made = delivered(2)
    chain = made.wiring.shards.chain(SHARD)
    one, two = made.records()
    pieces = [ShardRecords([one], chain), ShardRecords([two], chain), ShardRecords([two])]

    assert [ShardRecords([one, two], chain), ShardRecords([two])] == list(batches_of(pieces))
