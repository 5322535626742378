"""Dead rows in an editor, for `sluice redrive --edit`: one line of JSON per row."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ops import screen
from ops.books.chunks import ListedChunk
from ops.editing.edited_text import Change, change_of, limited, lines_in
from ops.failure import Failure
from shared.errors import EditRefusedError, InvalidObjectError
from worker.replacement import decoded, revised_row
from worker.span_object import SpanObjects

_HEAD = """\
# Each line is a row. Fix the rows, save, and close the editor.
# Keep the number and order of the rows, and their event_id and received_at.
# Chunks without a changed row are skipped. If nothing is changed, nothing is sent.
"""


@dataclass(frozen=True, slots=True)
class EditableChunk:
    """Dead rows: their chunk, a title, and a line for each row."""

    chunk: ListedChunk
    title: str
    texts: tuple[str, ...]


def editable_of(chunks: Iterable[ListedChunk], objects: SpanObjects) -> list[EditableChunk]:
    """Return the dead chunks that consist of rows, as text.

    Raises:
        Failure: the text is too long for one edit, or JSON cannot represent a row.
    """
    return limited(_editable(chunks, objects), lambda one: one.texts)


def _editable(chunks: Iterable[ListedChunk], objects: SpanObjects) -> Iterator[EditableChunk]:
    for chunk in chunks:
        if chunk.key.group.code:
            continue  # it never became rows
        try:
            payload = objects.payload(chunk.span, chunk.key)
        except InvalidObjectError:
            continue  # its object is missing, which the balance reports
        since = screen.utc(int(chunk.since))
        title = f"{chunk.key.account}/{chunk.key.group.table}, {chunk.reason}, dead since {since}"
        try:
            texts = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in decoded(payload)]
        except (EditRefusedError, TypeError, ValueError) as error:
            raise Failure(f"the rows of {title} cannot be shown as JSON: {error}") from error
        yield EditableChunk(chunk, title, tuple(texts))


def text_of(editable: Sequence[EditableChunk]) -> str:
    """Return the text to edit."""
    parts = [_HEAD]
    for number, one in enumerate(editable, 1):
        parts += [f"\n# {number} of {len(editable)}: {one.title}\n", *(f"{line}\n" for line in one.texts)]
    return "".join(parts)


def read(editable: Sequence[EditableChunk], text: str) -> list[Change]:
    """Return the changes: all rows of each chunk with a changed one.

    Raises:
        EditRefusedError: the number of rows has changed, or a row is invalid.
    """
    lines = list(lines_in(text))
    expected = sum(len(one.texts) for one in editable)
    if len(lines) != expected:
        raise EditRefusedError(
            f"the text has {len(lines):,} instead of {screen.plural(expected, 'row')}: rows cannot be added or removed"
        )
    coming, changes = iter(lines), []
    for one in editable:
        pairs = list(zip(one.texts, coming, strict=False))
        if any(old != new for old, (_, new) in pairs):
            payload = b"".join(_row(number, old, new) for old, (number, new) in pairs)
            changes.append(change_of(one.chunk, one.title, len(pairs), ("edit", "rows", payload)))
    return changes


def _row(number: int, old: str, new: str) -> bytes:
    """Return a row encoded, after the same checks as in the sender."""
    try:
        row = json.loads(new, parse_constant=_refuse)
    except ValueError as error:
        raise EditRefusedError(f"line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise EditRefusedError(f"line {number} is not a JSON object")
    try:
        return revised_row(json.loads(old), row)
    except EditRefusedError as refused:
        raise EditRefusedError(f"line {number}: {refused}") from refused


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")
