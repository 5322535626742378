"""The event source, as recorded on AWS and documented, and what fault injection needs: every record is sent, in order, until it is settled."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from doubles.aws_errors import client_error
from doubles.event_source import (
    EVENT_BYTES,
    EventSourceMapping,
    Failed,
    Invocation,
    Outcome,
    Returned,
    exponential_backoff,
    settled_count,
)
from doubles.event_source.pollers import StreamPoller
from doubles.kinesis import HASH_KEYS, MemoryKinesis
from tests.support.delivery import SHARD, Meddled
from tests.support.event_source import STREAM_ARN

DONE = Returned(None)
DAY = 24 * 3600
EMPTY = ("", [], None, {}, {"failures": [1]}, *({"batchItemFailures": empty} for empty in ([], None)))
ODD = (*({"itemIdentifier": wrong} for wrong in (123, "", None)), {"foo": 1}, {"foo": None})


@dataclass
class Bench:
    """A stream `s` and its poller, driven step by step with a manual clock; `sent` has the data of the batches that `run` sent."""

    shards: int = 1
    now: float = 1_764_000_000.0
    sent: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client: Any = MemoryKinesis(lambda: self.now)
        self.client.create_stream(StreamName="s", ShardCount=self.shards)

    def poller(self, **settings: Any) -> StreamPoller:
        """Return a new poller with these settings of the mapping."""
        return StreamPoller(self.client, EventSourceMapping(event_source_arn=STREAM_ARN, **settings))

    def put(self, *texts: str, key: str = "a") -> list[str]:
        """Put records and return their sequence numbers."""
        place = {"StreamName": "s", "PartitionKey": key}
        return [self.client.put_record(Data=text.encode(), **place)["SequenceNumber"] for text in texts]

    def invoke(self, poller: StreamPoller) -> Invocation:
        """Return the invocation that is due now."""
        invocation = poller.poll(self.now)
        assert invocation is not None
        return invocation

    def run(self, poller: StreamPoller, function: Callable[[Invocation], Outcome], calls: int = 1000) -> None:
        """Call the function for every batch, at most `calls` times, advancing the clock over each wait."""
        while True:
            invocation = poller.poll(self.now)
            if invocation is not None:
                self.sent.append(data_of(invocation))
                poller.complete(invocation, function(invocation), self.now)
                calls -= 1
            elif self.now < poller.ready_at and isfinite(poller.ready_at):
                self.now = poller.ready_at
            else:
                return
            if not calls:
                return


def data_of(invocation: Invocation | None) -> list[str]:
    """Return the data of a batch; an empty list without a batch."""
    return [record.data.decode() for record in invocation.records] if invocation else []


def report(*failures: Any) -> Outcome:
    """Return the outcome that reports these failures."""
    return Returned({"batchItemFailures": list(failures)})


@pytest.mark.parametrize(
    ("outcome", "settled"),
    [
        *((Returned(value), 3) for value in EMPTY),  # six of them recorded
        *((report(item), 0) for item in ODD),  # recorded
        (Failed(), 0),
        (report("10"), 0),
        (report({"itemIdentifier": "10"}, {}), 0),
        (Returned({"batchItemFailures": "10"}), 0),
        (report(*({"itemIdentifier": number} for number in ("10", "2", "10"))), 1),  # the lowest number
    ],
)
def test_an_outcome_settles_the_records_before_its_first_failure(outcome: Outcome, settled: int) -> None:
    """An empty result settles everything, a report the records before its lowest number, an invalid result nothing."""
    assert settled == settled_count(outcome, ["1", "2", "10"])


def test_a_failing_batch_is_sent_eight_times_in_a_minute() -> None:
    """A failing batch is sent unchanged eight times in a minute (recorded), and what remains of it 0.3 s after it makes progress."""
    bench = Bench()
    bench.put("a", "b")
    poller, end = bench.poller(), bench.now + 60
    while bench.now < end:
        bench.run(poller, lambda _: Failed(), calls=1)
        bench.put("late")
        bench.now = poller.ready_at
    invocation = bench.invoke(poller)
    poller.complete(invocation, report({"itemIdentifier": invocation.sequence_numbers[1]}), bench.now)

    assert [["a", "b"]] * 8 == bench.sent
    assert pytest.approx(0.3, abs=0.001) == poller.ready_at - bench.now
    assert ["b"] == data_of(poller.poll(bench.now + 1))
    assert 60 == max(exponential_backoff(failures) for failures in range(1, 2000))


def test_a_batch_waits_for_its_window_or_its_size() -> None:
    """A full batch is sent at once; others wait for the window, which begins when the last invocation ends."""
    bench = Bench()
    poller = bench.poller(batch_size=2, maximum_batching_window_seconds=5)
    bench.put("a")
    seen = [data_of(poller.poll(bench.now))]
    bench.put("b", "c")
    invocation = bench.invoke(poller)
    seen += [data_of(invocation), data_of(poller.poll(bench.now))]
    under_way = poller.ready_at
    bench.now += 60
    poller.complete(invocation, DONE, bench.now)
    for seconds in (4.9, 0.1):
        bench.now += seconds
        seen.append(data_of(poller.poll(bench.now)))

    assert ([[], ["a", "b"], [], [], ["c"]], float("inf")) == (seen, under_way)


def test_an_event_stays_below_six_megabytes() -> None:
    """A batch ends where its event would exceed 6 MB of JSON, and does not wait for its window."""
    bench = Bench()
    bench.put(*["x" * 700_000] * 9, key="müller")
    invocation = bench.invoke(bench.poller(batch_size=100, maximum_batching_window_seconds=300))
    size = len(json.dumps(invocation.event, separators=(",", ":"), ensure_ascii=False).encode())

    assert len('{"Records":[]}') - len(",") + sum(record.size for record in invocation.records) == size
    assert 6 == len(invocation.records)
    assert size <= EVENT_BYTES < size + 933_334


def test_the_event_has_the_recorded_form() -> None:
    """An event has Lambda's fields in Lambda's order."""
    bench = Bench()
    [number] = bench.put("hello", key="test_0")
    invocation = bench.invoke(bench.poller())
    expected = {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "test_0",
            "sequenceNumber": number,
            "data": "aGVsbG8=",
            "approximateArrivalTimestamp": 1764000000.0,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{SHARD}:{number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/WorkerFunctionRole",
        "awsRegion": "us-east-1",
        "eventSourceARN": STREAM_ARN,
    }

    assert json.dumps({"Records": [expected]}) == json.dumps(invocation.event)


def test_unsettled_records_expire_with_the_retention() -> None:
    """A failed batch loses expired records one by one; once it has none left, the next batch need not wait for it."""
    bench = Bench()
    poller = bench.poller(backoff=lambda _: 60)
    bench.put("a")
    bench.now += 30
    bench.put("b")
    poller.complete(bench.invoke(poller), Failed(), bench.now)
    bench.now += 1
    bench.put("c")
    bench.now += DAY - 31
    again = bench.invoke(poller)
    poller.complete(again, Failed(), bench.now)
    bench.now += 30

    assert (["b"], ["c"]) == (data_of(again), data_of(poller.poll(bench.now)))


def test_an_invocation_that_timed_out_cannot_be_completed() -> None:
    """After a time-out the batch is sent again in a new invocation, and the old one cannot be completed."""
    bench = Bench()
    [number] = bench.put("a")
    poller = bench.poller()
    old = bench.invoke(poller)
    with pytest.raises(ValueError, match="in progress"):
        poller.pollers[SHARD].rewind(number)
    poller.complete(old, Failed(), bench.now)
    bench.now += 1
    new = bench.invoke(poller)

    assert (["a"], True, True) == (data_of(new), new.request_id != old.request_id, new.event is not old.event)
    with pytest.raises(ValueError, match=old.request_id):
        poller.complete(old, DONE, bench.now)


def test_failed_calls_are_retried() -> None:
    """A failed call costs a poll but no record; an expired iterator is renewed, and reading continues after an empty read."""
    bench = Bench(shards=2)
    empty = [True, True]
    bench.client.reads_empty = lambda: bool(empty) and empty.pop()
    throttled = client_error("ProvisionedThroughputExceededException", "GetRecords")
    errors = {
        "list_shards": [client_error("LimitExceeded", "ListShards")],
        "get_records": [throttled, EndpointConnectionError(endpoint_url="http://127.0.0.1")],
    }

    def fail(name: str, request: dict[str, Any]) -> None:
        request |= {"MaxResults": 1} if name == "list_shards" else {}
        if errors[name]:
            raise errors[name].pop(0)

    bench.client = Meddled(bench.client)
    bench.client.before |= {name: partial(fail, name) for name in errors}
    bench.put("a", "b", key="d")
    poller = bench.poller()
    failed = poller.poll(bench.now)
    poller.complete(bench.invoke(poller), DONE, bench.now)
    bench.put("c", key="d")
    bench.now += 7200

    assert (None, ["c"], 2) == (failed, data_of(poller.poll(bench.now)), len(poller.pollers))


def test_children_need_not_wait() -> None:
    """With `children_wait` off, parent and child are read concurrently, as AWS promises no order; a child of an expired parent never waits."""
    bench = Bench()
    bench.put("parent")
    poller = bench.poller(children_wait=False, discovery_seconds=10)
    parent = bench.invoke(poller)
    bench.client.split_shard(StreamName="s", ShardToSplit=SHARD, NewStartingHashKey=str(HASH_KEYS // 2))
    bench.put("low", key="a")
    early, child = poller.poll(bench.now + 9), poller.poll(bench.now + 10)
    bench.now += DAY + 1
    bench.put("late", key="a")

    assert (["parent"], None, ["low"]) == (data_of(parent), early, data_of(child))
    assert ["late"] == data_of(bench.poller().poll(bench.now))


def test_shards_take_turns() -> None:
    """A shard that fails, or has many records, does not delay the others."""
    bench = Bench(shards=2)
    bench.put("low 1", "low 2", "bad", key="a")
    bench.put("high 1", "high 2", "high 3", "high 4", key="d")
    poller = bench.poller(batch_size=1)
    bench.run(poller, lambda invocation: Failed() if data_of(invocation) == ["bad"] else DONE, calls=7)

    assert ["low 1", "high 1", "low 2", "high 2", "bad", "high 3", "high 4"] == [one[0] for one in bench.sent]


HASHES = st.integers(1, 15).map(lambda sixteenth: sixteenth * (HASH_KEYS // 16))
# How an invocation ends: with the places of the records that it reports (none for success), or as a whole.
ENDINGS = st.sets(st.integers(0, 3), max_size=2) | st.sampled_from(
    [Failed(), Returned({"batchItemFailures": [{"itemIdentifier": ""}]})]
)
SECONDS = st.sampled_from([0, 0, 1, 60, 400])
PARENTS = ("ParentShardId", "AdjacentParentShardId")


class EventSourceMachine(RuleBasedStateMachine):
    """A stream that is written to and resharded, and a function with every kind of outcome."""

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
        """Let time pass, sometimes longer than an iterator's lifetime, and end one invocation after another."""
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
        """Lose the checkpoints of all shards that have no children and no invocation in progress."""
        kept = {shard.get(name) for shard in self._shards().values() for name in PARENTS}
        kept |= {invocation.shard_id for invocation in self.under_way}
        for shard_id, count in self.settled.items():
            if count and shard_id not in kept:
                self.settled[shard_id] = place % count
                self.poller.pollers[shard_id].rewind(self.numbers[shard_id][place % count])

    @invariant()
    def ready_when_it_says(self) -> None:
        """The next batch is never due later than the longest backoff."""
        assert self.poller.ready_at == float("inf") or self.poller.ready_at <= self.bench.now + 60

    def teardown(self) -> None:
        """Once the function always succeeds, every record is settled."""
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


EventSourceMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_every_record_is_sent_until_it_is_settled = EventSourceMachine.TestCase
