"""Rejected events travel to the worker with the rows of their request, so that operators can see and repair them.

No response promises that they are kept. They go into the request's last envelope or, if it has no room, into one more. If the
request has no rows, their envelope is put on the stream once, without retries.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.privacy import Screen
from ingest.refusal import EventCode, Refused
from ingest.request import Request
from shared import json_codec, rows
from shared.envelope import MAX_MESSAGE, ROOM, Envelope, RejectedEvent

MAX_BYTES = 128 * 1024
"""Bytes of originals that one request may add to the stream; events beyond that are only counted."""

_MAX_SCREENED = 2 * rows.MAX_COLUMNS  # of an event with more members, nothing is kept


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one event of a request was not accepted.

    Attributes:
        index: the event's position in its request, from 0.
        code: one of ANSWERS.
        message: for a person.
        table: the event's table; empty if it named none that is legal.
    """

    index: int
    code: EventCode
    message: str
    table: str = ""


def events_of(
    request: Request,
    events: Sequence[Any],
    rejections: Iterable[Rejection],
    screen_of: Callable[[str], Screen | None],
) -> tuple[RejectedEvent, ...]:
    """Return rejected events for an envelope.

    Args:
        request: the request that sent them.
        events: all its events, parsed.
        rejections: of those that were rejected.
        screen_of: returns the screen that removes personal data from a table's rows. If there is one, an original is the screened
            event as JSON.
    """
    sent = _sent(request, len(events))
    room = MAX_BYTES
    found = []
    for rejection in rejections:
        event = events[rejection.index]
        screen = screen_of(rejection.table)
        if sent is not None and screen is None:
            original = sent[rejection.index]
        elif screen is None or isinstance(event, dict):
            original = rows.text_of(_screened(event, screen) if screen else event).encode(errors="replace")
        else:
            original = b""
        if len(original) > room:
            original = b""
        room -= len(original)
        message = rejection.message[:MAX_MESSAGE] if original else ""
        found.append(RejectedEvent(rejection.index, rejection.code, rejection.table, original, message))
    return tuple(found)


def joined(item: Envelope, rejected: Sequence[RejectedEvent]) -> Envelope | None:
    """Return an envelope of rows with rejected events; None if it has no room for them.

    If only the messages do not fit, they are left out: they never decide which envelope holds what.
    """
    size = sum([len(table.rows) + len(table.table) + 16 for table in item.tables])
    size += sum([len(event.original) + len(event.code) + len(event.table) + 16 for event in rejected])
    if size > ROOM:
        return None
    if size + sum([len(event.message.encode()) + 3 for event in rejected]) > ROOM:
        rejected = [event._replace(message="") for event in rejected]
    return item._replace(rejected=tuple(rejected))


def _sent(request: Request, count: int) -> list[bytes] | None:
    """Return the events byte for byte as a JSON body has them; None if the body does not have exactly `count`."""
    try:
        text = request.body().strip()
        found = json_codec.items(text, "events") if text[:1] in (b"{", b"[") else []
    except (Refused, ValueError, IndexError, RecursionError):
        return None
    if len(found) == count:
        return found
    return [text] if count == 1 and text[:1] == b"{" else None


def _screened(event: dict[str, Any], screen: Screen) -> dict[str, Any]:
    if len(event) > _MAX_SCREENED:
        return {}
    kept = {}
    for name, value in event.items():
        column = rows.column_name(name)
        row = {column: value}
        screen(row)
        if column in row:
            kept[name] = row[column]
    return kept
