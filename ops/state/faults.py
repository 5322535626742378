"""What the state of a stack means to the operator: every fault with its cause, and one step to take next.

A fault is found by a check, by what waits or is dead, or by both. It is reported once, where it says the most: with the rows that wait for it.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ops import screen
from ops.books.ledger_repair import REASON as RESTORED
from ops.state.finding import NO_ACTION, Finding, fault
from shared.errors import HeldError

if TYPE_CHECKING:
    from ops.state.stack_state import StackState, WaitingRows

WAITING_SECONDS = 240.0
"""Rows that wait for longer are worth a word, whatever the reason; the alarm `waiting-warn` fires then too."""
BEHIND_SECONDS = 60.0
"""A stack with records older than this is behind, whatever the worker logs."""

_HIDDEN_BY = {"worker_off": ("mapping", "ledger_restored"), "catching_up": ("ledger_restored",)}
"""Faults that follow from others."""
_ECHOES = ("attention", "dependency", "lag-page", "lag-warn", "waiting-page", "waiting-warn")
"""Alarms that say nothing new if something else is found."""


class Cause(NamedTuple):
    """Why something waits. Without advice it passes on its own."""

    fault: str
    said: str
    advice: str = ""
    state: str = "waiting"

    def finding(self, what: str, about: str = "", seconds: float | None = None) -> Finding:
        """Return the finding."""
        state = "fault" if self.advice else self.state
        return Finding(what, self.said, self.advice or NO_ACTION, state, self.fault, about, seconds)


def findings(state: "StackState", option: str) -> list[Finding]:
    """Return everything that was found about a stack, the worst first; `option` names the stack on a command line."""
    rows = [*_waiting(state, option), *_dead(state, option)]
    found = [*_books(state, option), *rows, *_stream(state, option), *state.checks]
    names, by_fault = {one.fault for one in found}, {one.fault for one in found if one.about}
    kept: dict[tuple[str, ...], Finding] = {}
    for one in found:
        if not names.isdisjoint(_HIDDEN_BY.get(one.fault, ())):
            continue
        if one.fault and (one.about or one.fault not in by_fault):
            kept.setdefault((one.fault, one.about), one)
        elif not one.fault:
            kept[one.what, one.said] = one
    is_explained = any(not one.is_sound and one.fault != "alarm" for one in kept.values())
    shown = [
        replace(one, state="warning")
        if is_explained and one.fault == "alarm" and one.about in _ECHOES
        else one
        for one in kept.values()
    ]
    return sorted(shown, key=lambda one: one.rank)


def summary(state: "StackState", found: list[Finding]) -> list[Finding]:
    """Return what is wrong, the worst first; if nothing is, one finding that says so."""
    wrong = [one for one in found if not one.is_sound]
    return wrong or [Finding("stack", _in_flight(state))]


def _in_flight(state: "StackState") -> str:
    rows = sum(one.rows for one in state.waiting)
    parts = [_records(state)] * bool(state.records) + [screen.plural(rows, "row")] * bool(rows)
    return f"{' and '.join(parts)} waiting" if parts else "nothing is waiting"


def _records(state: "StackState") -> str:
    return f"{screen.plural(state.records, 'record')}{'' if state.is_counted else ' or more'}"


def _books(state: "StackState", option: str) -> Iterator[Finding]:
    advice = f"Please report it, with `sluice status {option} --all --json`."
    if state.arrivals is not None and state.arrivals.lost:
        counter = "the gateway" if state.arrivals.unit == "events" else "the stream"
        said = (
            f"reconciliation failed: {counter} counted {state.arrivals.counted:,} {state.arrivals.unit}, and "
            f"{state.arrivals.lost:,} of them are neither in the ledger nor waiting"
        )
        yield fault("books", said, advice, fault="records_lost")
    if state.balance is not None and not state.balance.adds_up:
        yield fault(
            "books", "reconciliation failed", f"The lines with NO show where. {advice}", fault="books_uneven"
        )


def _stream(state: "StackState", option: str) -> Iterator[Finding]:
    is_behind = bool(state.records) and state.behind_seconds > BEHIND_SECONDS
    if state.hold is not None:
        cause = hold_cause(state.hold.reason, state.hold.error, option)
        if is_behind:
            cause = cause._replace(said=f"{cause.said}; {_records(state)} waiting")
        yield cause.finding("stream", seconds=state.hold.seconds)
    elif is_behind:
        rate = sum(shard.rows_per_second for shard in state.shards)
        if rate:
            said, advice = (
                f"the worker takes {rate:,.2g} rows a second",
                "No action needed: it is catching up.",
            )
            one = Finding(
                "stream", f"{_records(state)} waiting, and {said}", advice, "waiting", "catching_up"
            )
            yield replace(one, seconds=state.behind_seconds)
        else:
            said = f"{_records(state)} waiting, and the worker takes none and logs no reason"
            advice = f"Its log shows whether it is invoked: {log_of('WorkerFunction', option)}."
            yield fault("stream", said, advice, fault="worker_off", seconds=state.behind_seconds)


def _waiting(state: "StackState", option: str) -> Iterator[Finding]:
    """Yield why rows wait: failures at once, what is usual for a while only once it has lasted."""
    redis = next((one for one in state.checks if one.what == "Redis" and one.fault), None)
    for one in state.waiting:
        seconds = max(0.0, state.at - one.since)
        cause = wait_cause(one, option)
        if cause.fault == "redis_silent" and redis is not None:
            cause = Cause(redis.fault, redis.said, redis.advice, redis.state)
        if cause.fault != "rows_wait" or seconds > WAITING_SECONDS:
            rows = screen.plural(one.rows, "row")
            what = f"{rows} for the database {one.database}" if one.database else f"{rows} of {one.account}"
            words = f' ("{one.words}")' if one.words else ""
            said = f"{what} {'waits' if one.rows == 1 else 'wait'} in S3: {cause.said}{words}"
            yield cause._replace(said=said).finding("rows", one.database or one.account, seconds)


_DEAD = {
    "unknown_account": "Add the account to accounts.yaml, `sluice accounts apply accounts.yaml`, then",
    "invalid_account": "`sluice accounts apply accounts.yaml`, then",
    "disabled_account": "If that is not intended, `sluice accounts enable ACCOUNT`, then",
    "revoked_key": "If that is not intended, take the key out of revoked_key_ids in accounts.yaml and apply it, then",
    "object_gone": "Restore it (docs/operations.md#restore), then",
    "may_not_create": "Create the table in Treasure Data, then",
    "no_such_database": "The account has another database now:",
    "too_many_tables": "docs/limits.md#tables-of-an-account says what to do first;",
    "index_gone": "Treasure Data is asked for them by",
}


def _dead(state: "StackState", option: str) -> Iterator[Finding]:
    for reason, rows in sorted(state.dead().items()):
        send = f"`sluice redrive {option} --kind dead --reason {reason}`"
        if reason in _DEAD:
            advice = f"{_DEAD[reason]} {send}."
        elif reason.startswith(("http_4", "row_too_large")):
            advice = f"Fix them with `sluice redrive {option} --edit --reason {reason}`."
        else:
            advice = (
                f"`sluice dead list {option} --reason {reason}` lists them; nobody can send them as they are."
            )
        is_one = rows == 1
        said = f"{screen.plural(rows, 'row')} {'is' if is_one else 'are'} dead ({reason})"
        yield fault("dead rows", said, advice, fault="dead", about=reason)


_STATUS = re.compile(r"http_(\d{3})")
_NETWORK = ("connect_timeout", "connection_refused", "undocumented_answer", "not_json", "md5_mismatch")
_TD = {
    "timeout": "does not answer in time",
    "connect_timeout": "cannot be connected to in time",
    "connection_refused": "refuses connections",
    "connection_lost": "closes connections early",
    "slow": "has been slow",
    "not_json": "does not answer with Treasure Data's JSON",
    "undocumented_answer": "does not answer with Treasure Data's JSON",
    "md5_mismatch": "received other bytes than were sent",
}
_USUAL = {
    "sending": "they are being sent, or the worker was interrupted",
    "deadline": "the worker had no time left to send them",
    "put_again": "it is not certain yet whether they are copies",
    RESTORED: "the ledger was restored, and Treasure Data is asked whether it has them",
}


def td_cause(reason: str, database: str, option: str) -> Cause:
    """Return why Treasure Data takes no rows, given the reason in one word."""
    if reason == "http_403" and database:
        said = f"Treasure Data answers 403: the API key may not import into {database}"
        return Cause(
            "td_forbidden",
            said,
            "Grant it, or correct the account's database in accounts.yaml and apply that.",
        )
    if reason in ("http_401", "http_403"):
        advice = f"Store a valid one with `sluice setup {option} --td-key-file FILE`."
        return Cause("td_key_refused", f"Treasure Data answers {reason[5:]}: it rejects the API key", advice)
    if reason in ("no_key", "SecretUnavailableError"):
        advice = f"Store one with `sluice setup {option}`."
        return Cause("td_no_key", "there is no Treasure Data API key", advice)
    said = f"Treasure Data {_TD.get(reason, f'does not take rows ({reason})')}"
    if status := _STATUS.fullmatch(reason):
        said = f"Treasure Data answers {status[1]}"
    if reason in _NETWORK:
        said += ". If Treasure Data's status page shows no outage, check TdImportEndpoint and the network"
    return Cause("td_failing", said)


def wait_cause(one: "WaitingRows", option: str) -> Cause:
    """Return why rows wait."""
    reason = one.reason.partition(", ")[0]
    if reason in _USUAL:
        return Cause("rows_wait", _USUAL[reason])
    if reason == "account_unavailable":
        return Cause("redis_silent", "Redis did not say where an account's rows go")
    return td_cause(reason, one.database, option)


def log_of(function: str, option: str) -> str:
    """Return the command that shows a function's log; in the local stack, the file."""
    if option == "--local":
        return f"`.local/{function.removesuffix('Function').lower()}.log`"
    return f"`sam logs {option.replace('--stack', '--stack-name')} --name {function}`"


