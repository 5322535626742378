"""Why records or rows wait: what is said about it, and one step to take."""

import re
from functools import partial

from ops.state.finding import NO_ACTION, Finding
from shared.errors import HeldError
from worker.states import LEDGER_RESTORED


def _cause(fault: str, said: str, advice: str = "", *, state: str = "waiting") -> Finding:
    """Return why something waits; what waits is still to be said. Without advice it passes on its own."""
    return Finding("", said, advice or NO_ACTION, "fault" if advice else state, fault)


_hold = partial(_cause, state="holding")
_STATUS = re.compile(r"http_(\d{3})")
_TRIED_AGAIN = ("http_401", "http_403", "http_404", "http_408", "http_413", "http_425", "http_429")
"""Refusals after which the same rows are sent again, all at once or in parts."""
_NOT_CREATED = re.compile(r"may_not_create|create_http_4(?!04|08|29)\d\d")
_NETWORK = ("connect_timeout", "connection_refused", "undocumented_answer", "md5_mismatch")
_TD = {
    "timeout": "does not answer in time",
    "connect_timeout": "cannot be connected to in time",
    "connection_refused": "refuses connections",
    "connection_lost": "closes connections early",
    "slow": "has been slow",
    "undocumented_answer": "does not answer with Treasure Data's JSON",
    "md5_mismatch": "received other bytes than were sent",
}
PUT_AGAIN = "put_again"
"""The reason of rows that were put on the stream again, and of which another copy may count."""
_USUAL = {
    "sending": "they are being sent, or the worker was interrupted",
    "deadline": "the worker had no time left to send them",
    PUT_AGAIN: "it is not certain yet whether they are copies",
    LEDGER_RESTORED: "the ledger was restored, and Treasure Data is asked whether it has them",
}


def td_cause(reason: str, database: str, option: str) -> Finding:
    """Return why Treasure Data takes no rows, given the reason in one word."""
    if reason == "http_403" and database:
        said = f"Treasure Data answers 403: the API key may not import into {database}"
        return _cause(
            "td_forbidden",
            said,
            "Grant it, or correct the account's database in accounts.yaml and apply that.",
        )
    if reason in ("http_401", "http_403"):
        advice = f"Store a valid one with `sluice setup {option} --td-key-file FILE`."
        return _cause("td_key_refused", f"Treasure Data answers {reason[5:]}: it rejects the API key", advice)
    if reason in ("no_key", "SecretUnavailableError"):
        advice = f"Store one with `sluice setup {option}`."
        return _cause("td_no_key", "there is no Treasure Data API key", advice)
    said = f"Treasure Data {_TD.get(reason, f'does not take rows ({reason})')}"
    if status := _STATUS.fullmatch(reason):
        said = f"Treasure Data answers {status[1]}"
    if reason in _NETWORK:
        said += ". If Treasure Data's status page shows no outage, check TdImportEndpoint and the network"
    return _cause("td_failing", said)


def wait_cause(reason: str, database: str, option: str) -> Finding:
    """Return why rows wait for a database, given the reason in the ledger."""
    if reason in _USUAL:
        return _cause("rows_wait", _USUAL[reason])
    if reason == "account_unavailable":
        return _cause("redis_silent", "Redis did not say where an account's rows go")
    if reason.startswith("http_4") and reason not in _TRIED_AGAIN:
        said = f"Treasure Data answers {reason[5:]}: it rejects rows"
        advice = f"Those that it rejects will be dead; then fix them with `sluice redrive {option} --edit --reason {reason}`."
        return _cause("rows_refused", said, advice)
    if _NOT_CREATED.fullmatch(reason):
        said = f"Treasure Data has no such table, and does not create it ({reason})"
        advice = (
            f"Create it in Treasure Data: `sluice status {option} --all` names the tables of rows that wait."
        )
        return _cause("table_refused", said, advice)
    return td_cause(reason, database, option)


def log_of(function: str, option: str) -> str:
    """Return the command that shows a function's log; for the local stack, its file."""
    if option == "--local":
        return f"{function.removesuffix('Function').lower()}.log in the local stack's folder"
    return f"`sam logs {option.replace('--stack', '--stack-name')} --name {function}`"


def restored_cause(option: str) -> Finding:
    """Return that the ledger was restored from a backup, and what to do."""
    advice = f"Nothing is stored or sent until `sluice doctor {option} --repair-ledger` has compared it with the bucket."
    return _cause("ledger_restored", "the ledger was restored from a backup, or lost", advice)


_HOLDS = {
    "LedgerUnavailableError": _hold("ledger_failing", "the ledger (DynamoDB) does not answer"),
    "BucketUnavailableError": _hold("bucket_failing", "the bucket (S3) does not take the rows"),
    "ShardUnreadableError": _hold("stream_failing", "the stream cannot be read"),
    "UnprovenError": _hold("stream_failing", "the stream's shards cannot all be listed"),
    HeldError.NO_TIME: _hold("no_time", "the last invocation ran out of time"),
    HeldError.UNDECIDED_COPY: _hold("ledger_failing", HeldError.UNDECIDED_COPY),
    HeldError.UNREADABLE_INDEX: _hold(
        "index_unreadable",
        HeldError.UNREADABLE_INDEX,
        "The log names its object; docs/operations.md#restore says how to restore it.",
    ),
    HeldError.DELETED_STREAM: _hold("stream_deleted", HeldError.DELETED_STREAM),
}


def hold_cause(reason: str, error: str, option: str) -> Finding:
    """Return why the worker holds records, given the reason and the type of the error in its log."""
    if reason == HeldError.RESTORED_LEDGER:
        return restored_cause(option)
    for known, cause in _HOLDS.items():
        if known == error or reason.startswith(known):
            return cause
    advice = f"Please report it, with the worker's log: `sluice status {option} --json`."
    return _cause("worker_bug", reason or "the worker logs no reason", advice)
