"""`sluice wait` and `sluice status --complete`: the time up to which rows are complete."""

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
_UNKNOWN = "unknown"


def section(found: Completeness) -> tuple[str, tuple[str, ...], list[tuple[object, ...]]]:
    """Return the watermarks as a table: its title, columns and rows."""
    title = f"Complete: {found.obstacle or 'all rows received before this time are in Treasure Data or set aside'}"
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
    """Return the watermarks as a JSON object."""
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
    """Wait until a table is complete up to a time: all rows received before it are in Treasure Data.

    Exit codes: 0 complete, 3 complete except for set-aside rows, 4 not complete within --timeout. The time is when Sluice
    received the rows (the column received_at), because clients that were offline send events with older times.
    """
    if not names.is_account(account):
        raise click.UsageError(
            f"{account!r} is not a valid account name: use 3 to 64 characters of a-z, 0-9 and _"
        )
    if not names.is_table(table):
        raise click.UsageError(
            f"{table!r} is not a valid table name: use 3 to 128 characters of a-z, 0-9 and _"
        )
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
        watermarks: the source of watermarks.
        clock: the time, and sleep.
        tell: called with the reason for waiting whenever that changes.
    """

    def __init__(self, watermarks: Watermarks, clock: Clock, tell: Callable[[str], None]) -> None:
        self._watermarks = watermarks
        self._clock = clock
        self._tell = tell

    def until(self, account: str, table: str, moment: float, deadline: float | None) -> Completeness:
        """Wait until all of a table's rows that were received before a moment are complete, and return the watermarks.

        Args:
            account: the account.
            table: its table.
            moment: UNIX seconds.
            deadline: UNIX seconds at which to stop waiting; None for never.
        """
        said = ""
        while True:
            found = self._take()
            before = found.before(account, table)
            if before is not None and before >= moment * 1000:
                if (account, table) not in found.tables:
                    self._tell(f"no rows of {account}.{table} were received recently. Check the name.")
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
        """Take the watermarks. Treat a temporary error as a reason to wait."""
        try:
            return self._watermarks.take()
        except FORESEEN as error:
            if is_lasting(error):
                raise
            return Completeness(self._clock.now(), None, obstacle=explained(error).message)


def _sentence(found: Completeness, account: str, table: str, until: float, *, is_complete: bool) -> str:
    name, before = f"{account}.{table}", found.before(account, table)
    if not is_complete:
        known = f"only before {_utc(before)}" if before is not None else found.obstacle
        return f"{name} is not complete before {screen.utc(until)}: {known}."
    aside = found.set_aside(account, table)
    counts = [f"{aside[state]:,} {kind}" for kind, state in KINDS.items() if aside[state]]
    but = f", except for set-aside rows: {', '.join(counts)}. `sluice redrive` sends them" if counts else ""
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
    """Return UNIX milliseconds as ISO 8601; None if they are unknown."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
