"""What the state of a stack means to the operator: health, cause and next step, worst first."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ops import screen
from ops.books import long_open_spans
from ops.help_page import TROUBLESHOOTING, with_page
from shared.errors import HeldError
from worker.delivery import State

if TYPE_CHECKING:
    from ops.state.stack_state import StackState

BEHIND_SECONDS = 60.0
"""A stack with records older than this is behind, whatever the worker logs."""

NO_ACTION = "No action needed: delivery resumes on its own."


class Health(StrEnum):
    """The health of a stack."""

    HEALTHY = "healthy"
    HOLDING = "holding"
    BEHIND = "behind"
    ATTENTION = "attention"


STYLES = {
    Health.HEALTHY: "bold green",
    Health.HOLDING: "bold yellow",
    Health.BEHIND: "bold yellow",
    Health.ATTENTION: "bold red",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding about a stack.

    Attributes:
        health: its health.
        cause: why, as a clause without a full stop.
        step: what to do next, in sentences.
        seconds: how long it has lasted; None if unknown.
    """

    health: Health
    cause: str
    step: str = ""
    seconds: float | None = None

    @property
    def line(self) -> str:
        """The finding as one line."""
        lasting = "" if self.seconds is None else f" for {screen.lasting(self.seconds)}"
        said = f"{self.cause}.{f' {self.step}' if self.step else ''}"
        if self.health is not Health.HEALTHY and "No action needed" not in self.step:
            said = with_page(said, TROUBLESHOOTING)
        return f"{self.health.upper()}{lasting}: {said}"


def verdicts(state: "StackState", option: str) -> list[Verdict]:
    """Return the findings about a stack, worst first; at least one.

    Args:
        state: the state of the stack.
        option: names the stack on a command line.
    """
    found = [
        *_books(state, option),
        *_waiting(state, option),
        *_failing(state, option),
        *_aside(state, option),
    ]
    return found or [Verdict(Health.HEALTHY, _in_flight(state))]


def _in_flight(state: "StackState") -> str:
    waiting = f"{screen.plural(state.records, 'record')}{'' if state.is_counted else ' or more'} waiting"
    if not state.records:
        waiting = "nothing is waiting"
    rows = sum(shard.open_rows for shard in state.shards)
    return f"{waiting}, {screen.plural(rows, 'row')} being sent" if rows else waiting


def _books(state: "StackState", option: str) -> Iterator[Verdict]:
    if state.arrivals is not None and state.arrivals.lost:
        counter = "the gateway" if state.arrivals.unit == "events" else "the stream"
        yield Verdict(
            Health.ATTENTION,
            f"reconciliation failed: {counter} counted {state.arrivals.counted:,} {state.arrivals.unit}, and "
            f"{state.arrivals.lost:,} of them are neither in the ledger nor waiting",
            f"Please report it, with `sluice status {option} --all --json`.",
        )
    if state.balance is None:
        return
    if not state.balance.adds_up:
        yield Verdict(
            Health.ATTENTION,
            "reconciliation failed",
            f"The lines with NO show where. Please report it, with `sluice status {option} --all --json`.",
        )
    if gaps := state.balance.unarchived:
        yield Verdict(
            Health.ATTENTION,
            f"{screen.plural(gaps, 'settled span')} {'is' if gaps == 1 else 'are'} not in the archive",
            "No rows are lost, but only the stream can replay them. The worker's log shows why S3 did not accept their records.",
        )
    if lost := state.balance.total.states[State.MISSING]:
        yield Verdict(
            Health.ATTENTION,
            f"{screen.plural(lost, 'row')} missing: their records expired before they were delivered",
            "The worker was down for too long: its alarms and its log show why.",
        )


def _waiting(state: "StackState", option: str) -> Iterator[Verdict]:
    records = f"{screen.plural(state.records, 'record')}{'' if state.is_counted else ' or more'}"
    if state.hold is not None:
        cause, step = explanation(state.hold.reason, state.hold.error, option)
        if state.records and state.behind_seconds > BEHIND_SECONDS:
            cause = f"{cause}; {records} waiting"
        yield Verdict(Health.HOLDING, cause, step, state.hold.seconds)
    elif state.behind_seconds > BEHIND_SECONDS:
        rate = sum(shard.rows_per_second for shard in state.shards)
        if rate:
            cause, step = (
                f"{records} waiting, and the worker delivers {rate:,.1f} rows a second",
                "No action needed: it is catching up.",
            )
        else:
            cause, step = (
                f"{records} waiting, and the worker logs no reason",
                f"Run `sluice doctor {option}` to check whether the worker is invoked.",
            )
        yield Verdict(Health.BEHIND, cause, step, state.behind_seconds)


