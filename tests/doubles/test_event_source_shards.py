"""Shards that come and go, as far as the machine in test_event_source_machine.py does not try them."""

from typing import Any

from botocore.exceptions import ClientError

from doubles.event_source import Raised, Returned
from doubles.kinesis import HASH_KEYS
from tests.support.event_source import SHARD, Bench, data_of


def test_children_need_not_wait() -> None:
    """Fault injection can have parent and child side by side, because AWS promises no order between them.

    A split is then noticed within the discovery time although the parent has not ended.
    """
    bench = Bench()
    bench.put("parent")
    poller = bench.poller(children_wait=False, discovery_seconds=10)
    parent = bench.invoke(poller)
    bench.client.split_shard(StreamName="s", ShardToSplit=SHARD, NewStartingHashKey=str(HASH_KEYS // 2))
    bench.put("low", key="a")
    early = poller.poll(bench.now + 9)
    child = poller.poll(bench.now + 10)

    assert (["parent"], None, ["low"]) == (data_of(parent), early, data_of(child))


def test_children_of_an_expired_parent_do_not_wait() -> None:
    """A child whose parent is no longer listed starts at once."""
    bench = Bench()
    bench.client.split_shard(StreamName="s", ShardToSplit=SHARD, NewStartingHashKey=str(HASH_KEYS // 2))
    bench.now += 24 * 3600 + 1
    bench.put("low", key="a")

    assert ["low"] == data_of(bench.poller().poll(bench.now))


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
    bench.run(poller, lambda _: Returned(None))

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
