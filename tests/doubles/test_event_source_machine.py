"""Whatever happens, every record is sent until it is reported as done, in order, and none is skipped."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from doubles.event_source import Invocation, Outcome, Raised, Returned, TimedOut
from doubles.kinesis import HASH_KEYS
from tests.support.event_source import Bench

HASHES = st.integers(0, 15).map(lambda sixteenth: sixteenth * (HASH_KEYS // 16))
# How an invocation ends: with the places of the records that it reports (none for success), or as a whole.
ENDINGS = st.sets(st.integers(0, 3), max_size=2) | st.sampled_from(
    [Raised(), TimedOut(), Returned({"batchItemFailures": [{"itemIdentifier": ""}]})]
)
SECONDS = st.sampled_from([0, 0, 1, 60, 400])


class EventSourceMachine(RuleBasedStateMachine):
    """A stream that is written to and resharded, and a function that ends in every way."""

    @initialize(
        shards=st.integers(1, 3),
        batch_size=st.integers(1, 5),
        window=st.sampled_from([0, 5]),
        takes=st.none() | st.lists(st.integers(0, 5), min_size=1, max_size=7),
    )
    def begin(self, shards: int, batch_size: int, window: int, takes: list[int] | None) -> None:
        """Create the stream and its poller."""
        self.bench = Bench(shards=shards)
        self.batch_size = batch_size
        options: dict[str, Any] = {}
        if takes is not None:
            cuts = list(takes)

            def borders(_: Any) -> int:
                cuts.append(cuts.pop(0))
                return cuts[-1]

            options["borders"] = borders
        self.poller = self.bench.poller(
            options=options, batch_size=batch_size, maximum_batching_window_seconds=window
        )
        self.numbers: dict[str, list[str]] = {}
        self.settled: dict[str, int] = {}
        self.under_way: list[Invocation] = []

    def shards(self, *, opened: bool = False) -> list[dict[str, Any]]:
        """Return the shards, or only the open ones."""
        shards: list[dict[str, Any]] = self.bench.client.list_shards(StreamName="s")["Shards"]
        return [
            shard
            for shard in shards
            if not opened or "EndingSequenceNumber" not in shard["SequenceNumberRange"]
        ]

    def is_settled(self, shard_id: str) -> bool:
        """Return whether everything on a shard was reported as done."""
        return self.settled.get(shard_id, 0) == len(self.numbers.get(shard_id, []))

    def poll(self) -> None:
        """Take the next invocation and check that it may come now."""
        invocation = self.poller.poll(self.bench.now)
        if invocation is None:
            return
        shard_id = invocation.shard_id
        start = self.settled.get(shard_id, 0)
        numbers = list(invocation.sequence_numbers)
        assert 1 <= len(numbers) <= self.batch_size
        assert numbers == self.numbers[shard_id][start : start + len(numbers)]
        assert shard_id not in [other.shard_id for other in self.under_way]
        [shard] = [shard for shard in self.shards() if shard["ShardId"] == shard_id]
        for name in ("ParentShardId", "AdjacentParentShardId"):
            assert name not in shard or self.is_settled(shard[name])
        self.under_way.append(invocation)

    def end(self, ending: set[int] | Outcome) -> None:
        """End the oldest invocation under way."""
        invocation = self.under_way.pop(0)
        numbers = invocation.sequence_numbers
        settled = 0
        if isinstance(ending, set):
            places = {place % len(numbers) for place in ending}
            settled = min(places, default=len(numbers))
            ending = Returned({"batchItemFailures": [{"itemIdentifier": numbers[place]} for place in places]})
        self.poller.complete(invocation, ending, self.bench.now)
        self.settled[invocation.shard_id] = self.settled.get(invocation.shard_id, 0) + settled

    @rule(hash_keys=st.lists(HASHES, min_size=1, max_size=12))
    def put(self, hash_keys: list[int]) -> None:
        """Put records on any shards."""
        for hash_key in hash_keys:
            answer = self.bench.client.put_record(
                StreamName="s", Data=b"x", PartitionKey="k", ExplicitHashKey=str(hash_key)
            )
            self.numbers.setdefault(answer["ShardId"], []).append(answer["SequenceNumber"])

    @rule(polls=st.integers(1, 3))
    def take(self, polls: int) -> None:
        """Have invocations under way side by side."""
        for _ in range(polls):
            self.poll()

    @rule(steps=st.lists(st.tuples(SECONDS, ENDINGS), min_size=1, max_size=6))
    def work(self, steps: list[tuple[float, Any]]) -> None:
        """Let time pass, sometimes longer than an iterator lives, and end one invocation after the other."""
        for seconds, ending in steps:
            self.bench.now += seconds
            self.poll()
            if self.under_way:
                self.end(ending)

    @rule(hash_key=HASHES)
    def split(self, hash_key: int) -> None:
        """Split a shard at a hash key."""
        for shard in self.shards(opened=True):
            start, end = (int(shard["HashKeyRange"][f"{name}HashKey"]) for name in ("Starting", "Ending"))
            if start < hash_key <= end and len(self.shards()) < 12:
                self.bench.client.split_shard(
                    StreamName="s", ShardToSplit=shard["ShardId"], NewStartingHashKey=str(hash_key)
                )

    @rule(place=st.integers(0, 9))
    def merge(self, place: int) -> None:
        """Merge two neighbours."""
        ordered = sorted(
            self.shards(opened=True), key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"])
        )
        if len(ordered) > 1:
            place %= len(ordered) - 1
            self.bench.client.merge_shards(
                StreamName="s",
                ShardToMerge=ordered[place]["ShardId"],
                AdjacentShardToMerge=ordered[place + 1]["ShardId"],
            )

    @rule(place=st.integers(0, 9))
    def rewind(self, place: int) -> None:
        """Lose the checkpoints of all shards that have no children and nothing under way."""
        names = ("ParentShardId", "AdjacentParentShardId")
        kept = {shard.get(name) for shard in self.shards() for name in names}
        kept |= {invocation.shard_id for invocation in self.under_way}
        for shard_id, count in self.settled.items():
            if count and shard_id not in kept:
                self.settled[shard_id] = place % count
                self.poller.pollers[shard_id].rewind(self.numbers[shard_id][place % count])

    @invariant()
    def ready_when_it_says(self) -> None:
        """The next batch is never further away than the longest wait."""
        if hasattr(self, "poller"):
            assert self.poller.ready_at == float("inf") or self.poller.ready_at <= self.bench.now + 60

    def teardown(self) -> None:
        """Let the function succeed from now on; everything that was put is settled in the end."""
        if not hasattr(self, "poller"):
            return
        while self.under_way:
            self.end(set())
        for _ in range(1000):
            self.poll()
            if self.under_way:
                self.end(set())
            elif all(self.is_settled(shard_id) for shard_id in self.numbers):
                break
            else:
                self.bench.now += 60
        assert [shard_id for shard_id in self.numbers if not self.is_settled(shard_id)] == []
        assert self.bench.expired == []


EventSourceMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_every_record_is_sent_until_it_is_done = EventSourceMachine.TestCase
