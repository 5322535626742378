"""`sluice wait`, and what `sluice status --complete` shows: up to when rows are complete."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from ops import screen
from ops.failure import FORESEEN, TIMED_OUT, UNFINISHED, explained, is_lasting
from ops.moment import LENGTH, MOMENT
from ops.set_aside import KINDS
from ops.stack import Stack, works_on_stack
from shared import names
from shared.clock import Clock, SystemClock
from worker.watermark import Completeness, Watermarks

_SHORTEST_PAUSE, _LONGEST_PAUSE = 2.0, 15.0
_UNKNOWN = "not known"


def section(found: Completeness) -> tuple[str, tuple[str, ...], list[tuple[object, ...]]]:
    """Return what is complete as a table: its title, columns and rows."""
    title = f"Complete: {found.obstacle or 'received before that time, and in Treasure Data or set aside'}"
    columns = ("account", "table", "complete before", "ago", *KINDS)
    rows: list[tuple[object, ...]] = []
    for account, table in sorted(found.tables):
        aside = found.set_aside(account, table)
        before = found.before(account, table)
        ago = "" if before is None else screen.lasting(found.at - before / 1000)
        counts = (aside[state] for state in KINDS.values())
        rows.append((account, table, _utc(before) or _UNKNOWN, ago, *counts))
    others = "" if found.horizon is None else screen.lasting(found.at - found.horizon / 1000)
    rows.append(("others", "", _utc(found.horizon) or _UNKNOWN, others, *("" for _ in KINDS)))
    return title, columns, rows


def document(found: Completeness) -> dict[str, Any]:
    """Return what is complete as JSON's types."""
    return {
        "at": screen.utc(round(found.at, 3)),
        "before": _utc(found.horizon),
        "unknown": found.obstacle or None,
        "tables": [_table_document(found, *table) for table in sorted(found.tables)],
    }


@click.command("wait")
@works_on_stack
@click.option("--account", required=True, help="The account.")
@click.option("--table", required=True, help="Its table.")
@click.option(
    "--until",
    type=MOMENT,
    required=True,
    help="Wait until all rows received before this time are in Treasure Data.",
)
@click.option("--timeout", type=LENGTH, help="Give up after this time, with exit code 4. Default: never.")
@screen.json_option
@click.pass_context
def command(
    ctx: click.Context,
    stack: Stack,
    *,
    account: str,
    table: str,
    until: float,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Wait until a table is complete up to a time: all rows that were received before are in Treasure Data.

    Ends with 0 then, with 3 if rows of the table are set aside, and with 4 after --timeout. The time is that of receipt, the
    column received_at: clients that were offline send rows later whose own time is older.
    """
    if not names.is_account(account):
        raise click.UsageError(f"{account!r} is not an account's name: 3 to 64 characters of a-z, 0-9 and _")
    if not names.is_table(table):
        raise click.UsageError(f"{table!r} is not a table's name: 3 to 128 characters of a-z, 0-9 and _")
    clock = SystemClock()

    def tell(text: str) -> None:
        click.echo(f"Note: {text}", err=True)

    waiting = Wait(stack.watermarks(), clock, (lambda _: None) if as_json else tell)
    found = waiting.until(account, table, until, None if timeout is None else clock.now() + timeout)
    before = found.before(account, table)
    is_complete = before is not None and before >= until * 1000
    aside = found.set_aside(account, table).total()
    if as_json:
        screen.show_json({"complete": is_complete} | _table_document(found, account, table))
    else:
        screen.say(_sentence(found, account, table, until, is_complete=is_complete))
    ctx.exit(UNFINISHED if is_complete and aside else 0 if is_complete else TIMED_OUT)


class Wait:
    """Waits until a table is complete.

    Args:
        watermarks: tell up to when it is.
        clock: tells the time and waits.
        tell: is told what is waited for, as often as that changes.
    """

    def __init__(self, watermarks: Watermarks, clock: Clock, tell: Callable[[str], None]) -> None:
        self._watermarks = watermarks
        self._clock = clock
        self._tell = tell

    def until(self, account: str, table: str, moment: float, deadline: float | None) -> Completeness:
        """Return up to when rows are complete, as soon as all of a table's that were received before a moment are.

        Args:
            account: the account.
            table: its table.
            moment: UNIX seconds.
            deadline: UNIX seconds after which nothing is waited for any more; None for never.
        """
        said = ""
        while True:
            found = self._take()
            before = found.before(account, table)
            if before is not None and before >= moment * 1000:
                if (account, table) not in found.tables:
                    self._tell(f"no rows of {account}.{table} were received lately: is that its name?")
                return found
            now = self._clock.now()
            if deadline is not None and now >= deadline:
                return found
            reason = found.obstacle or ("rows are pending" if (account, table) in found.pending else "")
            if reason and reason != said:
                self._tell(f"waiting: {reason}")
            said = reason
            away = _SHORTEST_PAUSE if before is None else moment - before / 1000
            pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, away))
            self._clock.sleep(pause if deadline is None else max(0.0, min(pause, deadline - now)))

    def _take(self) -> Completeness:
        """Take a watermark; what passes by itself is waited for."""
        try:
            return self._watermarks.take()
        except FORESEEN as error:
            if is_lasting(error):
                raise
            return Completeness(self._clock.now(), None, obstacle=explained(error).message)


def _sentence(found: Completeness, account: str, table: str, until: float, *, is_complete: bool) -> str:
    name, before = f"{account}.{table}", found.before(account, table)
    if not is_complete:
        known = f"it is complete before {_utc(before)}" if before is not None else found.obstacle
        return f"{name} is not complete before {screen.utc(until)}: {known}."
    aside = found.set_aside(account, table)
    counts = [f"{aside[state]:,} {kind}" for kind, state in KINDS.items() if aside[state]]
    but = (
        f", but for rows that are set aside: {', '.join(counts)}. `sluice redrive` sends them"
        if counts
        else ""
    )
    return f"{name} is complete before {screen.utc(until)}{but}."


def _table_document(found: Completeness, account: str, table: str) -> dict[str, Any]:
    before = found.before(account, table)
    aside = found.set_aside(account, table)
    return {
        "account": account,
        "table": table,
        "before": _utc(before),
        "lag_seconds": None if before is None else round(found.at - before / 1000, 3),
        "aside": {kind: aside[state] for kind, state in KINDS.items()},
        "unknown": found.obstacle or None,
    }


def _utc(milliseconds: int | None) -> str | None:
    """Return UNIX milliseconds as people read them; None where they are not known."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
