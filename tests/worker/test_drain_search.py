"""The search for envelopes on the stream."""

import itertools
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from doubles.clock import START, ManualClock
from doubles.kinesis import HASH_KEYS, MemoryKinesis
from shared.envelope import Envelope, TableRows
from tests.support.overflow import (
    STREAM,
    WatchedKinesis,
    an_envelope,
    put_old_records,
    refusal,
    stream,
    timeout,
)
from worker import record
from worker.record import Number
from worker.search import (
    EMPTY_SHARD_SECONDS,
    INACCURACY_SECONDS,
    READ_OUT,
    Identity,
    Search,
    Sought,
    identity_of,
)
from worker.shards import Shards, hash_key

IDENTITY = Identity("shop", "r1")
FAR = START + 10**6


@pytest.fixture
def clock() -> ManualClock:
    """Return a manual clock."""
    return ManualClock()


@pytest.fixture
def memory(clock: ManualClock) -> MemoryKinesis:
    """Return a stream of one shard."""
    memory = stream(clock)
    put_old_records(memory, clock)
    return memory


@pytest.fixture
def kinesis(memory: MemoryKinesis, clock: ManualClock) -> WatchedKinesis:
    """Return the watched client of the stream of one shard."""
    return WatchedKinesis(memory, clock)


class Findings(NamedTuple):
    """The result of a whole search."""

    found: set[Identity]
    absent: set[Identity]
    undecided: dict[Identity, dict[str, Number]]
    reads: int
    records: int


class Whole:
    """Runs searches to their end."""

    def __init__(self, kinesis: WatchedKinesis, clock: ManualClock) -> None:
        self.search = partial(Search, Shards(kinesis, STREAM, clock), clock)  # type: ignore[arg-type]  # a double

    def find(self, wanted: Collection[Sought], deadline: float = FAR) -> Findings:
        """Return what the search found."""
        run = self.search(wanted, deadline)
        decided = list(run)
        return Findings(
            {identity for identity, is_there in decided if is_there},
            {identity for identity, is_there in decided if not is_there},
            run.undecided,
            run.reads,
            run.records,
        )


@pytest.fixture
def search(kinesis: WatchedKinesis, clock: ManualClock) -> Whole:
    """Return a search of the stream of one shard."""
    return Whole(kinesis, clock)


def sought(request_id: str = "r1", key: str = "shop/1", since: float = START - 60, **read: Number) -> Sought:
    """Return what to look for."""
    known = {f"shardId-{shard.removeprefix('s'):0>12}": up_to for shard, up_to in read.items()}
    return Sought(Identity("shop", request_id), key, since, since + 240, known)


def put(kinesis: Any, request_id: str = "r1", key: str = "shop/1", **members: Any) -> None:
    """Put an envelope on the stream."""
    data = an_envelope(request_id, **members).encode()
    kinesis.put_record(StreamName=STREAM, Data=data, PartitionKey=key)


def put_there(memory: MemoryKinesis, request_id: str, key: str) -> str:
    """Put an envelope on the stream; return on which shard it is."""
    data = an_envelope(request_id).encode()
    shard: str = memory.put_record(StreamName=STREAM, Data=data, PartitionKey=key)["ShardId"]
    return shard


@pytest.mark.parametrize("claim", [0, 1])
def test_finds_an_envelope_whoever_put_it_there(claim: int, memory: MemoryKinesis, search: Whole) -> None:
    """It is found whether the ingest or the drainer put it."""
    put(memory, claim=claim)
    assert search.find([sought()]).found == {IDENTITY}


def test_an_envelope_that_a_complete_search_does_not_find_is_absent(
    memory: MemoryKinesis, search: Whole
) -> None:
    """Other envelopes on its shard do not matter."""
    put(memory, "r2")
    assert search.find([sought()]).absent == {IDENTITY}


