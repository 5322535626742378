"""The in-memory Kinesis behaves like moto's, and also does what only Kinesis does."""

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from doubles.clock import ManualClock
from doubles.kinesis import HASH_KEYS, MemoryKinesis

SHARD, SECOND, THIRD = (f"shardId-00000000000{number}" for number in range(3))
DAY = 24 * 3600


@pytest.fixture(params=["memory", "moto"])
def kinesis(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of the double or of moto, with a stream `s` of three shards."""
    with mock_aws():
        made: Any = MemoryKinesis(ManualClock().now)
        if request.param == "moto":
            made = boto3.client("kinesis", "us-east-1")
        made.create_stream(StreamName="s", ShardCount=3)
        yield made


@pytest.fixture
def clock() -> ManualClock:
    """The clock of `memory`."""
    return ManualClock()


@pytest.fixture
def memory(clock: ManualClock) -> MemoryKinesis:
    """A client of the double, with a stream `s` of one shard."""
    client = MemoryKinesis(clock.now)
    client.create_stream(StreamName="s", ShardCount=1)
    return client


def put(client: Any, *texts: str, key: str = "a/1") -> list[str]:
    """Put records one by one and return their sequence numbers."""
    place = {"StreamName": "s", "PartitionKey": key}
    return [client.put_record(Data=text.encode(), **place)["SequenceNumber"] for text in texts]


def iterator(client: Any, shard_id: str = SHARD, **start: Any) -> str:
    """Return a shard iterator, by default at TRIM_HORIZON."""
    start = start or {"ShardIteratorType": "TRIM_HORIZON"}
    found: str = client.get_shard_iterator(StreamName="s", ShardId=shard_id, **start)["ShardIterator"]
    return found


def read(client: Any, shard_id: str = SHARD, **start: Any) -> list[str]:
    """Return the data of all records from an iterator on."""
    answer = client.get_records(ShardIterator=iterator(client, shard_id, **start))
    return [record.pop("Data").decode() for record in answer["Records"]]  # a reader may change its records


def code(call: Callable[..., Any], **arguments: Any) -> str:
    """Return the error code of a call."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_a_shard_keeps_order(kinesis: Any) -> None:
    """Records are returned unchanged in the order of their puts, with growing numbers and timezone-aware times."""
    numbers = put(kinesis, *"abcdefghijkl")
    records = kinesis.get_records(ShardIterator=iterator(kinesis))["Records"]
    at, after = (
        read(kinesis, ShardIteratorType=f"{kind}_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[9])
        for kind in ("AT", "AFTER")
    )

    assert sorted(numbers, key=int) == [record["SequenceNumber"] for record in records]
    assert list("abcdefghijkl") == [record["Data"].decode() for record in records]
    assert {"a/1"} == {record["PartitionKey"] for record in records}
    assert all(record["ApproximateArrivalTimestamp"].tzinfo for record in records)
    assert [["j", "k", "l"], ["k", "l"], []] == [at, after, read(kinesis, ShardIteratorType="LATEST")]


def test_an_iterator_leads_to_the_next(kinesis: Any) -> None:
    """Each response's next iterator continues after the last record returned, and sees new records."""
    put(kinesis, "a", "b", "c")
    pages, following = [], iterator(kinesis)
    for late in ("", "d", ""):
        answer = kinesis.get_records(ShardIterator=following, Limit=2)
        pages.append([record["Data"] for record in answer["Records"]])
        following = answer["NextShardIterator"]
        put(kinesis, *late)

    assert [[b"a", b"b"], [b"c"], [b"d"]] == pages
    assert 0 == answer["MillisBehindLatest"]


def test_keys_are_routed_by_their_md5(kinesis: Any) -> None:
    """Shards cover the hash keys without gaps, and a partition key is routed to the shard whose range includes its MD5."""
    entries = [{"Data": b"", "PartitionKey": key} for key in ("a/0", "a/1", "d", "e", "müller")]
    single = [kinesis.put_record(StreamName="s", **entry)["ShardId"][-1] for entry in entries]
    many = kinesis.put_records(StreamName="s", Records=entries)
    kinesis.increase_stream_retention_period(StreamName="s", RetentionPeriodHours=168)
    summary = kinesis.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]
    ranges = [shard["HashKeyRange"] for shard in kinesis.list_shards(StreamName="s")["Shards"]]
    ends = [int(one["EndingHashKey"]) for one in ranges]

    assert list("10121") == single == [entry["ShardId"][-1] for entry in many["Records"]]
    assert [0, *(end + 1 for end in ends)] == [*(int(one["StartingHashKey"]) for one in ranges), HASH_KEYS]
    assert ("arn:aws:kinesis:us-east-1:123456789012:stream/s", 3, 168) == tuple(
        summary[name] for name in ("StreamARN", "OpenShardCount", "RetentionPeriodHours")
    )


def test_errors_have_the_codes_of_kinesis(kinesis: Any) -> None:
    """Missing or existing resources and too many or too large records are rejected with Kinesis's error codes."""
    many = [{"Data": b"", "PartitionKey": "a"}] * 501
    large = [{"Data": bytes(1024 * 1024 + 1), "PartitionKey": "a"}]
    start = {"ShardId": "shardId-000000000009", "ShardIteratorType": "LATEST"}

    assert "ResourceInUseException" == code(kinesis.create_stream, StreamName="s", ShardCount=1)
    assert "ResourceNotFoundException" == code(kinesis.get_shard_iterator, StreamName="s", **start)
    assert "ResourceNotFoundException" == code(kinesis.put_record, StreamName="absent", **large[0])
    for records in (many, large):
        assert "ValidationException" == code(kinesis.put_records, StreamName="s", Records=records)


def test_the_documented_limits_apply(memory: MemoryKinesis) -> None:
    """A record with its key has at most 1 MiB, a key 256 characters, a request and a read 10 MiB."""
    full = {"Data": bytes(1024 * 1024 - 1), "PartitionKey": "a"}
    memory.put_records(StreamName="s", Records=[full] * 10)
    memory.put_record(StreamName="s", **full)  # type: ignore[arg-type]
    answer = memory.get_records(ShardIterator=iterator(memory))
    two = code(memory.put_record, StreamName="s", Data=full["Data"], PartitionKey="aa")
    long = code(memory.put_record, StreamName="s", Data=b"", PartitionKey="a" * 257)
    much = code(memory.put_records, StreamName="s", Records=[full] * 10 + [{**full, "Data": b""}])

    assert ["ValidationException", "ValidationException", "InvalidArgumentException"] == [two, long, much]
    assert (10, True) == (len(answer["Records"]), answer["MillisBehindLatest"] > 0)


def test_iterators_depend_on_time(memory: MemoryKinesis, clock: ManualClock) -> None:
    """AT_TIMESTAMP starts at the first record put then or later, and an iterator expires after five minutes."""
    times = []
    for text in "abc":
        times.append(clock.now())
        put(memory, text)
        clock.sleep(10)
    found = [read(memory, ShardIteratorType="AT_TIMESTAMP", Timestamp=time) for time in (*times, clock.now())]
    old = iterator(memory)
    clock.sleep(300)
    memory.get_records(ShardIterator=old)
    clock.sleep(1)

    assert [["a", "b", "c"], ["b", "c"], ["c"], []] == found
    assert "ExpiredIteratorException" == code(memory.get_records, ShardIterator=old)


def test_a_read_may_be_empty_before_the_end(memory: MemoryKinesis, clock: ManualClock) -> None:
    """With empty reads switched on, a response without records has a next iterator and is behind; only the tip is not."""
    put(memory, "a")
    clock.sleep(2)
    empty = [True, False]
    memory.reads_empty = lambda: empty.pop(0)
    following, seen = iterator(memory), []
    for _ in range(3):
        answer = memory.get_records(ShardIterator=following)
        following = answer["NextShardIterator"]
        seen.append((len(answer["Records"]), answer["MillisBehindLatest"]))

    assert [(0, 2000), (1, 0), (0, 0)] == seen


def test_arrival_times_may_be_wrong(memory: MemoryKinesis, clock: ManualClock) -> None:
    """With an arrival error, times are neither exact nor ordered, but order and expiry do not change."""
    errors = [150.0, -20.0]
    memory.arrival_error = lambda: errors.pop(0)
    start = clock.now()
    put(memory, "a", "b")
    records = memory.get_records(ShardIterator=iterator(memory))["Records"]
    clock.sleep(DAY + 1)

    assert [(start + 150, b"a"), (start - 20, b"b")] == [
        (record["ApproximateArrivalTimestamp"].timestamp(), record["Data"]) for record in records
    ]
    assert [] == read(memory)


def test_records_expire_with_the_retention(memory: MemoryKinesis, clock: ManualClock) -> None:
    """Expired records are gone: a longer retention does not restore them, and reads from their numbers start after them."""
    [old] = put(memory, "old")
    clock.sleep(DAY - 1)
    put(memory, "young")
    clock.sleep(2)
    memory.increase_stream_retention_period(StreamName="s", RetentionPeriodHours=48)

    assert ["young"] == read(memory)
    assert ["young"] == read(memory, ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=old)


@pytest.mark.parametrize("number", ["1", "9" * 56, "-1", "abc", None])
def test_sequence_numbers_look_real(memory: MemoryKinesis, number: str | None) -> None:
    """Sequence numbers have 56 digits and are the same for the same seed; other numbers are invalid arguments."""
    other = MemoryKinesis(ManualClock().now)
    other.create_stream(StreamName="s", ShardCount=1)
    issued = put(memory, "a", "b", "c")
    start = {"StreamName": "s", "ShardId": SHARD, "ShardIteratorType": "AT_SEQUENCE_NUMBER"}
    start |= {"StartingSequenceNumber": number}

    assert "InvalidArgumentException" == code(memory.get_shard_iterator, **start)
    assert ({56}, issued) == ({len(one) for one in issued}, put(other, "a", "b", "c"))


def test_resharding_closes_shards_and_opens_children(memory: MemoryKinesis, clock: ManualClock) -> None:
    """A closed shard ends, cannot be closed again and is listed until it expires; its children get all new records."""
    put(memory, "before")
    split = {"StreamName": "s", "ShardToSplit": SHARD, "NewStartingHashKey": str(HASH_KEYS // 2)}
    memory.split_shard(**split)
    put(memory, "low", key="a/0")
    put(memory, "high", key="d")
    answer = memory.get_records(ShardIterator=iterator(memory))
    found = [read(memory, shard) for shard in (SHARD, SECOND, THIRD)]
    merge = {"StreamName": "s", "ShardToMerge": THIRD, "AdjacentShardToMerge": SECOND}
    memory.merge_shards(**merge)
    page = memory.list_shards(StreamName="s", MaxResults=3)
    [child] = memory.list_shards(NextToken=page["NextToken"])["Shards"]
    outside = {"ShardToSplit": child["ShardId"], "NewStartingHashKey": "0"}
    codes = [code(memory.split_shard, **split | change) for change in ({}, outside)]
    codes.append(code(memory.merge_shards, **merge))
    clock.sleep(DAY + 1)

    assert ["InvalidArgumentException"] * 3 == codes
    assert ([["before"], ["low"], ["high"]], False) == (found, "NextShardIterator" in answer)
    assert [None, SHARD, SHARD] == [shard.get("ParentShardId") for shard in page["Shards"]]
    assert all("EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in page["Shards"])
    assert (THIRD, SECOND) == (child["ParentShardId"], child["AdjacentParentShardId"])
    assert {"StartingHashKey": "0", "EndingHashKey": str(HASH_KEYS - 1)} == child["HashKeyRange"]
    assert [child] == memory.list_shards(StreamName="s")["Shards"]


def test_a_stream_at_most_doubles_or_halves(memory: MemoryKinesis) -> None:
    """Kinesis refuses any other number of shards, and any at all on demand, where there are at least four."""
    arn = memory.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["StreamARN"]
    resize = {"StreamName": "s", "ScalingType": "UNIFORM_SCALING"}
    memory.update_shard_count(**resize, TargetShardCount=2)
    memory.update_shard_count(**resize, TargetShardCount=3)

    for refused in (7, 1):
        assert "LimitExceededException" == code(memory.update_shard_count, **resize, TargetShardCount=refused)
    memory.update_stream_mode(StreamARN=arn, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    assert 4 == memory.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["OpenShardCount"]
    assert "ValidationException" == code(memory.update_shard_count, **resize, TargetShardCount=4)
