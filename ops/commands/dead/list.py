"""`sluice dead list`: lists dead rows."""

import click

from ops import screen
from ops.books.chunks import chunks
from ops.commands.dead.selecting import ACCOUNT, REASON, REJECTED, SINCE, TABLE, described_chunk
from ops.stack import Stack, works_on_stack
from worker.selection import Selection
from worker.states import State


@click.command("list")
@works_on_stack
@ACCOUNT
@TABLE
@REASON
@SINCE
@REJECTED
@screen.json_option
def command(
    stack: Stack,
    *,
    account: str | None,
    table: str | None,
    reason: str | None,
    since: float | None,
    rejected: bool,
    as_json: bool,
) -> None:
    """List dead rows, oldest first."""
    state = State.REJECTED if rejected else State.DEAD
    selection = Selection((state,), account, table, reason, since)
    found = sorted(chunks(stack.ledger(), selection), key=lambda chunk: chunk.since)
    if as_json:
        screen.show_json([described_chunk(chunk) for chunk in found])
        return
    if not found:
        screen.say(f"There are no matching {'rejected events' if rejected else 'dead rows'}.")
        return
    columns = ("id", "account", "table", "reason", "rows", "since", "Treasure Data says")
    screen.show_table(columns, [tuple(described_chunk(chunk).values()) for chunk in found])
