"""What the in-memory Kinesis and moto agree on, and what only the first can do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from doubles.kinesis import HASH_KEYS, MemoryKinesis

SHARD, SECOND, THIRD = (f"shardId-00000000000{number}" for number in range(3))
DAY = 24 * 3600


@dataclass
class Time:
    """A clock that is moved by hand."""

    seconds: float = 1_764_000_000.0

    def __call__(self) -> float:
        """Return UNIX seconds."""
        return self.seconds


@pytest.fixture(params=["memory", "moto"])
def kinesis(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of each."""
    if request.param == "memory":
        yield MemoryKinesis(Time())
        return
    with mock_aws():
        yield boto3.client(
            "kinesis", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )


@pytest.fixture
def now() -> Time:
    """The time of `memory`."""
    return Time()


@pytest.fixture
def memory(now: Time) -> MemoryKinesis:
    """A client with one stream `s` of one shard."""
    client = MemoryKinesis(now)
    client.create_stream(StreamName="s", ShardCount=1)
    return client


def put(client: Any, *texts: str, key: str = "a") -> list[str]:
    """Put records one by one and return their sequence numbers."""
    return [
        client.put_record(StreamName="s", Data=text.encode(), PartitionKey=key)["SequenceNumber"]
        for text in texts
    ]


def iterator(client: Any, shard_id: str = SHARD, **start: Any) -> str:
    """Return a shard iterator, at the beginning unless told otherwise."""
    start = start or {"ShardIteratorType": "TRIM_HORIZON"}
    found: str = client.get_shard_iterator(StreamName="s", ShardId=shard_id, **start)["ShardIterator"]
    return found


def read(client: Any, shard_id: str = SHARD, **start: Any) -> list[str]:
    """Return the data of all records from an iterator on."""
    answer = client.get_records(ShardIterator=iterator(client, shard_id, **start))
    return [record["Data"].decode() for record in answer["Records"]]


def code(call: Callable[..., Any], **arguments: Any) -> str:
    """Return the error code of a call."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_a_shard_keeps_order(kinesis: Any) -> None:
    """Records come back in the order of their puts, whole, with growing numbers and times that have a zone."""
    kinesis.create_stream(StreamName="s", ShardCount=1)
    numbers = put(kinesis, *"abcdefghijk", key="müller/3")
    data = bytes(range(256))
    numbers.append(kinesis.put_record(StreamName="s", Data=data, PartitionKey="müller/3")["SequenceNumber"])
    records = kinesis.get_records(ShardIterator=iterator(kinesis))["Records"]

    assert sorted(numbers, key=int) == [record["SequenceNumber"] for record in records]
    assert [*(text.encode() for text in "abcdefghijk"), data] == [record["Data"] for record in records]
    assert {"müller/3"} == {record["PartitionKey"] for record in records}
    assert all(record["ApproximateArrivalTimestamp"].tzinfo for record in records)


def test_iterators_start_where_they_are_told(kinesis: Any) -> None:
    """AT starts with the record of a number, AFTER behind it, LATEST behind everything."""
    kinesis.create_stream(StreamName="s", ShardCount=1)
    numbers = put(kinesis, *"abcdefghijkl")
    found = [
        read(kinesis, ShardIteratorType=f"{kind}_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[9])
        for kind in ("AT", "AFTER")
    ]

    assert [["j", "k", "l"], ["k", "l"], []] == [*found, read(kinesis, ShardIteratorType="LATEST")]


def test_an_iterator_leads_to_the_next(kinesis: Any) -> None:
    """Each answer's next iterator continues behind the last record, `Limit` by `Limit`, and sees what is new."""
    kinesis.create_stream(StreamName="s", ShardCount=1)
    put(kinesis, "a", "b", "c")
    pages, following = [], iterator(kinesis)
    for late in ("", "d", ""):
        answer = kinesis.get_records(ShardIterator=following, Limit=2)
        pages.append([record["Data"] for record in answer["Records"]])
        following = answer["NextShardIterator"]
        put(kinesis, *late)

    assert [[b"a", b"b"], [b"c"], [b"d"]] == pages
    assert 0 == answer["MillisBehindLatest"]


