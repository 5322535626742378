"""What Kinesis in memory and moto's server agree on, and what only the first can do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from doubles.kinesis import HASH_KEYS, MemoryKinesis


@dataclass
class Time:
    """A clock that stands still until it is moved."""

    seconds: float = 1_764_000_000.0

    def __call__(self) -> float:
        """Tell UNIX seconds."""
        return self.seconds


@pytest.fixture(scope="module")
def moto() -> Iterator[Any]:
    """A client of moto's server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "kinesis",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    yield client
    client.close()
    server.stop()


@pytest.fixture(params=["memory", "moto"])
def kinesis(request: pytest.FixtureRequest) -> Any:
    """A client of each."""
    return MemoryKinesis(Time()) if request.param == "memory" else request.getfixturevalue("moto")


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    """A name for the stream of this test alone."""
    return f"s{abs(hash(request.node.name))}"


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


def put(client: Any, stream: str, *texts: str, key: str = "a") -> list[str]:
    """Put records one by one and return their sequence numbers."""
    return [
        client.put_record(StreamName=stream, Data=text.encode(), PartitionKey=key)["SequenceNumber"]
        for text in texts
    ]


def read(client: Any, stream: str, shard_id: str = "shardId-000000000000", **start: Any) -> list[str]:
    """Return the data that stands from a starting point on."""
    start = start or {"ShardIteratorType": "TRIM_HORIZON"}
    iterator = client.get_shard_iterator(StreamName=stream, ShardId=shard_id, **start)["ShardIterator"]
    return [record["Data"].decode() for record in client.get_records(ShardIterator=iterator)["Records"]]


def refused(call: Callable[..., Any], **arguments: Any) -> str:
    """Return the error code of a call that must fail."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_a_shard_keeps_order(kinesis: Any, stream: str) -> None:
    """Records of one shard come back in the order of their puts, with numbers that grow."""
    kinesis.create_stream(StreamName=stream, ShardCount=1)

    numbers = put(kinesis, stream, *"abcdefghijkl")

    assert read(kinesis, stream) == list("abcdefghijkl")
    assert sorted(numbers, key=int) == numbers


def test_a_record_comes_back_whole(kinesis: Any, stream: str) -> None:
    """A record that is read has the data, key and number of its put, and a time with a zone."""
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    data = bytes(range(256))
    number = kinesis.put_record(StreamName=stream, Data=data, PartitionKey="müller/3")["SequenceNumber"]

    iterator = kinesis.get_shard_iterator(
        StreamName=stream, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    [record] = kinesis.get_records(ShardIterator=iterator)["Records"]

    assert (record["Data"], record["PartitionKey"], record["SequenceNumber"]) == (data, "müller/3", number)
    assert record["ApproximateArrivalTimestamp"].tzinfo is not None


def test_iterators_by_sequence_number(kinesis: Any, stream: str) -> None:
    """AT begins with the record of that number, AFTER behind it, LATEST behind everything."""
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    numbers = put(kinesis, stream, *"abcdefghijkl")

    at = read(kinesis, stream, ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[9])
    after = read(
        kinesis, stream, ShardIteratorType="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[9]
    )
    latest = read(kinesis, stream, ShardIteratorType="LATEST")

    assert (at, after, latest) == (["j", "k", "l"], ["k", "l"], [])


def test_an_iterator_goes_on(kinesis: Any, stream: str) -> None:
    """Each answer's next iterator goes on behind the last record, `Limit` by `Limit`, also over what came since."""
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    put(kinesis, stream, "a", "b", "c")
    iterator = kinesis.get_shard_iterator(
        StreamName=stream, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]

    pages = []
    for _ in range(2):
        answer = kinesis.get_records(ShardIterator=iterator, Limit=2)
        pages.append([record["Data"] for record in answer["Records"]])
        iterator = answer["NextShardIterator"]
    put(kinesis, stream, "d")
    answer = kinesis.get_records(ShardIterator=iterator, Limit=2)

    assert pages == [[b"a", b"b"], [b"c"]]
    assert [record["Data"] for record in answer["Records"]] == [b"d"]
    assert answer["MillisBehindLatest"] == 0


