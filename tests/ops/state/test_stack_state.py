"""What the state of a stack says beyond the names of its faults: for how long records are held, and in which order findings come."""

from collections import Counter
from dataclasses import replace

from ops.books.accounting import Balance, Rows, Unread, UnreadShard
from ops.books.arrivals import Arrivals
from ops.books.chunks import RowGroup
from ops.logs.notes import Note
from ops.state.faults import findings, summary
from ops.state.finding import NO_ACTION, fault
from ops.state.stack_state import Hold, StackState, WaitingRows, find_hold
from tests.support.spans import CHAIN, span
from worker.record import number
from worker.states import State

NOW = 1_795_600_000.0
BUG = "unexpected error, a bug in Sluice (see the worker's log)"


def state(records: int = 0, **more: object) -> StackState:
    """Return the state of a stack that is healthy except for the given values."""
    shards = {CHAIN: UnreadShard(records)}
    return replace(StackState(Unread(0, shards), at=NOW), **more)  # type: ignore[arg-type]


def lines(of: StackState) -> list[str]:
    """Return what `status` says first."""
    return [one.verdict for one in summary(of, findings(of, "--local"))]


def held(of: str, *, shard: str = CHAIN.shard, reason: str = "Throttling", error: str = "HeldError") -> Note:
    """Return a note from the worker's log, five seconds old, that it holds from a record on."""
    return Note("worker", "2026-11-25T09:46:35", "held", reason, reason, error, shard, of)


def test_a_stack_is_healthy_while_records_are_on_their_way() -> None:
    """Records on the stream are normal, and so are envelopes in the overflow queue and rows that are being sent."""
    sending = WaitingRows("shop", "shop_db", "sending", rows=3, since=NOW - 30)

    assert ["HEALTHY: nothing is waiting."] == lines(state())
    queued = replace(state(3, waiting=[sending]).unread, in_queue=1)
    where = "3 records on the stream, 1 envelope in the overflow queue, 3 rows waiting in S3"
    assert [f"HEALTHY: {where}."] == lines(state(3, waiting=[sending], unread=queued))


def test_rows_that_wait_for_one_cause_are_one_finding() -> None:
    """An outage names three accounts, a refusal what Treasure Data said; dead rows may be on purpose, and can be dropped."""
    names = ("app", "blog", "docs", "news", "shop")
    waiting = [WaitingRows(name, f"{name}_db", "http_503", rows=2, since=NOW - 60) for name in names]
    waiting.append(WaitingRows("shop", "", "http_503", rows=1, since=NOW - 90))
    refused = WaitingRows("shop", "shop_db", "http_403", "no permission", 3, NOW - 30)
    outage = "WAITING for 1 min 30 s: 11 rows of app, blog, docs and 2 more accounts wait in S3: Treasure Data answers 503."
    refusal = (
        "ATTENTION for 30 s: 3 rows for the database shop_db wait in S3: Treasure Data answers 403: the API key may not import into "
        'shop_db ("no permission"). Grant it, or correct the account\'s database in accounts.yaml and apply that. '
        "See docs/operations.md#troubleshooting."
    )

    assert [f"{outage} {NO_ACTION}"] == lines(state(waiting=waiting))
    assert [refusal] == lines(state(waiting=[refused]))
    untried = WaitingRows("shop", "", "http_403", rows=2, since=NOW - 20)
    (both,) = findings(state(waiting=[refused, untried]), "--local")
    (alone,) = findings(state(waiting=[untried]), "--local")
    assert ("td_forbidden", "shop_db") == (both.fault, both.about)
    assert both.said.startswith("5 rows for the database shop_db wait in S3")
    assert "the API key may not import into the database of shop" in alone.said
    # on purpose, for which the stack would otherwise need attention for ever
    (dead,) = lines(state(rows={("dead", "shop", "revoked_key"): RowGroup(rows=2)}))
    assert "and a minute later `sluice redrive --local --kind dead --reason revoked_key`." in dead
    assert "Otherwise `sluice dead drop --local --reason revoked_key`." in dead


def test_findings_are_sorted_by_severity() -> None:
    """What somebody has to act on comes first, a failed reconciliation before all, dead rows last; then the hold, and what passes on its own."""
    found = lines(
        state(
            hold=Hold("Throttling", "LedgerUnavailableError", 3.0),
            waiting=[WaitingRows("shop", "shop_db", "http_500", rows=3, since=NOW - 600)],
            rows={("waiting", "shop", "http_500"): RowGroup(3), ("dead", "app", "http_422"): RowGroup(2)},
            balance=Balance({("shop", "views"): Rows(3, Counter({State.DELIVERED: 2}))}, Unread(), {}, 1),
            arrivals=Arrivals("records", 12, 10),
            checks=[fault("Redis", "it does not answer", fault="redis_unreachable")],
        )
    )

    assert [
        "ATTENTION: reconciliation failed: the stream counted 12 records, and 2 of them are neither in the ledger nor waiting",
        "ATTENTION: reconciliation failed",
        "ATTENTION: it does not answer",
        "ATTENTION: 2 rows are dead (http_422)",
        "HOLDING for 3 s: the ledger (DynamoDB) does not answer",
        "WAITING for 10 min: 3 rows for the database shop_db wait in S3: Treasure Data answers 500",
    ] == [one.partition(". ")[0] for one in found]
    assert found[-1].endswith(NO_ACTION)


def test_a_hold_lasts_from_its_first_record_until_the_ledger_has_it() -> None:
    """Notes go back an hour: a hold of eight hours is as old as its records. A line about another shard says nothing; a bug is called one."""
    now = held("9").seconds + 5.0
    hold = Hold("Throttling", "HeldError", 5.0)

    assert hold == find_hold(CHAIN, None, [held("9")], now, 0.0)
    assert hold == find_hold(CHAIN, span(last=number("8")), [held("9")], now, 0.0)
    assert replace(hold, seconds=28_800.0) == find_hold(CHAIN, None, [held("9")], now, 28_800.0)
    assert None is find_hold(CHAIN, span(last=number("9")), [held("9")], now, 0.0)
    assert None is find_hold(CHAIN, None, [held("9", shard="shardId-1")], now, 0.0)
    assert Hold(BUG, "", 5.0) == find_hold(CHAIN, None, [held("9", reason="", error="")], now, 0.0)