def test_keys_are_routed_alike(kinesis: Any) -> None:
    """A partition key goes to the shard whose range holds its MD5, an explicit hash key to its own."""
    kinesis.create_stream(StreamName="s", ShardCount=4)
    entries: list[dict[str, Any]] = [{"Data": b"", "PartitionKey": key} for key in ("a/0", "a/1", "d", "e")]
    entries.append(entries[0] | {"ExplicitHashKey": "0"})
    single = [kinesis.put_record(StreamName="s", **entry)["ShardId"][-1] for entry in entries]
    many = kinesis.put_records(StreamName="s", Records=entries)

    assert list("10230") == single == [entry["ShardId"][-1] for entry in many["Records"]]
    assert 0 == many["FailedRecordCount"]


def test_a_stream_is_described(kinesis: Any) -> None:
    """Shards cover the hash keys without a gap; the summary has ARN, open shards and retention."""
    kinesis.create_stream(StreamName="s", ShardCount=3)
    kinesis.increase_stream_retention_period(StreamName="s", RetentionPeriodHours=168)
    summary = kinesis.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]
    shards = kinesis.list_shards(StreamName="s")["Shards"]
    starts = [int(shard["HashKeyRange"]["StartingHashKey"]) for shard in shards]
    ends = [int(shard["HashKeyRange"]["EndingHashKey"]) for shard in shards]

    assert "arn:aws:kinesis:us-east-1:123456789012:stream/s" == summary["StreamARN"]
    assert ("ACTIVE", 3, 168) == tuple(
        summary[name] for name in ("StreamStatus", "OpenShardCount", "RetentionPeriodHours")
    )
    assert [SHARD, SECOND, THIRD] == [shard["ShardId"] for shard in shards]
    assert [0, *(end + 1 for end in ends)] == [*starts, HASH_KEYS]


def test_errors_have_the_codes_of_kinesis(kinesis: Any) -> None:
    """What does not exist or is too much is rejected with the service's code."""
    kinesis.create_stream(StreamName="s", ShardCount=1)
    many = [{"Data": b"", "PartitionKey": "a"}] * 501
    large = [{"Data": bytes(1024 * 1024 + 1), "PartitionKey": "a"}]
    start = {"ShardId": "shardId-000000000009", "ShardIteratorType": "LATEST"}
    missing = "ResourceNotFoundException"

    assert "ResourceInUseException" == code(kinesis.create_stream, StreamName="s", ShardCount=1)
    assert missing == code(kinesis.put_record, StreamName="absent", Data=b"", PartitionKey="a")
    assert missing == code(kinesis.get_shard_iterator, StreamName="s", **start)
    assert "ValidationException" == code(kinesis.put_records, StreamName="s", Records=many)
    assert "ValidationException" == code(kinesis.put_records, StreamName="s", Records=large)


def test_puts_keep_the_documented_limits(memory: MemoryKinesis) -> None:
    """A record and its key fill 1 MiB at most, a key has 256 characters, and a request holds 10 MiB."""
    mebibyte = 1024 * 1024
    full = {"Data": bytes(mebibyte - 1), "PartitionKey": "a"}
    memory.put_record(StreamName="s", **full)  # type: ignore[arg-type]
    memory.put_records(StreamName="s", Records=[full] * 10)

    assert "ValidationException" == code(
        memory.put_record, StreamName="s", Data=full["Data"], PartitionKey="aa"
    )
    assert "ValidationException" == code(memory.put_record, StreamName="s", Data=b"", PartitionKey="a" * 257)
    assert "InvalidArgumentException" == code(
        memory.put_records, StreamName="s", Records=[full] * 10 + [{"Data": b"", "PartitionKey": "a"}]
    )