def test_the_same_request_id_of_another_account_is_another_envelope(
    memory: MemoryKinesis, search: Whole
) -> None:
    """The account is part of an envelope's identity."""
    put(memory, account="blog")
    assert search.find([sought()]).absent == {IDENTITY}


def test_other_records_are_skipped(memory: MemoryKinesis, search: Whole) -> None:
    """JSON records and garbage do not disturb a search."""
    for data in (b'{"account":"shop","events":[]}', b"", b"\x98\x01", b"\x98\x01\xc1"):
        memory.put_record(StreamName=STREAM, Data=data, PartitionKey="shop/1")
    put(memory)
    assert search.find([sought()]).found == {IDENTITY}


def test_one_scan_serves_many_envelopes(
    memory: MemoryKinesis, kinesis: WatchedKinesis, search: Whole
) -> None:
    """A shard is read once, however many envelopes are searched for in it."""
    for number in range(0, 50, 2):
        put(memory, f"r{number}")
    findings = search.find([sought(f"r{number}") for number in range(50)])
    assert (len(findings.found), len(findings.absent), len(kinesis.called("get_records"))) == (25, 25, 5)


def test_reads_only_shards_that_the_key_can_have_gone_to(clock: ManualClock) -> None:
    """Of four shards, only the one with the key's hash is read."""
    kinesis = WatchedKinesis(stream(clock, shards=4), clock)
    Whole(kinesis, clock).find([sought()])
    read = [call["ShardId"] for call in kinesis.called("get_shard_iterator")]
    assert set(read) == {f"shardId-{hash_key('shop/1') * 4 // HASH_KEYS:012}"}


