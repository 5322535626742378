"""Dead letters' rows in an editor, for `sluice redrive --edit`: one line of JSON per row."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ops import screen
from ops.failure import Failure
from worker.aside import SetAside
from worker.chunk import compress
from worker.edit import EditRefusedError, decoded, revised_row

MOST_TEXT = 4_000_000
"""Characters that are opened at once. An event of one dead letter fits Lambda's 6 MB then."""

_HEAD = """\
# A line is a row. Change what was wrong, save, and leave the editor.
# Keep the number and the order of the rows; event_id and received_at stay as they are.
# Dead letters of which no row was changed are left alone; without a change nothing is sent.
"""


class MistakenError(Exception):
    """The edited text cannot be taken; the message names the line."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: its object's name, where it stands, and a line for each row."""

    name: str
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edited:
    """A dead letter whose rows were changed: how many rows it has, and what the redrive is invoked with."""

    name: str
    rows: int
    event: dict[str, Any]


def letter(chunk: SetAside) -> Letter:
    """Return a dead letter as it is shown.

    Raises:
        Failure: its rows hold what JSON cannot.
    """
    try:
        lines = tuple(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in decoded(chunk.payload))
    except (EditRefusedError, TypeError, ValueError) as error:
        raise Failure(f"{chunk.name} cannot be shown as text: {error}") from error
    title = (
        f"{chunk.account}/{chunk.table}, {chunk.reason}, set aside {screen.utc(chunk.set_aside_at // 1000)}"
    )
    return Letter(chunk.name, title, lines)


def letters_of(chunks: Iterable[SetAside]) -> list[Letter]:
    """Return the dead letters that hold rows, as they are shown; what never became rows has none.

    Raises:
        Failure: it is too much to be edited at once, or holds what JSON cannot.
    """
    letters, total = [], 0
    for chunk in chunks:
        if chunk.payload_form == "rows":
            letters.append(letter(chunk))
            total += sum(map(len, letters[-1].lines))
        if total > MOST_TEXT:
            raise Failure(
                f"more than {MOST_TEXT:,} characters cannot be edited at once: "
                "narrow them with --account, --table, --reason or --since"
            )
    return letters


def text_of(letters: Sequence[Letter]) -> str:
    """Return what is opened in the editor."""
    parts = [_HEAD]
    for number, one in enumerate(letters, 1):
        parts += [f"\n# {number} of {len(letters)}: {one.title}\n", *(f"{line}\n" for line in one.lines)]
    return "".join(parts)


def read(letters: Sequence[Letter], text: str) -> list[Edited]:
    """Return the dead letters of which a row was changed, each with what the redrive is to be told.

    Raises:
        MistakenError: the text has another number of rows, or one that breaks the rules of rows.
    """
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.split("\n"), 1)  # not at what else Unicode calls an end of line
        if line.strip() and not line.lstrip().startswith("#")
    ]
    expected = sum(len(one.lines) for one in letters)
    if len(lines) != expected:
        raise MistakenError(
            f"there were {screen.plural(expected, 'row')} and are {len(lines):,}: rows can be changed, not added or removed"
        )
    coming = iter(lines)
    return [edited for one in letters if (edited := _edited(one, [next(coming) for _ in one.lines]))]


def _edited(one: Letter, lines: Sequence[tuple[int, str]]) -> Edited | None:
    if all(new == old for (_, new), old in zip(lines, one.lines, strict=True)):
        return None
    payload = b"".join(_row(number, old, new) for (number, new), old in zip(lines, one.lines, strict=True))
    rows = b64encode(compress(payload)).decode()
    return Edited(one.name, len(lines), {"edit": {"object": one.name, "rows": rows}})


def _row(number: int, old: str, new: str) -> bytes:
    """Return a row, checked by the rules that the redrive checks it by."""
    try:
        row = json.loads(new, parse_constant=_refuse)
    except ValueError as error:
        raise MistakenError(f"line {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise MistakenError(f"line {number} is no JSON object")
    try:
        return revised_row(json.loads(old), row)
    except EditRefusedError as refused:
        raise MistakenError(f"line {number}: {refused}") from refused


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value")


def edit(
    letters: Sequence[Letter], editor: Callable[[str], str | None], again: Callable[[str], bool]
) -> list[Edited]:
    """Have a person edit dead letters and return those that were changed.

    Args:
        letters: what is opened.
        editor: is handed the text, and returns it as it was saved; None where it was not.
        again: asks whether the person goes on with a text in which something is wrong.
    """
    text = text_of(letters)
    while True:
        saved = editor(text)
        if saved is None:
            return []
        try:
            return read(letters, saved)
        except MistakenError as mistake:
            if not again(str(mistake)):
                raise Failure(f"{mistake}; nothing was changed") from mistake
            text = saved