def test_shards_are_listed_in_pages(memory: MemoryKinesis) -> None:
    """A page's token names the stream and leads to the next page."""
    memory.create_stream(StreamName="t", ShardCount=3)
    first = memory.list_shards(StreamName="t", MaxResults=2)
    second = memory.list_shards(NextToken=first["NextToken"])

    assert [SHARD, SECOND, THIRD] == [shard["ShardId"] for shard in first["Shards"] + second["Shards"]]
    assert "NextToken" not in second


def test_sequence_numbers_have_56_digits(memory: MemoryKinesis) -> None:
    """Sequence numbers look like those of Kinesis, with gaps, and are the same for the same seed."""
    other = MemoryKinesis(Time())
    other.create_stream(StreamName="s", ShardCount=1)
    numbers = put(memory, "a", "b", "c")

    assert {56} == {len(number) for number in numbers}
    assert int(numbers[1]) - int(numbers[0]) != int(numbers[2]) - int(numbers[1])
    assert numbers == put(other, "a", "b", "c")


def test_at_timestamp(memory: MemoryKinesis, now: Time) -> None:
    """AT_TIMESTAMP starts with the first record that was put then or later."""
    times = []
    for text in "abc":
        times.append(now())
        put(memory, text)
        now.seconds += 10

    assert [["a", "b", "c"], ["b", "c"], ["c"], []] == [
        read(memory, ShardIteratorType="AT_TIMESTAMP", Timestamp=time) for time in (*times, now())
    ]


def test_iterators_expire(memory: MemoryKinesis, now: Time) -> None:
    """An iterator is good for five minutes."""
    old = iterator(memory)
    now.seconds += 300
    memory.get_records(ShardIterator=old)
    now.seconds += 1

    assert "ExpiredIteratorException" == code(memory.get_records, ShardIterator=old)


def test_one_read_is_bounded(memory: MemoryKinesis) -> None:
    """GetRecords returns at most 10 MiB and tells how far behind it is."""
    put(memory, *["x" * (1024 * 1024 - 1)] * 12)
    answer = memory.get_records(ShardIterator=iterator(memory))

    assert 10 == len(answer["Records"])
    assert answer["MillisBehindLatest"] > 0


def test_a_read_may_be_empty_before_the_end(memory: MemoryKinesis, now: Time) -> None:
    """With empty reads switched on, an answer without records leads on and says that it is behind; the tip is 0."""
    put(memory, "a")
    now.seconds += 2
    empty = [True, False]
    memory.reads_empty = lambda: empty.pop(0)
    following, seen = iterator(memory), []
    for _ in range(3):
        answer = memory.get_records(ShardIterator=following)
        following = answer["NextShardIterator"]
        seen.append((len(answer["Records"]), answer["MillisBehindLatest"]))

    assert [(0, 2000), (1, 0), (0, 0)] == seen


def test_arrival_times_may_be_wrong(memory: MemoryKinesis, now: Time) -> None:
    """With an arrival error, times are neither exact nor ordered; order, AT_TIMESTAMP and expiry do not change."""
    errors = [150.0, -20.0]
    memory.arrival_error = lambda: errors.pop(0)
    start = now()
    put(memory, "a", "b")
    records = memory.get_records(ShardIterator=iterator(memory))["Records"]
    now.seconds += DAY + 1

    assert [start + 150, start - 20] == [
        record["ApproximateArrivalTimestamp"].timestamp() for record in records
    ]
    assert [b"a", b"b"] == [record["Data"] for record in records]
    assert [] == read(memory)


def test_records_expire_with_the_retention(memory: MemoryKinesis, now: Time) -> None:
    """Records older than the retention are gone: a longer one does not restore them, and their numbers lead past them."""
    [old] = put(memory, "old")
    now.seconds += DAY - 1
    put(memory, "young")
    now.seconds += 2
    memory.increase_stream_retention_period(StreamName="s", RetentionPeriodHours=48)

    assert ["young"] == read(memory)
    assert ["young"] == read(memory, ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=old)