def test_follows_a_key_through_splits_and_merges(
    memory: MemoryKinesis, clock: ManualClock, search: Whole
) -> None:
    """The put may have landed in a parent, a child or a grandchild, so all are searched."""
    put(memory, "before")
    memory.split_shard(
        StreamName=STREAM, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(HASH_KEYS // 2)
    )
    clock.sleep(1)
    put(memory, "between")
    memory.merge_shards(
        StreamName=STREAM, ShardToMerge="shardId-000000000001", AdjacentShardToMerge="shardId-000000000002"
    )
    clock.sleep(1)
    put(memory, "after")
    wanted = [sought(name) for name in ("before", "between", "after", "nowhere")]
    findings = search.find(wanted)
    assert {identity.request_id for identity in findings.found} == {"before", "between", "after"}


def test_reads_only_the_period_in_which_envelopes_can_have_landed(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """Records outside it are not read, however many the stream holds."""
    kinesis.page = 10
    for _ in range(1000):
        put(memory, "other")
        clock.sleep(10)
    findings = search.find([sought(since=START + 5000)])
    least = (240 + 2 * INACCURACY_SECONDS) / 10
    assert findings.absent == {IDENTITY}
    assert least <= findings.records <= least + 50


def test_skips_records_between_two_periods(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """Searching for envelopes of this morning and of tonight does not read the whole day."""
    kinesis.page = 10
    for number in range(1000):
        put(memory, f"r{number}")
        clock.sleep(10)
    wanted = [sought("r201", since=START + 2000), sought("r901", since=START + 9000), sought("x")]
    findings = search.find(wanted)
    assert (len(findings.found), len(findings.absent), findings.records < 300) == (2, 1, True)


def test_ends_as_soon_as_all_are_found(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """The rest of a shard is not read once everything sought in it is found."""
    kinesis.page = 10
    for number in range(100):
        put(memory, f"r{number}")
        clock.sleep(1)
    assert search.find([sought("r3")]).reads == 1
    assert clock.now() == START + 100


def test_throttled_reads_back_off(memory: MemoryKinesis, kinesis: WatchedKinesis, search: Whole) -> None:
    """The pauses double up to five seconds."""
    put(memory)
    code = "ProvisionedThroughputExceededException"
    kinesis.faults["get_records"] = [refusal(code, "GetRecords") for _ in range(10)]
    assert search.find([sought()]).found == {IDENTITY}
    times = [at for name, at, _ in kinesis.calls if name == "get_records"]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == pytest.approx([0.5, 1, 2, 4, 5, 5, 5, 5, 5, 5])


def test_gives_up_a_shard_that_keeps_failing(
    memory: MemoryKinesis, kinesis: WatchedKinesis, search: Whole
) -> None:
    """The envelopes that the shard may hold stay undecided."""
    put(memory)
    kinesis.faults["get_records"] = [timeout() for _ in range(4)]
    findings = search.find([sought()])
    assert (findings.found, findings.absent, findings.undecided) == (set(), set(), {IDENTITY: {}})


def test_an_unreadable_shard_does_not_affect_envelopes_of_others(clock: ManualClock) -> None:
    """An envelope is decided if all of its own shards could be read."""
    memory = stream(clock, shards=2)
    put_old_records(memory, clock)
    kinesis = WatchedKinesis(memory, clock)
    keys = {hash_key(f"shop/{bucket}") * 2 // HASH_KEYS: f"shop/{bucket}" for bucket in range(8)}

    def sick(ShardId: str, **rest: Any) -> Any:  # noqa: N803  # boto3's names
        if ShardId == "shardId-000000000000":
            raise timeout()
        return memory.get_shard_iterator(ShardId=ShardId, **rest)

    kinesis.faults["get_shard_iterator"] = [sick] * 10
    findings = Whole(kinesis, clock).find([sought("low", keys[0]), sought("high", keys[1])])
    assert (findings.found, findings.absent) == (set(), {Identity("shop", "high")})


def test_a_found_envelope_needs_no_other_shard(clock: ManualClock) -> None:
    """It counts as found even if another shard that could hold it cannot be read."""
    memory = stream(clock)
    put(memory)
    memory.split_shard(StreamName=STREAM, ShardToSplit="shardId-000000000000", NewStartingHashKey="5")
    kinesis = WatchedKinesis(memory, clock)

    def sick(ShardId: str, **rest: Any) -> Any:  # noqa: N803  # boto3's names
        if ShardId != "shardId-000000000000":
            raise timeout()
        return memory.get_shard_iterator(ShardId=ShardId, **rest)

    kinesis.faults["get_shard_iterator"] = [sick] * 10
    assert Whole(kinesis, clock).find([sought()]).found == {IDENTITY}


def test_a_search_cut_short_leaves_the_rest_undecided(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """At the deadline the search ends, and envelopes it has not met may still be there."""
    kinesis.page = 1
    for number in range(100):
        put(memory, f"r{number}")
        clock.sleep(0.1)
    findings = search.find([sought("r0"), sought("r99")], clock.now() + 2)
    assert (findings.found, findings.absent) == ({Identity("shop", "r0")}, set())


@pytest.mark.parametrize("missing", ["all", "the open one"])
def test_an_incomplete_list_of_shards_proves_nothing(
    missing: str, memory: MemoryKinesis, kinesis: WatchedKinesis, search: Whole
) -> None:
    """Every key has one open shard. If the list lacks it, the put may be in it."""
    memory.split_shard(
        StreamName=STREAM, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(HASH_KEYS // 2)
    )
    shards = memory.list_shards(StreamName=STREAM)["Shards"]
    shown = [] if missing == "all" else [one for one in shards if "EndingSequenceNumber" in str(one)]
    kinesis.faults["list_shards"] = [{"Shards": shown}]
    findings = search.find([sought()])
    assert (findings.found, findings.absent) == (set(), set())


@pytest.mark.parametrize("lag", [0, 5])
def test_empty_answers_prove_nothing(
    lag: int, memory: MemoryKinesis, kinesis: WatchedKinesis, search: Whole
) -> None:
    """They lack the record that the read begins at, so they are not believed, however many there are."""
    put(memory)
    told = iter(range(5))  # truthful reads, until the search has a record to begin at

    def empty(**request: Any) -> Any:
        if next(told, None) is not None:
            return {
                "Records": memory.get_records(**request)["Records"][:1],
                "MillisBehindLatest": 5,
                "NextShardIterator": request["ShardIterator"],
            }
        return {"Records": [], "MillisBehindLatest": lag, "NextShardIterator": request["ShardIterator"]}

    kinesis.faults["get_records"] = [empty] * 1000
    findings = search.find([sought()], START + 200)
    assert findings.absent == set()


def test_the_tip_is_read_twice(memory: MemoryKinesis, kinesis: WatchedKinesis, search: Whole) -> None:
    """One answer that ends too early and claims to be the tip hides no record."""
    put(memory)

    def short(**request: Any) -> Any:
        answer = memory.get_records(**request)
        return answer | {"Records": answer["Records"][:1], "MillisBehindLatest": 0}

    kinesis.faults["get_records"] = [short, short]
    assert search.find([sought()]).found == {IDENTITY}


def test_a_record_of_another_shard_ends_no_window(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """Whatever its number and arrival time, the shard does not continue from it, so it is not believed."""
    for _ in range(30):
        put(memory, "other")
        clock.sleep(30)
    put(memory)

    def foreign(**request: Any) -> Any:
        answer = memory.get_records(**request)
        last = answer["Records"][-1]
        stamp = last["ApproximateArrivalTimestamp"] + timedelta(hours=1)
        stray = last | {
            "SequenceNumber": str(int(last["SequenceNumber"]) + 10**30),
            "Data": b"",
            "ApproximateArrivalTimestamp": stamp,
        }
        return answer | {"Records": [*answer["Records"][:1], stray], "MillisBehindLatest": 0}

    kinesis.faults["get_records"] = [None, foreign, None, None, None, foreign, None, None]
    assert search.find([sought(since=START + 880)]).found == {IDENTITY}


def test_an_iterator_that_skips_records_hides_none(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """An answer that lacks the record at which the read should begin is not believed."""
    put(memory, "other")
    clock.sleep(310)
    put(memory)
    kinesis.page = 1

    def jump(**_: Any) -> Any:
        iterator = memory.get_shard_iterator(
            StreamName=STREAM, ShardId="shardId-000000000000", ShardIteratorType="LATEST"
        )["ShardIterator"]
        return {"Records": [], "MillisBehindLatest": 9, "NextShardIterator": iterator}

    kinesis.faults["get_records"] = [None, *[jump, None] * 3]
    assert search.find([sought(since=START + 305)]).found == {IDENTITY}


def test_one_wrong_arrival_time_ends_no_window(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """However far off it is, the next answer must confirm it."""
    put(memory, "other")
    clock.sleep(310)
    memory.arrival_error = lambda: 3600.0
    put(memory, "late")
    memory.arrival_error = lambda: 0.0
    put(memory)
    kinesis.page = 2
    told = kinesis.faults["get_records"] = [None]
    told.append(lambda **request: memory.get_records(**request | {"Limit": 2}))
    assert search.find([sought(since=START + 305)]).found == {IDENTITY}


@pytest.mark.parametrize(("hours", "is_absent"), [(0.9, False), (1.1, True)])
def test_a_shard_without_records_counts_as_empty_after_an_hour(hours: float, is_absent: bool) -> None:
    """Nothing proves it empty: until then, the answer may be hiding everything."""
    clock = ManualClock()
    kinesis = WatchedKinesis(stream(clock), clock)
    clock.sleep(180 + hours * 3600)
    findings = Whole(kinesis, clock).find([sought()])
    assert findings.absent == ({IDENTITY} if is_absent else set())


def test_all_shards_are_searched_if_kinesis_chooses_them(clock: ManualClock) -> None:
    """With the record distribution AUTO, the partition key does not determine the shard."""
    memory = stream(clock, shards=4)
    put_old_records(memory, clock)
    memory.distribute(StreamName=STREAM)
    for number in range(8):
        put(memory, f"r{number}")
    findings = Whole(WatchedKinesis(memory, clock), clock).find([sought(f"r{number}") for number in range(9)])
    assert (len(findings.found), findings.absent) == (8, {Identity("shop", "r8")})


def test_a_misplaced_record_makes_the_search_look_everywhere(clock: ManualClock) -> None:
    """One record that is not where its key belongs shows that Kinesis chose shards until recently."""
    memory = stream(clock, shards=2)
    put_old_records(memory, clock)
    home = f"shardId-{hash_key('shop/1') * 2 // HASH_KEYS:012}"
    memory.distribute(StreamName=STREAM)
    abroad = next(name for name in map(str, itertools.count()) if put_there(memory, name, "shop/1") != home)
    away = next(key for key in map(str, itertools.count()) if hash_key(key) * 2 // HASH_KEYS != int(home[8:]))
    while put_there(memory, "other", away) != home:
        pass
    memory.distribute(StreamName=STREAM, strategy="USER_PARTITION_KEY")
    findings = Whole(WatchedKinesis(memory, clock), clock).find([sought(abroad)])
    assert findings.found == {Identity("shop", abroad)}


def test_expired_records_are_not_absent(memory: MemoryKinesis, clock: ManualClock, search: Whole) -> None:
    """The stream's own retention counts, whatever the setting says."""
    put(memory)
    clock.sleep(25 * 3600)
    put(memory, "other")
    assert search.find([sought()]).absent == set()


def test_an_empty_answer_does_not_end_a_read(
    memory: MemoryKinesis, kinesis: WatchedKinesis, search: Whole
) -> None:
    """Kinesis may answer with no records and say that there are more."""
    put(memory)

    def empty(**request: Any) -> Any:
        return {"Records": [], "MillisBehindLatest": 5, "NextShardIterator": request["ShardIterator"]}

    kinesis.faults["get_records"] = [empty] * 50
    assert search.find([sought()]).found == {IDENTITY}


@pytest.mark.parametrize("which", ["before", "it", "behind"])
@pytest.mark.parametrize("wrong", [-290, -150, 150, 290])
def test_arrival_times_may_be_wrong_by_minutes(wrong: float, which: str, clock: ManualClock) -> None:
    """A record stamped minutes late or early neither ends a window nor begins it too late."""
    memory = stream(clock)
    for turn in range(40):
        put(memory, {19: "before", 20: "it"}.get(turn, "behind"))
        clock.sleep(30)
    kinesis = WatchedKinesis(memory, clock, page=1)

    def stamped(**request: Any) -> Any:
        answer = memory.get_records(**request)
        for one in answer["Records"]:
            if identity_of(one["Data"]) == Identity("shop", which):
                one["ApproximateArrivalTimestamp"] += timedelta(seconds=wrong)
        return answer

    kinesis.faults["get_records"] = [stamped] * 200
    findings = Whole(kinesis, clock).find([sought("it", since=START + 590)])
    assert findings.found == {Identity("shop", "it")}


def test_decides_each_envelope_once_its_own_window_is_read(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """The first result comes before the shard is read as far as the last envelope can be."""
    kinesis.page = 10
    for _ in range(200):
        put(memory, "other")
        clock.sleep(10)
    wanted = [sought(f"r{after}", since=START + after) for after in range(0, 1500, 100)]
    run = search.search(wanted, FAR)
    order, records = [], []
    for identity, is_there in run:
        assert not is_there
        order.append(identity.request_id)
        records.append(run.records)
    assert order == [f"r{after}" for after in range(0, 1500, 100)]
    assert records[0] <= (240 + 2 * INACCURACY_SECONDS + 30) / 10 + 50


def test_no_stretch_of_a_shard_waits_for_another(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """Two stretches are read in turn, so a short one is decided however long the other is."""
    kinesis.page = 1
    for _ in range(5000):
        put(memory, "other")
        clock.sleep(1)
    long = Sought(Identity("shop", "long"), "shop/1", START, START + 2400)
    late = sought("late", since=START + 4900)
    kinesis.page = 10
    findings = search.find([long, late], clock.now() + 60)
    assert findings.absent == {Identity("shop", "late")}


def test_a_search_resumes_where_the_last_one_stopped(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """Over any number of searches, no record is read twice, and new envelopes begin at their own windows."""
    kinesis.page = 5
    for _ in range(100):
        put(memory, "other")
        clock.sleep(1)
    wanted, looked_at = sought(), 0
    while True:
        findings = search.find([wanted], clock.now() + 3)
        looked_at += findings.records
        if not findings.undecided:
            break
        wanted = replace(wanted, read=findings.undecided[IDENTITY])
    assert findings.absent == {IDENTITY}
    assert looked_at < 200


def test_a_shard_that_was_read_out_is_not_read_again(clock: ManualClock) -> None:
    """With the parent read, only its children are read.

    With all read, the envelope is absent without a read.
    """
    memory = stream(clock)
    memory.split_shard(StreamName=STREAM, ShardToSplit="shardId-000000000000", NewStartingHashKey="5")
    clock.time -= 1000
    put(memory, "old")
    clock.time += 1000
    kinesis = WatchedKinesis(memory, clock)
    whole = Whole(kinesis, clock)
    assert whole.find([sought(s0=READ_OUT)]).absent == {IDENTITY}
    assert {call["ShardId"] for call in kinesis.called("get_shard_iterator")} == {"shardId-000000000002"}
    assert whole.find([sought(s0=READ_OUT, s2=READ_OUT)]) == (set(), {IDENTITY}, {}, 0, 0)


def test_reports_how_far_it_has_read(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """For undecided envelopes, this is the last record that was met twice."""
    kinesis.page = 2
    numbers = []
    for _ in range(20):
        data = an_envelope("other").encode()
        answer = memory.put_record(StreamName=STREAM, Data=data, PartitionKey="shop/1")
        numbers.append(record.number(answer["SequenceNumber"]))
    findings = search.find([sought()], clock.now() + 1)
    assert findings.undecided == {IDENTITY: {"shardId-000000000000": numbers[0]}}


def test_leaves_all_undecided_when_shards_cannot_be_listed(kinesis: WatchedKinesis, search: Whole) -> None:
    """Without the list of shards, nothing is decided."""
    kinesis.faults["list_shards"] = [timeout()]
    findings = search.find([sought()])
    assert (findings.found, findings.absent) == (set(), set())


def test_resumes_after_the_last_record_if_an_iterator_expires(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """A new iterator starts after the records that were read."""
    kinesis.page = 2
    for number in range(3):
        put(memory, f"r{number}")
        clock.sleep(1)
    kinesis.faults["get_records"] = [None, refusal("ExpiredIteratorException", "GetRecords")]
    findings = search.find([sought("r2")])
    assert len(findings.found) == 1


def test_keeps_below_five_reads_a_second(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Whole
) -> None:
    """The worker's event source mapping needs the rest of a shard's five reads a second."""
    kinesis.page = 1
    for _ in range(50):
        put(memory, "other")
        clock.sleep(0.5)
    search.find([sought()])
    times = [at for name, at, _ in kinesis.calls if name == "get_records"]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.25


class _Noisy:
    """Reads that answer as little, and as wrongly, as Kinesis may."""

    def __init__(self, memory: MemoryKinesis, data: st.DataObject) -> None:
        self._memory = memory
        self._draw = data.draw
        self._lies: set[str] = set()

    def __call__(self, **request: Any) -> Any:
        """Answer GetRecords."""
        kind = self._draw(st.sampled_from(["true", "true", "true", "empty", "lie"]))
        if kind == "empty":
            return {"Records": [], "MillisBehindLatest": 5, "NextShardIterator": request["ShardIterator"]}
        place = request["ShardIterator"].rpartition("/")[0]  # its time of issue is the last part
        if kind == "lie" and place not in self._lies:  # a second read of the same place gets the truth
            self._lies.add(place)
            return {"Records": [], "MillisBehindLatest": 0, "NextShardIterator": request["ShardIterator"]}
        answer = self._memory.get_records(**request)
        for one in answer["Records"]:
            one["ApproximateArrivalTimestamp"] += timedelta(seconds=self._draw(st.integers(-250, 250)))
        return answer


@settings(deadline=None)
@given(data=st.data())
def test_finds_exactly_what_is_there(data: st.DataObject) -> None:
    """Whatever is put, split or lost, however noisy the stream and short the time, the result is what is there."""
    clock = ManualClock()
    memory = stream(clock, shards=data.draw(st.integers(1, 3)))
    put_old_records(memory, clock)
    there, wanted = set(), {}
    for number in range(data.draw(st.integers(0, 12))):
        clock.sleep(data.draw(st.sampled_from([0, 1, 50, 1000])))
        item = sought(f"r{number}", f"shop/{number % 5}", since=clock.now() - 60)
        wanted[item.identity] = item
        if data.draw(st.booleans()):
            put(memory, item.identity.request_id, item.partition_key)
            there.add(item.identity)
        _reshard(memory, data)
    clock.sleep(200 + EMPTY_SHARD_SECONDS)
    kinesis = WatchedKinesis(memory, clock, page=data.draw(st.sampled_from([1, 3, 100])))
    noisy = data.draw(st.booleans())
    found, absent = set(), set()
    for _ in range(100):
        kinesis.faults["get_records"] = [_Noisy(memory, data)] * 1000 if noisy else []
        patience = data.draw(st.sampled_from([5, 30, 600]))
        findings = Whole(kinesis, clock).find(list(wanted.values()), clock.now() + patience)
        found |= findings.found
        absent |= findings.absent
        wanted = {one: replace(wanted[one], read=read) for one, read in findings.undecided.items()}
        if not wanted:
            break
    assert (found, absent & there, wanted) == (there, set(), {})


def _reshard(memory: MemoryKinesis, data: st.DataObject) -> None:
    """Split or merge a shard, or do nothing."""
    shards = memory.list_shards(StreamName=STREAM)["Shards"]
    ranges = [
        (int(shard["HashKeyRange"]["StartingHashKey"]), int(shard["HashKeyRange"]["EndingHashKey"]), shard)
        for shard in shards
        if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
    ]
    ranges.sort(key=lambda item: item[0])
    match data.draw(st.sampled_from(["", "", "", "split", "merge"])):
        case "split":
            low, high, shard = data.draw(st.sampled_from(ranges))
            border = (low + high) // 2
            if low < border <= high:
                memory.split_shard(
                    StreamName=STREAM, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(border)
                )
        case "merge" if len(ranges) > 1:
            index = data.draw(st.integers(0, len(ranges) - 2))
            memory.merge_shards(
                StreamName=STREAM,
                ShardToMerge=ranges[index][2]["ShardId"],
                AdjacentShardToMerge=ranges[index + 1][2]["ShardId"],
            )


@given(
    account=st.text(max_size=300),
    key_id=st.text(max_size=300),
    received_at=st.integers(0, 2**63),
    request_id=st.text(max_size=300),
    rows=st.binary(max_size=2000),
)
def test_reads_the_identity_of_any_envelope(
    account: str, key_id: str, received_at: int, request_id: str, rows: bytes
) -> None:
    """It is read from the first bytes, however long the names are."""
    data = Envelope(account, key_id, received_at, request_id, 0, (TableRows("t", 1, rows),)).encode()
    assert identity_of(data) == Identity(account, request_id)


@example(b"\x98\x01\x80\xa0\x00\x80\x80\x00")
@given(st.binary() | st.binary().map(lambda data: b"\x98\x01" + data))
def test_no_bytes_raise(data: bytes) -> None:
    """Other records have no identity, or one that matches no envelope."""
    assert isinstance(identity_of(data), Identity | None)
