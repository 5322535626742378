"""How an invocation ended, and how much of its batch that settles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned a value, which travels as JSON."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """The function raised, ran out of memory or left its process."""

    error_type: str = "Exception"
    message: str = ""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The function was still at work at its time-out; whatever runs on by then is not waited for."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """The function was never run: too much at once, or the service failed before it."""


Outcome = Returned | Raised | TimedOut | Throttled


def settled_count(value: Any, sequence_numbers: Sequence[str]) -> int:
    """Return how many records from the first on a returned value reports as done.

    The lowest number reported is the checkpoint: everything from it on failed. Recorded on AWS: an empty answer of any
    kind is success; an item without a number of the batch fails the whole batch. Not recorded, and so the cautious
    guess: a list that is none, and one good item beside a bad one, fail the whole batch; an answer without the key
    `batchItemFailures` is success, as AWS is reported to have it.
    """
    failures = value.get("batchItemFailures") if isinstance(value, dict) else None
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