def test_keys_are_routed_alike(kinesis: Any, stream: str) -> None:
    """A partition key goes to the shard whose range holds its MD5, an explicit hash key to its own."""
    kinesis.create_stream(StreamName=stream, ShardCount=4)

    shards = [
        kinesis.put_record(StreamName=stream, Data=b"", PartitionKey=key)["ShardId"][-1]
        for key in ("a/0", "a/1", "d", "e")
    ]
    explicit = kinesis.put_record(StreamName=stream, Data=b"", PartitionKey="a/0", ExplicitHashKey="0")[
        "ShardId"
    ]

    assert shards == ["1", "0", "2", "3"]
    assert explicit == "shardId-000000000000"


def test_put_records_answers_in_order(kinesis: Any, stream: str) -> None:
    """PutRecords answers one entry for each record, in the order of the request."""
    kinesis.create_stream(StreamName=stream, ShardCount=1)

    answer = kinesis.put_records(
        StreamName=stream, Records=[{"Data": str(i).encode(), "PartitionKey": "a"} for i in range(12)]
    )

    assert answer["FailedRecordCount"] == 0
    assert sorted(answer["Records"], key=lambda entry: int(entry["SequenceNumber"])) == answer["Records"]
    assert read(kinesis, stream) == [str(i) for i in range(12)]


def test_shards_are_described(kinesis: Any, stream: str) -> None:
    """ListShards tells shards whose hash ranges follow each other from 0 to 2^128 - 1."""
    kinesis.create_stream(StreamName=stream, ShardCount=3)

    shards = kinesis.list_shards(StreamName=stream)["Shards"]

    starts = [int(shard["HashKeyRange"]["StartingHashKey"]) for shard in shards]
    ends = [int(shard["HashKeyRange"]["EndingHashKey"]) for shard in shards]
    assert [shard["ShardId"] for shard in shards] == [f"shardId-00000000000{i}" for i in range(3)]
    assert starts == [0, *(end + 1 for end in ends[:-1])]
    assert ends[-1] == HASH_KEYS - 1


def test_shards_are_told_in_pages(memory: MemoryKinesis) -> None:
    """A page's token stands for the stream and leads to the next page."""
    memory.create_stream(StreamName="t", ShardCount=3)

    first = memory.list_shards(StreamName="t", MaxResults=2)
    second = memory.list_shards(NextToken=first["NextToken"])

    assert [shard["ShardId"][-1] for shard in first["Shards"] + second["Shards"]] == ["0", "1", "2"]
    assert "NextToken" not in second


def test_a_stream_is_described(kinesis: Any, stream: str) -> None:
    """The summary tells the ARN, the number of open shards and the retention."""
    kinesis.create_stream(StreamName=stream, ShardCount=2)
    kinesis.increase_stream_retention_period(StreamName=stream, RetentionPeriodHours=168)

    summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]

    assert summary["StreamARN"] == f"arn:aws:kinesis:us-east-1:123456789012:stream/{stream}"
    assert (summary["StreamStatus"], summary["OpenShardCount"], summary["RetentionPeriodHours"]) == (
        "ACTIVE",
        2,
        168,
    )
    by_arn = kinesis.describe_stream_summary(StreamARN=summary["StreamARN"])
    assert by_arn["StreamDescriptionSummary"]["StreamName"] == stream


def test_refusals_have_the_codes_of_kinesis(kinesis: Any, stream: str) -> None:
    """What does not exist or is too much is refused with the service's code."""
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    many = [{"Data": b"", "PartitionKey": "a"}] * 501
    large = [{"Data": bytes(1024 * 1024 + 1), "PartitionKey": "a"}]

    assert refused(kinesis.create_stream, StreamName=stream, ShardCount=1) == "ResourceInUseException"
    assert (
        refused(kinesis.put_record, StreamName="absent", Data=b"", PartitionKey="a")
        == "ResourceNotFoundException"
    )
    assert (
        refused(
            kinesis.get_shard_iterator,
            StreamName=stream,
            ShardId="shardId-000000000009",
            ShardIteratorType="LATEST",
        )
        == "ResourceNotFoundException"
    )
    assert refused(kinesis.put_records, StreamName=stream, Records=many) == "ValidationException"
    assert refused(kinesis.put_records, StreamName=stream, Records=large) == "ValidationException"


