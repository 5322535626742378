"""Output of commands: tables and sentences for people, or JSON for scripts."""

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial, reduce
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event
from typing import Any, NoReturn, override

import click
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ops.background import in_background
from ops.failure import INTERRUPTED, UNREAD, Failure

_LINE_SECONDS = 10.0
_WHOLE = ("id", "since")  # columns of a table that are short, and useless in two pieces
_WIDEST = 500  # columns of a table in a pipe, where it must not be cut
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
output_option = click.option(
    "-o", "--output", "file", type=click.Path(path_type=Path), help="File to write. Default: standard output."
)
DRY_RUN = "Dry run: nothing was changed."
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done without doing it.")


def with_options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a command several options, in this order."""
    return lambda command: reduce(lambda made, option: option(made), reversed(options), command)


@contextmanager
def explained_output() -> Iterator[None]:
    """End the command with one line if its output cannot be written, and without any if whoever read it left.

    Raises:
        Failure: the output cannot be written.
        click.exceptions.Exit: the reader left.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, *_FULL):
            raise
        with suppress(OSError):  # else the interpreter writes the rest as it ends, and fails again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            raise click.exceptions.Exit(UNREAD) from error
        raise Failure(f"the output cannot be written: {error.strerror}") from error


class _Console(Console):
    """A console that leaves it to the command what happens if its reader leaves."""

    @override
    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def console(*, stderr: bool = False) -> Console:
    """Return a console for output to people."""
    return _Console(stderr=stderr, highlight=False, soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """Print a line. A style applies only on a terminal with colours, and unless NO_COLOR is set."""
    if style:
        console().print(Text(text, style))
    elif isinstance(sys.stdout, FileProxy):  # above the progress bar
        sys.stdout.write(f"{text}\n")
    else:
        click.echo(text)


def note(text: str) -> None:
    """Print a line on standard error."""
    click.echo(text, err=True)


def show_json(value: Any) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, indent=2, default=str))


def show_json_line(value: Any) -> None:
    """Print one JSON value on a line of its own, at once, also in a pipe."""
    click.echo(json.dumps(value, default=repr))


def write(file: Path, text: str) -> None:
    """Write a file.

    Raises:
        Failure: it cannot be written.
    """
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        hint = "" if file.parent.is_dir() else f": create the folder first, `mkdir -p {file.parent}`"
        raise Failure(f"{file} cannot be written: {error.strerror}{hint}") from error


