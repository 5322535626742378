"""Reads ranges of the stream, shard by shard, and turns their records into events as Lambda passes them to the worker."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ops import screen
from ops.failure import Failure
from ops.stream.readable_shards import NoSuchRecordError, Position, ReadableShards
from shared.clock import Clock
from shared.puts import batches
from worker.record import number

EVENT_BYTES = 5_500_000
"""The largest event, below Lambda's limit of 6 MB."""
_EVENT_RECORDS = 10_000
_MEMBER_BYTES = 700  # a record's size in an event, without data and partition key
_TRIMMED_MARGIN_SECONDS = 60.0

Read = Mapping[str, Any]
"""A record as GetRecords returns it."""


@dataclass(frozen=True, slots=True)
class RangeEnd:
    """Where a range begins or ends: a time (UNIX seconds), a sequence number, or by default the stream's own end.

    `is_fixed` says that the operator's text means the same at any time, unlike `2h`.
    """

    at: float | None = None
    number: int | None = None
    is_fixed: bool = False

    def is_before(self, record: Read, began: float) -> bool:
        """Return whether a range that ends here excludes a record: ends are inclusive as numbers, exclusive as times.

        Without an end, it excludes what arrived after the read began, UNIX seconds.
        """
        if self.number is not None:
            return int(record["SequenceNumber"]) > self.number
        return arrival(record) > began if self.at is None else arrival(record) >= self.at


@dataclass(frozen=True, slots=True)
class StreamReader:
    """Reads a stream next to its event source mapping. The clock tells when a read begins, and what has expired."""

    stream: ReadableShards
    clock: Clock

    def shards(self, only: str | None = None) -> list[str]:
        """Return the shards' ids, parents before their children; with `only`, that one.

        Raises:
            Failure: there is no shard named `only`.
        """
        found = [shard.shard_id for shard in self.stream.all()]
        if only is not None and only not in found:
            raise Failure(f"there is no shard {only}: the stream has {', '.join(found)}")
        return found if only is None else [only]

    def check(self, start: RangeEnd) -> None:
        """Check that the start of a range has not expired. If it is a sequence number, `read` checks it.

        Raises:
            Failure: it has expired.
        """
        summary = self.stream.summary()
        oldest = self.clock.now() - summary["RetentionPeriodHours"] * 3600
        is_trimmed = summary["StreamCreationTimestamp"].timestamp() < oldest
        if is_trimmed and start.at is not None and start.at < oldest - _TRIMMED_MARGIN_SECONDS:
            raise Failure(
                f"the stream has no records from {screen.utc(start.at)}: use --from {screen.utc(int(oldest) + 1)} or later. "
                "Older rows are in Treasure Data or wait in S3"
            )

    def read(self, shard: str, start: RangeEnd, end: RangeEnd) -> Iterator[list[Read]]:
        """Yield a shard's records from one border to another, one list per read, which may be empty.

        Without an end, this stops after the last record that arrived before it began.

        Raises:
            Failure: the first record of the range has expired, or never existed.
        """
        began = self.clock.now()
        is_checked = start.number is None
        position = (
            Position(moment=start.at) if start.number is None else Position(at=number(str(start.number)))
        )
        try:
            for page in self.stream.pages(shard, position):
                if page.records and not is_checked:
                    self._check_first(shard, start, page.records[0])
                    is_checked = True
                inside = [record for record in page.records if not end.is_before(record, began)]
                yield inside
                if len(inside) < len(page.records):
                    break
        except NoSuchRecordError as error:
            if is_checked:
                raise
            raise Failure(
                f"{start.number} is not a sequence number of {shard}, or has expired: use a time with --from"
            ) from error
        if not is_checked:
            raise Failure(f"the record {start.number} of {shard} has expired: use a time with --from")

    def _check_first(self, shard: str, start: RangeEnd, record: Read) -> None:
        if start.number is not None and int(record["SequenceNumber"]) > start.number:
            raise Failure(
                f"the record {start.number} of {shard} has expired. The oldest record is "
                f"{record['SequenceNumber']}, of {screen.utc(int(arrival(record)))}: use this with --from"
            )


def member(record: Read, shard: str) -> dict[str, Any]:
    """Return a record as a member of Lambda's event. The stream's name and region are placeholders, which nothing reads."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "data": b64encode(record["Data"]).decode(),
            "approximateArrivalTimestamp": arrival(record),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{record['SequenceNumber']}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/sluice",
        "awsRegion": "us-east-1",
        "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/sluice",
    }


def size(record: Read) -> int:
    """Return the most bytes that a record takes in an event."""
    return _MEMBER_BYTES + len(record["PartitionKey"]) + (len(record["Data"]) + 2) // 3 * 4


def batches_of(pages: Iterable[list[Read]]) -> Iterator[list[Read]]:
    """Yield the records of pages in batches that fit an event."""
    yield from batches((record for page in pages for record in page), size, EVENT_BYTES, _EVENT_RECORDS)


def arrival(record: Read) -> float:
    """Return when a record arrived, in UNIX seconds."""
    at: float = record["ApproximateArrivalTimestamp"].timestamp()
    return at
