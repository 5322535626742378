"""How a request that is sent again is known.

A sender that got no answer sends its events again under the same batch id and says so. What the first request made of
them and what the repetition makes of them must then bear the same name: an envelope's request id follows from the
account, the batch id and the events themselves, as they were sent. So two bodies under one id are two things, and
neither is taken for the other.

The first request is put like any other, and pays nothing. A repetition takes the way of doubtful puts: through the
queue to the drainer, which looks for the request id on the stream before it puts anything.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shared import envelope, json_codec, rows
from shared.envelope import Envelope
from shared.errors import TooDeepError
from shared.event_id import derived_event_id

MEMORY_SECONDS = 3600
"""A repetition is known for so long after the first request."""
MAX_ID = 64

_CLOCK_SECONDS = 60  # by which the times of requests may be wrong where their sender's clock measures them
_SHARE_BYTES = 600 * 1024  # of an envelope: leaves room for what the ingest adds to rows
_ADDED_BYTES = 512  # to each row, as a rule


class Taken(NamedTuple):
    """An event that became a row: its table, the row, and the event."""

    table: str
    row: bytes
    event: object


def envelopes(
    taken: Sequence[Taken], batch_id: str, account: str, key_id: str, received_at: int
) -> Iterator[Envelope]:
    """Yield the rows of a request in envelopes whose names and borders follow from what was sent.

    Where they end depends on the events and not on the rows, because the ingest adds to a row what may be of another
    length next time: the visitor's address. Rows keep their order.
    """
    number = 0
    share: list[Taken] = []
    digest, size = hashlib.sha256(), 0

    def divided() -> Iterator[Envelope]:
        named = f"{len(account)}:{account}{len(batch_id)}:{batch_id}{number}:".encode(errors="replace")
        request_id = hashlib.sha256(named + digest.digest()).hexdigest()[:32]
        rows_of_share = ((item.table, item.row) for item in share)
        return envelope.divide(rows_of_share, account, key_id, received_at, request_id)

    for item in taken:
        text = f"{item.table}\n{_text(item.event)}\n".encode(errors="replace")
        if share and size + len(text) + _ADDED_BYTES > _SHARE_BYTES:
            yield from divided()
            number, share, digest, size = number + 1, [], hashlib.sha256(), 0
        share.append(item)
        digest.update(text)
        size += len(text) + _ADDED_BYTES
    if share:
        yield from divided()


def event_id(account: str, batch_id: str, index: int, event: object) -> str:
    """Return the id of an event that brings none, the same each time that it is sent under this batch id."""
    digest = hashlib.sha256(_text(event).encode(errors="replace")).hexdigest()
    return derived_event_id(account, f"{batch_id}/{digest}", index)


def _text(event: object) -> str:
    """Return what was sent, as text that is the same each time.

    An event whose values are as deep as they may be is itself a level deeper than what can be written as one.
    """
    try:
        return json_codec.dump(event)
    except TooDeepError:
        members = event.items() if isinstance(event, dict) else ()
        return "\n".join(f"{name}\n{_value_text(value)}" for name, value in members)


def _value_text(value: object) -> str:
    try:
        return json_codec.dump(value)
    except TooDeepError:
        return ""  # such an event becomes no row


def since(received_at: int, sent_at: object, made_at: object) -> int:
    """Return the UNIX milliseconds from which on the first request may have been put.

    Args:
        received_at: when the repetition arrived, UNIX milliseconds.
        sent_at: when it was sent, by the sender's clock.
        made_at: when its id was given, by the same clock; what both say of it shortens the search.
    """
    sent, made = rows.read_time(sent_at), rows.read_time(made_at)
    age = MEMORY_SECONDS
    if sent is not None and made is not None and 0 <= sent - made < MEMORY_SECONDS:
        age = min(sent - made + _CLOCK_SECONDS, MEMORY_SECONDS)
    return received_at - age * 1000
