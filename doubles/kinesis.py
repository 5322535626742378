"""Kinesis in memory, in the shape of boto3's client.

It keeps what Kinesis promises (order within a shard, growing sequence numbers, routing by the MD5 of the partition
key, closed shards with parents and children, expiry after the retention) and holds a million records. It never fails
by itself: faults are put around it. Limits and error codes are those of the service's API model; it does not throttle.
Not safe for threads.
"""

# ruff: noqa: N803  # the parameters bear the names of boto3's
import functools
import itertools
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import md5
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import botocore.session
from botocore.errorfactory import ClientExceptionsFactory
from botocore.exceptions import ClientError

HASH_KEYS = 1 << 128
"""Partition keys are hashed to 0 … 2^128 - 1."""

ITERATOR_SECONDS = 300
"""How long a shard iterator can be used."""

_FIRST_NUMBER = 495_903_382_714_902_566_085_596 * 10**32
_GET_BYTES = 10 * 1024 * 1024
_PUT_BYTES = 10 * 1024 * 1024


class _Record(NamedTuple):
    number: int
    partition_key: str
    data: bytes
    arrival: float


_number = itemgetter(0)
_arrival = itemgetter(3)


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
        return {
            "ShardId": self.shard_id,
            "HashKeyRange": self.hash_range(),
            "SequenceNumberRange": numbers,
        } | parents

    def hash_range(self) -> dict[str, str]:
        return {"StartingHashKey": str(self.first_hash), "EndingHashKey": str(self.last_hash)}


@dataclass(slots=True)
class _Stream:
    arn: str
    created: float
    shards: dict[str, _Shard]
    retention_hours: int = 24
    mode: str = "PROVISIONED"
    # The open shards in order of their hash keys, and the hash keys at which they start.
    routes: tuple[list[int], list[_Shard]] = ([], [])

    def route(self) -> None:
        by_hash = sorted(self.open_shards(), key=attrgetter("first_hash"))
        self.routes = ([shard.first_hash for shard in by_hash], by_hash)

    def open_shards(self) -> list[_Shard]:
        return [shard for shard in self.shards.values() if shard.ending is None]


@functools.cache
def _exceptions() -> Any:
    return ClientExceptionsFactory().create_client_exceptions(
        botocore.session.get_session().get_service_model("kinesis")
    )


def _refusal(operation: str, code: str, message: str) -> ClientError:
    error = _exceptions().from_code(code)
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": 400, "RetryAttempts": 0},
    }
    refusal: ClientError = error(response, operation)
    return refusal


