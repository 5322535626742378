"""The state of a stack as JSON."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ops.books.accounting import Balance, Rows
from ops.logs.notes import Note
from ops.state import completeness
from ops.state.faults import summary
from ops.state.finding import Finding
from ops.state.stack_state import StackState
from worker.states import State

_ERRORS = 10
_COUNTS = ("received", "delivered", "waiting", "dead", "in_flight", "unbacked", "unchecked", "adds_up")


def error_rows(notes: list[Note]) -> list[tuple[object, ...]]:
    """Return a line for each kind of warning or error, latest first."""
    times = Counter((note.function, note.what, note.why) for note in notes)
    last = {(note.function, note.what, note.why): note.at for note in notes}
    latest = sorted(last, key=lambda kind: last[kind], reverse=True)[:_ERRORS]
    return [(kind[0], times[kind], last[kind], *kind[1:]) for kind in latest]


def findings_document(found: list[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON objects."""
    return [asdict(one) | {"health": one.health, "line": one.verdict} for one in found]


def document(state: StackState, found: list[Finding]) -> dict[str, Any]:
    """Return the state, and what was found about it, as a JSON object."""
    first = summary(state, found)[0]
    return {
        "healthy": first.is_sound,
        "verdict": first.verdict,
        "health": first.health,
        "findings": findings_document(found),
        "behind_seconds": round(state.unread.behind_seconds, 1),
        "shards": [
            {
                "shard": chain.shard,
                "records": shard.records,
                "is_complete": shard.is_complete,
                "behind_seconds": round(shard.behind_seconds, 1),
                "rows_per_second": state.rates.get(chain, 0.0),
            }
            for chain, shard in state.unread.shards.items()
        ],
        "in_queue": state.unread.in_queue,
        "waiting": [asdict(one) | {"seconds": round(state.at - one.since, 1)} for one in state.waiting],
        "rows": [
            {"kind": kind, "account": account, "reason": reason}
            | {"rows": group.rows, "words": group.words, "which": group.which}
            for (kind, account, reason), group in sorted(state.rows.items())
        ],
        "rows_are_complete": state.is_whole,
        "rejected": _rejected_documents(state.rejected),
        "budgets": [asdict(one) for one in state.budgets],
        "held": state.hold and asdict(state.hold),
        "errors": [
            dict(zip(("function", "times", "last", "what", "why"), row, strict=True))
            for row in error_rows(state.notes)
        ],
        "unreadable_logs": state.unreadable,
        "complete": state.completeness and completeness.document(state.completeness),
        "arrivals": state.arrivals and asdict(state.arrivals) | {"lost": state.arrivals.lost},
        "balance": state.balance and _balance_document(state.balance),
    }


def _rejected_documents(rejected: Mapping[tuple[str, str, str], int]) -> list[dict[str, Any]]:
    return [
        {"account": account, "table": table, "code": code, "events": number}
        for (account, table, code), number in sorted(rejected.items())
    ]


def _balance_document(balance: Balance) -> dict[str, Any]:
    def documents(tables: Mapping[tuple[str, str], Rows]) -> list[dict[str, Any]]:
        return [
            {
                "account": account,
                "table": table,
                **{name: getattr(rows, name) for name in _COUNTS},
                "dropped": rows.states[State.DROPPED],
                "forgotten": rows.states[State.FORGOTTEN],
            }
            for (account, table), rows in sorted(tables.items())
        ]

    return {
        "adds_up": balance.adds_up,
        "received": balance.total.received,
        "tables": documents(balance.tables),
        "forced": documents(balance.forced),
        "rejected": _rejected_documents(balance.rejected),
        "unread_records": balance.unread.on_stream,
        "queued_envelopes": balance.unread.in_queue,
        "spans": balance.spans,
        "copies": balance.copies,
    }
