"""A replay of shards, over streams in memory."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from doubles.clock import START, ManualClock
from doubles.kinesis import MemoryKinesis
from ops.failure import INTERRUPTED, Failure
from ops.replay import HoldsError, Progressing, Replay, Stretch, run
from ops.stack import Stack
from ops.stream import EVENT_BYTES, Border, StreamReader, batches_of, size
from tests.support.delivery import SHARD, STREAM, Delivery, envelope, row
from worker.forced_replay import ForcedReplay
from worker.shards import Shards

EVERYTHING = Stretch(Border(), Border())


def ignore(_: Progressing) -> None:
    """Hear of progress."""


def stream_of(delivery: Delivery) -> StreamReader:
    """Return a delivery's stream."""
    return StreamReader(Shards(delivery.kinesis.client, STREAM, delivery.clock), delivery.clock)


def replay(delivery: Delivery, invoke: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Replay:
    """Return a replay over a delivery's stream and worker."""
    stream = stream_of(delivery)
    return Replay(stream, invoke or (lambda event: delivery.run(event, 120_000)), delivery.clock)


def delivered(*event_ids: str) -> Delivery:
    """Return a delivery of one record per event, an hour apart, all of them in Treasure Data, and an hour later."""
    made = Delivery()
    made.map(shop="shop")
    for event_id in event_ids:
        made.put(envelope("shop", {"views": [row(event_id)]}, request_id=event_id))
        made.clock.sleep(3600)
    assert made.deliver() is None
    return made


def test_what_the_ledger_has_as_delivered_is_passed_over() -> None:
    """A replay of everything, however often, sends nothing."""
    delivery = delivered("a", "b", "c")

    for _ in range(2):
        assert 3 == replay(delivery).shard(SHARD, EVERYTHING, ignore).records
    assert ["a", "b", "c"] == delivery.ids("shop", "views")


def test_what_the_mapping_has_skipped_is_delivered() -> None:
    """Records that nobody has planned are sent, beside those that were."""
    delivery = delivered()
    for event_id in ("a", "b", "c"):
        delivery.put(envelope("shop", {"views": [row(event_id)]}, request_id=event_id))
        delivery.clock.sleep(1)
    delivery.deliver(1, 2)

    replay(delivery).shard(SHARD, EVERYTHING, ignore)

    assert ["a", "b", "c"] == sorted(delivery.ids("shop", "views"))


def test_a_forced_replay_of_an_hour_restores_it_alone() -> None:
    """What lies between the two times goes out once more, and once only."""
    delivery = delivered("a", "b", "c")
    delivery.td.lose("shop", "views", 0, 2_000_000_000)
    hour = Stretch(Border(at=START + 3600), Border(at=START + 7200), ForcedReplay("lost"))

    for _ in range(2):
        assert 1 == replay(delivery).shard(SHARD, hour, ignore).records
    assert ["b"] == delivery.ids("shop", "views")


@pytest.mark.parametrize(
    ("first", "last", "expected"), [(1, 2, ["b", "c"]), (0, 0, ["a"]), (2, 3, ["c", "d"])]
)
def test_sequence_numbers_are_borders_too(first: int, last: int, expected: list[str]) -> None:
    """A stretch by sequence numbers includes both of them."""
    delivery = delivered("a", "b", "c", "d")
    delivery.td.lose("shop", "views", 0, 2_000_000_000)
    numbers = [int(record["SequenceNumber"]) for record in delivery.records()]
    stretch = Stretch(Border(number=numbers[first]), Border(number=numbers[last]), ForcedReplay("lost"))

    replay(delivery).shard(SHARD, stretch, ignore)

    assert expected == delivery.ids("shop", "views")


def test_what_the_worker_does_not_settle_is_handed_to_it_again() -> None:
    """The replay goes on from the lowest number that the worker reports, with pauses while nothing moves."""
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


def test_a_worker_that_holds_for_long_ends_the_replay() -> None:
    """After minutes without progress it says so, and knows from where to go on."""
    delivery = delivered("a", "b")
    number = delivery.records()[0]["SequenceNumber"]
    progress: list[Progressing] = []

    with pytest.raises(HoldsError, match="held for 5 min"):
        replay(delivery, lambda _: {"batchItemFailures": [{"itemIdentifier": number}]}).shard(
            SHARD, EVERYTHING, progress.append
        )
    assert (0, number) == (progress[-1].records, progress[-1].next)


def test_a_stretch_that_has_expired_is_refused() -> None:
    """A time before the retention, or a number whose record is gone, is an error that names what is kept."""
    delivery = delivered("a", "b", "c")
    number = int(delivery.records()[0]["SequenceNumber"])
    delivery.clock.sleep(22 * 3600)
    stream = stream_of(delivery)

    with pytest.raises(
        Failure, match=r"the stream has no records from .*: use --from 2023-11-14T23:13:21Z or later"
    ):
        stream.check(Border(at=START))
    with pytest.raises(Failure, match=f"the record {number} of {SHARD} has expired. The oldest record is"):
        list(stream.read(SHARD, Border(number=number), Border()))
    stream.check(Border(at=START + 3600))


def test_reading_ends_where_the_stream_was_when_it_began() -> None:
    """Records that come meanwhile are left to the live worker: a replay ends however busy the stream is."""
    delivery = delivered("a", "b")
    read = []
    for answer in stream_of(delivery).read(SHARD, Border(), Border()):
        read += answer
        delivery.clock.sleep(1)
        delivery.put(b"{}")

    assert 2 == len(read)


def test_batches_fit_an_event() -> None:
    """No batch is larger than what Lambda takes, and none is empty."""
    kinesis = MemoryKinesis(ManualClock().now)
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    for index in range(40):
        kinesis.put_record(StreamName=STREAM, Data=b"x" * (25_000 * index + 1), PartitionKey="k")
    clock = ManualClock()
    pieces = StreamReader(Shards(kinesis, STREAM, clock), clock).pieces(SHARD, Border(), Border())
    made = list(batches_of(pieces))

    assert 40 == sum(len(piece.records) for piece in made)
    assert all(0 < sum(map(size, piece.records)) <= EVENT_BYTES for piece in made)
    assert len(made) < 8


def test_memory_does_not_grow_with_the_stretch() -> None:
    """A stretch of many batches takes no more memory than a few of them."""
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


def test_ctrl_c_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    """The commands that it prints begin where the worker has settled everything, and name tag and shard."""
    delivery = delivered("a", "b")
    numbers = [record["SequenceNumber"] for record in delivery.records()]
    answers = [{"batchItemFailures": [{"itemIdentifier": numbers[1]}]}]

    def invoke(_: dict[str, Any]) -> dict[str, Any]:
        if answers:
            return answers.pop()
        raise KeyboardInterrupt

    stretch = Stretch(Border(at=START), Border(at=START + 9000), ForcedReplay("lost", table="views"))
    stack = Stack("local", {}, boto3.Session(region_name="us-east-1"), functions={})
    code = run(replay(delivery, invoke), stack, [SHARD, "shardId-1"], stretch, as_json=False)

    assert INTERRUPTED == code
    assert capsys.readouterr().err.splitlines() == [
        "interrupted; 1 record done. To continue:",
        f"  sluice replay --local --shard {SHARD} --from {numbers[1]} --to 2023-11-15T00:43:20Z --force --tag lost --table views",
        "  sluice replay --local --shard shardId-1 --from 2023-11-14T22:13:20Z --to 2023-11-15T00:43:20Z --force --tag lost --table views",
    ]
