"""Looking for envelopes on the stream."""

import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doubles.clock import START, ManualClock
from doubles.kinesis import HASH_KEYS, MemoryKinesis
from shared.envelope import Envelope, TableRows
from tests.support.overflow import (
    STREAM,
    WatchedKinesis,
    an_envelope,
    refusal,
    stream,
    timeout,
)
from worker.search import Identity, Search, Sought, hash_key, identity_of

IDENTITY = Identity("shop", "r1")
FAR = START + 10**6


@pytest.fixture
def clock() -> ManualClock:
    """Return the time of a test."""
    return ManualClock()


@pytest.fixture
def memory(clock: ManualClock) -> MemoryKinesis:
    """Return a stream of one shard."""
    return stream(clock)


@pytest.fixture
def kinesis(memory: MemoryKinesis, clock: ManualClock) -> WatchedKinesis:
    """Return the watched client of the stream of one shard."""
    return WatchedKinesis(memory, clock)


@pytest.fixture
def search(kinesis: WatchedKinesis, clock: ManualClock) -> Search:
    """Return a search of the stream of one shard."""
    return Search(kinesis, STREAM, clock)


def sought(request_id: str = "r1", key: str = "shop/1", since: float = START - 60) -> Sought:
    """Return what to look for."""
    return Sought(Identity("shop", request_id), key, since, since + 240)


def put(kinesis: Any, request_id: str = "r1", key: str = "shop/1", **members: Any) -> None:
    """Put an envelope on the stream."""
    data = an_envelope(request_id, **members).encode()
    kinesis.put_record(StreamName=STREAM, Data=data, PartitionKey=key)


@pytest.mark.parametrize("attempt", [0, 1])
def test_finds_an_envelope_whichever_attempt_put_it_there(
    attempt: int, memory: MemoryKinesis, search: Search
) -> None:
    """An envelope on the stream is found, whether the first put or a repetition brought it."""
    put(memory, attempt=attempt)
    assert search.find([sought()], FAR).found == {IDENTITY}


def test_knows_what_is_absent(memory: MemoryKinesis, search: Search) -> None:
    """What a complete search does not meet is absent."""
    put(memory, "r2")
    assert search.find([sought()], FAR).absent == {IDENTITY}


def test_another_accounts_request_id_is_another_envelope(memory: MemoryKinesis, search: Search) -> None:
    """The account belongs to what names an envelope."""
    put(memory, account="blog")
    assert search.find([sought()], FAR).absent == {IDENTITY}


def test_other_records_are_passed_over(memory: MemoryKinesis, search: Search) -> None:
    """Records in JSON and garbage do not disturb a search."""
    for data in (b'{"account":"shop","events":[]}', b"", b"\x97\x01", b"\x97\x01\xc1"):
        memory.put_record(StreamName=STREAM, Data=data, PartitionKey="shop/1")
    put(memory)
    assert search.find([sought()], FAR).found == {IDENTITY}


def test_one_scan_serves_many_envelopes(
    memory: MemoryKinesis, kinesis: WatchedKinesis, search: Search
) -> None:
    """A shard is read once, however many envelopes are looked for in it."""
    for number in range(0, 50, 2):
        put(memory, f"r{number}")
    findings = search.find([sought(f"r{number}") for number in range(50)], FAR)
    assert (len(findings.found), len(findings.absent), len(kinesis.called("get_records"))) == (25, 25, 1)


def test_reads_only_shards_that_the_key_can_have_gone_to(clock: ManualClock) -> None:
    """Of four shards one holds a key's hash, and only that one is read."""
    kinesis = WatchedKinesis(stream(clock, shards=4), clock)
    Search(kinesis, STREAM, clock).find([sought()], FAR)
    read = [call["ShardId"] for call in kinesis.called("get_shard_iterator")]
    assert read == [f"shardId-{hash_key('shop/1') * 4 // HASH_KEYS:012}"]


