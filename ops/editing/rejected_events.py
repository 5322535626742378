"""Rejected events in an editor, for `sluice redrive --kind rejected --edit`: one event a line."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack

from ops import screen
from ops.books.chunks import ListedChunk
from ops.books.stored_spans import kept_events
from ops.editing.edited_text import Change, change_of, limited, lines_in
from ops.stack import Stack
from shared import json_codec
from shared.errors import EditRefusedError, InvalidObjectError
from shared.tracking_plan import STANDARD_COLUMNS, TrackingPlan
from worker.replacement import row_of

_HEAD = """\
# Each line is a number and an event. Fix the events, save, and close the editor.
# If you change one event, all events under its heading must be valid. Delete the lines of events that you want to give up.
# A heading under which nothing is changed is skipped.
"""


class Original(NamedTuple):
    """A copy of a rejected event as sent, on one line, with the message that its sender got; received at UNIX milliseconds."""

    received_at: int
    text: str
    message: str


@dataclass(frozen=True, slots=True)
class RejectedBatch:
    """Rejected events of one span, table and code: those of which copies are kept, with the account's tracking plan, if any."""

    chunk: ListedChunk
    events: tuple[Original, ...]
    plan: TrackingPlan | None = None

    @property
    def title(self) -> str:
        """The heading above its events."""
        group = self.chunk.key.group
        table = group.table or "no known table"
        return f"{group.sender.account}, {table}, {group.code}, since {screen.utc(int(self.chunk.since))}"


def originals(stack: Stack, chunk: ListedChunk) -> list[Original]:
    """Return the copies of rejected events in a chunk.

    Raises:
        InvalidObjectError: there are none (any more), or the object holds something else.
    """
    return [
        Original(event.received_at, _line(event.original), " ".join(event.message.split()))
        for event in kept_events(stack.bucket(), chunk.span, chunk.key)
    ]


def lines(events: Iterable[Original], numbers: Iterable[str] = ()) -> Iterator[str]:
    """Yield a line for each event, with its number if given. Consecutive events with the same message follow a line with it."""
    told, coming = "", iter(numbers)
    for event in events:
        if event.message and event.message != told:
            told = event.message
            yield f"# {told}"
        number = next(coming, "")
        yield f"{number} {event.text}" if number else event.text


def _line(original: bytes) -> str:
    text = original.decode(errors="replace")
    try:
        return json_codec.without_surrogates(json.dumps(json.loads(text), ensure_ascii=False))
    except (ValueError, RecursionError):
        return " ".join(text.split())


def batches_of(
    stack: Stack, chunks: Iterable[ListedChunk], plans: Mapping[str, TrackingPlan | None]
) -> list[RejectedBatch]:
    """Return the rejected events of which copies are kept. `plans` are the tracking plans by account.

    Raises:
        Failure: the text is too long for one edit.
    """

    def kept() -> Iterator[RejectedBatch]:
        for chunk in chunks:
            with suppress(InvalidObjectError):  # the copies have expired
                events = tuple(originals(stack, chunk))
                yield RejectedBatch(chunk, events, plans.get(chunk.key.account))

    return limited(kept(), lambda one: [event.text for event in one.events])


def text_of(batches: Sequence[RejectedBatch]) -> str:
    """Return the text to edit."""
    parts = [_HEAD]
    for number, batch in enumerate(batches, 1):
        numbers = (f"{number}.{place}" for place in range(1, len(batch.events) + 1))
        parts += [f"\n# {batch.title}\n", *(f"{line}\n" for line in lines(batch.events, numbers))]
    return "".join(parts)


def read(batches: Sequence[RejectedBatch], text: str) -> list[Change]:
    """Return the changes: all events that are left of each batch with a changed one.

    Raises:
        EditRefusedError: a line lacks an event's number, or an event is invalid or differs from a tracking plan in quarantine mode.
    """
    found: dict[int, dict[int, tuple[int, str]]] = {}
    for line_number, line in lines_in(text):
        number, _, event = line.partition(" ")
        batch, _, place = number.partition(".")
        if not (batch.isdecimal() and place.isdecimal()):
            raise EditRefusedError(
                f"line {line_number} does not begin with the number of an event, such as 1.1"
            )
        if not 0 < int(batch) <= len(batches) or not 0 < int(place) <= len(batches[int(batch) - 1].events):
            raise EditRefusedError(f"line {line_number}: there is no event {number}")
        found.setdefault(int(batch) - 1, {})[int(place) - 1] = line_number, event.strip()
    return [
        _change(batches[batch], texts)
        for batch, texts in sorted(found.items())
        if any(text != batches[batch].events[place].text for place, (_, text) in texts.items())
    ]


def _change(batch: RejectedBatch, texts: dict[int, tuple[int, str]]) -> Change:
    events = []
    for place, (number, text) in sorted(texts.items()):
        received_at = batch.events[place].received_at
        try:
            table, row = row_of(text, received_at, batch.chunk.key.group.table, str)
        except EditRefusedError as refused:
            raise EditRefusedError(f"line {number}: {refused}") from refused
        if differences := _differences(batch.plan, table, msgpack.unpackb(row)):
            raise EditRefusedError(f"line {number}: {'; '.join(differences)}")
        events.append((received_at, text))
    sent = "repair", "events", msgpack.packb(events)
    return change_of(batch.chunk, batch.title, len(events), sent, batch.chunk.rows - len(events))


def _differences(plan: TrackingPlan | None, table: str, row: Mapping[str, Any]) -> list[str]:
    """Return why the ingest would reject an event by a plan.

    Columns that the ingest adds, drops or hashes are ignored, because the copy does not have their original values.
    """
    if plan is None or plan.mode_of(table) != "quarantine":
        return []
    personal = plan.tables[table].personal if table in plan.tables else {}
    return [
        one.message
        for one in plan.violations(table, row)
        if one.column not in personal
        and not (one.code == "missing_column" and one.column in STANDARD_COLUMNS)
    ]
