"""Rejected events in an editor, for `sluice redrive --kind rejected --edit`: one event a line."""

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from ops import screen
from ops.edit import MOST_TEXT, MistakeError
from ops.failure import Failure
from ops.set_aside import SetAsideChunk
from shared.errors import EditRefusedError, InvalidObjectError
from worker.chunk import compress
from worker.repair import row_of
from worker.set_aside import SetAsideStore

_HEAD = """\
# A line is a number and an event. Change what was wrong, save, and leave the editor.
# Where you change an event, all others under the same heading must be right too; delete the lines of those that you give up.
# Events under a heading without a change are left alone.
"""


@dataclass(frozen=True, slots=True)
class RejectedBatch:
    """Rejected events that were set aside together: when each was received, UNIX milliseconds, and what was sent."""

    chunk: SetAsideChunk
    events: tuple[tuple[int, str], ...]

    @property
    def title(self) -> str:
        """What is above its events."""
        group, entry = self.chunk.key.group, self.chunk.entry
        table = group.table or "no known table"
        return f"{group.owner.account}, {table}, {group.code}, since {screen.utc(entry.aside_at // 1000)}"


@dataclass(frozen=True, slots=True)
class Repaired:
    """A batch with repaired events: its title, how many there are, how many are given up, and the event for the redrive."""

    title: str
    events: int
    dropped: int
    event: dict[str, Any]


def originals(payload: bytes) -> list[tuple[int, str]]:
    """Return what is kept of rejected events: when each was received, UNIX milliseconds, and what was sent, on one line."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(payload)
    return [(received_at, _line(original)) for received_at, original in unpacker]


def _line(original: bytes) -> str:
    text = original.decode(errors="replace")
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return " ".join(text.split())


def batches_of(chunks: Iterable[SetAsideChunk], store: SetAsideStore) -> list[RejectedBatch]:
    """Return the rejected events of which copies are kept.

    Raises:
        Failure: they are too much to edit at once.
        SetAsideUnavailableError: the bucket cannot be reached.
    """
    batches, total = [], 0
    for chunk in chunks:
        if not chunk.entry.digest:
            continue
        try:
            stored = store.get(chunk.span, chunk.key, chunk.entry.edit, chunk.entry.digest)
        except InvalidObjectError:
            continue  # it has expired
        batches.append(RejectedBatch(chunk, tuple(originals(stored.payload))))
        total += sum(len(text) for _, text in batches[-1].events)
        if total > MOST_TEXT:
            raise Failure(
                "this is too much to edit at once: narrow it with --account, --table, --reason or --since"
            )
    return batches


def text_of(batches: Sequence[RejectedBatch]) -> str:
    """Return what is opened in the editor."""
    parts = [_HEAD]
    for number, batch in enumerate(batches, 1):
        parts.append(f"\n# {batch.title}\n")
        parts += [f"{number}.{place} {text}\n" for place, (_, text) in enumerate(batch.events, 1)]
    return "".join(parts)


def read(batches: Sequence[RejectedBatch], text: str) -> list[Repaired]:
    """Return the batches with changed events, each with the event for the redrive.

    Raises:
        MistakeError: a line has no number of an event, or an event breaks the rules.
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
    repaired = (_repaired(batches[batch - 1], lines) for batch, lines in sorted(found.items()))
    return [one for one in repaired if one is not None]


def _repaired(batch: RejectedBatch, lines: dict[int, tuple[int, str]]) -> Repaired | None:
    if all(text == batch.events[place - 1][1] for place, (_, text) in lines.items()):
        return None
    events = []
    for place, (number, text) in sorted(lines.items()):
        received_at, _ = batch.events[place - 1]
        try:
            row_of(text, received_at, batch.chunk.key.group.table, str)
        except EditRefusedError as refused:
            raise MistakeError(f"line {number}: {refused}") from refused
        events.append((received_at, text))
    span, key = batch.chunk.span, batch.chunk.key
    place_of = {"chain": span.chain.name, "after": span.after, "chunk": key.name}
    packed = b64encode(compress(msgpack.packb(events))).decode()
    dropped = batch.chunk.entry.rows - len(events)
    return Repaired(batch.title, len(events), dropped, {"repair": {**place_of, "events": packed}})