def test_follows_a_key_through_splits_and_merges(
    memory: MemoryKinesis, clock: ManualClock, search: Search
) -> None:
    """Parents, children and grandchildren are searched: the put can have landed in any of them."""
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
    findings = search.find(wanted, FAR)
    assert {identity.request_id for identity in findings.found} == {"before", "between", "after"}


def test_begins_where_the_first_can_have_landed_and_ends_after_the_last(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Search
) -> None:
    """What an envelope cannot be among is not read, however much the stream holds."""
    kinesis.page = 10
    for _ in range(1000):
        put(memory, "other")
        clock.sleep(10)
    findings = search.find([sought(since=START + 5000)], FAR)
    assert (findings.absent, findings.records) == ({IDENTITY}, 30)


def test_skips_what_lies_between_two_periods(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Search
) -> None:
    """Envelopes of this morning and of tonight do not cost reading the day."""
    kinesis.page = 10
    for number in range(1000):
        put(memory, f"r{number}")
        clock.sleep(10)
    wanted = [sought("r101", since=START + 1000), sought("r901", since=START + 9000), sought("x")]
    findings = search.find(wanted, FAR)
    assert (len(findings.found), len(findings.absent), findings.records < 100) == (2, 1, True)


def test_ends_as_soon_as_all_are_found(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Search
) -> None:
    """The rest of a shard is not read once everything sought in it is found."""
    kinesis.page = 10
    for number in range(100):
        put(memory, f"r{number}")
        clock.sleep(1)
    assert search.find([sought("r3")], FAR).reads == 1


def test_waits_while_kinesis_throttles(
    memory: MemoryKinesis, kinesis: WatchedKinesis, search: Search
) -> None:
    """Throttled reads are repeated at growing distances, up to five seconds."""
    put(memory)
    code = "ProvisionedThroughputExceededException"
    kinesis.faults["get_records"] = [refusal(code, "GetRecords") for _ in range(10)]
    assert search.find([sought()], FAR).found == {IDENTITY}
    times = [at for name, at, _ in kinesis.calls if name == "get_records"]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == pytest.approx([0.5, 1, 2, 4, 5, 5, 5, 5, 5, 5])


def test_gives_up_a_shard_that_keeps_failing(
    memory: MemoryKinesis, kinesis: WatchedKinesis, search: Search
) -> None:
    """A shard that cannot be read leaves what it may hold undecided."""
    put(memory)
    kinesis.faults["get_records"] = [timeout() for _ in range(4)]
    findings = search.find([sought()], FAR)
    assert (findings.found, findings.absent) == (set(), set())