def _failing(state: "StackState", option: str) -> Iterator[Verdict]:
    for breaker in state.breakers:
        cause, _ = explanation(breaker.reason, "", option)
        yield Verdict(
            Health.ATTENTION,
            f"the database {breaker.database} has been failing since {screen.utc(breaker.since // 1000)} ({cause}), "
            "and its rows are set aside",
            "Fix the database. The rows are then sent within five minutes, or at once with `sluice redrive`.",
        )
    if state.open.spans:
        since = screen.utc(int(state.open.spans[0].planned_at))
        count = f"{len(state.open.spans)}{'' if len(state.open.spans) < long_open_spans.MOST else '+'}"
        yield Verdict(
            Health.ATTENTION,
            f"{count} {'span' if count == '1' else 'spans'} left open since {since}",
            "Run the command shown with each.",
        )


def _aside(state: "StackState", option: str) -> Iterator[Verdict]:
    kinds: dict[str, Counter[str]] = {"doubt": Counter(), "dead": Counter()}
    for (kind, _, reason), rows in state.aside.items():
        kinds.setdefault(kind, Counter())[reason] += rows
    if doubt := kinds["doubt"].total():
        yield Verdict(
            Health.ATTENTION,
            f"{screen.plural(doubt, 'row')} in doubt: Treasure Data may have {'it' if doubt == 1 else 'them'}",
            "No action needed: the redrive queries Treasure Data as soon as queries can show the rows.",
        )
    if dead := kinds["dead"].total():
        reasons = ", ".join(sorted(kinds["dead"]))
        yield Verdict(
            Health.ATTENTION,
            f"{screen.plural(dead, 'dead letter')} ({reasons})",
            f"`sluice dead list {option}` lists them. Fix the cause, then redrive or drop them.",
        )


_STATUS = re.compile(r"http_(\d{3})")
_NETWORK = "Check Treasure Data's status page, TdImportEndpoint and the network. Delivery resumes on its own afterwards."
_REASONS = {
    "timeout": ("Treasure Data does not answer in time", NO_ACTION),
    "connect_timeout": ("connections to Treasure Data time out", _NETWORK),
    "connection_refused": ("Treasure Data refuses connections", _NETWORK),
    "connection_lost": ("Treasure Data closes connections early", NO_ACTION),
    "not_json": ("Treasure Data's endpoint does not answer with Treasure Data's JSON", _NETWORK),
    "slow": ("it is slow", NO_ACTION),
    "set_aside_unavailable": ("the set-aside bucket does not answer", NO_ACTION),
    HeldError.NO_TIME: ("the last invocation ran out of time", NO_ACTION),
}
_ERRORS = {
    "LedgerUnavailableError": "the ledger (DynamoDB) does not answer",
    "BucketUnavailableError": "the bucket of set-aside chunks and the archive does not answer",
    "ShardUnreadableError": "the stream cannot be read",
}
_NO_ACCOUNTS = ("account_unavailable", HeldError.UNKNOWN_ACCOUNT)


def explanation(reason: str, error: str, option: str) -> tuple[str, str]:
    """Explain why the worker holds: return the cause and what to do.

    Args:
        reason: the reason in the worker's log; if it lists several, the first counts.
        error: the type of the error in the same line; may be empty.
        option: names the stack on a command line.
    """
    if reason.startswith(HeldError.NOT_ARCHIVED):
        return (
            "S3 does not accept records for the archive",
            "Rows are still delivered. The worker continues on its own once S3 accepts them.",
        )
    first = reason.removeprefix(HeldError.CHUNKS_PENDING).partition(", ")[0]
    if first in ("http_401", "http_403"):
        return (
            f"Treasure Data answers {first[5:]}: it rejects the API key",
            f"Store a valid one with `sluice setup {option} --td-key-file FILE`.",
        )
    if first == "no_key":
        return (
            "there is no Treasure Data API key",
            f"Store one with `sluice setup {option}`.",
        )
    if status := _STATUS.fullmatch(first):
        return f"Treasure Data answers {status[1]}", NO_ACTION
    if first in _NO_ACCOUNTS:
        return (
            "Redis does not say where an account's rows go",
            f"Check Redis with `sluice doctor {option}`. If it has lost its data, run `sluice accounts apply accounts.yaml`.",
        )
    if first in _REASONS:
        return _REASONS[first]
    if error in _ERRORS:
        return _ERRORS[error], NO_ACTION
    return first or "the worker logs no reason", f"Run `sluice doctor {option}` to check the stack."
