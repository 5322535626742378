"""Rejected events in an editor, for `sluice redrive --kind rejected --edit`: one event a line."""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack

from ops import screen
from ops.books.chunks import ListedChunk
from ops.editing.dead_rows import MOST_TEXT, MistakeError
from ops.failure import Failure
from ops.stack import Stack
from shared.errors import EditRefusedError, InvalidObjectError
from shared.tracking_plan import STANDARD_COLUMNS, TrackingPlan
from worker.replacement import row_of
from worker.rows import compress

_HEAD = """\
# Each line is a number and an event. Fix the events, save, and close the editor.
# If you change one event, all events under its heading must be valid. Delete the lines of events that you want to give up.
# A heading under which nothing is changed is skipped.
"""


class Original(NamedTuple):
    """A copy of a rejected event.

    Attributes:
        received_at: UNIX milliseconds.
        text: the event as sent, on one line.
        message: the error message that its sender received; empty if that was not kept.
    """

    received_at: int
    text: str
    message: str


@dataclass(frozen=True, slots=True)
class RejectedBatch:
    """Rejected events of one span, table and code.

    Attributes:
        chunk: their chunk.
        events: the events of which copies are kept.
        plan: the account's tracking plan; None if it has none.
    """

    chunk: ListedChunk
    events: tuple[Original, ...]
    plan: TrackingPlan | None = None

    @property
    def title(self) -> str:
        """The heading above its events."""
        group = self.chunk.key.group
        table = group.table or "no known table"
        return f"{group.sender.account}, {table}, {group.code}, since {screen.utc(int(self.chunk.since))}"


@dataclass(frozen=True, slots=True)
class Repaired:
    """A batch with repaired events: its title, the number of events, how many are given up, and the sender's input."""

    title: str
    events: int
    dropped: int
    event: dict[str, Any]


def originals(stack: Stack, chunk: ListedChunk) -> list[Original]:
    """Return the copies of rejected events in a chunk.

    Raises:
        ObjectGoneError: there are none: they have expired, or exceeded the number that is kept.
        InvalidObjectError: the object holds something else.
        BucketUnavailableError: the bucket cannot be reached.
    """
    return [
        Original(event.received_at, _line(event.original), " ".join(event.message.split()))
        for event in stack.rejected_events().get(chunk.span, chunk.key)
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
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return " ".join(text.split())


def batches_of(
    stack: Stack, chunks: Iterable[ListedChunk], plans: Mapping[str, TrackingPlan | None]
) -> list[RejectedBatch]:
    """Return the rejected events of which copies are kept.

    Args:
        stack: the stack.
        chunks: their chunks.
        plans: the tracking plans by account.

    Raises:
        Failure: the text is too long for one edit.
        BucketUnavailableError: the bucket cannot be reached.
    """
    batches, total = [], 0
    for chunk in chunks:
        try:
            events = tuple(originals(stack, chunk))
        except InvalidObjectError:
            continue  # the copies have expired
        plan = plans.get(chunk.key.account)
        batches.append(RejectedBatch(chunk, events, plan))
        total += sum(len(event.text) for event in batches[-1].events)
        if total > MOST_TEXT:
            raise Failure(
                f"more than {MOST_TEXT:,} characters cannot be edited at once: select fewer events with --account, --table, "
                "--reason or --since"
            )
    return batches


def text_of(batches: Sequence[RejectedBatch]) -> str:
    """Return the text to edit."""
    parts = [_HEAD]
    for number, batch in enumerate(batches, 1):
        parts.append(f"\n# {batch.title}\n")
        numbers = (f"{number}.{place}" for place in range(1, len(batch.events) + 1))
        parts += [f"{line}\n" for line in lines(batch.events, numbers)]
    return "".join(parts)


def read(batches: Sequence[RejectedBatch], text: str) -> list[Repaired]:
    """Return the batches with changed events, each with the sender's input.

    Raises:
        MistakeError: a line lacks an event's number, or an event is invalid or differs from a tracking plan in quarantine mode.
    """
    found: dict[int, dict[int, tuple[int, str]]] = {}
    for line_number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        number, _, event = line.strip().partition(" ")
        batch, _, place = number.partition(".")
        if not (batch.isdecimal() and place.isdecimal()):
            raise MistakeError(f"line {line_number} does not begin with the number of an event, such as 1.1")
        if not 0 < int(batch) <= len(batches) or not 0 < int(place) <= len(batches[int(batch) - 1].events):
            raise MistakeError(f"line {line_number}: there is no event {number}")
        found.setdefault(int(batch), {})[int(place)] = line_number, event.strip()
    repaired = (_repaired(batches[batch - 1], texts) for batch, texts in sorted(found.items()))
    return [one for one in repaired if one is not None]


def _repaired(batch: RejectedBatch, texts: dict[int, tuple[int, str]]) -> Repaired | None:
    if all(text == batch.events[place - 1].text for place, (_, text) in texts.items()):
        return None
    events = []
    for place, (number, text) in sorted(texts.items()):
        received_at = batch.events[place - 1].received_at
        try:
            table, row = row_of(text, received_at, batch.chunk.key.group.table, str)
        except EditRefusedError as refused:
            raise MistakeError(f"line {number}: {refused}") from refused
        if differences := _differences(batch.plan, table, msgpack.unpackb(row)):
            raise MistakeError(f"line {number}: {'; '.join(differences)}")
        events.append((received_at, text))
    span, key = batch.chunk.span, batch.chunk.key
    place_of = {"chain": span.chain.name, "after": span.after, "chunk": key.name}
    packed = b64encode(compress(msgpack.packb(events))).decode()
    dropped = batch.chunk.rows - len(events)
    return Repaired(batch.title, len(events), dropped, {"repair": {**place_of, "events": packed}})


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
