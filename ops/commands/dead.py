"""`sluice dead`: lists dead rows, shows them, and drops those that nobody needs."""

import json
from collections.abc import Iterator
from typing import Any

import click

from ops import known_accounts, screen
from ops.books.chunks import ListedChunk, chunks
from ops.command_group import CommandGroup
from ops.commands import redrive
from ops.editing import rejected_events
from ops.failure import Failure
from ops.selecting import listed, rejected_option, selects_rows
from ops.stack import Stack, works_on_stack
from shared.errors import InvalidObjectError
from worker.rows import values
from worker.selection import Selection
from worker.states import State

group = CommandGroup(
    "dead", help="List dead rows, show them, or drop them. `sluice redrive --kind dead` sends them."
)


@group.command("drop")
@works_on_stack
@selects_rows
@rejected_option
@click.option(
    "--waiting",
    is_flag=True,
    help="Waiting rows instead of dead rows. Those that Treasure Data may have stay.",
)
@click.option("--all", "everything", is_flag=True, help="Drop all of them.")
@screen.dry_run_option
@screen.yes_option
@screen.json_option
def drop(
    stack: Stack,
    *,
    rejected: bool,
    waiting: bool,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **selected_by: Any,
) -> None:
    """Drop dead rows permanently, after a confirmation. The reconciliation counts them as dropped."""
    if all(value is None for value in selected_by.values()) and not everything:
        raise click.UsageError(
            "select what to drop with --account, --table, --reason or --since, or use --all"
        )
    if rejected and waiting:
        raise click.UsageError("use either --rejected or --waiting")
    state = State.REJECTED if rejected else State.WAITING if waiting else State.DEAD
    opened = redrive.shown(stack, Selection((state,), **selected_by), dry_run=dry_run, as_json=as_json)
    if opened:
        rows = sum(one.rows for one in opened)
        said = "it is" if rows == 1 else "they are"
        screen.confirm(f"This gives up {screen.plural(rows, 'row')}: {said} never sent. Continue?", yes=yes)
        raise click.exceptions.Exit(
            redrive.carry_out(stack, (state,), opened, {"decision": "drop"}, as_json=as_json)
        )


@group.command("list")
@works_on_stack
@selects_rows
@rejected_option
@screen.json_option
def list_(stack: Stack, *, rejected: bool, as_json: bool, **selected: Any) -> None:
    """List dead rows, oldest first."""
    state = State.REJECTED if rejected else State.DEAD
    selection = Selection((state,), **selected)
    found = sorted(chunks(stack.ledger(), selection), key=lambda chunk: chunk.since)
    if as_json:  # a program that polls for dead rows of an unknown account gets an empty list
        screen.show_json([listed(chunk) for chunk in found])
        return
    if not found:
        known_accounts.check(stack, selection.account)
        screen.say(f"There are no matching {'rejected events' if rejected else 'dead rows'}.")
        return
    columns = ["id", "account", "table", "reason", "rows", "since"]
    if any(chunk.entry.words for chunk in found):
        columns.append("Treasure Data says")
    # the label of rejected events and of what never became rows repeats the reason
    shown = [(listed(chunk) | {"table": chunk.key.group.table or "-"}).values() for chunk in found]
    screen.show_table(columns, [tuple(cells)[: len(columns)] for cells in shown])


@group.command("show")
@click.argument("dead_id", metavar="ID")
@works_on_stack
@screen.json_option
def show(stack: Stack, dead_id: str, *, as_json: bool) -> None:
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
    screen.note(f"Note: {_about(found[0])}")
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