def check_folder(folder: Path) -> None:
    """Check that files can be written to a folder, which is made if it does not exist.

    Raises:
        Failure: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Failure(
            f"no file can be written to {folder}: {error.strerror}. Name another folder with --to"
        ) from error


def put(text: str, file: Path | None, said: str) -> None:
    """Print a text in UTF-8, as others read it from files. If a file is given, write the text there and print `said` instead."""
    if file is None:
        click.echo(text.encode(), nl=False)
    else:
        write(file, text)
        say(said)


@contextmanager
def progress(doing: str, *, hidden: bool, unit: str = "") -> Iterator[Callable[..., None]]:
    """Show progress on standard error: in place on a terminal, elsewhere as a line every ten seconds, whether something has changed or not.

    Yields a function that updates `description`, which is at first `doing`, and `completed`, the number of units.
    """
    out = console(stderr=True)
    if not hidden and not out.is_terminal:
        with _lines(doing, unit) as update:
            yield update
        return
    counted = (MofNCompleteColumn(),) if unit else ()
    columns = (TextColumn("{task.description}"), BarColumn(pulse_style="cyan"), *counted, TimeElapsedColumn())
    with Progress(
        *columns,
        console=out,
        disable=hidden,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else output would leave the pipe that it is meant for
    ) as shown:
        yield partial(shown.update, shown.add_task(doing, total=None))


@contextmanager
def _lines(doing: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show progress as lines."""
    said, began, ended = (doing, 0), time.monotonic(), Event()

    def update(*, description: str, completed: int = 0) -> None:
        nonlocal said
        said = description, completed

    def show() -> None:
        while not ended.wait(_LINE_SECONDS):
            description, completed = said
            counted = f": {completed:,} {unit}" if unit else ""
            click.echo(f"{description}{counted}, after {lasting(time.monotonic() - began)}", err=True)

    in_background(show)
    try:
        yield update
    finally:
        ended.set()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, folds: bool = False) -> Table:
    """Return a table, with numbers aligned right. If it `folds`, long texts wrap, except ids and times."""
    rows = [list(row) for row in rows]
    made = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        if folds and not numeric:
            made.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
        else:
            made.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(f"{cell:,}" if isinstance(cell, int | float) else str(cell) for cell in row))
    return made


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: fitted to the terminal, or at its full width in a pipe."""
    rows = list(rows)
    if not rows:
        return
    out = _Console(highlight=False)
    if not out.is_terminal:
        out.width = _WIDEST
    print_table(table(columns, rows, folds=out.is_terminal), out)


def print_table(made: Table, out: Console) -> None:
    """Print a table; in a pipe or a file, without the blanks that fill its lines."""
    if out.is_terminal:
        out.print(made)
        return
    with out.capture() as captured:
        out.print(made, no_wrap=True, crop=False)
    for line in captured.get().splitlines():
        out.out(line.rstrip())


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation, unless `--yes` was given. The answer no aborts the command.

    Raises:
        Failure: there is neither a terminal nor an answer on standard input.
        click.exceptions.Exit: Ctrl-C was pressed.
        click.Abort: the answer is no.
    """
    if yes:
        return
    is_agreed = agrees(question)
    if is_agreed is None:
        raise Failure("nothing was done, because there was no answer: without a terminal, add --yes")
    if not is_agreed:
        raise click.Abort


def agrees(question: str, *, default: bool = False) -> bool | None:
    """Return whether the answer to a question is yes; None if nobody answers.

    Raises:
        click.exceptions.Exit: Ctrl-C was pressed.
    """
    return _answered(lambda: click.confirm(question, default=default, err=True))


def ask(question: str, otherwise: str, *, yes: bool, hidden: bool = False) -> str:
    """Ask for a text, which is not shown if it is `hidden`, unless nothing may be asked (`yes`).

    Raises:
        Failure: nothing may be asked, or nobody answers. The clause `otherwise` names the option which does.
        click.exceptions.Exit: Ctrl-C was pressed.
    """
    answer: str | None = None
    if hidden and not yes and not sys.stdin.isatty():  # getpass would warn that it cannot hide what is typed
        click.echo(f"{question}: ", nl=False, err=True)
        if not (answer := sys.stdin.readline().strip()):
            click.echo(err=True)
    elif not yes:
        answer = _answered(lambda: str(click.prompt(question, hide_input=hidden, err=True)))
    if not answer:
        raise Failure(f"there was no answer to: {question}. {otherwise}")
    return answer


def _answered[T](asks: Callable[[], T]) -> T | None:
    """Return the answer to a question; None if nobody answers."""
    try:
        return asks()
    except click.Abort:
        click.echo(err=True)
        if sys.stdin.isatty():
            raise click.exceptions.Exit(INTERRUPTED) from None
        return None


def utc(seconds: float) -> str:
    """Return UNIX seconds as ISO 8601 in UTC, with milliseconds if they are not whole."""
    precision = "seconds" if seconds == int(seconds) else "milliseconds"
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def lasting(seconds: float) -> str:
    """Return a duration as text, in its two largest units: `1 h 15 min`."""
    rest, parts = int(seconds), []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return a count with its noun."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def short(number: float) -> str:
    """Return a number with three digits: `1.74 M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # where three digits are rounded up to it
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


yes_option: Callable[..., Any] = click.option(
    "--yes", "-y", is_flag=True, help="Do not ask for confirmation."
)


def printable(text: str) -> str:
    """Return a text with its unprintable characters escaped."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