class MemoryKinesis:
    """A client and the service behind it.

    Args:
        now: tells UNIX seconds; arrival times, expiry and the life of iterators go by it.
        seed: decides the gaps between sequence numbers; the same seed and puts give the same numbers.
        region: goes into the streams' ARNs.
        account_id: the same.
        max_record_bytes: the largest data of one record; the service's default is 1 MiB, its limit 10 MiB.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        seed: int = 0,
        region: str = "us-east-1",
        account_id: str = "123456789012",
        max_record_bytes: int = 1024 * 1024,
    ) -> None:
        self._now = now
        self._random = random.Random(seed)  # noqa: S311  # gaps between sequence numbers are no secret
        self._region = region
        self._account_id = account_id
        self._max_record_bytes = max_record_bytes
        self._streams: dict[str, _Stream] = {}
        self._issued = _FIRST_NUMBER

    @property
    def exceptions(self) -> Any:
        """The error classes of boto3's client."""
        return _exceptions()

    def create_stream(
        self,
        *,
        StreamName: str,
        ShardCount: int | None = None,
        StreamModeDetails: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make a stream that is ACTIVE at once; on demand it starts with four shards.

        Raises:
            ClientError: ResourceInUseException when the name is taken.
        """
        if StreamName in self._streams:
            message = f"Stream {StreamName} under account {self._account_id} already exists."
            raise _refusal("CreateStream", "ResourceInUseException", message)
        mode = (StreamModeDetails or {}).get("StreamMode", "PROVISIONED")
        arn = f"arn:aws:kinesis:{self._region}:{self._account_id}:stream/{StreamName}"
        stream = _Stream(arn, self._now(), {}, mode=mode)
        count = ShardCount or (4 if mode == "ON_DEMAND" else 1)
        borders = [HASH_KEYS * index // count for index in range(count + 1)]
        for first, following in itertools.pairwise(borders):
            self._add_shard(stream, first, following - 1)
        stream.route()
        self._streams[StreamName] = stream
        return {}

    def describe_stream_summary(
        self, *, StreamName: str | None = None, StreamARN: str | None = None
    ) -> dict[str, Any]:
        """Return `StreamDescriptionSummary`."""
        name, stream = self._stream("DescribeStreamSummary", StreamName, StreamARN)
        summary = {
            "StreamName": name,
            "StreamARN": stream.arn,
            "StreamStatus": "ACTIVE",
            "StreamModeDetails": {"StreamMode": stream.mode},
            "RetentionPeriodHours": stream.retention_hours,
            "StreamCreationTimestamp": datetime.fromtimestamp(stream.created, UTC),
            "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
            "EncryptionType": "NONE",
            "OpenShardCount": len(stream.open_shards()),
            "ConsumerCount": 0,
        }
        return {"StreamDescriptionSummary": summary}

    def increase_stream_retention_period(
        self, *, RetentionPeriodHours: int, StreamName: str | None = None, StreamARN: str | None = None
    ) -> dict[str, Any]:
        """Keep records longer, 24 … 8760 hours; what has expired stays expired."""
        operation = "IncreaseStreamRetentionPeriod"
        _, stream = self._stream(operation, StreamName, StreamARN)
        if not max(24, stream.retention_hours) <= RetentionPeriodHours <= 8760:
            raise _refusal(
                operation, "InvalidArgumentException", f"Invalid retention: {RetentionPeriodHours} hours"
            )
        self._expire(stream)
        stream.retention_hours = RetentionPeriodHours
        return {}

    def list_shards(
        self,
        *,
        StreamName: str | None = None,
        StreamARN: str | None = None,
        NextToken: str | None = None,
        MaxResults: int = 1000,
    ) -> dict[str, Any]:
        """Return all shards, closed ones too until their last record has expired, in pages of `MaxResults`."""
        start = 0
        if NextToken is not None:
            listed, position = NextToken.rsplit(":", 1)
            start = int(position)
            name, stream = self._stream("ListShards", listed, None)
        else:
            name, stream = self._stream("ListShards", StreamName, StreamARN)
        self._expire(stream)
        shards = [shard.described() for shard in stream.shards.values()]
        end = start + MaxResults
        answer: dict[str, Any] = {"Shards": shards[start:end]}
        if end < len(shards):
            answer["NextToken"] = f"{name}:{end}"
        return answer

    def split_shard(
        self,
        *,
        ShardToSplit: str,
        NewStartingHashKey: str,
        StreamName: str | None = None,
        StreamARN: str | None = None,
    ) -> dict[str, Any]:
        """Close a shard and open two children, the second from `NewStartingHashKey` on.

        Raises:
            ClientError: InvalidArgumentException when the key is not inside the shard or the shard is closed.
        """
        _, stream = self._stream("SplitShard", StreamName, StreamARN)
        shard = self._open_shard("SplitShard", stream, ShardToSplit)
        border = int(NewStartingHashKey)
        if not shard.first_hash < border <= shard.last_hash:
            message = f"NewStartingHashKey {border} is not inside shard {ShardToSplit}"
            raise _refusal("SplitShard", "InvalidArgumentException", message)
        self._close(shard)
        self._add_shard(stream, shard.first_hash, border - 1, shard.shard_id)
        self._add_shard(stream, border, shard.last_hash, shard.shard_id)
        stream.route()
        return {}

    def merge_shards(
        self,
        *,
        ShardToMerge: str,
        AdjacentShardToMerge: str,
        StreamName: str | None = None,
        StreamARN: str | None = None,
    ) -> dict[str, Any]:
        """Close two neighbours and open one child for both.

        Raises:
            ClientError: InvalidArgumentException when they are not neighbours or one is closed.
        """
        _, stream = self._stream("MergeShards", StreamName, StreamARN)
        one = self._open_shard("MergeShards", stream, ShardToMerge)
        other = self._open_shard("MergeShards", stream, AdjacentShardToMerge)
        low, high = sorted((one, other), key=attrgetter("first_hash"))
        if low.last_hash + 1 != high.first_hash:
            message = f"Shards {ShardToMerge} and {AdjacentShardToMerge} are not adjacent"
            raise _refusal("MergeShards", "InvalidArgumentException", message)
        self._close(low)
        self._close(high)
        self._add_shard(stream, low.first_hash, high.last_hash, one.shard_id, other.shard_id)
        stream.route()
        return {}

    def put_record(
        self,
        *,
        Data: bytes | str,
        PartitionKey: str,
        StreamName: str | None = None,
        StreamARN: str | None = None,
        ExplicitHashKey: str | None = None,
        SequenceNumberForOrdering: str | None = None,  # noqa: ARG002  # numbers always grow here
    ) -> dict[str, Any]:
        """Append one record; return its `ShardId` and `SequenceNumber`.

        Raises:
            ClientError: ValidationException for a record too large, InvalidArgumentException for a bad hash key.
        """
        _, stream = self._stream("PutRecord", StreamName, StreamARN)
        data = Data.encode() if isinstance(Data, str) else Data
        self._check("PutRecord", "data", data, PartitionKey)
        return self._append(
            stream, data, PartitionKey, self._hash("PutRecord", PartitionKey, ExplicitHashKey)
        ) | {"EncryptionType": "NONE"}

    def put_records(
        self,
        *,
        Records: Sequence[dict[str, Any]],
        StreamName: str | None = None,
        StreamARN: str | None = None,
    ) -> dict[str, Any]:
        """Append up to 500 records, 10 MiB with their keys; all or, by a raise, none of them.

        Raises:
            ClientError: ValidationException for too many or too large ones, InvalidArgumentException for too much.
        """
        operation = "PutRecords"
        _, stream = self._stream(operation, StreamName, StreamARN)
        if not 1 <= len(Records) <= 500:
            message = (
                "Value at 'records' failed to satisfy constraint: Member must have length between 1 and 500"
            )
            raise _refusal(operation, "ValidationException", message)
        entries = []
        total = 0
        for index, entry in enumerate(Records, 1):
            data = entry["Data"].encode() if isinstance(entry["Data"], str) else entry["Data"]
            key = entry["PartitionKey"]
            self._check(operation, f"records.{index}.member.data", data, key)
            total += len(data) + len(key.encode())
            entries.append((data, key, self._hash(operation, key, entry.get("ExplicitHashKey"))))
        if total > _PUT_BYTES:
            raise _refusal(operation, "InvalidArgumentException", "Records size exceeds 10 MiB limit")
        answers = [self._append(stream, *entry) for entry in entries]
        return {"FailedRecordCount": 0, "Records": answers, "EncryptionType": "NONE"}

    def get_shard_iterator(
        self,
        *,
        ShardId: str,
        ShardIteratorType: str,
        StreamName: str | None = None,
        StreamARN: str | None = None,
        StartingSequenceNumber: str | None = None,
        Timestamp: datetime | float | None = None,
    ) -> dict[str, Any]:
        """Return a `ShardIterator`, usable for five minutes.

        Raises:
            ClientError: ResourceNotFoundException for an unknown shard, InvalidArgumentException when a sequence
                number or time that the type needs is missing or cannot be the shard's.
        """
        operation = "GetShardIterator"
        name, stream = self._stream(operation, StreamName, StreamARN)
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
                index = bisect_left(shard.records, since, key=_arrival)
                after = shard.records[index].number - 1 if index < len(shard.records) else self._issued
            case _:
                message = f"Invalid ShardIteratorType: {ShardIteratorType}"
                raise _refusal(operation, "InvalidArgumentException", message)
        return {"ShardIterator": self._iterator(name, ShardId, after)}

    def get_records(
        self,
        *,
        ShardIterator: str,
        Limit: int = 10_000,
        StreamARN: str | None = None,  # noqa: ARG002  # the iterator names the stream
    ) -> dict[str, Any]:
        """Return up to `Limit` records and 10 MiB, and the next iterator unless a closed shard is read out.

        Raises:
            ClientError: ExpiredIteratorException after five minutes, InvalidArgumentException for no iterator of
                ours or a `Limit` outside 1 … 10,000.
        """
        operation = "GetRecords"
        if not 1 <= Limit <= 10_000:
            raise _refusal(operation, "InvalidArgumentException", f"Limit {Limit} is outside 1 … 10000")
        name, shard_id, after, issued_at = self._read_iterator(ShardIterator)
        now = self._now()
        if now > issued_at + ITERATOR_SECONDS:
            message = f"Iterator expired: it was made {now - issued_at:.0f} s ago, which is more than 300 s"
            raise _refusal(operation, "ExpiredIteratorException", message)
        _, stream = self._stream(operation, name, None)
        shard = self._shard(operation, stream, shard_id)
        records = shard.records
        start = end = bisect_right(records, after, key=_number)
        stop = min(len(records), start + Limit)
        size = 0
        while end < stop:
            size += len(records[end].data) + len(records[end].partition_key)
            if size > _GET_BYTES and end > start:
                break
            end += 1
        answer: dict[str, Any] = {
            "Records": [
                {
                    "SequenceNumber": str(record.number),
                    "ApproximateArrivalTimestamp": datetime.fromtimestamp(record.arrival, UTC),
                    "Data": record.data,
                    "PartitionKey": record.partition_key,
                    "EncryptionType": "NONE",
                }
                for record in records[start:end]
            ],
            "MillisBehindLatest": max(1, round((now - records[end].arrival) * 1000))
            if end < len(records)
            else 0,
        }
        if shard.ending is None or end < len(records):
            last = records[end - 1].number if end > start else after
            answer["NextShardIterator"] = self._iterator(name, shard_id, last)
        else:
            answer["ChildShards"] = [
                {
                    "ShardId": child.shard_id,
                    "ParentShards": list(child.parents),
                    "HashKeyRange": child.hash_range(),
                }
                for child in stream.shards.values()
                if shard_id in child.parents
            ]
        return answer

    def _stream(self, operation: str, name: str | None, arn: str | None) -> tuple[str, _Stream]:
        name = name or (arn or "").rpartition("/")[2]
        if name not in self._streams:
            message = f"Stream {name} under account {self._account_id} not found."
            raise _refusal(operation, "ResourceNotFoundException", message)
        return name, self._streams[name]

    def _shard(self, operation: str, stream: _Stream, shard_id: str) -> _Shard:
        self._expire(stream)
        if shard_id not in stream.shards:
            message = f"Shard {shard_id} in stream {stream.arn} does not exist"
            raise _refusal(operation, "ResourceNotFoundException", message)
        return stream.shards[shard_id]

    def _open_shard(self, operation: str, stream: _Stream, shard_id: str) -> _Shard:
        shard = self._shard(operation, stream, shard_id)
        if shard.ending is not None:
            message = f"Shard {shard_id} has already been merged or split"
            raise _refusal(operation, "InvalidArgumentException", message)
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

    def _check(self, operation: str, field_name: str, data: bytes, partition_key: str) -> None:
        if len(data) > self._max_record_bytes:
            message = (
                f"Value at '{field_name}' failed to satisfy constraint: "
                f"Member must have length less than or equal to {self._max_record_bytes}"
            )
            raise _refusal(operation, "ValidationException", message)
        if not 1 <= len(partition_key) <= 256:
            message = "Value at 'partitionKey' failed to satisfy constraint: Member must have length between 1 and 256"
            raise _refusal(operation, "ValidationException", message)

    def _hash(self, operation: str, partition_key: str, explicit: str | None) -> int:
        if explicit is None:
            return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest())
        if not explicit.isdecimal() or int(explicit) >= HASH_KEYS:
            raise _refusal(operation, "InvalidArgumentException", f"Invalid ExplicitHashKey: {explicit}")
        return int(explicit)

    def _append(self, stream: _Stream, data: bytes, partition_key: str, hash_key: int) -> dict[str, Any]:
        starts, shards = stream.routes
        shard = shards[bisect_right(starts, hash_key) - 1]
        number = self._next_number()
        # Kinesis tells arrival times in milliseconds, and never lets them fall within a shard.
        arrival = round(self._now(), 3)
        if shard.records and shard.records[-1].arrival > arrival:
            arrival = shard.records[-1].arrival
        shard.records.append(_Record(number, partition_key, data, arrival))
        return {"ShardId": shard.shard_id, "SequenceNumber": str(number)}

    def _checked_number(self, shard: _Shard, text: str | None) -> int:
        number = int(text) if text is not None and text.isdecimal() else -1
        if not shard.starting <= number <= (shard.ending or self._issued):
            message = (
                f"StartingSequenceNumber {text} used in GetShardIterator on shard {shard.shard_id} is invalid"
            )
            raise _refusal("GetShardIterator", "InvalidArgumentException", message)
        return number

    def _iterator(self, name: str, shard_id: str, after: int) -> str:
        return f"{name}/{shard_id}/{after}/{self._now()!r}"

    def _read_iterator(self, iterator: str) -> tuple[str, str, int, float]:
        try:
            name, shard_id, after, issued_at = iterator.split("/")
            return name, shard_id, int(after), float(issued_at)
        except ValueError:
            raise _refusal("GetRecords", "InvalidArgumentException", "Invalid ShardIterator.") from None

    def _expire(self, stream: _Stream) -> None:
        horizon = self._now() - stream.retention_hours * 3600
        gone = []
        for shard in stream.shards.values():
            if shard.records and shard.records[0].arrival < horizon:
                del shard.records[: bisect_left(shard.records, horizon, key=_arrival)]
            if shard.ending is not None and not shard.records and shard.closed_at < horizon:
                gone.append(shard.shard_id)
        for shard_id in gone:
            del stream.shards[shard_id]
