"""Shards that come and go."""

from typing import Any

from botocore.exceptions import ClientError

from doubles.event_source import Invocation, Outcome, Raised, Returned
from doubles.kinesis import HASH_KEYS
from tests.support.event_source import SHARD, Bench, data_of

LOW, HIGH = "shardId-000000000001", "shardId-000000000002"


def succeed(_: Invocation) -> Outcome:
    """Return nothing."""
    return Returned(None)


def split(bench: Bench, shard_id: str = SHARD, border: int = HASH_KEYS // 2) -> None:
    """Split a shard."""
    bench.client.split_shard(StreamName="s", ShardToSplit=shard_id, NewStartingHashKey=str(border))


def test_children_wait_for_their_parent() -> None:
    """A child starts only when everything of its parent is settled, however long that takes."""
    bench = Bench()
    bench.put("parent")
    split(bench)
    bench.put("low", key="a")
    bench.put("high", key="d")
    outcomes = [Raised(), Raised()]
    bench.run(bench.poller(), lambda _: outcomes.pop(0) if outcomes else Returned(None))

    assert [["parent"], ["parent"], ["parent"], ["low"], ["high"]] == bench.sent


def test_children_need_not_wait() -> None:
    """Fault injection can have parent and child side by side, because AWS promises no order between them.

    A split is then noticed within the discovery time although the parent has not ended.
    """
    bench = Bench()
    bench.put("parent")
    poller = bench.poller(options={"children_wait": False, "discovery_seconds": 10})
    parent = bench.invoke(poller)
    split(bench)
    bench.put("low", key="a")
    early = poller.poll(bench.now + 9)
    child = poller.poll(bench.now + 10)

    assert (["parent"], None, ["low"]) == (data_of(parent), early, data_of(child))


def test_a_merged_shard_waits_for_both() -> None:
    """A child of two parents waits for both."""
    bench = Bench(shards=2)
    bench.put("low", key="a")
    bench.put("high", key="d")
    bench.client.merge_shards(StreamName="s", ShardToMerge=SHARD, AdjacentShardToMerge=LOW)
    bench.put("child")
    poller = bench.poller()
    first, second = bench.invoke(poller), bench.invoke(poller)
    poller.complete(first, Returned(None), bench.now)
    early = poller.poll(bench.now)
    poller.complete(second, Returned(None), bench.now)

    assert (None, ["child"]) == (early, data_of(poller.poll(bench.now)))


def test_a_shard_that_is_split_later_is_found() -> None:
    """Generations are read one after the other, even if a whole one is empty, and whenever they come."""
    bench = Bench()
    poller = bench.poller()
    bench.put("parent")
    bench.run(poller, succeed)
    split(bench)
    split(bench, LOW, HASH_KEYS // 4)
    bench.put("grandchild", key="a/1")
    bench.put("child", key="d")
    bench.run(poller, succeed)

    assert [["parent"], ["child"], ["grandchild"]] == bench.sent


def test_children_of_an_expired_parent_do_not_wait() -> None:
    """A child whose parent is no longer listed starts at once."""
    bench = Bench()
    split(bench)
    bench.now += 24 * 3600 + 1
    bench.put("low", key="a")
    bench.run(bench.poller(), succeed)

    assert [["low"]] == bench.sent


def test_shards_take_turns() -> None:
    """A shard that fails, or has much to send, does not delay the others."""
    bench = Bench(shards=2)
    bench.put("bad", key="a")
    bench.put("good 1", "good 2", key="d")
    poller = bench.poller(batch_size=1)
    bench.run(
        poller, lambda invocation: Raised() if invocation.shard_id == SHARD else Returned(None), calls=3
    )
    bench.now = poller.ready_at
    bench.put("good 3", key="d")
    bench.run(poller, succeed)

    assert ["bad", "good 1", "good 2", "bad", "good 3"] == [batch[0] for batch in bench.sent]


class Listing:
    """A client that lists shards one by one and fails at first."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._failures = 2

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def list_shards(self, **arguments: Any) -> Any:
        """Fail twice, then answer in pages of one."""
        if self._failures:
            self._failures -= 1
            raise ClientError({"Error": {"Code": "LimitExceededException"}}, "ListShards")
        return self._client.list_shards(MaxResults=1, **arguments)


def test_a_listing_may_fail_and_come_in_pages() -> None:
    """A listing that fails is repeated at the next poll, and all its pages are read."""
    bench = Bench(shards=3)
    bench.client = Listing(bench.client)
    bench.put("high", key="e")
    poller = bench.poller()
    first, second = poller.poll(bench.now), poller.poll(bench.now)

    assert (None, ["high"], 3) == (first, data_of(second), len(poller.pollers))
