"""Kinesis in memory, in the shape of boto3's client.

It keeps Kinesis's promises: order within a shard, growing sequence numbers, routing by the MD5 of the partition key,
closed shards with parents and children, expiry after the retention. Limits and error codes are those of the service's
API model. It does not throttle and never fails on its own: wrap it to inject faults. Two behaviours of Kinesis that callers
tend to forget can be switched on, empty reads and inaccurate arrival times, and a read can be answered wrongly. Not
thread-safe.
"""

# ruff: noqa: N803  # the parameters have boto3's names
import itertools
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from hashlib import md5
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from doubles.aws_errors import client_error

HASH_KEYS = 1 << 128
"""Partition keys are hashed to 0 … 2^128 - 1."""

_ITERATOR_SECONDS = 300
_FIRST_NUMBER = 495_903_382_714_902_566_085_596 * 10**32
FREE_NUMBER = _FIRST_NUMBER + (1 << 50)
"""The first of many sequence numbers within the range of the first stream's shards that none of its records has."""
_MAX_RECORD = 1024 * 1024  # including its key; the service's default
_MAX_READ = _MAX_PUT = 10 * 1024 * 1024
_MAX_PUT_RECORDS = 500
_MAX_KEY_CHARACTERS = 256
_ON_DEMAND_SHARDS = 4


class Lie(Enum):
    """A way in which a GetRecords response is wrong. None of them invents a record."""

    EMPTY = "no records, and more are said to follow"
    EMPTY_AT_TIP = "no records, and none are said to follow"
    TWICE = "a record is there twice"
    FOREIGN = "a record of another shard is there"
    JUMP = "the next iterator leads past records"


class _Record(NamedTuple):
    number: int
    put_at: float
    size: int
    read: dict[str, Any]  # as GetRecords returns it


_number = itemgetter(0)
_put_at = itemgetter(1)


@dataclass(slots=True)
class _Shard:
    shard_id: str
    first_hash: int
    last_hash: int
    starting: int
    parents: tuple[str, ...] = ()
    ending: int | None = None
    closed_at: float = 0.0
    records: list[_Record] = field(default_factory=list)

    def described(self) -> dict[str, Any]:
        numbers = {"StartingSequenceNumber": str(self.starting)}
        if self.ending is not None:
            numbers["EndingSequenceNumber"] = str(self.ending)
        parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), self.parents, strict=False))
        keys = {"StartingHashKey": str(self.first_hash), "EndingHashKey": str(self.last_hash)}
        return {"ShardId": self.shard_id, "HashKeyRange": keys, "SequenceNumberRange": numbers} | parents


@dataclass(slots=True)
class _Stream:
    arn: str
    created: float
    serials: Iterator[int] = field(default_factory=itertools.count)
    shards: dict[str, _Shard] = field(default_factory=dict)
    retention_hours: int = 24
    routes: list[_Shard] = field(default_factory=list)  # the open shards in order of their hash keys
    strategy: str = "USER_PARTITION_KEY"
    mode: str = "PROVISIONED"
    resized: list[float] = field(default_factory=list)
    switched: list[float] = field(default_factory=list)


