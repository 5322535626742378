"""Kinesis in memory, in the shape of boto3's client.

It keeps what Kinesis promises: order within a shard, growing sequence numbers, routing by the MD5 of the partition key,
closed shards with parents and children, expiry after the retention. Limits and error codes are those of the service's
API model. It does not throttle and never fails by itself: faults are put around it. Two things that Kinesis does and
callers forget can be switched on, empty reads and inaccurate arrival times. Not safe for threads.
"""

# ruff: noqa: N803  # the parameters have the names of boto3's
import itertools
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import md5
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from doubles.aws_errors import Exceptions, client_error

HASH_KEYS = 1 << 128
"""Partition keys are hashed to 0 … 2^128 - 1."""

ITERATOR_SECONDS = 300
"""How long a shard iterator can be used."""

_FIRST_NUMBER = 495_903_382_714_902_566_085_596 * 10**32
_GET_BYTES = 10 * 1024 * 1024
_PUT_BYTES = 10 * 1024 * 1024
_PUT_RECORDS = 500


class _Record(NamedTuple):
    number: int
    partition_key: str
    data: bytes
    put_at: float
    arrival: float


_number = itemgetter(0)
_put_at = itemgetter(3)


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


def _invalid(operation: str, message: str) -> ClientError:
    return client_error("InvalidArgumentException", operation, message)


@dataclass(slots=True)
class _Stream:
    arn: str
    created: float
    shards: dict[str, _Shard] = field(default_factory=dict)
    retention_hours: int = 24
    # The open shards in order of their hash keys, and the hash keys at which they start.
    routes: tuple[list[int], list[_Shard]] = ([], [])

    def route(self) -> None:
        by_hash = sorted(self.open_shards(), key=attrgetter("first_hash"))
        self.routes = ([shard.first_hash for shard in by_hash], by_hash)

    def open_shards(self) -> list[_Shard]:
        return [shard for shard in self.shards.values() if shard.ending is None]


