"""`sluice dead`: lists dead letters, shows their rows, and drops those that nobody needs."""

import hashlib
import json
from typing import Any

import click
import msgpack

from ops import redrive, repair, screen
from ops.command_group import CommandGroup
from ops.failure import Failure
from ops.moment import MOMENT
from ops.set_aside import SetAsideChunk, chunks
from ops.stack import Stack, works_on_stack
from shared.errors import InvalidObjectError
from worker.chunk import offsets
from worker.delivery import State
from worker.selection import Selection
from worker.set_aside import SetAsideStore

_ID_DIGITS = 10
_ACCOUNT = click.option("--account", help="Only rows of this account.")
_TABLE = click.option("--table", help="Only rows of this table.")
_REASON = click.option("--reason", help="Only rows set aside for this reason, as `sluice status` shows it.")
_REJECTED = click.option("--rejected", is_flag=True, help="Rejected events instead of dead letters.")
_SINCE = click.option("--since", type=MOMENT, help="Only rows set aside since this time.")


@click.group("dead", cls=CommandGroup)
def group() -> None:
    """List dead letters, show their rows, or drop them. `sluice redrive --kind dead` sends them."""


@group.command("list")
@works_on_stack
@_ACCOUNT
@_TABLE
@_REASON
@_SINCE
@_REJECTED
@screen.json_option
def list_(
    stack: Stack,
    *,
    account: str | None,
    table: str | None,
    reason: str | None,
    since: float | None,
    rejected: bool,
    as_json: bool,
) -> None:
    """List dead letters, oldest first."""
    state = State.REJECTED if rejected else State.DEAD_LETTER
    selection = Selection((state,), account, table, reason, since)
    found = sorted(chunks(stack.ledger(), selection), key=lambda chunk: chunk.entry.aside_at)
    if as_json:
        screen.show_json([_described(chunk) for chunk in found])
        return
    if not found:
        screen.say(f"There are no matching {'rejected events' if rejected else 'dead letters'}.")
        return
    columns = ("id", "account", "table", "reason", "rows", "set aside")
    screen.show_table(columns, [tuple(_described(chunk).values()) for chunk in found])


@group.command()
@click.argument("dead_id", metavar="ID")
@works_on_stack
@screen.json_option
def show(stack: Stack, dead_id: str, *, as_json: bool) -> None:
    """Show the rows of the dead letter ID, one line of JSON per row. What never became rows is shown as it arrived.

    Each rejected event follows a line with # and the message that its sender received.
    """
    found = [
        chunk
        for chunk in chunks(stack.ledger(), Selection((State.DEAD_LETTER, State.REJECTED)))
        if id_of(chunk).startswith(dead_id)
    ]
    if len(found) != 1:
        how = (
            "no dead letter has an id that begins"
            if not found
            else f"{len(found)} dead letters have ids that begin"
        )
        raise Failure(f"{how} with {dead_id}: `sluice dead list {stack.option}` lists them")
    lines = _lines(found[0], stack.set_aside_store())
    if as_json:
        screen.show_json(_described(found[0]) | {"lines": list(lines)})
        return
    for line in lines:
        click.echo(line)


@group.command()
@works_on_stack
@_ACCOUNT
@_TABLE
@_REASON
@_SINCE
@_REJECTED
@click.option("--all", "everything", is_flag=True, help="Drop all of them.")
@screen.dry_run_option
@screen.yes_option
@screen.json_option
@click.pass_context
def drop(ctx: click.Context, /, stack: Stack, *, everything: bool, rejected: bool, **options: Any) -> None:
    """Drop dead letters permanently, after a confirmation. The reconciliation counts them as dropped."""
    narrowed = any(options[name] is not None for name in ("account", "table", "reason", "since"))
    if not narrowed and not everything:
        raise click.UsageError(
            "select what to drop with --account, --table, --reason or --since, or use --all"
        )
    names = ("rejected" if rejected else "dead",)
    redrive.run(ctx, stack, names=names, decision="drop", edits=False, **options)


def id_of(chunk: SetAsideChunk) -> str:
    """Return a chunk's id on the command line."""
    place = f"{chunk.span.chain.name}|{chunk.span.after}|{chunk.key.name}"
    return hashlib.sha256(place.encode()).hexdigest()[:_ID_DIGITS]


def _lines(chunk: SetAsideChunk, store: SetAsideStore) -> list[str]:
    """Return a line for each row, or for each item that never became one. Rejected events follow a line with their message.

    Raises:
        Failure: its object is gone or damaged.
        BucketUnavailableError: the bucket cannot be reached.
    """
    if chunk.key.group.is_rejected and not chunk.entry.digest:
        raise Failure("there are no copies of these events: they exceeded the number that is kept")
    try:
        stored = store.get(chunk.span, chunk.key, chunk.entry.edit, chunk.entry.digest)
    except InvalidObjectError as error:
        raise Failure(f"its object cannot be read: {error}. It may just have been delivered") from error
    if chunk.key.group.is_rejected:
        return list(repair.lines(repair.originals(stored.payload)))
    begin, end = offsets(stored.payload, chunk.key.within(stored.rows))
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(stored.payload[begin:end])
    return [_text(item) for item in unpacker]


def _text(item: Any) -> str:
    if isinstance(item, bytes):  # as it arrived
        return item.decode(errors="backslashreplace")
    return json.dumps(item, ensure_ascii=False, default=repr)


def _described(chunk: SetAsideChunk) -> dict[str, Any]:
    return {
        "id": id_of(chunk),
        "account": chunk.key.account,
        "table": chunk.key.group.label,
        "reason": chunk.entry.reason,
        "rows": chunk.entry.rows,
        "set_aside": screen.utc(chunk.entry.aside_at // 1000),
    }
