"""`sluice tail`: shows events as they arrive."""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click
from rich.text import Text

from ops import known_accounts, personal_data, screen
from ops.events.condition import ColumnCondition
from ops.events.event_tail import Tail
from ops.events.seen_event import EventFilter, Kind, Notice, SeenEvent, text_of
from ops.failure import INTERRUPTED
from ops.moment import LENGTH, MOMENT
from ops.screen import printable
from ops.stack import Stack, works_on_stack

_STYLES = {Kind.EVENT: "", Kind.REJECTED: "red", Kind.REFUSED: "red"}
_IN_FRONT = ("time", "event_id", "received_at")  # shown elsewhere in the line, or told by its time


@click.command("tail")
@works_on_stack
@click.argument("conditions", metavar="[COLUMN=VALUE]...", type=ColumnCondition(), nargs=-1)
@click.option("--account", default="", help="Only events of this account.")
@click.option("--table", default="", help="Only events of this table.")
@click.option("--rejected", is_flag=True, help="Only rejected events and refused requests.")
@click.option(
    "--since",
    type=MOMENT,
    help="Begin at this time, such as 10min. Shards are read side by side, so earlier events are only roughly in order. Default: now.",
)
@click.option("--for", "seconds", type=LENGTH, help="Stop after this long, such as 30s.")
@click.option("--raw", is_flag=True, help="Show personal data such as addresses and visitor ids.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, as in a pipe.")
def command(
    stack: Stack,
    *,
    conditions: tuple[tuple[str, str], ...],
    account: str,
    table: str,
    rejected: bool,
    since: float | None,
    seconds: float | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Show events as they arrive, with the reason for each that is rejected. Ctrl-C stops it.

    COLUMN=VALUE selects events by a column; visitor=ID is short for td_client_id=ID. Requests refused as a whole, such as those
    with an invalid key, belong to no account. They are shown unless you select by account, table or column.
    """
    known_accounts.note(stack, account)
    wanted = EventFilter(account, table, dict(conditions), rejected)
    tail = Tail.of(stack, since=since, wanted=wanted, scrubs=not raw)
    began = time.time()
    end = float("inf") if seconds is None else began + seconds
    is_plain = as_json or not sys.stdout.isatty()
    out = screen.console()
    counts: Counter[Kind] = Counter()
    if not is_plain:
        screen.note("Waiting for events. Press Ctrl-C to stop.")
    code = 0
    try:
        for found in tail.events(lambda: end):
            if isinstance(found, Notice):
                screen.note(f"Note: {found.said}")
                continue
            counts[found.kind] += 1
            if is_plain:
                screen.show_json_line(described(found))
            else:
                line = Text(line_of(found), _STYLES[found.kind], no_wrap=True, overflow="ellipsis")
                out.print(line, soft_wrap=False, crop=True)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if counts and not raw:
        screen.note(personal_data.EXPLANATION)
    screen.note(f"{_summary(counts)} in {screen.lasting(time.time() - began)}.")
    raise click.exceptions.Exit(code)


def described(seen: SeenEvent) -> dict[str, Any]:
    """Return an event or a refused request as a JSON object, without empty members."""
    members = {
        "kind": seen.kind.value,
        "at": screen.utc(seen.at),
        "account": seen.account,
        "table": seen.table,
        "event_id": seen.event_id,
        "code": seen.code,
        "path": seen.path,
        "request_id": seen.request_id,
        "shard": seen.shard,
        "sequence_number": seen.sequence_number,
    }
    return {name: value for name, value in members.items() if value} | (
        {"row": dict(seen.row)} if seen.row else {}
    )


def line_of(seen: SeenEvent) -> str:
    """Return an event or a refused request as one line, with control characters of the sender escaped."""
    at = datetime.fromtimestamp(seen.at, UTC).strftime("%H:%M:%S")
    words: tuple[str, ...]
    match seen.kind:
        case Kind.REFUSED:
            words = ("REFUSED", seen.code, seen.path, f"request={seen.request_id}" if seen.request_id else "")
        case Kind.REJECTED:
            words = ("REJECTED", seen.code, seen.of, *_columns(seen.row))
        case _:
            words = (seen.of, *_columns(seen.row), f"event_id={seen.event_id}")
    return printable(" ".join((at, *filter(None, words))))


def _columns(row: Mapping[str, Any]) -> list[str]:
    """Return the columns as `name=value`, the sender's own before those that clients add (`td_…`)."""
    names = [name for name in row if name not in _IN_FRONT]
    names.sort(key=lambda name: name.startswith("td_"))
    return [f"{name}={_word(row[name])}" for name in names]


def _word(value: Any) -> str:
    text = text_of(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


def _summary(counts: Counter[Kind]) -> str:
    events = screen.plural(counts[Kind.EVENT], "event")
    requests = screen.plural(counts[Kind.REFUSED], "refused request")
    return f"{events}, {counts[Kind.REJECTED]:,} rejected, {requests}"