def test_errors_are_the_classes_of_boto3(memory: MemoryKinesis) -> None:
    """An error is caught by `client.exceptions`, as with boto3."""
    with pytest.raises(memory.exceptions.ResourceNotFoundException):
        memory.describe_stream_summary(StreamName="absent")


def test_sequence_numbers_have_56_digits(memory: MemoryKinesis) -> None:
    """Sequence numbers look like those of Kinesis, with gaps, and are the same for the same seed."""
    other = MemoryKinesis(Time())
    other.create_stream(StreamName="s", ShardCount=1)

    numbers = put(memory, "s", "a", "b", "c")

    assert {len(number) for number in numbers} == {56}
    assert int(numbers[1]) - int(numbers[0]) != int(numbers[2]) - int(numbers[1])
    assert put(other, "s", "a", "b", "c") == numbers


def test_at_timestamp(memory: MemoryKinesis, now: Time) -> None:
    """AT_TIMESTAMP begins with the first record that arrived then or later."""
    times = []
    for text in "abc":
        times.append(now())
        put(memory, "s", text)
        now.seconds += 10

    found = [read(memory, "s", ShardIteratorType="AT_TIMESTAMP", Timestamp=time) for time in (*times, now())]

    assert found == [["a", "b", "c"], ["b", "c"], ["c"], []]