class MemoryKinesis:
    """A client and the service behind it.

    Args:
        now: returns UNIX seconds; arrival times, expiry and the lifetime of iterators depend on it.
        seed: determines the gaps between sequence numbers; the same seed and puts give the same numbers.

    Attributes:
        reads_empty: called on each GetRecords that has records to return; True makes it return none and a
            `MillisBehindLatest` above 0, as Kinesis may.
        arrival_error: called on each put; returns the seconds by which the record's `ApproximateArrivalTimestamp`
            differs from the time of the put. Kinesis promises neither accuracy nor order.
    """

    def __init__(self, now: Callable[[], float], *, seed: int = 0) -> None:
        self.reads_empty: Callable[[], bool] = lambda: False
        self.arrival_error: Callable[[], float] = lambda: 0.0
        self._now = now
        self._random = random.Random(seed)  # noqa: S311 -- gaps between sequence numbers are not secret
        self._streams: dict[str, _Stream] = {}
        self._issued = _FIRST_NUMBER

    def create_stream(self, *, StreamName: str, ShardCount: int = 1) -> dict[str, Any]:
        """Create a stream that is ACTIVE immediately."""
        if StreamName in self._streams:
            message = f"Stream {StreamName} already exists."
            raise client_error("ResourceInUseException", "CreateStream", message)
        arn = f"arn:aws:kinesis:us-east-1:123456789012:stream/{StreamName}"
        stream = self._streams[StreamName] = _Stream(arn, self._now())
        self._reshard(stream, [], _equal_ranges(ShardCount))
        self._issued += 1 << 60
        return {}

    def delete_stream(self, *, StreamName: str) -> dict[str, Any]:
        """Delete a stream and its records. Its name is free immediately."""
        self._stream("DeleteStream", StreamName)
        del self._streams[StreamName]
        return {}

    def data(self) -> Iterator[bytes]:
        """Yield the data of every retained record. Not a Kinesis operation."""
        for stream in self._streams.values():
            for shard in stream.shards.values():
                yield from (record.read["Data"] for record in shard.records)

    def records(self, stream_name: str, shard_id: str) -> list[dict[str, Any]]:
        """Return a shard's retained records, as GetRecords does. Not a Kinesis operation."""
        shard = self._shard("GetRecords", self._stream("GetRecords", stream_name), shard_id)
        return [record.read.copy() for record in shard.records]

    def restart_numbers(self) -> None:
        """Restart sequence numbers with the next stream: Kinesis does not promise that they grow across streams."""
        self._issued = _FIRST_NUMBER

    def describe_stream_summary(self, *, StreamName: str) -> dict[str, Any]:
        """Return `StreamDescriptionSummary`."""
        stream = self._stream("DescribeStreamSummary", StreamName)
        summary = {
            "StreamName": StreamName,
            "StreamARN": stream.arn,
            "StreamStatus": "ACTIVE",
            "RetentionPeriodHours": stream.retention_hours,
            "StreamCreationTimestamp": datetime.fromtimestamp(stream.created, UTC),
            "OpenShardCount": len(stream.routes),
            "RecordDistributionStrategy": stream.strategy,
            "StreamModeDetails": {"StreamMode": stream.mode},
        }
        return {"StreamDescriptionSummary": summary}

    def distribute(self, *, StreamName: str, strategy: str = "AUTO") -> None:
        """Set the record distribution strategy. With AUTO the stream itself chooses each record's shard."""
        self._stream("UpdateStreamRecordDistributionStrategy", StreamName).strategy = strategy

    def increase_stream_retention_period(
        self, *, StreamName: str, RetentionPeriodHours: int
    ) -> dict[str, Any]:
        """Keep records longer, 24 … 8760 hours. Expired records are not restored."""
        stream = self._stream("IncreaseStreamRetentionPeriod", StreamName)
        self._expire(stream)
        stream.retention_hours = RetentionPeriodHours
        return {}

    def list_shards(
        self, *, StreamName: str | None = None, NextToken: str | None = None, MaxResults: int = 1000
    ) -> dict[str, Any]:
        """Return all shards in pages of `MaxResults`, including closed ones until their last record has expired."""
        name, _, start = (NextToken or f"{StreamName}:0").rpartition(":")
        stream = self._stream("ListShards", name)
        self._expire(stream)
        shards = [shard.described() for shard in stream.shards.values()]
        end = int(start) + MaxResults
        more = {"NextToken": f"{name}:{end}"} if end < len(shards) else {}
        return {"Shards": shards[int(start) : end]} | more

    def split_shard(self, *, StreamName: str, ShardToSplit: str, NewStartingHashKey: str) -> dict[str, Any]:
        """Close a shard and open two children, the second from `NewStartingHashKey` on."""
        stream = self._stream("SplitShard", StreamName)
        shard = self._open_shard("SplitShard", stream, ShardToSplit)
        border = int(NewStartingHashKey)
        if not shard.first_hash < border <= shard.last_hash:
            raise _invalid("SplitShard", f"NewStartingHashKey {border} is not inside shard {ShardToSplit}")
        self._reshard(stream, [shard], [(shard.first_hash, border - 1), (border, shard.last_hash)])
        return {}

    def merge_shards(
        self, *, StreamName: str, ShardToMerge: str, AdjacentShardToMerge: str
    ) -> dict[str, Any]:
        """Close two neighbours and open one child of both."""
        stream = self._stream("MergeShards", StreamName)
        both = [
            self._open_shard("MergeShards", stream, name) for name in (ShardToMerge, AdjacentShardToMerge)
        ]
        low, high = sorted(both, key=attrgetter("first_hash"))
        if low.last_hash + 1 != high.first_hash:
            raise _invalid("MergeShards", f"Shards {low.shard_id} and {high.shard_id} are not adjacent")
        self._reshard(stream, both, [(low.first_hash, high.last_hash)])
        return {}

    def update_shard_count(
        self, *, StreamName: str, TargetShardCount: int, ScalingType: str
    ) -> dict[str, Any]:
        """Replace the open shards by a number of equal ones, at most double, at least half, and ten times in 24 hours."""
        operation = "UpdateShardCount"
        stream = self._stream(operation, StreamName)
        current = len(stream.routes)
        if ScalingType != "UNIFORM_SCALING":
            raise _invalid(operation, f"ScalingType {ScalingType} is unknown")
        if stream.mode == "ON_DEMAND":
            raise client_error("ValidationException", operation, "The stream is in on-demand mode")
        if not current / 2 <= TargetShardCount <= 2 * current:
            raise _limit(operation, f"{TargetShardCount} is beyond double or half of {current}")
        self._limited(operation, stream.resized, 10)
        self._reshard(stream, list(stream.routes), _equal_ranges(TargetShardCount))
        return {"StreamName": StreamName, "CurrentShardCount": current, "TargetShardCount": TargetShardCount}

    def update_stream_mode(self, *, StreamARN: str, StreamModeDetails: Mapping[str, str]) -> dict[str, Any]:
        """Change the stream's mode, twice in 24 hours. It keeps its shards; on demand it has at least four."""
        operation = "UpdateStreamMode"
        stream = self._stream(operation, StreamARN.rpartition("/")[2])
        self._limited(operation, stream.switched, 2)
        stream.mode = StreamModeDetails["StreamMode"]
        if stream.mode == "ON_DEMAND" and len(stream.routes) < _ON_DEMAND_SHARDS:
            self._reshard(stream, list(stream.routes), _equal_ranges(_ON_DEMAND_SHARDS))
        return {}

    def _limited(self, operation: str, changes: list[float], most: int) -> None:
        changes[:] = [at for at in changes if at > self._now() - 86_400]
        if len(changes) >= most:
            raise _limit(operation, f"{most} changes in 24 hours")
        changes.append(self._now())

    def put_record(
        self, *, StreamName: str, Data: bytes, PartitionKey: str, ExplicitHashKey: str = ""
    ) -> dict[str, Any]:
        """Append one record; return its `ShardId` and `SequenceNumber`."""
        stream = self._stream("PutRecord", StreamName)
        self._check_record("PutRecord", Data, PartitionKey)
        return self._append(stream, Data, PartitionKey, ExplicitHashKey)

    def put_records(self, *, StreamName: str, Records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Append up to 500 records of at most 10 MiB with their keys: all of them, or none if it raises."""
        stream = self._stream("PutRecords", StreamName)
        if not 1 <= len(Records) <= _MAX_PUT_RECORDS:
            message = f"Member must have length between 1 and {_MAX_PUT_RECORDS}"
            raise client_error("ValidationException", "PutRecords", message)
        entries = [(one["Data"], one["PartitionKey"], one.get("ExplicitHashKey", "")) for one in Records]
        if sum(self._check_record("PutRecords", *one[:2]) for one in entries) > _MAX_PUT:
            raise _invalid("PutRecords", "Records size exceeds 10 MiB limit")
        return {"FailedRecordCount": 0, "Records": [self._append(stream, *one) for one in entries]}

    def get_shard_iterator(
        self,
        *,
        StreamName: str,
        ShardId: str,
        ShardIteratorType: str,
        StartingSequenceNumber: str | None = None,
        Timestamp: datetime | float | None = None,
    ) -> dict[str, Any]:
        """Return a `ShardIterator`, usable for five minutes."""
        operation = "GetShardIterator"
        shard = self._shard(operation, self._stream(operation, StreamName), ShardId)
        match ShardIteratorType:
            case "TRIM_HORIZON":
                after = shard.starting - 1
            case "LATEST":
                after = self._issued
            case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER":
                text = StartingSequenceNumber or ""
                after = int(text) if text.isdecimal() else -1
                if not shard.starting <= after <= (shard.ending or self._issued):
                    raise _invalid(operation, f"StartingSequenceNumber {text} is invalid on shard {ShardId}")
                after -= ShardIteratorType == "AT_SEQUENCE_NUMBER"
            case "AT_TIMESTAMP" if Timestamp is not None:
                since = Timestamp.timestamp() if isinstance(Timestamp, datetime) else Timestamp
                index = bisect_left(shard.records, since, key=_put_at)
                after = shard.records[index].number - 1 if index < len(shard.records) else self._issued
            case _:
                raise _invalid(operation, f"Invalid ShardIteratorType: {ShardIteratorType}")
        return {"ShardIterator": self._iterator(StreamName, ShardId, after)}

    def get_records(self, *, ShardIterator: str, Limit: int = 10_000) -> dict[str, Any]:
        """Return up to `Limit` records and 10 MiB, and the next iterator unless a closed shard ends there."""
        operation = "GetRecords"
        name, shard_id, after, issued_at = ShardIterator.split("/")
        now = self._now()
        if now > float(issued_at) + _ITERATOR_SECONDS:
            raise client_error("ExpiredIteratorException", operation, f"Iterator expired: {ShardIterator}")
        if not 1 <= Limit <= 10_000:
            raise _invalid(operation, f"Limit {Limit} is outside 1 … 10000")
        shard = self._shard(operation, self._stream(operation, name), shard_id)
        records = shard.records
        start = bisect_right(records, int(after), key=_number)
        end = self._read_end(records, start, Limit)
        answer: dict[str, Any] = {
            "Records": [record.read.copy() for record in records[start:end]],
            "MillisBehindLatest": 0,
        }
        if end < len(records):
            answer["MillisBehindLatest"] = max(1, round((now - records[end].put_at) * 1000))
        if shard.ending is None or end < len(records):
            last = records[end - 1].number if end > start else int(after)
            answer["NextShardIterator"] = self._iterator(name, shard_id, last)
        return answer

    def lie(self, lie: Lie, chance: random.Random, *, ShardIterator: str, Limit: int) -> dict[str, Any]:
        """Return a GetRecords response that is well formed but wrong, or the true one if this lie is not possible."""
        truth = self.get_records(ShardIterator=ShardIterator, Limit=Limit)
        records, following = truth["Records"], truth.get("NextShardIterator")
        match lie:
            case Lie.EMPTY | Lie.EMPTY_AT_TIP:
                behind = 0 if lie is Lie.EMPTY_AT_TIP else 5_000
                return {"Records": [], "MillisBehindLatest": behind, "NextShardIterator": ShardIterator}
            case Lie.TWICE if records:
                place = chance.randrange(len(records))
                return truth | {"Records": [*records[: place + 1], *records[chance.randrange(place + 1) :]]}
            case Lie.FOREIGN:
                name, shard_id, *_ = ShardIterator.split("/")
                shards = self._streams[name].shards.values()
                others = [shard.records[:50] for shard in shards if shard.shard_id != shard_id]
                if others and (strays := chance.choice(others)):
                    stray, place = chance.choice(strays).read.copy(), chance.randint(0, len(records))
                    return truth | {"Records": [*records[:place], stray, *records[place:]]}
            case Lie.JUMP if following is not None:
                skipped = self.get_records(ShardIterator=following, Limit=chance.randint(1, 20))
                return truth | {"NextShardIterator": skipped.get("NextShardIterator", following)}
        return truth

    def _read_end(self, records: list[_Record], start: int, limit: int) -> int:
        """Return the index behind the last record that a read returns."""
        stop = min(len(records), start + limit)
        if start < stop and self.reads_empty():
            return start
        size = 0
        for index in range(start, stop):
            size += records[index].size
            if size > _MAX_READ and index > start:
                return index
        return stop

    def _stream(self, operation: str, name: str) -> _Stream:
        if name not in self._streams:
            raise client_error("ResourceNotFoundException", operation, f"Stream {name} not found.")
        return self._streams[name]

    def _shard(self, operation: str, stream: _Stream, shard_id: str) -> _Shard:
        self._expire(stream)
        if shard_id not in stream.shards:
            raise client_error("ResourceNotFoundException", operation, f"Shard {shard_id} does not exist")
        return stream.shards[shard_id]

    def _open_shard(self, operation: str, stream: _Stream, shard_id: str) -> _Shard:
        shard = self._shard(operation, stream, shard_id)
        if shard.ending is not None:
            raise _invalid(operation, f"Shard {shard_id} has already been merged or split")
        return shard

    def _reshard(self, stream: _Stream, parents: list[_Shard], hashes: list[tuple[int, int]]) -> None:
        """Close shards and open children with ranges of hash keys."""
        for parent in parents:
            parent.ending, parent.closed_at = self._next_number(), self._now()
        names = tuple(parent.shard_id for parent in parents)
        for first, last in hashes:
            shard_id = f"shardId-{next(stream.serials):012}"
            stream.shards[shard_id] = _Shard(shard_id, first, last, self._next_number(), names)
        opened = [shard for shard in stream.shards.values() if shard.ending is None]
        stream.routes = sorted(opened, key=attrgetter("first_hash"))

    def _next_number(self) -> int:
        self._issued += self._random.getrandbits(40) + 1
        return self._issued

    def _check_record(self, operation: str, data: bytes, partition_key: str) -> int:
        """Return the size of a record with its key, unless it is too large."""
        size = len(data) + len(partition_key.encode())
        if size > _MAX_RECORD or not 1 <= len(partition_key) <= _MAX_KEY_CHARACTERS:
            message = f"A record of {size} bytes with a partition key of {len(partition_key)} characters"
            raise client_error("ValidationException", operation, message)
        return size

    def _append(self, stream: _Stream, data: bytes, partition_key: str, explicit: str = "") -> dict[str, Any]:
        hashed = int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest())
        hash_key = int(explicit or hashed)
        shard = stream.routes[bisect_right(stream.routes, hash_key, key=attrgetter("first_hash")) - 1]
        if stream.strategy == "AUTO":
            shard = self._random.choice(stream.routes)
        # Arrival times have milliseconds. The clock may jump backwards, but the order of puts must not.
        put_at = round(self._now(), 3)
        if shard.records:
            put_at = max(put_at, shard.records[-1].put_at)
        number = self._next_number()
        read = {
            "SequenceNumber": str(number),
            "ApproximateArrivalTimestamp": datetime.fromtimestamp(
                round(put_at + self.arrival_error(), 3), UTC
            ),
            "Data": data,
            "PartitionKey": partition_key,
        }
        shard.records.append(_Record(number, put_at, len(data) + len(partition_key), read))
        return {"ShardId": shard.shard_id, "SequenceNumber": read["SequenceNumber"]}

    def _iterator(self, name: str, shard_id: str, after: int) -> str:
        return f"{name}/{shard_id}/{after}/{self._now()!r}"

    def _expire(self, stream: _Stream) -> None:
        horizon = self._now() - stream.retention_hours * 3600
        for shard_id, shard in list(stream.shards.items()):
            if shard.records and shard.records[0].put_at < horizon:
                del shard.records[: bisect_left(shard.records, horizon, key=_put_at)]
            if shard.ending is not None and not shard.records and shard.closed_at < horizon:
                del stream.shards[shard_id]


def _equal_ranges(count: int) -> list[tuple[int, int]]:
    borders = [HASH_KEYS * index // count for index in range(count + 1)]
    return [(one, next_ - 1) for one, next_ in itertools.pairwise(borders)]


def _limit(operation: str, message: str) -> ClientError:
    return client_error("LimitExceededException", operation, message)


def _invalid(operation: str, message: str) -> ClientError:
    return client_error("InvalidArgumentException", operation, message)
