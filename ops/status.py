"""`sluice status`: a one-line summary, then the details behind it."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import click
from rich.live import Live
from rich.text import Text

from ops import screen
from ops.accounting import Balance, Rows
from ops.failure import UNFINISHED
from ops.look import Look, StackState
from ops.moment import MOMENT
from ops.notes import Note
from ops.set_aside import KINDS
from ops.stack import Stack, works_on_stack
from worker.delivery import State

_WATCH_SECONDS = 5.0
_ERRORS = 10
_COLUMNS = {
    "delivered": State.DELIVERED,
    **KINDS,
    "in flight": State.PENDING,
    "dropped": State.DROPPED,
    "missing": State.MISSING,
}
_RARE = (State.DROPPED, State.MISSING)  # shown where there are any


@click.command("status")
@works_on_stack
@click.option(
    "--since", type=MOMENT, help="Also reconcile rows planned since this time, by account and table."
)
@click.option("--until", type=MOMENT, help="Reconcile only rows planned before this time.")
@click.option("--all", "everything", is_flag=True, help="Also reconcile everything in the ledger.")
@click.option("--watch", is_flag=True, help="Refresh every five seconds until Ctrl-C.")
@screen.json_option
@click.pass_context
def command(
    ctx: click.Context,
    stack: Stack,
    *,
    since: float | None,
    until: float | None,
    everything: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Show the state of a stack: backlog, rate, set-aside rows, open spans, failing databases, recent errors.

    --since and --all also reconcile: received = delivered + set aside + in flight. This reads the whole ledger.
    """
    look = Look(stack)
    balanced = everything or since is not None or until is not None
    if watch:
        _watch(look, stack.option, since, until, balanced=balanced)
        return
    state = look.state(since, until, balanced=balanced)
    if as_json:
        screen.show_json(document(state))
    else:
        screen.say(state.verdict)
        _show(state, stack.option)
    ctx.exit(UNFINISHED if state.faults else 0)


def _watch(look: Look, option: str, since: float | None, until: float | None, *, balanced: bool) -> None:
    out = screen.console()
    with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
        while True:
            state = look.state(since, until, balanced=balanced)
            with out.capture() as captured:
                out.print(state.verdict, style="bold")
                for title, columns, rows in _tables(state, option):
                    if rows:
                        out.print(f"\n{title}")
                        out.print(screen.table(columns, rows))
            live.update(Text.from_ansi(captured.get()), refresh=True)
            time.sleep(_WATCH_SECONDS)


def _show(state: StackState, option: str) -> None:
    for title, columns, rows in _tables(state, option):
        if rows:
            screen.say(f"\n{title}")
            screen.show_table(columns, rows)


def _tables(
    state: StackState, option: str
) -> Iterator[tuple[str, tuple[str, ...], list[tuple[object, ...]]]]:
    yield (
        f"Stream ({screen.plural(state.in_queue, 'envelope')} in the overflow queue)",
        ("shard", "behind", "records", "rows in open spans", "rows/s"),
        [
            (
                shard.shard,
                screen.lasting(shard.behind_seconds),
                shard.records if shard.is_complete else f"{shard.records:,}+",
                shard.open_rows,
                shard.rows_per_second,
            )
            for shard in state.shards
        ],
    )
    yield (
        "Set aside" if state.aside_is_complete else "Set aside, as far as it was counted",
        ("kind", "account", "reason", "rows"),
        [(*place, rows) for place, rows in sorted(state.aside.items())],
    )
    yield (
        "Sick databases",
        ("database", "since", "reason"),
        [(one.database, screen.utc(one.since // 1000), one.reason) for one in state.breakers],
    )
    yield (
        "Open spans" if state.open.is_complete else "Open spans, as far as the ledger was looked through",
        ("shard", "since", "rows", "go on with"),
        [
            (one.shard, screen.utc(int(one.planned_at)), one.rows, one.command(option))
            for one in state.open.spans
        ],
    )
    yield "Last errors, of one hour", ("function", "times", "last", "what", "why"), _errors(state.notes)
    yield "Logs that could not be read", ("log",), [(one,) for one in state.unreadable]
    if state.balance is not None:
        yield from _balanced(state.balance)


def _errors(notes: list[Note]) -> list[tuple[object, ...]]:
    """Return a line for each kind of trouble, the latest first."""
    times = Counter((note.function, note.what, note.why) for note in notes)
    last = {(note.function, note.what, note.why): note.at for note in notes}
    latest = sorted(last, key=lambda kind: last[kind], reverse=True)[:_ERRORS]
    return [(kind[0], times[kind], last[kind], *kind[1:]) for kind in latest]


def _balanced(balance: Balance) -> Iterator[tuple[str, tuple[str, ...], list[tuple[object, ...]]]]:
    found = (*balance.tables.values(), *balance.forced.values())
    columns = {
        name: state
        for name, state in _COLUMNS.items()
        if state not in _RARE or any(rows.states[state] for rows in found)
    }
    names = ("account", "table", "received", *columns, "adds up")

    def line(account: str, table: str, rows: Rows) -> tuple[object, ...]:
        counts = (rows.states[state] for state in columns.values())
        return (account, table, rows.received, *counts, "yes" if rows.adds_up else "NO")

    lines = [line(*place, rows) for place, rows in sorted(balance.tables.items())]
    yield "Reconciliation in rows", names, [*lines, line("all", "", balance.total)]
    again = [line(*place, rows) for place, rows in sorted(balance.forced.items())]
    yield "Sent again by forced replays", names, again


def document(state: StackState) -> dict[str, Any]:
    """Return the state as JSON's types."""
    return {
        "healthy": not state.faults,
        "verdict": state.verdict,
        "behind_seconds": state.behind_seconds,
        "shards": [asdict(shard) for shard in state.shards],
        "in_queue": state.in_queue,
        "sick_databases": [asdict(breaker) for breaker in state.breakers],
        "aside": [
            {"kind": kind, "account": account, "reason": reason, "rows": rows}
            for (kind, account, reason), rows in sorted(state.aside.items())
        ],
        "aside_is_complete": state.aside_is_complete,
        "held": state.held,
        "open_spans": [asdict(one) for one in state.open.spans],
        "errors": [
            {"function": function, "times": times, "last": last, "what": what, "why": why}
            for function, times, last, what, why in _errors(state.notes)
        ],
        "unreadable_logs": state.unreadable,
        "balance": None if state.balance is None else _balance_document(state.balance),
    }


def _balance_document(balance: Balance) -> dict[str, Any]:
    def documents(tables: Mapping[tuple[str, str], Rows]) -> list[dict[str, Any]]:
        return [
            {
                "account": account,
                "table": table,
                "received": rows.received,
                "delivered": rows.delivered,
                "aside": {name: rows.states[state] for name, state in KINDS.items()},
                "in_flight": rows.in_flight,
                "dropped": rows.states[State.DROPPED],
                "missing": rows.states[State.MISSING],
                "unbacked": rows.unbacked,
                "adds_up": rows.adds_up,
            }
            for (account, table), rows in sorted(tables.items())
        ]

    return {
        "adds_up": balance.adds_up,
        "received": balance.total.received,
        "tables": documents(balance.tables),
        "forced": documents(balance.forced),
        "unread_records": balance.unread.on_stream,
        "spans": balance.spans,
        "open_spans": balance.open_spans,
    }
