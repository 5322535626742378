"""Whatever happens, every record is sent until it is reported as done, in order, and none is skipped."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from doubles.event_source import Invocation, Outcome, Raised, Returned, TimedOut
from doubles.kinesis import HASH_KEYS
from tests.support.event_source import Bench

HASHES = st.integers(1, 15).map(lambda sixteenth: sixteenth * (HASH_KEYS // 16))
# How an invocation ends: with the places of the records that it reports (none for success), or as a whole.
ENDINGS = st.sets(st.integers(0, 3), max_size=2) | st.sampled_from(
    [Raised(), TimedOut(), Returned({"batchItemFailures": [{"itemIdentifier": ""}]})]
)
SECONDS = st.sampled_from([0, 0, 1, 60, 400])
PARENTS = ("ParentShardId", "AdjacentParentShardId")


class EventSourceMachine(RuleBasedStateMachine):
    """A stream that is written to and resharded, and a function that ends in every way."""

    @initialize(
        shards=st.integers(1, 3),
        batch_size=st.integers(1, 5),
        window=st.sampled_from([0, 5]),
        takes=st.none() | st.lists(st.integers(0, 5), min_size=1, max_size=7),
    )
    def _begin(self, shards: int, batch_size: int, window: int, takes: list[int] | None) -> None:
        self.bench = Bench(shards=shards)
        self.batch_size = batch_size
        borders = None if takes is None else lambda _: takes.append(takes.pop(0)) or takes[-1]
        self.poller = self.bench.poller(
            batch_size=batch_size, maximum_batching_window_seconds=window, borders=borders
        )
        self.numbers: dict[str, list[str]] = {}
        self.settled: dict[str, int] = {}
        self.under_way: list[Invocation] = []

    def _shards(self) -> dict[str, dict[str, Any]]:
        return {shard["ShardId"]: shard for shard in self.bench.client.list_shards(StreamName="s")["Shards"]}

    def opened(self) -> list[tuple[int, int, str]]:
        """Return first and last hash key and id of the open shards, in order."""
        return sorted(
            (*(int(shard["HashKeyRange"][f"{name}HashKey"]) for name in ("Starting", "Ending")), shard_id)
            for shard_id, shard in self._shards().items()
            if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
        )

    def _is_settled(self, shard_id: str) -> bool:
        return self.settled.get(shard_id, 0) == len(self.numbers.get(shard_id, []))

    def _poll(self) -> None:
        invocation = self.poller.poll(self.bench.now)
        if invocation is None:
            return
        shard_id = invocation.shard_id
        start = self.settled.get(shard_id, 0)
        numbers = list(invocation.sequence_numbers)
        assert 1 <= len(numbers) <= self.batch_size
        assert self.numbers[shard_id][start : start + len(numbers)] == numbers
        assert shard_id not in [other.shard_id for other in self.under_way]
        shard = self._shards()[shard_id]
        assert all(self._is_settled(shard[name]) for name in PARENTS if name in shard)
        self.under_way.append(invocation)

    def _end(self, ending: set[int] | Outcome) -> None:
        invocation = self.under_way.pop(0)
        numbers = invocation.sequence_numbers
        settled = 0
        if isinstance(ending, set):
            places = {place % len(numbers) for place in ending}
            settled = min(places, default=len(numbers))
            ending = Returned({"batchItemFailures": [{"itemIdentifier": numbers[place]} for place in places]})
        self.poller.complete(invocation, ending, self.bench.now)
        self.settled[invocation.shard_id] = self.settled.get(invocation.shard_id, 0) + settled

    @rule(keys=st.lists(st.integers(0, 50).map(str), min_size=1, max_size=12))
    def _put(self, keys: list[str]) -> None:
        for key in keys:
            answer = self.bench.client.put_record(StreamName="s", Data=b"x", PartitionKey=key)
            self.numbers.setdefault(answer["ShardId"], []).append(answer["SequenceNumber"])

    @rule(polls=st.integers(1, 3))
    def _take(self, polls: int) -> None:
        for _ in range(polls):
            self._poll()

    @rule(steps=st.lists(st.tuples(SECONDS, ENDINGS), min_size=1, max_size=6))
    def work(self, steps: list[tuple[float, Any]]) -> None:
        """Let time pass, sometimes longer than an iterator lives, and end one invocation after the other."""
        for seconds, ending in steps:
            self.bench.now += seconds
            self._poll()
            if self.under_way:
                self._end(ending)

    @rule(key=HASHES)
    def _split(self, key: int) -> None:
        for first, last, name in self.opened() if len(self._shards()) < 12 else ():
            if first < key <= last:
                self.bench.client.split_shard(StreamName="s", ShardToSplit=name, NewStartingHashKey=str(key))

    @rule(place=st.integers(0, 9))
    def _merge(self, place: int) -> None:
        names = [name for *_, name in self.opened()]
        if len(names) > 1:
            one, other = names[place % (len(names) - 1) :][:2]
            self.bench.client.merge_shards(StreamName="s", ShardToMerge=one, AdjacentShardToMerge=other)

    @rule(place=st.integers(0, 9))
    def rewind(self, place: int) -> None:
        """Lose the checkpoints of all shards that have no children and nothing under way."""
        kept = {shard.get(name) for shard in self._shards().values() for name in PARENTS}
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
        for _ in range(1000):
            self._poll()
            while self.under_way:
                self._end(set())
            if all(self._is_settled(shard_id) for shard_id in self.numbers):
                break
            self.bench.now += 60
        assert [] == [shard_id for shard_id in self.numbers if not self._is_settled(shard_id)]
        assert [] == self.bench.expired


EventSourceMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_every_record_is_sent_until_it_is_done = EventSourceMachine.TestCase
