"""Replays of shards of in-memory streams."""

import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from doubles.clock import START, ManualClock
from ops.books.replayed import Planned
from ops.commands import replay as command
from ops.failure import INTERRUPTED, Failure
from ops.stream.readable_shards import ReadableShards
from ops.stream.reader import EVENT_BYTES, RangeEnd, StreamReader, batches_of, size
from ops.stream.replayer import HoldsError, Progressing, Replay
from tests.support.delivery import SHARD, STREAM, Delivery, envelope, row
from worker.membership import Membership

EVERYTHING = RangeEnd(), RangeEnd()


def ignore(_: Progressing) -> None:
    """Ignore progress."""


def stream_of(delivery: Delivery) -> StreamReader:
    """Return a delivery's stream."""
    return StreamReader(ReadableShards(delivery.kinesis.client, STREAM, delivery.clock), delivery.clock)


def replay(delivery: Delivery, invoke: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Replay:
    """Return a replay over a delivery's stream and worker."""
    planned = Planned(Membership(delivery.ledger, delivery.objects))
    return Replay(stream_of(delivery), invoke or delivery.run, delivery.clock, planned)


def delivered(*event_ids: str) -> Delivery:
    """Return a delivery with one delivered record per event, an hour apart, one hour after the last."""
    made = Delivery().map(shop="shop")
    put(made, *event_ids)
    assert made.deliver() is None
    return made


def put(delivery: Delivery, *event_ids: str, seconds: float = 3600) -> Delivery:
    """Put one record per event, each so many seconds before the next."""
    for event_id in event_ids:
        delivery.put(envelope("shop", {"views": [row(event_id)]}, request_id=event_id))
        delivery.clock.sleep(seconds)
    return delivery


def skipped(*event_ids: str, seconds: float = 3600) -> Delivery:
    """Return a delivery whose event source has skipped one record per event, each so many seconds before the next, and delivered `z`."""
    made = put(delivered(), *event_ids, seconds=seconds)
    put(made, "z", seconds=0)
    assert made.deliver(len(event_ids)) is None
    return made


def test_numbers_and_times_can_be_the_borders() -> None:
    """Numbers include both records, times exclude the end. What is in a span is not passed to the worker again."""
    delivery = skipped(*"abcd")
    first, second, third, *_ = (int(record["SequenceNumber"]) for record in delivery.records())
    ranges = [
        (RangeEnd(at=START + 3600), RangeEnd(at=START + 7200)),
        (RangeEnd(number=second), RangeEnd(number=third)),
        (RangeEnd(number=first), RangeEnd(number=first)),
    ]
    read = [replay(delivery).shard(SHARD, *one, ignore).records for one in ranges]

    assert ([1, 2, 1], [*"zbca"]) == (read, delivery.ids("shop", "views"))


def test_a_replay_waits_for_the_event_source() -> None:
    """Whoever appended what it has not read yet would let the shard seem to have passed what it still holds."""
    delivery = put(delivered("x"), "held", "later", seconds=1)
    pauses = []

    def invoke(event: dict[str, Any]) -> dict[str, Any]:
        answer = delivery.run(event)
        pauses.append(delivery.ids("shop", "views"))
        assert delivery.deliver() is None
        return answer

    assert 3 == replay(delivery, invoke).shard(SHARD, *EVERYTHING, ignore).records
    assert [["x"], ["x", "held", "later"]] == pauses


def test_the_last_records_of_a_closed_shard_can_be_replayed() -> None:
    """If the event source has gone on to a child, or to a child of that, it has passed them over, and no later record shows the gap."""
    delivery = put(delivered("x"), "passed", "over", seconds=1)
    delivery.records()
    delivery.split()
    with pytest.raises(HoldsError):
        replay(delivery).shard(SHARD, *EVERYTHING, ignore)
    halves = {"ShardToMerge": "shardId-000000000001", "AdjacentShardToMerge": "shardId-000000000002"}
    delivery.kinesis.client.merge_shards(StreamName=STREAM, **halves)
    put(delivery, "later", seconds=0)
    assert [] == delivery.deliver_all({"shardId-000000000003"})

    assert 3 == replay(delivery).shard(SHARD, *EVERYTHING, ignore).records
    assert [] == delivery.deliver_all()
    assert ["x", "later", "passed", "over"] == delivery.ids("shop", "views")


def test_records_that_the_worker_does_not_store_are_passed_to_it_again() -> None:
    """The replay continues at the lowest number that the worker reports, and pauses if that does not advance. It ends after minutes of that."""
    delivery = put(delivered("x"), "a", "b", "c", seconds=1)
    numbers = [record["SequenceNumber"] for record in delivery.records()][1:]
    asked: list[list[str]] = []
    held = [numbers[1], numbers[1], numbers[2]]

    def invoke(event: dict[str, Any]) -> dict[str, Any]:
        asked.append([one["kinesis"]["sequenceNumber"] for one in event["Records"]])
        delivery.clock.sleep(200)  # all takes longer than its patience with a worker that does not advance
        return {"batchItemFailures": [{"itemIdentifier": held.pop(0)}] if held else []}

    before = delivery.clock.now()
    assert 4 == replay(delivery, invoke).shard(SHARD, *EVERYTHING, ignore).records
    assert [numbers, numbers[1:], numbers[1:], numbers[2:]] == asked
    assert delivery.clock.now() > before
    progress: list[Progressing] = []
    holds = replay(delivery, lambda _: {"batchItemFailures": [{"itemIdentifier": numbers[0]}]})
    with pytest.raises(HoldsError, match="taken no record for 5 min"):
        holds.shard(SHARD, *EVERYTHING, progress.append)
    assert 1 == progress[-1].records


def test_an_expired_stretch_is_rejected() -> None:
    """The error for a time or a sequence number names the oldest that is still on the stream."""
    delivery = delivered("a", "b", "c")
    number = int(delivery.records()[0]["SequenceNumber"])
    delivery.clock.sleep(22 * 3600)
    stream = stream_of(delivery)

    too_early = r"the stream has no records from .*: use --from 2023-11-14T23:13:21Z or later"
    with pytest.raises(Failure, match=too_early):
        stream.check(RangeEnd(at=START))
    with pytest.raises(Failure, match=f"the record {number} of {SHARD} has expired. The oldest record is"):
        list(stream.read(SHARD, RangeEnd(number=number), RangeEnd()))
    no_number = f"^7 is not a sequence number of {SHARD}, or has .* use a time with --from"
    with pytest.raises(Failure, match=no_number):
        list(stream.read(SHARD, RangeEnd(number=7), RangeEnd()))
    stream.check(RangeEnd(at=START + 3600))


def test_reading_ends_at_the_end_of_the_stream_as_it_was_at_the_start() -> None:
    """Later records are left to the live worker, so a replay ends however busy the stream is."""
    delivery = delivered("a", "b")
    read = []
    for answer in stream_of(delivery).read(SHARD, RangeEnd(), RangeEnd()):
        read += answer
        delivery.clock.sleep(1)
        delivery.put(b"{}")

    assert 2 == len(read)


def filled(*records: bytes) -> StreamReader:
    """Return a stream of these records."""
    made = Delivery()
    made.put(*records)
    made.clock.sleep(1)
    return stream_of(made)


def test_batches_fit_into_an_event() -> None:
    """No batch is larger than Lambda's limit, and none is empty."""
    stream = filled(*(b"x" * (25_000 * index + 1) for index in range(40)))
    made = list(batches_of(stream.read(SHARD, RangeEnd(), RangeEnd())))

    assert 40 == sum(map(len, made))
    assert all(0 < sum(map(size, batch)) <= EVENT_BYTES for batch in made)
    assert len(made) < 8


def test_memory_does_not_grow_with_the_stretch() -> None:
    """A stretch of many batches needs no more memory than a few batches."""
    planned = Planned(Membership(Delivery().ledger, Delivery().objects))
    counted = Replay(filled(*[b"x" * 700] * 20_000), lambda _: {}, ManualClock(START + 1), planned)

    tracemalloc.start()
    records = counted.shard(SHARD, *EVERYTHING, ignore).records
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert 20_000 == records
    assert peak < 15_000_000


def run(delivery: Delivery, invoke: Callable[[str, Any], Any]) -> int:
    """Run the command for a delivery, whose functions are called by `invoke`."""
    membership, ledger = Membership(delivery.ledger, delivery.objects), delivery.ledger
    found = {"ledger": lambda: ledger, "membership": lambda: membership}
    stack: Any = SimpleNamespace(option="--local", invoke=invoke, **found)
    return command._run(stack, stream_of(delivery), [SHARD], *EVERYTHING, as_json=False)


def test_ctrl_c_says_how_to_continue(capsys: pytest.CaptureFixture[str]) -> None:
    """The same command again skips what is in a span."""
    delivery = put(delivered("x"), "a", seconds=1)

    assert INTERRUPTED == run(delivery, Mock(side_effect=KeyboardInterrupt))
    said = "interrupted; 1 record read. 0 rows sent, 2 skipped. To continue, run the same command again"
    assert said in capsys.readouterr().err


def test_a_replay_has_the_sender_take_what_waits(capsys: pytest.CaptureFixture[str]) -> None:
    """Once: what waits on is the sender's own."""
    delivery = skipped("a", seconds=1)
    delivery.clock.sleep(1)
    delivery.fail(503, end=delivery.clock.now() + 60)

    def invoke(function: str, event: Any) -> Any:
        if function == "WorkerFunction":
            return delivery.run(event)
        return delivery.invoke_sender(event)

    assert 0 == run(delivery, invoke)
    delivery.clock.sleep(60)
    assert 0 == run(delivery, invoke)
    before, after = capsys.readouterr().out.splitlines()
    assert "0 rows sent, 1 skipped, 1 waiting to be sent" in before
    assert "1 row sent, 1 skipped." in after
    assert ["z", "a"] == delivery.ids("shop", "views")