def test_a_sick_shard_leaves_others_decided(clock: ManualClock) -> None:
    """Envelopes whose shards could all be read are decided, whatever became of another shard."""
    memory = stream(clock, shards=2)
    kinesis = WatchedKinesis(memory, clock)
    keys = {hash_key(f"shop/{bucket}") * 2 // HASH_KEYS: f"shop/{bucket}" for bucket in range(8)}

    def sick(ShardId: str, **rest: Any) -> Any:  # noqa: N803  # boto3's names
        if ShardId == "shardId-000000000000":
            raise timeout()
        return memory.get_shard_iterator(ShardId=ShardId, **rest)

    kinesis.faults["get_shard_iterator"] = [sick] * 10
    findings = Search(kinesis, STREAM, clock).find([sought("low", keys[0]), sought("high", keys[1])], FAR)
    assert (findings.found, findings.absent) == (set(), {Identity("shop", "high")})


def test_an_envelope_found_elsewhere_needs_no_sick_shard(clock: ManualClock) -> None:
    """Found is found, though another shard that could have held it cannot be read."""
    memory = stream(clock)
    put(memory)
    memory.split_shard(StreamName=STREAM, ShardToSplit="shardId-000000000000", NewStartingHashKey="5")
    kinesis = WatchedKinesis(memory, clock)

    def sick(ShardId: str, **rest: Any) -> Any:  # noqa: N803  # boto3's names
        if ShardId != "shardId-000000000000":
            raise timeout()
        return memory.get_shard_iterator(ShardId=ShardId, **rest)

    kinesis.faults["get_shard_iterator"] = [sick] * 10
    assert Search(kinesis, STREAM, clock).find([sought()], FAR).found == {IDENTITY}


def test_a_search_cut_short_leaves_the_rest_undecided(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Search
) -> None:
    """At the deadline the search ends; what it has not met may still be there."""
    kinesis.page = 1
    for number in range(100):
        put(memory, f"r{number}")
        clock.sleep(0.1)
    findings = search.find([sought("r0"), sought("r99")], clock.now() + 2)
    assert (findings.found, findings.absent) == ({Identity("shop", "r0")}, set())


def test_leaves_all_undecided_when_shards_cannot_be_listed(kinesis: WatchedKinesis, search: Search) -> None:
    """Without the list of shards nothing is known."""
    kinesis.faults["list_shards"] = [timeout()]
    findings = search.find([sought()], FAR)
    assert (findings.found, findings.absent) == (set(), set())


def test_goes_on_behind_the_last_record_when_an_iterator_expires(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Search
) -> None:
    """A new iterator starts after what was read."""
    kinesis.page = 1
    for number in range(3):
        put(memory, f"r{number}")
        clock.sleep(1)
    kinesis.faults["get_records"] = [None, refusal("ExpiredIteratorException", "GetRecords")]
    findings = search.find([sought("r2")], FAR)
    assert (len(findings.found), findings.records) == (1, 3)


def test_keeps_below_five_reads_a_second(
    memory: MemoryKinesis, kinesis: WatchedKinesis, clock: ManualClock, search: Search
) -> None:
    """The reads of one shard leave room for the worker's event source mapping."""
    kinesis.page = 1
    for _ in range(50):
        put(memory, "other")
        clock.sleep(0.5)
    search.find([sought()], FAR)
    times = [at for name, at, _ in kinesis.calls if name == "get_records"]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.25


@given(data=st.data())
def test_finds_exactly_what_is_there(data: st.DataObject) -> None:
    """Whatever is put, split, merged and lost in between: found is what stands on the stream, absent the rest."""
    clock = ManualClock()
    memory = stream(clock, shards=data.draw(st.integers(1, 3)))
    there, wanted = set(), []
    for number in range(data.draw(st.integers(0, 20))):
        clock.sleep(data.draw(st.sampled_from([0, 1, 50, 1000])))
        item = sought(f"r{number}", f"shop/{number % 5}", since=clock.now() - 60)
        wanted.append(item)
        if data.draw(st.booleans()):
            put(memory, item.identity.request_id, item.partition_key)
            there.add(item.identity)
        _reshard(memory, data)
    clock.sleep(120)
    kinesis = WatchedKinesis(memory, clock, page=data.draw(st.sampled_from([1, 3, 100])))
    findings = Search(kinesis, STREAM, clock).find(wanted, FAR)
    assert (findings.found, findings.absent) == (there, {item.identity for item in wanted} - there)


def _reshard(memory: MemoryKinesis, data: st.DataObject) -> None:
    """Perhaps split or merge a shard."""
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
def test_reads_the_name_off_any_envelope(
    account: str, key_id: str, received_at: int, request_id: str, rows: bytes
) -> None:
    """The name is read from the first bytes, however long they are."""
    data = Envelope(account, key_id, received_at, request_id, 0, (TableRows("t", 1, rows),)).encode()
    assert identity_of(data) == Identity(account, request_id)


@example(b"\x97\x01\x80\xa0\x00\x80\x80\x00")
@given(st.binary() | st.binary().map(lambda data: b"\x97\x01" + data))
def test_no_bytes_raise(data: bytes) -> None:
    """Records of any other kind have no name, or one that is nobody's."""
    assert identity_of(data) in {None, identity_of(data)}
