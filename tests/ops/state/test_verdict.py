"""The first line of `sluice status`: the state, its cause and the next step."""

from collections import Counter
from dataclasses import replace

import pytest

from ops.books.accounting import Balance, Rows, Unread
from ops.books.arrivals import Arrivals
from ops.logs.notes import Note
from ops.state.stack_state import Hold, ShardState, StackState, WaitingRows, find_hold
from ops.state.verdict import NO_ACTION, Health, verdicts
from shared.errors import HeldError
from tests.support.spans import CHAIN, span
from worker.record import number
from worker.states import State

NOW = 1_795_600_000.0


def shard(records: int = 0, behind: float = 0.0, rate: float = 0.0) -> ShardState:
    """Return a shard's state."""
    return ShardState("shardId-0", records, is_complete=True, behind_seconds=behind, rows_per_second=rate)


def waiting(reason: str, seconds: float, database: str = "shop_db", words: str = "") -> WaitingRows:
    """Return three rows that have waited for a while."""
    return WaitingRows("shop", database, reason, words, 3, NOW - seconds)


def state(*shards: ShardState, hold: Hold | None = None, **more: object) -> StackState:
    """Return the state of a stack that is healthy except for the given values."""
    return replace(StackState(list(shards), 0, [], Counter(), hold=hold, at=NOW), **more)  # type: ignore[arg-type]


def first(of: StackState) -> str:
    """Return the first line."""
    return verdicts(of, "--local")[0].line


def held(
    number: str,
    seconds: int = 5,
    *,
    shard: str = CHAIN.shard,
    reason: str = "Throttling",
    error: str = "HeldError",
) -> Note:
    """Return a note from the worker's log that says it holds."""
    at = f"2026-11-25T09:46:{40 - seconds:02d}"
    return Note("worker", at, "held", reason, reason, error, shard, number)


def test_a_stack_is_healthy_while_records_are_on_their_way() -> None:
    """Waiting records are normal."""
    assert "HEALTHY: nothing is waiting." == first(state(shard()))
    assert "HEALTHY: 3 records waiting." == first(state(shard(3, 2.0)))


@pytest.mark.parametrize(
    ("reason", "error", "said"),
    [
        ("timeout", "", f"Treasure Data does not answer in time. {NO_ACTION}"),
        (
            "http_401, timeout",
            "",
            (
                "Treasure Data answers 401: it rejects the API key. Store a valid one with "
                "`sluice setup --local --td-key-file FILE`."
            ),
        ),
        ("no host", "LedgerUnavailableError", f"the ledger (DynamoDB) does not answer. {NO_ACTION}"),
        ("SlowDown", "BucketUnavailableError", f"the bucket (S3) does not take the rows. {NO_ACTION}"),
        (HeldError.NO_TIME, "HeldError", f"the last invocation ran out of time. {NO_ACTION}"),
        ("something new", "", "something new. Run `sluice doctor --local` to check the stack."),
    ],
)
def test_a_hold_is_reported_with_its_cause_and_next_step(reason: str, error: str, said: str) -> None:
    """It is the first line, and says how long the hold has lasted."""
    assert f"HOLDING for 45 s: {said}" == first(state(shard(4, 45.0), hold=Hold(reason, error, 45.0)))


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (
            waiting("http_503", 300),
            f"WAITING for 5 min: 3 rows for the database shop_db wait in S3: Treasure Data answers 503. {NO_ACTION}",
        ),
        (
            waiting("timeout", 300),
            f"WAITING for 5 min: 3 rows for the database shop_db wait in S3: Treasure Data does not answer in time. {NO_ACTION}",
        ),
        (waiting("sending", 30), "HEALTHY: 3 rows waiting."),
        (
            waiting("http_401", 30),
            (
                "ATTENTION for 30 s: 3 rows for the database shop_db wait in S3: Treasure Data answers 401: it rejects the API key. Store "
                "a valid one with `sluice setup --local --td-key-file FILE`."
            ),
        ),
        (
            waiting("http_403", 30, words="no permission"),
            (
                "ATTENTION for 30 s: 3 rows for the database shop_db wait in S3: Treasure Data answers 403: the API key may not import into "
                'shop_db ("no permission"). Grant it, or correct the account shop in accounts.yaml and apply that. See docs/operations.md#troubleshooting.'
            ),
        ),
        (
            waiting("account_unavailable", 30, database=""),
            (
                "ATTENTION for 30 s: 3 rows of shop wait in S3: Redis does not say where an account's rows go. Check Redis with "
                "`sluice doctor --local`. If it has lost its data, run `sluice accounts apply accounts.yaml`."
            ),
        ),
    ],
)
def test_waiting_rows_are_reported_with_their_cause_and_next_step(one: WaitingRows, said: str) -> None:
    """Failures are reported at once; what is usual for a while, only once it has lasted."""
    assert said == first(state(shard(), waiting=[one]))


