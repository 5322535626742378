"""A double of Lambda's Kinesis event source mapping, for the local stack, the tests and fault injection.

It uses template.yaml's settings: it starts at TRIM_HORIZON, has one batch per shard in progress, uses
ReportBatchItemFailures, and does not limit retries or age, so a batch is retried until the retention ends. Events have
the form recorded from Lambda.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

EVENT_BYTES = 6 * 1024 * 1024
"""The maximum size of an event, Lambda's limit for a synchronous invocation, measured on the JSON text."""


class Record(NamedTuple):
    """A record read from a shard.

    Attributes:
        arrival: UNIX seconds.
        text: the record as JSON in the event.
        size: its bytes in the event, including a comma.
    """

    sequence_number: str
    data: bytes
    arrival: float
    text: str
    size: int


def exponential_backoff(failures: int) -> float:
    """Return the seconds to wait after this many failures in a row: 0.3, 0.6, 1.2 … 60.

    AWS does not document its backoff; these values give the eight calls that were recorded within 60 s.
    """
    return min(60.0, 0.3 * 2.0 ** min(failures - 1, 16))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSourceMapping:
    """The settings that template.yaml or fault injection chooses.

    Attributes:
        event_source_arn: the stream's ARN.
        batch_size: the maximum number of records per invocation, 1 … 10,000.
        maximum_batching_window_seconds: how long to wait for a full batch, 0 … 300 s.
        children_wait: start a child only when its parents are drained. Lambda is known to do so, but AWS does not
            promise it.
        discovery_seconds: how often to look for new shards, in addition to whenever a shard ends.
        backoff: returns the seconds to wait after a number of failures in a row.
        borders: given the records that the next batch can have at most, returns how many it has. With None it has all
            of them, and a failed batch is sent again unchanged.
    """

    event_source_arn: str
    batch_size: int = 100
    maximum_batching_window_seconds: float = 0
    children_wait: bool = True
    discovery_seconds: float = 10
    backoff: Callable[[int], float] = exponential_backoff
    borders: Callable[[Sequence[Record]], int] | None = None

    @property
    def stream_name(self) -> str:
        """The stream's name, the last part of its ARN."""
        return self.event_source_arn.rpartition("/")[2]

    def record(self, shard_id: str, read: dict[str, Any]) -> Record:
        """Convert a record of a shard's `get_records` response."""
        sequence_number: str = read["SequenceNumber"]
        arrival = read["ApproximateArrivalTimestamp"].timestamp()
        member = {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": read["PartitionKey"],
                "sequenceNumber": sequence_number,
                "data": b64encode(read["Data"]).decode(),
                "approximateArrivalTimestamp": arrival,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{shard_id}:{sequence_number}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "arn:aws:iam::123456789012:role/WorkerFunctionRole",
            "awsRegion": self.event_source_arn.split(":")[3],
            "eventSourceARN": self.event_source_arn,
        }
        text = json.dumps(member, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode()) + len(",")
        return Record(sequence_number, read["Data"], arrival, text, size)


def event_of(records: Iterable[Record]) -> dict[str, Any]:
    """Return a new event with these records."""
    return {"Records": [json.loads(record.text) for record in records]}


def count_that_fits(records: Iterable[Record]) -> int:
    """Return how many of the first records one event can hold."""
    frame = len('{"Records":[]}') - len(",")
    sizes = accumulate((record.size for record in records), initial=frame)
    return sum(size <= EVENT_BYTES for size in sizes) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Invocation:
    """A batch that is being delivered. Two invocations are equal only if they are the same object.

    Attributes:
        shard_id: the shard of all its records.
        request_id: the invocation's id, Lambda's `aws_request_id`.
        event: the event that the handler gets and may change.
        records: the batch in order.
    """

    shard_id: str
    request_id: str
    event: dict[str, Any]
    records: tuple[Record, ...]

    @property
    def sequence_numbers(self) -> tuple[str, ...]:
        """The records' sequence numbers in order."""
        return tuple(record.sequence_number for record in self.records)


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned a value, which travels as JSON."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The function raised an exception, ran out of memory or time, or ended its process. Nothing that it returns later counts."""

    why: str = ""


Outcome = Returned | Failed


def settled_count(outcome: Outcome, sequence_numbers: Sequence[str]) -> int:
    """Return how many records at the start of a batch an outcome settles.

    The lowest reported sequence number is the checkpoint: everything from it on failed. Recorded on AWS: an empty result of
    any kind is success, and an item that names no record of the batch fails the whole batch. Not recorded, and therefore a
    cautious guess: a malformed list, or one good item beside a bad one, fails the whole batch. Others report that a result
    without the key `batchItemFailures` is success.
    """
    if not isinstance(outcome, Returned):
        return 0
    failures = outcome.value.get("batchItemFailures") if isinstance(outcome.value, dict) else None
    if failures is None:
        return len(sequence_numbers)
    if not isinstance(failures, list):
        return 0
    places = {number: place for place, number in enumerate(sequence_numbers)}
    checkpoint = len(sequence_numbers)
    for item in failures:
        identifier = item.get("itemIdentifier") if isinstance(item, dict) else None
        place = places.get(identifier) if isinstance(identifier, str) else None
        if place is None:
            return 0
        checkpoint = min(checkpoint, place)
    return checkpoint
