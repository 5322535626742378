"""Shards that come and go."""

from typing import Any

from botocore.exceptions import ClientError

from doubles.event_source import Invocation, Outcome, Raised, Returned
from doubles.kinesis import HASH_KEYS
from tests.support.event_source import Bench

ROOT = "shardId-000000000000"


def succeed(_: Invocation) -> Outcome:
    """Answer nothing."""
    return Returned(None)


def split(bench: Bench, shard_id: str = ROOT, border: int = HASH_KEYS // 2) -> None:
    """Split a shard."""
    bench.client.split_shard(StreamName="s", ShardToSplit=shard_id, NewStartingHashKey=str(border))


def test_children_wait_for_their_parent() -> None:
    """A child is begun with only when everything of its parent is settled, however long that takes."""
    bench = Bench()
    bench.put("parent")
    split(bench)
    bench.put("low", key="a")
    bench.put("high", key="d")
    poller = bench.poller()
    outcomes = [Raised(), Raised()]

    bench.run(poller, lambda _: outcomes.pop(0) if outcomes else Returned(None))

    assert bench.sent == [["parent"], ["parent"], ["parent"], ["low"], ["high"]]


def test_children_need_not_wait() -> None:
    """As AWS promises no order between parent and child, a harness can have them side by side."""
    bench = Bench()
    bench.put("parent")
    split(bench)
    bench.put("low", key="a")

    poller = bench.poller(options={"children_wait": False})
    under_way = [poller.poll(bench.now), poller.poll(bench.now)]

    assert [[record.data for record in invocation.records] for invocation in under_way if invocation] == [
        [b"parent"],
        [b"low"],
    ]


def test_a_merged_shard_waits_for_both() -> None:
    """A child of two parents waits for both."""
    bench = Bench(shards=2)
    bench.put("low", key="a")
    bench.put("high", key="d")
    bench.client.merge_shards(StreamName="s", ShardToMerge=ROOT, AdjacentShardToMerge="shardId-000000000001")
    bench.put("child")
    poller = bench.poller()
    first, second = poller.poll(bench.now), poller.poll(bench.now)
    assert first is not None
    assert second is not None

    poller.complete(first, Returned(None), bench.now)
    early = poller.poll(bench.now)
    poller.complete(second, Returned(None), bench.now)
    bench.run(poller, succeed)

    assert (early, bench.sent) == (None, [["child"]])


def test_grandchildren_wait_for_children() -> None:
    """Generations are read one after the other, also when a whole one is empty."""
    bench = Bench()
    bench.put("parent")
    split(bench)
    split(bench, "shardId-000000000001", HASH_KEYS // 4)
    bench.put("grandchild", key="a/1")
    poller = bench.poller()

    bench.run(poller, succeed)

    assert bench.sent == [["parent"], ["grandchild"]]
    assert sorted(poller.pollers) == [f"shardId-00000000000{i}" for i in range(5)]


def test_a_shard_that_is_split_later_is_found() -> None:
    """A poller at work finds the children where the parent ends, and reads them from their beginning."""
    bench = Bench()
    poller = bench.poller(starting_position="LATEST")
    bench.run(poller, succeed)
    bench.put("parent")
    bench.run(poller, succeed)
    split(bench)
    bench.put("low", key="a")
    bench.put("high", key="d")

    bench.run(poller, succeed)

    assert bench.sent == [["parent"], ["low"], ["high"]]


def test_latest_passes_over_shards_that_are_closed() -> None:
    """A mapping that begins with the latest record neither reads nor waits for what was closed before it."""
    bench = Bench()
    bench.put("parent")
    split(bench)
    bench.put("old", key="a")
    poller = bench.poller(starting_position="LATEST")
    bench.run(poller, succeed)
    bench.put("new", key="a")

    bench.run(poller, succeed)

    assert bench.sent == [["new"]]
    assert ROOT not in poller.pollers


def test_children_of_an_expired_parent_wait_for_no_one() -> None:
    """A child whose parent is no longer listed is begun with at once."""
    bench = Bench()
    split(bench)
    bench.now += 24 * 3600 + 1
    bench.put("low", key="a")

    bench.run(bench.poller(), succeed)

    assert bench.sent == [["low"]]


def test_shards_take_turns() -> None:
    """A shard with much to send does not keep the others waiting."""
    bench = Bench(shards=2)
    bench.put("low 1", "low 2", "low 3", key="a")
    bench.put("high 1", "high 2", key="d")

    bench.run(bench.poller(batch_size=1), succeed)

    assert [batch[0] for batch in bench.sent] == ["low 1", "high 1", "low 2", "high 2", "low 3"]


def test_a_failing_shard_does_not_hold_the_others() -> None:
    """While one shard waits after a failure the others go on."""
    bench = Bench(shards=2)
    bench.put("bad", key="a")
    bench.put("good 1", "good 2", key="d")
    poller = bench.poller(batch_size=1)

    bench.run(
        poller,
        lambda invocation: Raised() if invocation.shard_id == ROOT else Returned(None),
        until=bench.now + 0.1,
    )

    assert [batch[0] for batch in bench.sent] == ["bad", "good 1", "good 2"]


def test_new_shards_are_looked_for_now_and_then() -> None:
    """With children that need not wait, a split is noticed within the time set although the parent has not ended."""
    bench = Bench()
    bench.put("parent")
    poller = bench.poller(options={"children_wait": False, "discovery_seconds": 10})
    poller.poll(bench.now)
    split(bench)
    bench.put("low", key="a")

    early = poller.poll(bench.now + 9)
    late = poller.poll(bench.now + 10)

    assert early is None
    assert late is not None
    assert late.shard_id == "shardId-000000000001"


class Listing:
    """A client that tells shards one by one and fails at first."""

    def __init__(self, client: Any) -> None:
        """Wrap a client."""
        self._client = client
        self._failures = 2

    def __getattr__(self, name: str) -> Any:
        """Pass on everything else."""
        return getattr(self._client, name)

    def list_shards(self, **arguments: Any) -> Any:
        """Fail twice, then answer in pages of one."""
        if self._failures:
            self._failures -= 1
            raise ClientError({"Error": {"Code": "LimitExceededException"}}, "ListShards")
        return self._client.list_shards(MaxResults=1, **arguments)


def test_the_listing_may_fail_and_come_in_pages() -> None:
    """A listing that fails is made again at the next poll, and all its pages are read."""
    bench = Bench(shards=3)
    bench.client = Listing(bench.client)
    bench.put("high", key="e")
    poller = bench.poller()

    first, second = poller.poll(bench.now), poller.poll(bench.now)

    assert first is None
    assert second is not None
    assert len(poller.pollers) == 3
