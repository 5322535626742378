"""`sluice dead list`: lists dead rows."""

from typing import Any

import click

from ops import known_accounts, screen
from ops.books.chunks import chunks
from ops.selecting import listed, rejected_option, selects_rows
from ops.stack import Stack, works_on_stack
from worker.selection import Selection
from worker.states import State


@click.command("list")
@works_on_stack
@selects_rows
@rejected_option
@screen.json_option
def command(stack: Stack, *, rejected: bool, as_json: bool, **selected: Any) -> None:
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
