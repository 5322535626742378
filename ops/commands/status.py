"""`sluice status`: a one-line summary, then the details behind it."""

import time
from collections.abc import Iterator

import click

from ops import screen
from ops.books.accounting import Balance, Rows
from ops.books.arrivals import Arrivals
from ops.books.chunks import KINDS
from ops.failure import UNFINISHED
from ops.moment import MOMENT
from ops.stack import Stack, works_on_stack
from ops.state import completeness
from ops.state.faults import findings, records, summary
from ops.state.stack_state import StackState, StateReader
from ops.state.state_document import document, error_rows
from worker.states import State

_COLUMNS = {
    "delivered": State.DELIVERED,
    **{name: state for name, state in KINDS.items() if state is not State.REJECTED},
    "dropped": State.DROPPED,
    "forgotten": State.FORGOTTEN,
}
_RARE = (State.AGAIN, State.DROPPED, State.FORGOTTEN)  # columns shown only if they have rows
_REJECTED_LINES = 20
Section = tuple[str, tuple[str, ...], list[tuple[object, ...]]]
"""A title, a table's columns and its rows."""


@click.command("status")
@works_on_stack
@click.option(
    "--since", type=MOMENT, help="Also reconcile rows planned since this time, by account and table."
)
@click.option("--until", type=MOMENT, help="Reconcile only rows planned before this time.")
@click.option("--all", "everything", is_flag=True, help="Also reconcile everything in the ledger.")
@click.option(
    "--complete", is_flag=True, help="Also show, by account and table, up to when rows are complete."
)
@screen.json_option
def command(
    stack: Stack, *, since: float | None, until: float | None, everything: bool, complete: bool, as_json: bool
) -> None:
    """Show the state of a stack: backlog, rate, rows that wait or are dead, and recent errors.

    --since and --all also reconcile: received = delivered + waiting + dead + dropped + forgotten + in flight. This reads the whole ledger.
    `sluice wait` waits until a table is complete.
    """
    look = StateReader(stack, stack.watermarks() if complete else None)
    balanced = everything or since is not None or until is not None
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until: swap them")
    if since is not None and since > time.time():
        raise click.UsageError("--since is in the future: times are in UTC")
    state = look.state(since, until, balanced=balanced)
    found = findings(state, stack.option)
    if as_json:
        screen.show_json(document(state, found))
    else:
        for one in [*summary(state, found), *(one for one in found if one.state == "warning")]:
            screen.say(one.verdict, one.style or ("bold green" if one.state == "ok" else "yellow"))
        for title, columns, rows in _tables(state):
            if rows:
                screen.say(f"\n{title}")
                screen.show_table(columns, rows)
    raise click.exceptions.Exit(0 if all(one.is_sound for one in found) else UNFINISHED)


def _tables(state: StackState) -> Iterator[Section]:
    yield (
        f"Stream ({screen.plural(state.unread.in_queue, 'envelope')} in the overflow queue)",
        ("shard", "behind", "records", "rows/s (5 min)"),
        [
            (
                chain.shard,
                screen.lasting(shard.behind_seconds),
                shard.records if shard.is_complete else f"{shard.records:,}+",
                state.rates.get(chain, 0.0),
            )
            for chain, shard in state.unread.shards.items()
        ],
    )
    yield (
        "Waiting in S3",
        ("database", "account", "reason", "rows", "for"),
        [
            (one.database, one.account, one.reason, one.rows, screen.lasting(state.at - one.since))
            for one in state.waiting
        ],
    )
    yield (
        "Dead" if state.is_whole else "Dead (count incomplete)",
        ("account", "reason", "rows", "Treasure Data says"),
        [
            (account, reason, group.rows, group.words)
            for (kind, account, reason), group in sorted(state.rows.items())
            if kind == "dead"
        ],
    )
    rejected = state.rejected if state.balance is None else state.balance.rejected
    most = sorted(rejected.items(), key=lambda one: (-one[1], one[0]))
    yield (
        "Rejected events in the last day" if state.balance is None else "Rejected events",
        ("account", "table", "code", "events"),
        [(*place, number) for place, number in most[:_REJECTED_LINES]],
    )
    yield (
        "Budgets of accounts (refused: in the last day, at least)",
        ("account", "spent in the last minute", "refused requests", "refused events"),
        [
            (one.account, f"{one.spent:.0%}", one.refused_requests, one.refused_events)
            for one in state.budgets
        ],
    )
    yield "Errors in the last hour", ("function", "times", "last", "what", "why"), error_rows(state.notes)
    yield "Logs that could not be read", ("log",), [(one,) for one in state.unreadable]
    if state.completeness is not None:
        yield completeness.section(state.completeness)
    if state.balance is not None:
        yield from _balanced(state.balance)
    if state.arrivals is not None:
        yield (
            "Arrivals, compared with the ledger",
            ("counted by", "time", "counted", "in the ledger or waiting", "adds up"),
            [_arrived(state.arrivals)],
        )


def _arrived(arrivals: Arrivals) -> tuple[object, ...]:
    time_of = (
        f"{screen.utc(arrivals.since)} to {screen.utc(arrivals.until)}"
        if arrivals.since is not None and arrivals.until is not None
        else "all"
    )
    by = "the gateway, in events" if arrivals.unit == "events" else "the stream, in records"
    is_even = arrivals.seen >= arrivals.counted
    said = "yes" if is_even else "NO" if arrivals.lost else f"yes, within {arrivals.unsure:,}"
    return (by, time_of, arrivals.counted, arrivals.seen, said)


def _balanced(balance: Balance) -> Iterator[Section]:
    found = (*balance.tables.values(), *balance.forced.values())
    columns = {
        name: state
        for name, state in _COLUMNS.items()
        if state not in _RARE or any(rows.states[state] for rows in found)
    }
    names = ("account", "table", "received", *columns, "adds up")

    def line(account: str, table: str, rows: Rows) -> tuple[object, ...]:
        counts = (rows.states[state] for state in columns.values())
        adds_up = "NO" if not rows.adds_up else "unknown" if rows.unchecked else "yes"
        return (account, table, rows.received, *counts, adds_up)

    lines = [line(*place, rows) for place, rows in sorted(balance.tables.items())]
    lines.append(line("all", "", balance.total))
    unread = balance.unread
    planned_later = (
        ("on the stream", records(unread)),
        ("in the queue", screen.plural(unread.in_queue, "envelope")),
    )
    blank = [""] * (len(names) - 3)
    lines += [("not planned", *one, *blank) for one in planned_later if not one[1].startswith("0 ")]
    yield "Reconciliation in rows", names, lines
    resent = [line(*place, rows) for place, rows in sorted(balance.forced.items())]
    yield "Sent again by forced replays", names, resent
