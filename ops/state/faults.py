"""What the state of a stack means to the operator: every fault with its cause, and one step to take next.

A fault is found by a check, by what waits or is dead, or by both. It is reported once, where it says the most: with the rows that wait for it.
"""

from collections.abc import Iterator
from dataclasses import replace

from ops import screen
from ops.books.accounting import Unread
from ops.state.causes import PUT_AGAIN, hold_cause, log_of, wait_cause
from ops.state.finding import Finding, fault
from ops.state.stack_state import StackState, WaitingRows
from worker.states import USUAL_AGAIN_SECONDS

WAITING_SECONDS = 150.0
"""Rows that wait for longer are worth a word, whatever the reason; the alarm `waiting-warn` fires then too. Rows that were put on the
stream again usually wait for some ten minutes."""
BEHIND_SECONDS = 60.0
"""A stack with records that are older than this once their batch is full is behind, whatever the worker logs."""

_NAMED = 3  # accounts that a line names
_HIDDEN_BY = {
    "worker_off": ("mapping", "ledger_restored"),
    "worker_silent": ("mapping", "ledger_restored"),
    "catching_up": ("ledger_restored",),
}
"""Faults that follow from others."""
_ECHOES = ("attention", "dependency", "lag-page", "lag-warn", "waiting-page", "waiting-warn")
"""Alarms that say nothing new if something else is found."""


def findings(state: StackState, option: str) -> list[Finding]:
    """Return everything that was found about a stack, the worst first: dead rows only after what stops others. `option` names the stack on a command line."""
    rows = [*_waiting(state, option), *_dead(state, option)]
    waits = {(wait_cause(one.reason, one.database, option).fault, one.database) for one in state.waiting}
    checks = [one for one in state.checks if (one.fault, one.about) not in waits]
    found = [*_books(state, option), *rows, *_stream(state, option), *checks]
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
    return sorted(shown, key=lambda one: (one.rank, one.fault == "dead"))


def summary(state: StackState, found: list[Finding]) -> list[Finding]:
    """Return what is wrong, the worst first; if nothing is, one finding that says so."""
    wrong = [one for one in found if not one.is_sound]
    return wrong or [Finding("stack", _in_flight(state))]


def _in_flight(state: StackState) -> str:
    rows, in_queue = sum(one.rows for one in state.waiting), state.unread.in_queue
    parts = [f"{records(state.unread)} on the stream"] if state.unread.on_stream else []
    parts += [f"{screen.plural(in_queue, 'envelope')} in the overflow queue"] if in_queue else []
    parts += [f"{screen.plural(rows, 'row')} waiting in S3"] if rows else []
    return ", ".join(parts) or "nothing is waiting"


def records(unread: Unread) -> str:
    """Return how many records on the stream are in no span yet."""
    return f"{screen.plural(unread.on_stream, 'record')}{'' if unread.is_complete else ' or more'}"


def _books(state: StackState, option: str) -> Iterator[Finding]:
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


def _stream(state: StackState, option: str) -> Iterator[Finding]:
    unread = state.unread
    is_behind = bool(unread.on_stream) and unread.behind_seconds > BEHIND_SECONDS + state.window
    if state.hold is not None:
        cause = hold_cause(state.hold.reason, state.hold.error, option)
        if is_behind:
            cause = replace(cause, said=f"{cause.said}; {records(unread)} on the stream")
        yield replace(cause, what="stream", seconds=state.hold.seconds)
    elif is_behind:
        rate = sum(state.rates.values())
        if rate and _is_left(state):
            said = f"{records(unread)} on the stream, and the worker has taken none since they arrived"
            advice = f"No action needed, unless it lasts for five minutes: {log_of('WorkerFunction', option)} shows why."
            one = Finding("stream", said, advice, "waiting", "worker_silent")
            yield replace(one, seconds=unread.behind_seconds)
        elif rate:
            said = f"{records(unread)} on the stream, and the worker takes {screen.short(rate)} rows a second"
            one = Finding("stream", said, "No action needed: it is catching up.", "waiting", "catching_up")
            yield replace(one, seconds=unread.behind_seconds)
        else:
            said = f"{records(unread)} on the stream, and the worker takes none and logs no reason"
            advice = f"Its log shows whether it is invoked: {log_of('WorkerFunction', option)}."
            yield fault("stream", said, advice, fault="worker_off", seconds=unread.behind_seconds)


