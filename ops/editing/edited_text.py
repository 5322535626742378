"""What an operator edits for `sluice redrive --edit`: a text with a line for each row or event, and what has changed in it."""

import os
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from ops import screen
from ops.books.chunks import ListedChunk
from ops.failure import Failure
from shared.errors import EditRefusedError
from worker.rows import compress

MOST_TEXT = 4_000_000
"""The most characters to edit at once, so that the sender's input for one chunk fits Lambda's 6 MB."""


@dataclass(frozen=True, slots=True)
class Change:
    """A chunk in which something was changed: its title, how many rows or events to send and to give up, and the sender's input."""

    title: str
    count: int
    event: dict[str, Any]
    dropped: int = 0


def change_of(
    chunk: ListedChunk, title: str, count: int, sent: tuple[str, str, bytes], dropped: int = 0
) -> Change:
    """Return a change. `sent` is what to ask of the sender, and the name and the content of the member with the new rows."""
    do, member, payload = sent
    place = {"chain": chunk.span.chain.name, "after": chunk.span.after, "chunk": chunk.key.name}
    packed = b64encode(compress(payload)).decode()
    return Change(title, count, {do: {**place, member: packed}}, dropped)


def limited[T](chunks: Iterable[T], texts: Callable[[T], Iterable[str]]) -> list[T]:
    """Return chunks, if their texts are not too long for one edit.

    Raises:
        Failure: it is.
    """
    found, total = [], 0
    for one in chunks:
        found.append(one)
        total += sum(map(len, texts(one)))
        if total > MOST_TEXT:
            raise Failure(
                f"more than {MOST_TEXT:,} characters cannot be edited at once: "
                "select less with --account, --table, --reason or --since"
            )
    return found


def lines_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are neither empty nor comments, each with its number."""
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also split at Unicode's separators
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


class Editor:
    """The operator's editor, and what was saved last in it."""

    def __init__(self) -> None:
        self._saved: str | None = None

    def ask(self, text: str, read: Callable[[str], list[Change]]) -> list[Change]:
        """Let the operator edit a text until it is valid, and return the changes: none if it was not saved. `read` raises EditRefusedError.

        Raises:
            Failure: the operator gave up after a mistake, or the editor does not work.
        """
        while (edited := self._open(text)) is not None:
            text = self._saved = edited
            try:
                return read(text)
            except EditRefusedError as mistake:
                screen.note(str(mistake))
                if not screen.agrees("Edit again?", default=True):
                    raise Failure(f"{mistake}; nothing was changed") from mistake
        return []

    def _open(self, text: str) -> str | None:
        try:
            return click.edit(text, extension=".jsonl")
        except click.ClickException as error:
            raise Failure(
                f"{error.message}: name an editor that works here in the variable VISUAL"
            ) from error

    def keep(self) -> None:
        """Put what was saved, if anything, into a file that only this user may read."""
        if self._saved is not None:
            handle, name = tempfile.mkstemp(".jsonl", "sluice-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self._saved)
            screen.note(f"Your edits are in {name}.")
            self._saved = None
