"""Edits dead rows, for `sluice redrive --edit`: one line of JSON per row."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ops import screen
from ops.books.chunks import ListedChunk
from ops.failure import Failure
from shared.errors import EditRefusedError, InvalidObjectError, SluiceError
from worker.replacement import decoded, revised_row
from worker.rows import compress
from worker.span_object import SpanObjects

MOST_TEXT = 4_000_000
"""The most characters to edit at once, so that the sender's input for one chunk fits Lambda's 6 MB."""

_HEAD = """\
# Each line is a row. Fix the rows, save, and close the editor.
# Keep the number and order of the rows, and their event_id and received_at.
# Chunks without a changed row are skipped. If nothing is changed, nothing is sent.
"""


class MistakeError(SluiceError):
    """The edited text is invalid; the message names the line."""


@dataclass(frozen=True, slots=True)
class EditableChunk:
    """Dead rows: their chunk, a title, and a line for each row."""

    chunk: ListedChunk
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edited:
    """Dead rows of which some are changed: their title, their number, and the sender's input."""

    title: str
    rows: int
    event: dict[str, Any]


def _editable(chunk: ListedChunk, payload: bytes) -> EditableChunk:
    title = f"{chunk.key.account}/{chunk.key.group.table}, {chunk.reason}, dead since {screen.utc(int(chunk.since))}"
    try:
        lines = tuple(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in decoded(payload))
    except (EditRefusedError, TypeError, ValueError) as error:
        raise Failure(f"the rows of {title} cannot be shown as JSON: {error}") from error
    return EditableChunk(chunk, title, lines)


def editable_of(chunks: Iterable[ListedChunk], objects: SpanObjects) -> list[EditableChunk]:
    """Return the dead chunks that consist of rows, as text.

    Raises:
        Failure: the text is too long for one edit, or JSON cannot represent a row.
        BucketUnavailableError: the bucket cannot be reached.
    """
    editable, total = [], 0
    for chunk in chunks:
        if chunk.key.group.code:
            continue  # it never became rows
        try:
            payload = objects.payload(chunk.span, chunk.key)
        except InvalidObjectError:
            continue  # its object is missing, which the balance reports
        editable.append(_editable(chunk, payload))
        total += sum(map(len, editable[-1].lines))
        if total > MOST_TEXT:
            raise Failure(
                f"more than {MOST_TEXT:,} characters cannot be edited at once: "
                "select fewer rows with --account, --table, --reason or --since"
            )
    return editable


def text_of(editable: Sequence[EditableChunk]) -> str:
    """Return the text to edit."""
    parts = [_HEAD]
    for number, one in enumerate(editable, 1):
        parts += [f"\n# {number} of {len(editable)}: {one.title}\n", *(f"{line}\n" for line in one.lines)]
    return "".join(parts)


def read(editable: Sequence[EditableChunk], text: str) -> list[Edited]:
    """Return the dead chunks with changed rows, each with the sender's input.

    Raises:
        MistakeError: the number of rows has changed, or a row is invalid.
    """
    lines = [
        (number, line.strip())
        for number, line in enumerate(
            text.split("\n"), 1
        )  # splitlines would also split at Unicode's line separators
        if line.strip() and not line.lstrip().startswith("#")
    ]
    expected = sum(len(one.lines) for one in editable)
    if len(lines) != expected:
        raise MistakeError(
            f"the text has {len(lines):,} instead of {screen.plural(expected, 'row')}: rows cannot be added or removed"
        )
    coming = iter(lines)
    return [edited for one in editable if (edited := _edited(one, [next(coming) for _ in one.lines]))]


def _edited(one: EditableChunk, lines: Sequence[tuple[int, str]]) -> Edited | None:
    if all(new == old for (_, new), old in zip(lines, one.lines, strict=True)):
        return None
    payload = b"".join(_row(number, old, new) for (number, new), old in zip(lines, one.lines, strict=True))
    span, key = one.chunk.span, one.chunk.key
    place = {"chain": span.chain.name, "after": span.after, "chunk": key.name}
    rows = b64encode(compress(payload)).decode()
    return Edited(one.title, len(lines), {"edit": {**place, "rows": rows}})


def _row(number: int, old: str, new: str) -> bytes:
    """Return a row encoded, after the same checks as in the sender."""
    try:
        row = json.loads(new, parse_constant=_refuse)
    except ValueError as error:
        raise MistakeError(f"line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise MistakeError(f"line {number} is not a JSON object")
    try:
        return revised_row(json.loads(old), row)
    except EditRefusedError as refused:
        raise MistakeError(f"line {number}: {refused}") from refused


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


def ask[T](
    text: str,
    read_text: Callable[[str], list[T]],
    editor: Callable[[str], str | None],
    again: Callable[[str], bool],
) -> list[T]:
    """Let the operator edit a text until it is valid, and return the parsed result.

    Args:
        text: the text to edit.
        read_text: parses the text, or raises MistakeError.
        editor: opens the text, and returns the saved text; None if it was not saved.
        again: asks whether to go on after a mistake.

    Raises:
        Failure: the operator gave up after a mistake.
    """
    while True:
        saved = editor(text)
        if saved is None:
            return []
        try:
            return read_text(saved)
        except MistakeError as mistake:
            if not again(str(mistake)):
                raise Failure(f"{mistake}; nothing was changed") from mistake
            text = saved
