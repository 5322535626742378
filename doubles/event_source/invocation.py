"""One call of the function."""

from dataclasses import dataclass
from typing import Any

from doubles.event_source.record import Record


@dataclass(frozen=True, slots=True, eq=False)
class Invocation:
    """A batch on its way to the function. Two are the same only if they are one object.

    Attributes:
        shard_id: where all its records come from.
        request_id: the invocation's own id, Lambda's `aws_request_id`.
        event: what the handler gets; it is the handler's to change.
        records: the batch in order.
        attempt: 1 for the first time that this batch is sent, and 1 again after progress.
        sent_at: UNIX seconds.
    """

    shard_id: str
    request_id: str
    event: dict[str, Any]
    records: tuple[Record, ...]
    attempt: int
    sent_at: float

    @property
    def sequence_numbers(self) -> tuple[str, ...]:
        """The records' sequence numbers in order."""
        return tuple(record.sequence_number for record in self.records)
