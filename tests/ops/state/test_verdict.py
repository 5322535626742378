"""The first line of `sluice status`: the state, its cause and the next step."""

from collections import Counter
from dataclasses import replace

import pytest

from ops.books.accounting import Balance, Rows, Unread
from ops.logs.notes import UPLOAD_FAILED, Note
from ops.state.stack_state import Hold, ShardState, StackState, find_hold
from ops.state.verdict import NO_ACTION, Health, verdicts
from shared.errors import HeldError
from worker.chain import ChainId
from worker.delivery import State
from worker.ledger import OpenBreaker
from worker.span import Cut, Span

CHAIN = ChainId.parse("events@1700000000#shardId-0")
NOW = 1_795_600_000.0


def shard(records: int = 0, behind: float = 0.0, rate: float = 0.0, open_rows: int = 0) -> ShardState:
    """Return a shard's state."""
    return ShardState(
        "shardId-0",
        records,
        is_complete=True,
        behind_seconds=behind,
        open_rows=open_rows,
        rows_per_second=rate,
    )


def state(*shards: ShardState, hold: Hold | None = None, **more: object) -> StackState:
    """Return the state of a stack that is healthy except for the given values."""
    return replace(StackState(list(shards), 0, [], Counter(), hold=hold), **more)  # type: ignore[arg-type]


def first(of: StackState) -> str:
    """Return the first line."""
    return verdicts(of, "--local")[0].line


def span(*, after: str, last: str, done: bool, planned_at: float = NOW - 8) -> Span:
    """Return a span of the chain."""
    return Span(
        chain=CHAIN,
        after=after,
        first=after,
        last=last,
        planned_at=round(planned_at * 1000),
        destinations={},
        cut=Cut(100, 100),
        counts={},
        records=1,
        done=done,
    )


def held(number: str, seconds: int = 5, *, shard: str = "shardId-0", reason: str = "http_503") -> Note:
    """Return a note from the worker's log that says it holds."""
    at = f"2026-11-25T09:46:{40 - seconds:02d}"
    return Note("worker", at, "held", reason, reason, "HeldError", shard, number)


def test_a_stack_is_healthy_while_records_are_on_their_way() -> None:
    """Waiting records and rows that are being sent are normal."""
    assert "HEALTHY: nothing is waiting." == first(state(shard()))
    assert "HEALTHY: 3 records waiting, 12 rows being sent." == first(state(shard(3, 2.0, open_rows=12)))


@pytest.mark.parametrize(
    ("reason", "error", "said"),
    [
        ("chunks are pending: http_503", "HeldError", f"Treasure Data answers 503. {NO_ACTION}"),
        ("timeout", "", f"Treasure Data does not answer in time. {NO_ACTION}"),
        (
            "chunks are pending: http_401, timeout",
            "",
            (
                "Treasure Data answers 401: it rejects the API key. Store a valid one with "
                "`sluice setup --local --td-key-file FILE`."
            ),
        ),
        (
            HeldError.UNKNOWN_ACCOUNT,
            "HeldError",
            (
                "Redis does not say where an account's rows go. Check Redis with `sluice doctor --local`. If it has lost its "
                "data, run `sluice accounts apply accounts.yaml`."
            ),
        ),
        (
            f"{HeldError.NOT_ARCHIVED}: SlowDown",
            "HeldError",
            (
                "S3 does not accept records for the archive. Rows are still delivered. The worker continues on its own once "
                "S3 accepts them. See docs/operations.md#troubleshooting."
            ),
        ),
        ("no host", "LedgerUnavailableError", f"the ledger (DynamoDB) does not answer. {NO_ACTION}"),
        ("something new", "", "something new. Run `sluice doctor --local` to check the stack."),
    ],
)
def test_a_hold_is_reported_with_its_cause_and_next_step(reason: str, error: str, said: str) -> None:
    """It is the first line, and says how long the hold has lasted."""
    assert f"HOLDING for 45 s: {said}" == first(state(shard(4, 45.0), hold=Hold(reason, error, 45.0)))


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
    """A failed reconciliation comes first, then the hold, a failing database, rows in doubt and dead letters."""
    rows = Rows(3, Counter({State.DELIVERED: 2}))
    found = verdicts(
        state(
            shard(),
            hold=Hold("http_500", "", 3.0),
            breakers=[OpenBreaker("shop", round(NOW * 1000), "http_500")],
            aside=Counter({("doubt", "shop", "timeout"): 1, ("dead", "app", "http_422"): 2}),
            balance=Balance({("shop", "views"): rows}, Unread(), {}, 1, 0),
        ),
        "--local",
    )

    assert [
        "ATTENTION: reconciliation failed",
        "HOLDING for 3 s: Treasure Data answers 500",
        (
            "ATTENTION: the database shop has been failing since 2026-11-25T09:46:40Z (Treasure Data answers 500), "
            "and its rows are set aside"
        ),
        "ATTENTION: 1 row in doubt: Treasure Data may have it",
        "ATTENTION: 2 dead letters (http_422)",
    ] == [one.line.partition(". ")[0] for one in found]
    assert Health.HEALTHY not in {one.health for one in found}


def test_spans_missing_from_the_archive_are_reported() -> None:
    """No rows are lost, but these spans can be replayed only as long as they are on the stream."""
    said = first(state(shard(), balance=Balance({}, Unread(), {}, 2, 0, unarchived=2)))

    assert said.startswith("ATTENTION: 2 settled spans are not in the archive. No rows are lost")


def test_a_hold_is_found_once_the_worker_logs_it() -> None:
    """The log line names the first record that was not settled, and the hold lasts while the ledger has not settled it."""
    note = held("9")

    assert find_hold(CHAIN, None, [note], NOW, 0.0) == Hold("http_503", "HeldError", 5.0)
    assert find_hold(CHAIN, span(after="001" + "5", last="001" + "8", done=True), [note], NOW, 0.0) == Hold(
        "http_503", "HeldError", 5.0
    )
    open_span = span(after="001" + "5", last="001" + "9", done=False)
    assert find_hold(CHAIN, open_span, [note], NOW, 0.0) == Hold("http_503", "HeldError", 8.0)


def test_a_hold_is_as_old_as_the_records_that_wait() -> None:
    """The notes go back an hour. A hold of eight hours has lasted for eight hours."""
    assert Hold("http_503", "HeldError", 28_800.0) == find_hold(CHAIN, None, [held("9")], NOW, 28_800.0)


def test_a_hold_is_over_once_the_ledger_has_settled_its_record() -> None:
    """The log line then no longer counts. A log line about another shard never does."""
    done = span(after="001" + "5", last="001" + "9", done=True)

    assert find_hold(CHAIN, done, [held("9")], NOW, 0.0) is None
    assert find_hold(CHAIN, None, [held("9", shard="shardId-1")], NOW, 0.0) is None


def test_a_failing_upload_is_reported_before_the_worker_gives_up() -> None:
    """While the span is open and an upload has failed, the worker is still retrying."""
    failed = Note("worker", "2026-11-25T09:46:35", UPLOAD_FAILED, "shop: http_503", "http_503")
    open_span = span(after="000", last="001" + "9", done=False)

    assert find_hold(CHAIN, open_span, [failed], NOW, 0.0) == Hold("http_503", "", 8.0)
    assert find_hold(CHAIN, replace(open_span, done=True), [failed], NOW, 0.0) is None