@pytest.mark.parametrize("number", ["1", "9" * 56, "-1", "abc", "", None])
def test_numbers_of_another_stream_are_rejected(memory: MemoryKinesis, number: str | None) -> None:
    """A sequence number that cannot be this shard's is an invalid argument."""
    put(memory, "a")
    start = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": number}

    assert "InvalidArgumentException" == code(
        memory.get_shard_iterator, StreamName="s", ShardId=SHARD, **start
    )


def test_a_split_closes_the_parent(memory: MemoryKinesis, now: Time) -> None:
    """After a split the parent leads nowhere, its children get all new records, and it is listed until it expires."""
    put(memory, "before")
    memory.split_shard(StreamName="s", ShardToSplit=SHARD, NewStartingHashKey=str(HASH_KEYS // 2))
    put(memory, "low", key="a/0")
    put(memory, "high", key="d")
    answer = memory.get_records(ShardIterator=iterator(memory))
    parent, *children = memory.list_shards(StreamName="s")["Shards"]
    found = [read(memory, shard) for shard in (SHARD, SECOND, THIRD)]
    now.seconds += DAY
    kept = len(memory.list_shards(StreamName="s")["Shards"])
    now.seconds += 1

    assert [["before"], ["low"], ["high"]] == found
    assert "NextShardIterator" not in answer
    assert "EndingSequenceNumber" in parent["SequenceNumberRange"]
    assert [SHARD] * 2 == [child["ParentShardId"] for child in children]
    assert (3, 2) == (kept, len(memory.list_shards(StreamName="s")["Shards"]))


def test_a_merge_has_two_parents(memory: MemoryKinesis) -> None:
    """After a merge the child names both parents and has both ranges."""
    memory.split_shard(StreamName="s", ShardToSplit=SHARD, NewStartingHashKey="1000")
    memory.merge_shards(StreamName="s", ShardToMerge=THIRD, AdjacentShardToMerge=SECOND)
    child = memory.list_shards(StreamName="s")["Shards"][-1]

    assert (THIRD, SECOND) == (child["ParentShardId"], child["AdjacentParentShardId"])
    assert {"StartingHashKey": "0", "EndingHashKey": str(HASH_KEYS - 1)} == child["HashKeyRange"]


def test_resharding_is_checked(memory: MemoryKinesis) -> None:
    """A split outside the shard, a merge of shards that are not neighbours and a closed shard are rejected."""
    memory.create_stream(StreamName="t", ShardCount=3)
    split = {"StreamName": "s", "NewStartingHashKey": "1000"}
    memory.split_shard(ShardToSplit=SHARD, **split)
    merge = {"StreamName": "t", "ShardToMerge": SHARD, "AdjacentShardToMerge": THIRD}

    assert ["InvalidArgumentException"] * 3 == [
        code(memory.split_shard, ShardToSplit=SECOND, **split),
        code(memory.split_shard, ShardToSplit=SHARD, **split | {"NewStartingHashKey": "500"}),
        code(memory.merge_shards, **merge),
    ]


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=8), st.binary(max_size=8)), max_size=30),
    st.integers(1, 5),
)
def test_every_record_is_on_one_shard(entries: list[tuple[str, bytes]], shards: int) -> None:
    """Whatever is put is found once, on one shard, in order for its key."""
    client = MemoryKinesis(Time())
    client.create_stream(StreamName="s", ShardCount=shards)
    for key, data in entries:
        client.put_record(StreamName="s", Data=data, PartitionKey=key)
    found = [
        (record["PartitionKey"], record["Data"])
        for shard in client.list_shards(StreamName="s")["Shards"]
        for record in client.get_records(ShardIterator=iterator(client, shard["ShardId"]))["Records"]
    ]
    by_key: Callable[[tuple[str, bytes]], str] = lambda entry: entry[0]  # noqa: E731 -- used twice

    assert sorted(entries, key=by_key) == sorted(found, key=by_key)
