"""Replays of shards of in-memory streams."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from doubles.clock import START, ManualClock
from doubles.kinesis import MemoryKinesis
from ops.commands.replay import run
from ops.failure import INTERRUPTED, Failure
from ops.stack import Stack
from ops.stream.reader import EVENT_BYTES, RangeEnd, StreamReader, batches_of, size
from ops.stream.replayer import HoldsError, Progressing, Replay, Stretch
from tests.support.delivery import SHARD, STREAM, Delivery, envelope, row
from worker.chain import ChainId
from worker.forced_replay import ForcedReplay
from worker.record import number
from worker.shards import Shards
from worker.span import Cut, Span

EVERYTHING = Stretch(RangeEnd(), RangeEnd())


def ignore(_: Progressing) -> None:
    """Ignore progress."""


def stream_of(delivery: Delivery) -> StreamReader:
    """Return a delivery's stream."""
    return StreamReader(Shards(delivery.kinesis.client, STREAM, delivery.clock), delivery.clock)


def replay(delivery: Delivery, invoke: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Replay:
    """Return a replay over a delivery's stream and worker."""
    stream = stream_of(delivery)
    return Replay(stream, invoke or (lambda event: delivery.run(event, 120_000)), delivery.clock)


def delivered(*event_ids: str) -> Delivery:
    """Return a delivery with one delivered record per event, an hour apart, one hour after the last."""
    made = Delivery()
    made.map(shop="shop")
    for event_id in event_ids:
        made.put(envelope("shop", {"views": [row(event_id)]}, request_id=event_id))
        made.clock.sleep(3600)
    assert made.deliver() is None
    return made


def test_rows_that_the_ledger_has_as_delivered_are_skipped() -> None:
    """A replay of everything sends nothing, however often it runs."""
    delivery = delivered("a", "b", "c")

    for _ in range(2):
        assert 3 == replay(delivery).shard(SHARD, EVERYTHING, ignore).records
    assert ["a", "b", "c"] == delivery.ids("shop", "views")


def test_records_that_the_event_source_skipped_are_delivered() -> None:
    """Records that were never planned are sent. Those that were delivered are not sent again."""
    delivery = delivered()
    for event_id in ("a", "b", "c"):
        delivery.put(envelope("shop", {"views": [row(event_id)]}, request_id=event_id))
        delivery.clock.sleep(1)
    delivery.deliver(1, 2)

    replay(delivery).shard(SHARD, EVERYTHING, ignore)

    assert ["a", "b", "c"] == sorted(delivery.ids("shop", "views"))


def test_a_forced_replay_of_an_hour_restores_only_that_hour() -> None:
    """Rows between the two times are sent once more, and only once under the same tag."""
    delivery = delivered("a", "b", "c")
    delivery.td.lose("shop", "views", 0, 2_000_000_000)
    hour = Stretch(RangeEnd(at=START + 3600), RangeEnd(at=START + 7200), ForcedReplay("lost"))

    for _ in range(2):
        assert 1 == replay(delivery).shard(SHARD, hour, ignore).records
    assert ["b"] == delivery.ids("shop", "views")


@pytest.mark.parametrize(
    ("first", "last", "expected"), [(1, 2, ["b", "c"]), (0, 0, ["a"]), (2, 3, ["c", "d"])]
)
def test_sequence_numbers_can_be_the_borders(first: int, last: int, expected: list[str]) -> None:
    """The stretch includes both records."""
    delivery = delivered("a", "b", "c", "d")
    delivery.td.lose("shop", "views", 0, 2_000_000_000)
    numbers = [int(record["SequenceNumber"]) for record in delivery.records()]
    stretch = Stretch(RangeEnd(number=numbers[first]), RangeEnd(number=numbers[last]), ForcedReplay("lost"))

    replay(delivery).shard(SHARD, stretch, ignore)

    assert expected == delivery.ids("shop", "views")


def test_records_that_the_worker_does_not_settle_are_sent_to_it_again() -> None:
    """The replay continues at the lowest number that the worker reports, and pauses if that does not advance."""
    delivery = delivered("a", "b", "c")
    numbers = [record["SequenceNumber"] for record in delivery.records()]
    asked: list[list[str]] = []
    held = [numbers[1], numbers[1], numbers[2]]

    def invoke(event: dict[str, Any]) -> dict[str, Any]:
        asked.append([one["kinesis"]["sequenceNumber"] for one in event["Records"]])
        return {"batchItemFailures": [{"itemIdentifier": held.pop(0)}] if held else []}

    before = delivery.clock.now()
    assert 3 == replay(delivery, invoke).shard(SHARD, EVERYTHING, ignore).records
    assert [numbers, numbers[1:], numbers[1:], numbers[2:]] == asked
    assert delivery.clock.now() > before


def test_a_worker_that_holds_for_minutes_ends_the_replay() -> None:
    """The error says for how long it held, and the progress says where to continue."""
    delivery = delivered("a", "b")
    number = delivery.records()[0]["SequenceNumber"]
    progress: list[Progressing] = []

    with pytest.raises(HoldsError, match="held for 5 min"):
        replay(delivery, lambda _: {"batchItemFailures": [{"itemIdentifier": number}]}).shard(
            SHARD, EVERYTHING, progress.append
        )
    assert (0, number) == (progress[-1].records, progress[-1].next)


def test_an_expired_stretch_is_rejected() -> None:
    """The error for a time or a sequence number names the oldest that is still on the stream."""
    delivery = delivered("a", "b", "c")
    number = int(delivery.records()[0]["SequenceNumber"])
    delivery.clock.sleep(22 * 3600)
    stream = stream_of(delivery)

    with pytest.raises(
        Failure, match=r"the stream has no records from .*: use --from 2023-11-14T23:13:21Z or later"
    ):
        stream.check(RangeEnd(at=START))
    with pytest.raises(Failure, match=f"the record {number} of {SHARD} has expired. The oldest record is"):
        list(stream.read(SHARD, RangeEnd(number=number), RangeEnd()))
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


def test_batches_fit_into_an_event() -> None:
    """No batch is larger than Lambda's limit, and none is empty."""
    kinesis = MemoryKinesis(ManualClock().now)
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    for index in range(40):
        kinesis.put_record(StreamName=STREAM, Data=b"x" * (25_000 * index + 1), PartitionKey="k")
    clock = ManualClock()
    pieces = StreamReader(Shards(kinesis, STREAM, clock), clock).pieces(SHARD, RangeEnd(), RangeEnd())
    made = list(batches_of(pieces))

    assert 40 == sum(len(piece.records) for piece in made)
    assert all(0 < sum(map(size, piece.records)) <= EVENT_BYTES for piece in made)
    assert len(made) < 8


def test_memory_does_not_grow_with_the_stretch() -> None:
    """A stretch of many batches needs no more memory than a few batches."""
    kinesis = MemoryKinesis(ManualClock().now)
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    data = b"x" * 700
    for _ in range(60_000):
        kinesis.put_record(StreamName=STREAM, Data=data, PartitionKey="k")
    clock = ManualClock()
    clock.sleep(1)
    counted = Replay(StreamReader(Shards(kinesis, STREAM, clock), clock), lambda _: {}, clock)

    tracemalloc.start()
    records = counted.shard(SHARD, EVERYTHING, ignore).records
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert 60_000 == records
    assert peak < 80_000_000


def test_ctrl_c_prints_the_commands_that_continue(capsys: pytest.CaptureFixture[str]) -> None:
    """Each names its shard and the tag, and begins at the first record that the worker has not settled."""
    delivery = delivered("a", "b")
    numbers = [record["SequenceNumber"] for record in delivery.records()]
    answers = [{"batchItemFailures": [{"itemIdentifier": numbers[1]}]}]

    def invoke(_: dict[str, Any]) -> dict[str, Any]:
        if answers:
            return answers.pop()
        raise KeyboardInterrupt

    stretch = Stretch(RangeEnd(at=START), RangeEnd(at=START + 9000), ForcedReplay("lost", table="views"))
    stack = Stack("local", {}, boto3.Session(region_name="us-east-1"), functions={})
    code = run(replay(delivery, invoke), stack, [SHARD, "shardId-1"], stretch, as_json=False)

    assert INTERRUPTED == code
    assert capsys.readouterr().err.splitlines() == [
        "interrupted; 1 record done. To continue:",
        f"  sluice replay --local --shard {SHARD} --from {numbers[1]} --to 2023-11-15T00:43:20Z --force --tag lost --table views",
        "  sluice replay --local --shard shardId-1 --from 2023-11-14T22:13:20Z --to 2023-11-15T00:43:20Z --force --tag lost --table views",
    ]


@pytest.mark.parametrize(
    ("start", "end", "overlaps"),
    [
        (RangeEnd(), RangeEnd(), True),
        (RangeEnd(at=START + 7200), RangeEnd(), False),
        (RangeEnd(at=START + 30), RangeEnd(), True),
        (RangeEnd(number=400), RangeEnd(number=600), True),
        (RangeEnd(number=501), RangeEnd(), False),
        (RangeEnd(), RangeEnd(number=299), False),
    ],
)
def test_spans_outside_a_range_are_told_apart(*, start: RangeEnd, end: RangeEnd, overlaps: bool) -> None:
    """What is set aside elsewhere does not keep a range from being replayed. In doubt, a span counts as inside."""
    span = Span(
        chain=ChainId.parse("events@1700000000#shardId-0"),
        after=number("299"),
        first=number("300"),
        last=number("500"),
        planned_at=round((START + 3600) * 1000),
        destinations={},
        cut=Cut(100, 100),
        counts={},
        records=1,
        done=True,
    )

    assert overlaps == Stretch(start, end).may_overlap(span)
