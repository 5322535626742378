"""One record of a shard, and the event that takes records to the function, in the form recorded from Lambda."""

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from doubles.event_source.mapping import EventSourceMapping

EVENT_BYTES = 6 * 1024 * 1024
"""The largest event that is sent: Lambda's limit of a synchronous invocation, counted over the JSON text."""


class Record(NamedTuple):
    """A record as it was read from a shard.

    Attributes:
        number: the sequence number as an int, which alone compares correctly.
        arrival: UNIX seconds.
        text: the record in the event's JSON.
        size: its share of the event's bytes, with its comma.
    """

    number: int
    sequence_number: str
    data: bytes
    arrival: float
    text: str
    size: int


class EventForm:
    """Builds the events of one shard."""

    def __init__(self, mapping: EventSourceMapping, shard_id: str) -> None:
        self._mapping = mapping
        self._shard_id = shard_id

    def record(self, read: dict[str, Any]) -> Record:
        """Return a record of a `get_records` response."""
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
            "eventID": f"{self._shard_id}:{sequence_number}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": self._mapping.role_arn,
            "awsRegion": self._mapping.event_source_arn.split(":")[3],
            "eventSourceARN": self._mapping.event_source_arn,
        }
        text = json.dumps(member, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode()) + len(",")
        return Record(int(sequence_number), sequence_number, read["Data"], arrival, text, size)

    def event(self, records: Sequence[Record]) -> dict[str, Any]:
        """Return a new event with these records."""
        return {"Records": [json.loads(record.text) for record in records]}


def count_that_fits(records: Iterable[Record]) -> int:
    """Return how many of the first records one event can hold."""
    frame = len('{"Records":[]}') - len(",")
    sizes = accumulate((record.size for record in records), initial=frame)
    return sum(size <= EVENT_BYTES for size in sizes) - 1