def test_iterators_expire(memory: MemoryKinesis, now: Time) -> None:
    """An iterator is good for five minutes."""
    iterator = memory.get_shard_iterator(
        StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    now.seconds += 300
    memory.get_records(ShardIterator=iterator)
    now.seconds += 1

    assert refused(memory.get_records, ShardIterator=iterator) == "ExpiredIteratorException"


def test_one_read_is_bounded(memory: MemoryKinesis) -> None:
    """GetRecords hands out at most 10 MiB and tells how far behind it is."""
    put(memory, "s", *["x" * 1024 * 1024] * 12)
    iterator = memory.get_shard_iterator(
        StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]

    answer = memory.get_records(ShardIterator=iterator)

    assert len(answer["Records"]) == 9
    assert answer["MillisBehindLatest"] > 0


def test_records_expire_with_the_retention(memory: MemoryKinesis, now: Time) -> None:
    """What is older than the retention is gone, and a longer retention does not bring it back."""
    put(memory, "s", "old")
    now.seconds += 24 * 3600 - 1
    put(memory, "s", "young")
    now.seconds += 2

    memory.increase_stream_retention_period(StreamName="s", RetentionPeriodHours=48)

    assert read(memory, "s") == ["young"]


def test_a_number_that_expired_begins_with_what_is_left(memory: MemoryKinesis, now: Time) -> None:
    """An iterator for a number whose record has expired stands at the oldest record."""
    [number] = put(memory, "s", "old")
    now.seconds += 24 * 3600 + 1
    put(memory, "s", "young")

    assert read(memory, "s", ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=number) == [
        "young"
    ]


@pytest.mark.parametrize("number", ["1", "9" * 56, "-1", "abc", "", None])
def test_numbers_of_another_stream_are_refused(memory: MemoryKinesis, number: str | None) -> None:
    """A sequence number that cannot be this shard's is an invalid argument."""
    put(memory, "s", "a")

    code = refused(
        memory.get_shard_iterator,
        StreamName="s",
        ShardId="shardId-000000000000",
        ShardIteratorType="AT_SEQUENCE_NUMBER",
        StartingSequenceNumber=number,
    )

    assert code == "InvalidArgumentException"


def test_a_split_closes_the_parent(memory: MemoryKinesis) -> None:
    """After a split the parent ends with a null iterator and names its children, which get all new records."""
    put(memory, "s", "before")
    memory.split_shard(
        StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(HASH_KEYS // 2)
    )
    put(memory, "s", "low", key="a/0")
    put(memory, "s", "high", key="d")
    iterator = memory.get_shard_iterator(
        StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]

    answer = memory.get_records(ShardIterator=iterator)

    assert [record["Data"] for record in answer["Records"]] == [b"before"]
    assert "NextShardIterator" not in answer
    assert [(child["ShardId"], child["ParentShards"]) for child in answer["ChildShards"]] == [
        ("shardId-000000000001", ["shardId-000000000000"]),
        ("shardId-000000000002", ["shardId-000000000000"]),
    ]
    assert read(memory, "s", "shardId-000000000001") == ["low"]
    assert read(memory, "s", "shardId-000000000002") == ["high"]
    parent, *children = memory.list_shards(StreamName="s")["Shards"]
    assert "EndingSequenceNumber" in parent["SequenceNumberRange"]
    assert [child["ParentShardId"] for child in children] == ["shardId-000000000000"] * 2


def test_a_merge_has_two_parents(memory: MemoryKinesis) -> None:
    """After a merge the child names both parents and its range is theirs."""
    memory.split_shard(StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey="1000")
    memory.merge_shards(
        StreamName="s", ShardToMerge="shardId-000000000002", AdjacentShardToMerge="shardId-000000000001"
    )

    child = memory.list_shards(StreamName="s")["Shards"][-1]

    assert (child["ParentShardId"], child["AdjacentParentShardId"]) == (
        "shardId-000000000002",
        "shardId-000000000001",
    )
    assert child["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": str(HASH_KEYS - 1)}


def test_resharding_is_checked(memory: MemoryKinesis) -> None:
    """A split outside the shard, a merge of strangers and anything with a closed shard are refused."""
    memory.create_stream(StreamName="t", ShardCount=3)
    memory.split_shard(StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey="1000")

    codes = [
        refused(
            memory.split_shard, StreamName="s", ShardToSplit="shardId-000000000001", NewStartingHashKey="1000"
        ),
        refused(
            memory.split_shard, StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey="500"
        ),
        refused(
            memory.merge_shards,
            StreamName="t",
            ShardToMerge="shardId-000000000000",
            AdjacentShardToMerge="shardId-000000000002",
        ),
    ]

    assert codes == ["InvalidArgumentException"] * 3


def test_a_closed_shard_goes_when_its_records_have_expired(memory: MemoryKinesis, now: Time) -> None:
    """A parent is listed until the retention has passed since it was closed."""
    put(memory, "s", "before")
    memory.split_shard(StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey="1000")
    now.seconds += 24 * 3600
    kept = len(memory.list_shards(StreamName="s")["Shards"])
    now.seconds += 1

    assert (kept, len(memory.list_shards(StreamName="s")["Shards"])) == (3, 2)


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=8), st.binary(max_size=8)), max_size=30),
    st.integers(1, 5),
)
def test_every_record_is_on_one_shard(entries: list[tuple[str, bytes]], shards: int) -> None:
    """Whatever is put is found once, in order for its key, on one shard."""
    client = MemoryKinesis(Time())
    client.create_stream(StreamName="s", ShardCount=shards)
    for key, data in entries:
        client.put_record(StreamName="s", Data=data, PartitionKey=key)

    found: list[tuple[str, bytes]] = []
    for shard in client.list_shards(StreamName="s")["Shards"]:
        iterator = client.get_shard_iterator(
            StreamName="s", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        found += [
            (record["PartitionKey"], record["Data"])
            for record in client.get_records(ShardIterator=iterator)["Records"]
        ]

    assert sorted(found) == sorted(entries)
    for key in {key for key, _ in entries}:
        assert [data for name, data in found if name == key] == [
            data for name, data in entries if name == key
        ]
