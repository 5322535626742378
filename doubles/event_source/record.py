"""One record of a shard, and the event that takes records to the function.

The event has the form of events recorded from Lambda.
"""

import functools
import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from doubles.event_source.mapping import EventSourceMapping

EVENT_BYTES = 6 * 1024 * 1024
"""The largest event that is sent: Lambda's limit of a synchronous invocation, counted over the JSON text."""

_FRAME_BYTES = len('{"Records":[]}')


@functools.lru_cache(4096)
def _json_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())


class Record(NamedTuple):
    """A record as it was read from a shard.

    Attributes:
        number: the sequence number as an int, which alone compares right.
        arrival: UNIX seconds.
        event_bytes: its share of the event's JSON text, its comma included.
    """

    number: int
    sequence_number: str
    partition_key: str
    data: bytes
    arrival: float
    event_bytes: int


class EventForm:
    """Builds the events of one shard and knows how large they will be."""

    def __init__(self, mapping: EventSourceMapping, shard_id: str) -> None:
        self._mapping = mapping
        self._shard_id = shard_id
        empty = self._member("", "", b"", 0)
        self._empty_bytes = len(json.dumps(empty, separators=(",", ":"))) - len('""') - len("0") + len(",")

    def record(self, read: dict[str, Any]) -> Record:
        """Return a record of a `get_records` response."""
        sequence_number: str = read["SequenceNumber"]
        partition_key: str = read["PartitionKey"]
        data: bytes = read["Data"]
        arrived = read["ApproximateArrivalTimestamp"]
        arrival = arrived.timestamp() if isinstance(arrived, datetime) else float(arrived)
        size = (
            self._empty_bytes
            + _json_bytes(partition_key)
            + 2 * len(sequence_number)
            + (len(data) + 2) // 3 * 4
            + len(repr(arrival))
        )
        return Record(int(sequence_number), sequence_number, partition_key, data, arrival, size)

    def event(self, records: Sequence[Record]) -> dict[str, Any]:
        """Return a new event with these records."""
        return {
            "Records": [
                self._member(record.partition_key, record.sequence_number, record.data, record.arrival)
                for record in records
            ]
        }

    def _member(
        self, partition_key: str, sequence_number: str, data: bytes, arrival: float
    ) -> dict[str, Any]:
        return {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": partition_key,
                "sequenceNumber": sequence_number,
                "data": b64encode(data).decode(),
                "approximateArrivalTimestamp": arrival,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{self._shard_id}:{sequence_number}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": self._mapping.role_arn,
            "awsRegion": self._mapping.region,
            "eventSourceARN": self._mapping.event_source_arn,
        }


def count_that_fits(records: Iterable[Record]) -> int:
    """Return how many of the first records one event can hold, 0 if not even the first fits."""
    # The last record has no comma.
    size = _FRAME_BYTES - len(",")
    count = 0
    for record in records:
        size += record.event_bytes
        if size > EVENT_BYTES:
            break
        count += 1
    return count
