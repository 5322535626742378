"""One call of the function, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from doubles.event_source.record import Record


@dataclass(frozen=True, slots=True, eq=False)
class Invocation:
    """A batch on its way to the function. Two invocations are equal only if they are the same object.

    Attributes:
        shard_id: the shard of all its records.
        request_id: the invocation's own id, Lambda's `aws_request_id`.
        event: what the handler gets, and may change.
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
class Raised:
    """The function raised, ran out of memory or ended its process; or Lambda was throttled and never ran it."""

    error_type: str = "Exception"
    message: str = ""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The function was still running at its time-out. Nothing that it does later counts."""


Outcome = Returned | Raised | TimedOut


def settled_count(outcome: Outcome, sequence_numbers: Sequence[str]) -> int:
    """Return how many records of a batch, counted from the first, an outcome settles.

    The lowest number reported is the checkpoint: everything from it on failed. Recorded on AWS: an empty result of any
    kind is success, and an item that names no record of the batch fails the whole batch. Not recorded, and therefore
    the cautious guess: a malformed list, or one good item beside a bad one, fails the whole batch. A result without
    the key `batchItemFailures` is reported to be success.
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
