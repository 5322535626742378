"""What the state of a stack means to the operator: health, cause and next step, worst first."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ops import screen
from ops.help_page import TROUBLESHOOTING, with_page
from shared.errors import HeldError

if TYPE_CHECKING:
    from ops.state.stack_state import StackState, WaitingRows

WAITING_SECONDS = 240.0
"""Rows that wait for longer are worth a word, whatever the reason; the alarm `waiting-warn` fires then too."""
BEHIND_SECONDS = 60.0
"""A stack with records older than this is behind, whatever the worker logs."""

NO_ACTION = "No action needed: delivery resumes on its own."


class Health(StrEnum):
    """The health of a stack."""

    HEALTHY = "healthy"
    WAITING = "waiting"
    HOLDING = "holding"
    BEHIND = "behind"
    ATTENTION = "attention"


STYLES = {
    Health.HEALTHY: "bold green",
    Health.WAITING: "bold yellow",
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
        *_needing_action(state, option),
        *_dead(state, option),
        *_stream(state, option),
        *_waiting(state, option),
    ]
    return found or [Verdict(Health.HEALTHY, _in_flight(state))]


def _in_flight(state: "StackState") -> str:
    rows = sum(one.rows for one in state.waiting)
    parts = [f"{screen.plural(state.records, 'record')}{'' if state.is_counted else ' or more'}"] * bool(
        state.records
    )
    parts += [screen.plural(rows, "row")] * bool(rows)
    return f"{' and '.join(parts)} waiting" if parts else "nothing is waiting"


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


def _stream(state: "StackState", option: str) -> Iterator[Verdict]:
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


def _needing_action(state: "StackState", option: str) -> Iterator[Verdict]:
    """Yield the reasons for which rows wait until somebody acts."""
    for one in state.waiting:
        cause, step = explained_wait(one, option)
        if step != NO_ACTION and one.reason not in _QUIET:
            yield Verdict(Health.ATTENTION, cause, step, max(0.0, state.at - one.since))


def _waiting(state: "StackState", option: str) -> Iterator[Verdict]:
    """Yield the reasons for which rows wait and that end on their own: failures at once, others after a while."""
    for one in state.waiting:
        cause, step = explained_wait(one, option)
        is_passing, seconds = step == NO_ACTION or one.reason in _QUIET, max(0.0, state.at - one.since)
        if is_passing and (one.reason not in _USUAL or seconds > WAITING_SECONDS):
            yield Verdict(Health.WAITING, cause, step, seconds)


def explained_wait(one: "WaitingRows", option: str) -> tuple[str, str]:
    """Return why rows wait, and what to do."""
    rows = screen.plural(one.rows, "row")
    what = f"{rows} for the database {one.database}" if one.database else f"{rows} of {one.account}"
    wait = "waits" if one.rows == 1 else "wait"
    cause, step = explanation(one.reason, "", option)
    if one.reason == "http_403" and one.database:
        cause = f"Treasure Data answers 403: the API key may not import into {one.database}"
        step = f"Grant it, or correct the account {one.account} in accounts.yaml and apply that."
    words = f' ("{one.words}")' if one.words else ""
    return f"{what} {wait} in S3: {cause}{words}", step


def _dead(state: "StackState", option: str) -> Iterator[Verdict]:
    dead: Counter[str] = Counter()
    for (kind, _, reason), rows in state.rows.items():
        if kind == "dead":
            dead[reason] += rows
    if dead:
        yield Verdict(
            Health.ATTENTION,
            f"{screen.plural(dead.total(), 'dead row')} ({', '.join(sorted(dead))})",
            f"`sluice dead list {option}` lists them. Fix the cause, then send them with `sluice redrive {option} --kind dead` or "
            "drop them.",
        )


_STATUS = re.compile(r"http_(\d{3})")
_NETWORK = "Check Treasure Data's status page, TdImportEndpoint and the network. Delivery resumes on its own afterwards."
_REASONS = {
    "timeout": ("Treasure Data does not answer in time", NO_ACTION),
    "connect_timeout": ("connections to Treasure Data time out", _NETWORK),
    "connection_refused": ("Treasure Data refuses connections", _NETWORK),
    "connection_lost": ("Treasure Data closes connections early", NO_ACTION),
    "not_json": ("Treasure Data's endpoint does not answer with Treasure Data's JSON", _NETWORK),
    "deadline": ("the worker had no time left to send them", NO_ACTION),
    "sending": ("they are being sent, or the worker was interrupted", NO_ACTION),
    "put_again": ("it is not certain yet whether they are copies", NO_ACTION),
    "undocumented_answer": ("Treasure Data's endpoint does not answer with Treasure Data's JSON", _NETWORK),
    "md5_mismatch": ("Treasure Data received other bytes than were sent", _NETWORK),
    HeldError.NO_TIME: ("the last invocation ran out of time", NO_ACTION),
}
_ERRORS = {
    "LedgerUnavailableError": "the ledger (DynamoDB) does not answer",
    "BucketUnavailableError": "the bucket (S3) does not take the rows",
    "ShardUnreadableError": "the stream cannot be read",
}
_NO_ACCOUNTS = ("account_unavailable",)
_QUIET = ("connect_timeout", "connection_refused", "undocumented_answer", "md5_mismatch")
"""Reasons whose advice is to look, not to act."""
_USUAL = ("", "sending", "deadline", "put_again")
"""Reasons of rows that wait although nothing fails."""


def explanation(reason: str, error: str, option: str) -> tuple[str, str]:
    """Explain why the worker holds, or why rows wait: return the cause and what to do.

    Args:
        reason: the reason in the worker's log or in the ledger; if it lists several, the first counts.
        error: the type of the error in the same line; may be empty.
        option: names the stack on a command line.
    """
    first = reason.partition(", ")[0]
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