class MemoryKinesis:
    """A client and the service behind it.

    Args:
        now: tells UNIX seconds; arrival times, expiry and the life of iterators depend on it.
        seed: decides the gaps between sequence numbers; the same seed and puts give the same numbers.
        max_record_bytes: the largest record with its key; the service's default is 1 MiB, its limit 10 MiB.

    Attributes:
        reads_empty: asked at each GetRecords that has records to return; True makes it return none and a
            `MillisBehindLatest` above 0, as Kinesis may.
        arrival_error: asked at each put; returns the seconds by which the record's `ApproximateArrivalTimestamp`
            differs from the time of the put. Kinesis promises neither accuracy nor order.
    """

    exceptions = Exceptions()

    def __init__(
        self, now: Callable[[], float], *, seed: int = 0, max_record_bytes: int = 1024 * 1024
    ) -> None:
        self.reads_empty: Callable[[], bool] = lambda: False
        self.arrival_error: Callable[[], float] = lambda: 0.0
        self._now = now
        self._random = random.Random(seed)  # noqa: S311 -- gaps between sequence numbers are no secret
        self._max_record_bytes = max_record_bytes
        self._streams: dict[str, _Stream] = {}
        self._issued = _FIRST_NUMBER

    def create_stream(self, *, StreamName: str, ShardCount: int = 1) -> dict[str, Any]:
        """Create a stream that is ACTIVE at once."""
        if StreamName in self._streams:
            raise client_error(
                "ResourceInUseException", "CreateStream", f"Stream {StreamName} already exists."
            )
        stream = _Stream(f"arn:aws:kinesis:us-east-1:123456789012:stream/{StreamName}", self._now())
        borders = [HASH_KEYS * index // ShardCount for index in range(ShardCount + 1)]
        for first, following in itertools.pairwise(borders):
            self._add_shard(stream, first, following - 1)
        stream.route()
        self._streams[StreamName] = stream
        return {}

    def describe_stream_summary(self, *, StreamName: str) -> dict[str, Any]:
        """Return `StreamDescriptionSummary`."""
        stream = self._stream("DescribeStreamSummary", StreamName)
        summary = {
            "StreamName": StreamName,
            "StreamARN": stream.arn,
            "StreamStatus": "ACTIVE",
            "RetentionPeriodHours": stream.retention_hours,
            "StreamCreationTimestamp": datetime.fromtimestamp(stream.created, UTC),
            "OpenShardCount": len(stream.open_shards()),
        }
        return {"StreamDescriptionSummary": summary}

    def increase_stream_retention_period(
        self, *, StreamName: str, RetentionPeriodHours: int
    ) -> dict[str, Any]:
        """Keep records longer, 24 … 8760 hours; what has expired is not restored."""
        operation = "IncreaseStreamRetentionPeriod"
        stream = self._stream(operation, StreamName)
        if not max(24, stream.retention_hours) <= RetentionPeriodHours <= 8760:
            message = f"Invalid retention: {RetentionPeriodHours} hours"
            raise _invalid(operation, message)
        self._expire(stream)
        stream.retention_hours = RetentionPeriodHours
        return {}

    def list_shards(
        self, *, StreamName: str | None = None, NextToken: str | None = None, MaxResults: int = 1000
    ) -> dict[str, Any]:
        """Return all shards in pages of `MaxResults`, closed ones too until their last record has expired."""
        name, _, start = (NextToken or f"{StreamName}:0").rpartition(":")
        stream = self._stream("ListShards", name)
        self._expire(stream)
        shards = [shard.described() for shard in stream.shards.values()]
        end = int(start) + MaxResults
        answer: dict[str, Any] = {"Shards": shards[int(start) : end]}
        if end < len(shards):
            answer["NextToken"] = f"{name}:{end}"
        return answer

    def split_shard(self, *, StreamName: str, ShardToSplit: str, NewStartingHashKey: str) -> dict[str, Any]:
        """Close a shard and open two children, the second from `NewStartingHashKey` on."""
        stream = self._stream("SplitShard", StreamName)
        shard = self._open_shard("SplitShard", stream, ShardToSplit)
        border = int(NewStartingHashKey)
        if not shard.first_hash < border <= shard.last_hash:
            message = f"NewStartingHashKey {border} is not inside shard {ShardToSplit}"
            raise _invalid("SplitShard", message)
        self._close(shard)
        self._add_shard(stream, shard.first_hash, border - 1, shard.shard_id)
        self._add_shard(stream, border, shard.last_hash, shard.shard_id)
        stream.route()
        return {}

    def merge_shards(
        self, *, StreamName: str, ShardToMerge: str, AdjacentShardToMerge: str
    ) -> dict[str, Any]:
        """Close two neighbours and open one child of both."""
        stream = self._stream("MergeShards", StreamName)
        one = self._open_shard("MergeShards", stream, ShardToMerge)
        other = self._open_shard("MergeShards", stream, AdjacentShardToMerge)
        low, high = sorted((one, other), key=attrgetter("first_hash"))
        if low.last_hash + 1 != high.first_hash:
            message = f"Shards {ShardToMerge} and {AdjacentShardToMerge} are not adjacent"
            raise _invalid("MergeShards", message)
        self._close(low)
        self._close(high)
        self._add_shard(stream, low.first_hash, high.last_hash, one.shard_id, other.shard_id)
        stream.route()
        return {}

    def put_record(
        self, *, StreamName: str, Data: bytes, PartitionKey: str, ExplicitHashKey: str | None = None
    ) -> dict[str, Any]:
        """Append one record; return its `ShardId` and `SequenceNumber`."""
        stream = self._stream("PutRecord", StreamName)
        self._check("PutRecord", Data, PartitionKey)
        hash_key = self._hash("PutRecord", PartitionKey, ExplicitHashKey)
        return self._append(stream, Data, PartitionKey, hash_key)

    def put_records(self, *, StreamName: str, Records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Append up to 500 records of 10 MiB with their keys: all of them, or none if it raises."""
        stream = self._stream("PutRecords", StreamName)
        if not 1 <= len(Records) <= _PUT_RECORDS:
            message = (
                "Value at 'records' failed to satisfy constraint: Member must have length between 1 and 500"
            )
            raise client_error("ValidationException", "PutRecords", message)
        for entry in Records:
            self._check("PutRecords", entry["Data"], entry["PartitionKey"])
        if sum(len(entry["Data"]) + len(entry["PartitionKey"].encode()) for entry in Records) > _PUT_BYTES:
            raise _invalid("PutRecords", "Records size exceeds 10 MiB limit")
        hash_keys = [
            self._hash("PutRecords", entry["PartitionKey"], entry.get("ExplicitHashKey")) for entry in Records
        ]
        answers = [
            self._append(stream, entry["Data"], entry["PartitionKey"], hash_key)
            for entry, hash_key in zip(Records, hash_keys, strict=True)
        ]
        return {"FailedRecordCount": 0, "Records": answers}

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
        stream = self._stream(operation, StreamName)
        shard = self._shard(operation, stream, ShardId)
        match ShardIteratorType:
            case "TRIM_HORIZON":
                after = shard.starting - 1
            case "LATEST":
                after = self._issued
            case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER":
                after = self._checked_number(shard, StartingSequenceNumber)
                after -= ShardIteratorType == "AT_SEQUENCE_NUMBER"
            case "AT_TIMESTAMP" if Timestamp is not None:
                since = Timestamp.timestamp() if isinstance(Timestamp, datetime) else Timestamp
                index = bisect_left(shard.records, since, key=_put_at)
                after = shard.records[index].number - 1 if index < len(shard.records) else self._issued
            case _:
                message = f"Invalid ShardIteratorType: {ShardIteratorType}"
                raise _invalid(operation, message)
        return {"ShardIterator": self._iterator(StreamName, ShardId, after)}

    def get_records(self, *, ShardIterator: str, Limit: int = 10_000) -> dict[str, Any]:
        """Return up to `Limit` records and 10 MiB, and the next iterator unless a closed shard ends there."""
        operation = "GetRecords"
        if not 1 <= Limit <= 10_000:
            raise _invalid(operation, f"Limit {Limit} is outside 1 … 10000")
        name, shard_id, after, issued_at = self._read_iterator(ShardIterator)
        now = self._now()
        if now > issued_at + ITERATOR_SECONDS:
            message = f"Iterator expired: it is {now - issued_at:.0f} s old, which is more than 300 s"
            raise client_error("ExpiredIteratorException", operation, message)
        shard = self._shard(operation, self._stream(operation, name), shard_id)
        records = shard.records
        start = bisect_right(records, after, key=_number)
        end = self._read_end(records, start, Limit)
        behind = max(1, round((now - records[end].put_at) * 1000)) if end < len(records) else 0
        answer: dict[str, Any] = {
            "Records": [
                {
                    "SequenceNumber": str(record.number),
                    "ApproximateArrivalTimestamp": datetime.fromtimestamp(record.arrival, UTC),
                    "Data": record.data,
                    "PartitionKey": record.partition_key,
                }
                for record in records[start:end]
            ],
            "MillisBehindLatest": behind,
        }
        if shard.ending is None or end < len(records):
            last = records[end - 1].number if end > start else after
            answer["NextShardIterator"] = self._iterator(name, shard_id, last)
        return answer

    def _read_end(self, records: list[_Record], start: int, limit: int) -> int:
        end, stop = start, min(len(records), start + limit)
        if start < stop and self.reads_empty():
            return start
        size = 0
        while end < stop:
            size += len(records[end].data) + len(records[end].partition_key)
            if size > _GET_BYTES and end > start:
                break
            end += 1
        return end

    def _stream(self, operation: str, name: str) -> _Stream:
        if name not in self._streams:
            raise client_error("ResourceNotFoundException", operation, f"Stream {name} not found.")
        return self._streams[name]

    def _shard(self, operation: str, stream: _Stream, shard_id: str) -> _Shard:
        self._expire(stream)
        if shard_id not in stream.shards:
            message = f"Shard {shard_id} in stream {stream.arn} does not exist"
            raise client_error("ResourceNotFoundException", operation, message)
        return stream.shards[shard_id]

    def _open_shard(self, operation: str, stream: _Stream, shard_id: str) -> _Shard:
        shard = self._shard(operation, stream, shard_id)
        if shard.ending is not None:
            message = f"Shard {shard_id} has already been merged or split"
            raise _invalid(operation, message)
        return shard

    def _add_shard(self, stream: _Stream, first_hash: int, last_hash: int, *parents: str) -> None:
        following = max((int(shard_id[8:]) for shard_id in stream.shards), default=-1) + 1
        shard_id = f"shardId-{following:012}"
        stream.shards[shard_id] = _Shard(shard_id, first_hash, last_hash, self._next_number(), parents)

    def _close(self, shard: _Shard) -> None:
        shard.ending = self._next_number()
        shard.closed_at = self._now()

    def _next_number(self) -> int:
        self._issued += self._random.getrandbits(40) + 1
        return self._issued

    def _check(self, operation: str, data: bytes, partition_key: str) -> None:
        if len(data) + len(partition_key.encode()) > self._max_record_bytes:
            message = f"The record and its partition key exceed {self._max_record_bytes} bytes"
            raise client_error("ValidationException", operation, message)
        if not 1 <= len(partition_key) <= 256:
            message = "Value at 'partitionKey' failed to satisfy constraint: Member must have length between 1 and 256"
            raise client_error("ValidationException", operation, message)

    def _hash(self, operation: str, partition_key: str, explicit: str | None) -> int:
        if explicit is None:
            return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest())
        if not explicit.isdecimal() or int(explicit) >= HASH_KEYS:
            raise _invalid(operation, f"Invalid ExplicitHashKey: {explicit}")
        return int(explicit)

    def _append(self, stream: _Stream, data: bytes, partition_key: str, hash_key: int) -> dict[str, Any]:
        starts, shards = stream.routes
        shard = shards[bisect_right(starts, hash_key) - 1]
        # Arrival times have milliseconds. The clock may be set back, the order of puts may not.
        put_at = round(self._now(), 3)
        if shard.records:
            put_at = max(put_at, shard.records[-1].put_at)
        number = self._next_number()
        arrival = round(put_at + self.arrival_error(), 3)
        shard.records.append(_Record(number, partition_key, data, put_at, arrival))
        return {"ShardId": shard.shard_id, "SequenceNumber": str(number)}

    def _checked_number(self, shard: _Shard, text: str | None) -> int:
        number = int(text) if text is not None and text.isdecimal() else -1
        if not shard.starting <= number <= (shard.ending or self._issued):
            message = (
                f"StartingSequenceNumber {text} used in GetShardIterator on shard {shard.shard_id} is invalid"
            )
            raise _invalid("GetShardIterator", message)
        return number

    def _iterator(self, name: str, shard_id: str, after: int) -> str:
        return f"{name}/{shard_id}/{after}/{self._now()!r}"

    def _read_iterator(self, iterator: str) -> tuple[str, str, int, float]:
        try:
            name, shard_id, after, issued_at = iterator.split("/")
            return name, shard_id, int(after), float(issued_at)
        except ValueError:
            message = "Invalid ShardIterator."
            raise _invalid("GetRecords", message) from None

    def _expire(self, stream: _Stream) -> None:
        horizon = self._now() - stream.retention_hours * 3600
        gone = []
        for shard in stream.shards.values():
            if shard.records and shard.records[0].put_at < horizon:
                del shard.records[: bisect_left(shard.records, horizon, key=_put_at)]
            if shard.ending is not None and not shard.records and shard.closed_at < horizon:
                gone.append(shard.shard_id)
        for shard_id in gone:
            del stream.shards[shard_id]
