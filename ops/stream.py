"""Stretches of the stream: read shard by shard, and made into events as Lambda hands them to the worker."""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from ops import screen
from ops.failure import Failure
from shared.clock import Clock
from worker.search import SECONDS_BETWEEN_READS, THROTTLED, list_shards

EVENT_BYTES = 5_500_000
"""An event's size: below the 6 MB that Lambda takes."""
EVENT_RECORDS = 10_000
_MEMBER_BYTES = 700  # what a record's member takes beside its data
_THROTTLED_SECONDS = 1.0
_TRIMMED_MARGIN_SECONDS = 60.0

Read = dict[str, Any]
"""A record as GetRecords returns it."""


@dataclass(frozen=True, slots=True)
class Border:
    """Where a stretch begins or ends: a time (UNIX seconds) or a sequence number; without either the stream's own.

    `is_fixed` tells that what somebody typed means the same whenever it is read.
    """

    at: float | None = None
    number: int | None = None
    is_fixed: bool = False

    def is_before(self, record: Read) -> bool:
        """Tell whether a record stands behind it, as an end: its time is not earlier, its number higher."""
        if self.number is not None:
            return int(record["SequenceNumber"]) > self.number
        return self.at is not None and _arrival(record) >= self.at


class Stream:
    """Reads a stream beside its event source mapping.

    Args:
        kinesis: a boto3-shaped client.
        name: the stream's.
        clock: paces the reading.
    """

    def __init__(self, kinesis: Any, name: str, clock: Clock) -> None:
        self._kinesis = kinesis
        self._name = name
        self._clock = clock

    def shards(self, only: str | None = None) -> list[str]:
        """Return the shards' ids, parents before their children; one alone if that is asked for.

        Raises:
            Failure: there is none of that name.
        """
        found = [shard["ShardId"] for shard in list_shards(self._kinesis, self._name)]
        if only is None:
            return found
        if only not in found:
            raise Failure(f"there is no shard {only}: the stream has {', '.join(found)}")
        return [only]

    def trimmed_before(self) -> float:
        """Return before which time, in UNIX seconds, records have expired; minus infinity while none has."""
        summary = self._kinesis.describe_stream_summary(StreamName=self._name)["StreamDescriptionSummary"]
        created: float = summary["StreamCreationTimestamp"].timestamp()
        oldest: float = self._clock.now() - summary["RetentionPeriodHours"] * 3600
        return oldest if created < oldest else float("-inf")

    def check(self, start: Border) -> None:
        """Refuse a stretch whose beginning has expired. Where a sequence number has, `read` tells.

        Raises:
            Failure: it has.
        """
        since = self.trimmed_before()
        if start.at is not None and start.at < since - _TRIMMED_MARGIN_SECONDS:
            raise Failure(
                f"the stream keeps records since {screen.utc(int(since) + 1)} only, nothing from {screen.utc(start.at)}: "
                f"give --from {screen.utc(int(since) + 1)} or later; what is older is in Treasure Data or set aside"
            )

    def read(self, shard: str, start: Border, end: Border) -> Iterator[list[Read]]:
        """Yield a shard's records from one border to another, answer by answer; empty where there were none yet.

        Without an end it goes to the last record that arrived before it began to read.

        Raises:
            Failure: the first record that was asked for has expired.
            ClientError: as Kinesis has it.
        """
        began = self._clock.now()
        iterator = self._iterator(shard, start)
        first = start.number is not None
        while iterator is not None:
            try:
                answer = self._kinesis.get_records(ShardIterator=iterator, Limit=10_000)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code not in THROTTLED:
                    raise
                self._clock.sleep(_THROTTLED_SECONDS)
                continue
            records: list[Read] = answer["Records"]
            if first and records:
                self._check_first(shard, start, records[0])
                first = False
            inside = [record for record in records if not self._is_behind(record, end, began)]
            yield inside
            if len(inside) < len(records) or (not records and answer.get("MillisBehindLatest", 0) == 0):
                return
            iterator = answer.get("NextShardIterator")
            self._clock.sleep(SECONDS_BETWEEN_READS)

    def _is_behind(self, record: Read, end: Border, began: float) -> bool:
        if end.at is None and end.number is None:
            return _arrival(record) > began
        return end.is_before(record)

    def _iterator(self, shard: str, start: Border) -> str | None:
        request: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        if start.number is not None:
            request = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": str(start.number)}
        elif start.at is not None:
            request = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": start.at}
        try:
            answer = self._kinesis.get_shard_iterator(StreamName=self._name, ShardId=shard, **request)
        except ClientError as error:
            if start.number is not None and error.response["Error"]["Code"] == "InvalidArgumentException":
                raise Failure(
                    f"{start.number} is no sequence number of {shard}, or has expired: give a time with --from"
                ) from error
            raise
        iterator: str | None = answer["ShardIterator"]
        return iterator

    def _check_first(self, shard: str, start: Border, record: Read) -> None:
        if start.number is not None and int(record["SequenceNumber"]) > start.number:
            raise Failure(
                f"the record {start.number} of {shard} has expired: the first that is kept is "
                f"{record['SequenceNumber']}, of {screen.utc(int(_arrival(record)))}; give that with --from"
            )


def member(record: Read, shard: str, source: str, region: str) -> dict[str, Any]:
    """Return a record as it stands in Lambda's event."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "data": b64encode(record["Data"]).decode(),
            "approximateArrivalTimestamp": _arrival(record),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{record['SequenceNumber']}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/sluice",
        "awsRegion": region,
        "eventSourceARN": source,
    }


def size(record: Read) -> int:
    """Return how many bytes of an event a record takes, at most."""
    return _MEMBER_BYTES + len(record["PartitionKey"]) + (len(record["Data"]) + 2) // 3 * 4


def batches(answers: Iterable[list[Read]]) -> Iterator[list[Read]]:
    """Yield records in batches that fit an event, none larger than needed for the bound on memory."""
    batch: list[Read] = []
    total = 0
    for answer in answers:
        for record in answer:
            of_record = size(record)
            if batch and (total + of_record > EVENT_BYTES or len(batch) >= EVENT_RECORDS):
                yield batch
                batch, total = [], 0
            batch.append(record)
            total += of_record
    if batch:
        yield batch


def arrival(record: Read) -> float:
    """Return when a record arrived, in UNIX seconds."""
    return _arrival(record)


def _arrival(record: Read) -> float:
    stamp: float = record["ApproximateArrivalTimestamp"].timestamp()
    return stamp