def restored_cause(option: str) -> Cause:
    """Return that the ledger was restored from a backup, and what to do."""
    advice = f"Nothing is stored or sent until `sluice doctor {option} --repair-ledger` has compared it with the bucket."
    return Cause("ledger_restored", "the ledger was restored from a backup, or lost", advice)


_HOLDS = {
    "LedgerUnavailableError": Cause("ledger_failing", "the ledger (DynamoDB) does not answer"),
    "BucketUnavailableError": Cause("bucket_failing", "the bucket (S3) does not take the rows"),
    "ShardUnreadableError": Cause("stream_failing", "the stream cannot be read"),
    HeldError.NO_TIME: Cause("no_time", "the last invocation ran out of time"),
    HeldError.UNDECIDED_COPY: Cause("ledger_failing", HeldError.UNDECIDED_COPY),
    HeldError.UNREADABLE_INDEX: Cause(
        "index_unreadable",
        HeldError.UNREADABLE_INDEX,
        "The log names its object; docs/operations.md#restore says how to restore it.",
    ),
    HeldError.DELETED_STREAM: Cause("stream_deleted", HeldError.DELETED_STREAM),
}


def hold_cause(reason: str, error: str, option: str) -> Cause:
    """Return why the worker holds records, given the reason and the type of the error in its log."""
    if reason == HeldError.RESTORED_LEDGER:
        return restored_cause(option)
    for known, cause in _HOLDS.items():
        if known == error or reason.startswith(known):
            return cause._replace(state="holding")
    advice = f"Please report it, with the worker's log: `sluice status {option} --json`."
    return Cause("worker_bug", reason or "the worker logs no reason", advice)