def _is_left(state: StackState) -> bool:
    """Return whether the worker has stored nothing since the oldest records arrived. The rate is a mean of five minutes."""
    waiting = ((chain, shard.behind_seconds) for chain, shard in state.unread.shards.items() if shard.records)
    return all(state.at - state.taken.get(chain, 0.0) >= behind for chain, behind in waiting)


def _waiting(state: StackState, option: str) -> Iterator[Finding]:
    """Yield why rows wait, once for each cause: failures at once, what is usual for a while only once it has lasted."""
    redis = next((one for one in state.checks if one.what == "Redis" and one.fault), None)
    alike: dict[Finding, list[WaitingRows]] = {}
    for one in _placed(state.waiting):
        cause = wait_cause(one.reason, one.database or f"the database of {one.account}", option)
        if cause.fault == "redis_silent" and redis is not None:
            cause = redis
        usual = USUAL_AGAIN_SECONDS if one.reason == PUT_AGAIN else WAITING_SECONDS
        if cause.fault != "rows_wait" or state.at - one.since > usual:
            alike.setdefault(cause, []).append(one)
    for cause, waiting in alike.items():
        number = sum(one.rows for one in waiting)
        words = {one.words for one in waiting if one.words}
        quoted = f' ("{words.pop()}")' if len(words) == 1 else ""
        waits = "waits" if number == 1 else "wait"
        said = f"{screen.plural(number, 'row')} {_owners(waiting)} {waits} in S3: {cause.said}{quoted}"
        about = next((one.database for one in waiting if one.database), waiting[0].account)
        seconds = max(0.0, state.at - min(one.since for one in waiting))
        yield replace(cause, what="rows", said=said, about=about, seconds=seconds)


def _placed(waiting: list[WaitingRows]) -> Iterator[WaitingRows]:
    """Yield what waits. Rows that were not tried, because their database fails, get the database of those that were."""
    tried = {(one.account, one.reason): one.database for one in waiting if one.database}
    for one in waiting:
        yield replace(one, database=one.database or tried.get((one.account, one.reason), ""))


def _owners(waiting: list[WaitingRows]) -> str:
    """Return whose rows wait: those for one database, or else those of some accounts."""
    databases = {one.database for one in waiting}
    if len(databases) == 1 and "" not in databases:
        return f"for the database {databases.pop()}"
    names = sorted({one.account for one in waiting})
    shown, more = ", ".join(names[:_NAMED]), len(names) - _NAMED
    return f"of {shown} and {screen.plural(more, 'more account')}" if more > 0 else f"of {shown}"


_DEAD = {
    "unknown_account": "Add the account to accounts.yaml, `sluice accounts apply accounts.yaml {option}`, and a minute later",
    "invalid_account": "`sluice accounts apply accounts.yaml {option}`, and a minute later",
    "disabled_account": "If that is not intended, `sluice accounts enable ACCOUNT {option}`, and a minute later",
    "revoked_key": "If that is not intended, take the key out of revoked_key_ids in accounts.yaml and apply it, and a minute later",
    "object_gone": "Restore it (docs/operations.md#restore), then",
    "may_not_create": "Create the table in Treasure Data, then",
    "no_such_database": "The account has another database now:",
    "too_many_tables": "docs/limits.md#tables-of-an-account says what to do first;",
    "index_gone": "Treasure Data is asked for them by",
}
_INTENDED = ("disabled_account", "revoked_key")
"""Reasons for which rows may be dead on purpose."""


def _dead(state: StackState, option: str) -> Iterator[Finding]:
    for reason, rows in sorted(state.dead().items()):
        is_one = rows == 1
        them, they_are = ("it", "it is") if is_one else ("them", "they are")
        send = f"`sluice redrive {option} --kind dead --reason {reason}`"
        if reason in _DEAD:
            advice = f"{_DEAD[reason].format(option=option)} {send}."
            if reason in _INTENDED:
                advice += f" Otherwise `sluice dead drop {option} --reason {reason}`."
        elif reason.startswith(("http_4", "row_too_large")):
            advice = f"Fix {them} with `sluice redrive {option} --edit --reason {reason}`."
        else:
            advice = f"`sluice dead list {option} --reason {reason}` lists {them}; nobody can send {them} as {they_are}."
        said = f"{screen.plural(rows, 'row')} {'is' if is_one else 'are'} dead ({reason})"
        yield fault("dead rows", said, advice, fault="dead", about=reason)
