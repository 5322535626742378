"""`sluice dead show`: shows dead rows."""

import json
from collections.abc import Iterator
from typing import Any

import click

from ops import screen
from ops.books.chunks import ListedChunk, chunks
from ops.editing import rejected_events
from ops.failure import Failure
from ops.selecting import listed
from ops.stack import Stack, works_on_stack
from shared.errors import InvalidObjectError
from worker.rows import values
from worker.selection import Selection
from worker.states import State


@click.command("show")
@click.argument("dead_id", metavar="ID")
@works_on_stack
@screen.json_option
def command(stack: Stack, dead_id: str, *, as_json: bool) -> None:
    """Show the dead rows that `sluice dead list` lists as ID, one line of JSON per row. What never became rows is shown as it arrived.

    Each rejected event follows a line with # and the message that its sender received. Standard error says why they are dead.
    """
    every = chunks(stack.ledger(), Selection((State.DEAD, State.REJECTED)))
    found = [chunk for chunk in every if chunk.id.startswith(dead_id)]
    if len(found) != 1:
        how = f"{len(found)} entries have ids that begin" if found else "no dead rows have an id that begins"
        raise Failure(f"{how} with {dead_id}: `sluice dead list {stack.option}` lists them")
    lines = _lines(found[0], stack)
    if as_json:
        screen.show_json(listed(found[0]) | {"lines": list(lines)})
        return
    click.echo(f"Note: {_about(found[0])}", err=True)
    for line in lines:
        click.echo(line)


def _about(chunk: ListedChunk) -> str:
    """Return what the rows are and why they are there, in Treasure Data's own words if it refused them."""
    key = chunk.key
    said = f' Treasure Data says: "{chunk.entry.words}"' if chunk.entry.words else ""
    what = screen.plural(chunk.rows, "event" if key.group.is_rejected else "row")
    return screen.printable(
        f"{what} of {key.account}.{key.group.label}: {chunk.reason}, since {screen.utc(int(chunk.since))}.{said}"
    )


def _lines(chunk: ListedChunk, stack: Stack) -> Iterator[str]:
    """Yield a line for each row, or for each item that never became one. Rejected events follow a line with their message."""
    try:
        if chunk.key.group.is_rejected:
            yield from rejected_events.lines(rejected_events.originals(stack, chunk))
        else:
            payload = stack.objects().payload(chunk.span, chunk.key)
            yield from (_text(item) for item, _ in values(payload))
    except InvalidObjectError as error:
        raise Failure(f"its rows cannot be read: {error}") from error


def _text(item: Any) -> str:
    if isinstance(item, bytes):  # as it arrived
        return item.decode(errors="backslashreplace")
    return json.dumps(item, ensure_ascii=False, default=repr)
