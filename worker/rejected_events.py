"""Rejected events in S3: what the ingest refused, kept apart from rows, because its retention must not depend on theirs.

    rejected/<account>/<table>!<code>/<id>.gz

An object is the gzip of `[received_at, original, message]` for each event that is kept, as MessagePack, back to back. A lifecycle rule of
the bucket deletes it after RejectedDays. The ledger counts the events, whether they are kept or not.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from shared.errors import InvalidObjectError
from worker.rows import values
from worker.span import Group, Span

PREFIX = "rejected/"


class KeptEvent(NamedTuple):
    """A rejected event that is kept: when it was received (UNIX milliseconds), as it was sent, and the message that its sender got."""

    received_at: int
    original: bytes
    message: str


def name_of(span: Span, group: Group) -> str:
    """Return the name of the object with a group's rejected events."""
    id_ = sha256(f"{span.place.name}\n{span.planned_at}\n{group.name}".encode()).hexdigest()[:32]
    return f"{PREFIX}{group.sender.account}/{group.label}/{id_}.gz"


def events(data: bytes) -> Iterator[KeptEvent]:
    """Yield the events in an object; raise InvalidObjectError if it holds something else."""
    try:
        for event, _ in values(data):
            yield KeptEvent(*event)
    except TypeError as error:
        raise InvalidObjectError("the object does not hold rejected events") from error
