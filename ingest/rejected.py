"""Rejected events travel to the worker with the rows of their request, so that operators can see and repair them.

No response promises that they are kept. They go into the request's last envelope or, if it has no room, into one more. If the
request has no rows, their envelope is put on the stream once, without retries.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.batch import Batch
from ingest.privacy import Screen
from ingest.refusal import EventCode
from shared import rows
from shared.envelope import MAX_MESSAGE, ROOM, Envelope, RejectedEvent
from shared.rows import Arrival

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
    batch: Batch,
    sent: Sequence[Any],
    rejections: Iterable[Rejection],
    screen_of: Callable[[str], Screen | None],
    arrival: Arrival,
) -> tuple[RejectedEvent, ...]:
    """Return rejected events for an envelope. An original holds nothing but its event, whatever else the request has.

    Args:
        batch: the request's events.
        sent: the same events before the dialect rewrote any. An original is a rewritten event as JSON, so that its repair gives the
            row that it would have been.
        rejections: of those that were rejected.
        screen_of: returns the screen that removes personal data from a table's rows. If there is one, an original is the screened
            event as JSON.
        arrival: when the events arrived. If the sender's clock is wrong, an original has the corrected time, because its repair
            no longer knows by how much.
    """
    originals = _originals(batch)
    room = MAX_BYTES
    found = []
    for rejection in rejections:
        event = _corrected(batch.events[rejection.index], arrival)
        if batch.single_table:
            event = _with_column(event)
        screen = screen_of(rejection.table)
        if rejection.code == "refused_person":
            original = b""
        elif originals and screen is None and event is sent[rejection.index]:
            original = originals[rejection.index]
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


def _originals(batch: Batch) -> Sequence[bytes]:
    """Return the events byte for byte as they were sent; none if they cannot be told apart."""
    try:
        found = batch.originals()
    except (ValueError, IndexError, RecursionError):
        return ()
    return found if len(found) == len(batch.events) else ()


def _with_column(event: Any) -> Any:
    """Return an event whose member `table` is a column under a name that a repair does not take for the event's table.

    `TABLE` becomes the same column.
    """
    if not isinstance(event, dict) or "table" not in event:
        return event
    column = "Table" if "TABLE" in event else "TABLE"
    return {column if name == "table" else name: value for name, value in event.items()}


def _corrected(event: Any, arrival: Arrival) -> Any:
    time = event.get("time") if isinstance(event, dict) else None
    if not arrival.drift or not isinstance(time, int | float | str):
        return event
    seconds, columns = rows.event_time(time, arrival.received_at // 1000, drift=arrival.drift)
    return event | {"time": seconds} if "time_drift" in columns else event


def _screened(event: dict[str, Any], screen: Screen) -> dict[str, Any]:
    if len(event) > _MAX_SCREENED:
        return {}
    kept = {}
    for name, value in event.items():
        column = rows.column_name(name)
        in_row = rows.text_of(value) if isinstance(value, list | dict) else value
        row = {column: in_row}
        try:
            screen(row)
        except rows.Rejected:  # a person whose events are refused
            return {}
        if column in row:
            kept[name] = value if row[column] is in_row else row[column]
    return kept