def test_a_backlog_without_a_logged_reason_is_reported() -> None:
    """The line says whether the worker is delivering."""
    idle, busy = first(state(shard(9, 90.0))), first(state(shard(9, 90.0, rate=2.5)))

    assert (
        "BEHIND for 1 min 30 s: 9 records waiting, and the worker logs no reason. "
        "Run `sluice doctor --local` to check whether the worker is invoked." == idle
    )
    assert (
        "BEHIND for 1 min 30 s: 9 records waiting, and the worker delivers 2.5 rows a second. "
        "No action needed: it is catching up." == busy
    )


def test_verdicts_are_sorted_by_severity() -> None:
    """A failed reconciliation comes first, then what needs an action, dead rows, the hold, and what passes on its own."""
    found = verdicts(
        state(
            shard(),
            hold=Hold("Throttling", "LedgerUnavailableError", 3.0),
            waiting=[waiting("http_500", 600), waiting("http_401", 60)],
            rows=Counter({("waiting", "shop", "http_500"): 3, ("dead", "app", "http_422"): 2}),
            balance=Balance({("shop", "views"): Rows(3, Counter({State.DELIVERED: 2}))}, Unread(), {}, 1),
        ),
        "--local",
    )

    assert [
        "ATTENTION: reconciliation failed",
        "ATTENTION for 1 min: 3 rows for the database shop_db wait in S3: Treasure Data answers 401: it rejects the API key",
        "ATTENTION: 2 dead rows (http_422)",
        "HOLDING for 3 s: the ledger (DynamoDB) does not answer",
        "WAITING for 10 min: 3 rows for the database shop_db wait in S3: Treasure Data answers 500",
    ] == [one.line.partition(". ")[0] for one in found]
    assert Health.HEALTHY not in {one.health for one in found}


def test_records_that_are_nowhere_are_reported() -> None:
    """The stream counted more than the ledger and the stream have."""
    said = first(state(shard(), arrivals=Arrivals("records", 12, 10)))

    assert said.startswith(
        "ATTENTION: reconciliation failed: the stream counted 12 records, and 2 of them are neither in the ledger nor waiting"
    )


def test_a_hold_is_found_once_the_worker_logs_it() -> None:
    """The log line names the first record that was not stored, and the hold lasts while no span comes after it."""
    head = span(last=number("8"))

    assert Hold("Throttling", "HeldError", 5.0) == find_hold(CHAIN, None, [held("9")], NOW, 0.0)
    assert Hold("Throttling", "HeldError", 5.0) == find_hold(CHAIN, head, [held("9")], NOW, 0.0)


def test_a_hold_is_as_old_as_the_records_that_wait() -> None:
    """The notes go back an hour. A hold of eight hours has lasted for eight hours."""
    assert Hold("Throttling", "HeldError", 28_800.0) == find_hold(CHAIN, None, [held("9")], NOW, 28_800.0)


def test_a_hold_is_over_once_the_ledger_has_its_record() -> None:
    """The log line then no longer counts. A log line about another shard never does."""
    assert None is find_hold(CHAIN, span(last=number("9")), [held("9")], NOW, 0.0)
    assert None is find_hold(CHAIN, None, [held("9", shard="shardId-1")], NOW, 0.0)


def test_an_error_that_the_worker_did_not_expect_is_called_one() -> None:
    """The verdict says that it is a bug, and which exception it was."""
    note = held("9", reason="", error="")

    assert Hold("unexpected error, a bug in Sluice (see the worker's log)", "", 5.0) == find_hold(
        CHAIN, None, [note], NOW, 0.0
    )
