"""`sluice status`: one line that says how it is, then what it rests on."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import click
from rich.live import Live
from rich.text import Text

from ops import screen
from ops.accounting import Accounting, Balance, Rows, Unread
from ops.failure import UNFINISHED
from ops.moment import MOMENT
from ops.notes import notes
from ops.set_aside import NAMES, aside, headers, listed
from ops.stack import Stack, works_on_stack
from shared.clock import SystemClock
from worker.ledger import Ledger, OpenBreaker
from worker.shard import Shards
from worker.span import Kind, Span

BEHIND_SECONDS = 60.0
"""With records older than this a stack is behind."""

_COUNT_SECONDS = 10.0
_RATE_SECONDS = 300
_NOTES_SECONDS = 3600
_WATCH_SECONDS = 5.0


class Unheard:
    """A journal that nobody reads: the command tells people itself."""

    def count(self, metric: str, value: int = 1) -> None:
        """Forget it."""

    def note(self, message: str, **fields: Any) -> None:
        """Forget it."""

    def flush(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class ShardState:
    """One shard.

    Attributes:
        shard: its id.
        records: behind the last planned span.
        is_complete: all of them were counted.
        behind_seconds: age of the oldest record, or of the open span, that is not settled.
        open_rows: planned and not settled.
        rows_per_second: delivered in the last five minutes.
    """

    shard: str
    records: int
    is_complete: bool
    behind_seconds: float
    open_rows: int
    rows_per_second: float


@dataclass(frozen=True, slots=True)
class State:
    """How a stack is.

    Attributes:
        shards: of the stream.
        in_queue: envelopes in the overflow queue.
        breakers: databases that are sick.
        aside: rows by kind, account and reason.
        held: why the worker holds, and since when it has said so; empty when it does not.
        balance: what was received and what became of it, where asked for.
    """

    shards: list[ShardState]
    in_queue: int
    breakers: list[OpenBreaker]
    aside: Counter[tuple[str, str, str]]
    held: str = ""
    balance: Balance | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def behind_seconds(self) -> float:
        """Age of the oldest record that is not settled."""
        return max((shard.behind_seconds for shard in self.shards), default=0.0)

    @property
    def records(self) -> int:
        """Records that are not planned."""
        return sum(shard.records for shard in self.shards)

    @property
    def verdict(self) -> str:
        """One line."""
        behind = f"{self.records:,}{'' if all(shard.is_complete for shard in self.shards) else '+'} behind"
        return "; ".join(self.faults) or f"healthy: {behind}"

    @property
    def faults(self) -> list[str]:
        """What needs attention, the worst first."""
        faults = []
        if self.balance is not None and not self.balance.adds_up:
            faults.append("the books do not add up")
        if self.behind_seconds > BEHIND_SECONDS:
            unsettled = self.records + sum(shard.open_rows > 0 for shard in self.shards)
            faults.append(
                f"behind by {screen.lasting(self.behind_seconds)}, {screen.plural(unsettled, 'record')} or more"
            )
            if self.held:
                faults.append(self.held)
        faults += [
            f"{breaker.database} is sick since {screen.utc(breaker.since // 1000)} ({breaker.reason})"
            for breaker in self.breakers
        ]
        kinds: Counter[str] = Counter()
        for (kind, _, _), rows in self.aside.items():
            kinds[kind] += rows
        if kinds["doubt"]:
            faults.append(f"{screen.plural(kinds['doubt'], 'row')} in doubt")
        if kinds["dead"]:
            faults.append(f"{screen.plural(kinds['dead'], 'row')} refused: dead letters")
        return faults


class Look:
    """Looks at a stack.

    Args:
        stack: which one.
    """

    def __init__(self, stack: Stack) -> None:
        clock = SystemClock()
        self._stack = stack
        self._kinesis, self._dynamodb = stack.client("kinesis"), stack.client("dynamodb")
        self._stream, self._table = stack.outputs["StreamName"], stack.outputs["LedgerTable"]
        self._shards = Shards(self._kinesis, self._stream, clock)
        self._ledger = Ledger(self._dynamodb, self._table, clock, os.urandom, Unheard())
        self.accounting = Accounting(
            dynamodb=self._dynamodb,
            table=self._table,
            kinesis=self._kinesis,
            stream_name=self._stream,
            aside=aside(stack),
            sqs=stack.client("sqs"),
            queue_url=stack.outputs["OverflowQueueUrl"],
            clock=clock,
        )

    def state(self, since: float | None, until: float | None, *, balanced: bool) -> State:
        """Return how the stack is now."""
        if balanced:
            balance = self.accounting.take(since, until, seconds=_COUNT_SECONDS)
            unread = balance.unread
        else:
            balance, unread = None, self.accounting.unread(seconds=_COUNT_SECONDS)
        shards = [self._shard(shard, unread) for shard in unread.shards]
        held = ""
        if any(shard.behind_seconds > BEHIND_SECONDS or shard.open_rows for shard in shards):
            held = self._held()
        return State(shards, unread.in_queue, list(self._ledger.breakers()), self._aside(), held, balance)

    def span(self, shard: str, number: str) -> Span | None:
        """Return the span of a shard's chain that holds a record, if there is one."""
        span = self._ledger.preceding(self._shards.chain(shard), number)
        return span if span is not None and span.first <= number <= span.last else None

    def _shard(self, shard: str, unread: Unread) -> ShardState:
        counted = unread.shards[shard]
        now, delivered, open_rows, behind = time.time(), 0, 0, counted.behind_seconds
        for index, span in enumerate(self._latest(self._shards.chain(shard))):
            planned_at = span.planned_at / 1000
            if span.done and now - planned_at <= _RATE_SECONDS:
                delivered += sum(span.counts.values()) - sum(entry.rows for entry in span.chunks.values())
            if index == 0 and not span.done:
                open_rows = sum(span.counts.values())
                behind = max(behind, now - planned_at)
            if now - planned_at > _RATE_SECONDS:
                break
        rate = round(delivered / _RATE_SECONDS, 2)
        return ShardState(shard, counted.records, counted.is_complete, round(behind, 1), open_rows, rate)

    def _latest(self, chain: str) -> Iterator[Span]:
        """Yield a chain's spans, the latest first."""
        request: dict[str, Any] = {}
        while True:
            answer = self._dynamodb.query(
                TableName=self._table,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": chain}},
                ScanIndexForward=False,
                Limit=100,
                ConsistentRead=True,
                **request,
            )
            yield from map(Span.from_item, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            request = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _aside(self) -> Counter[tuple[str, str, str]]:
        rows: Counter[tuple[str, str, str]] = Counter()
        for header in headers(self._stack, listed(self._stack, tuple(Kind))):
            rows[NAMES[header.listed.kind], header.listed.account, header.reason] += header.listed.rows
        return rows

    def _held(self) -> str:
        found = notes(self._stack, "WorkerFunction", "held", _NOTES_SECONDS)
        if not found:
            return ""
        last = found[-1]
        first = next(note for note in found if note.get("reason") == last.get("reason"))
        reason = str(last.get("reason", "")).removeprefix("chunks are pending: ")
        return f"the worker holds since {_moment(first)}: {_EXPLAINED.get(reason, reason)}"


_EXPLAINED = {
    "http_401": "Treasure Data refuses our key (401)",
    "http_403": "Treasure Data refuses our key (403)",
    "no_key": "there is no Treasure Data API key yet",
    "an account cannot be asked for": "Redis does not say where an account's rows go",
}


def _moment(note: dict[str, Any]) -> str:
    return str(note.get("timestamp", "?"))[:19].replace(" ", "T")


@click.command("status")
@works_on_stack
@click.option("--since", type=MOMENT, help="Reconcile what was planned since then, by account and table.")
@click.option("--until", type=MOMENT, help="Reconcile only what was planned before.")
@click.option("--all", "everything", is_flag=True, help="Reconcile all that the ledger remembers.")
@click.option("--watch", is_flag=True, help="Look again every five seconds until Ctrl-C.")
@screen.json_option
@click.pass_context
def command(
    ctx: click.Context,
    stack: Stack,
    *,
    since: float | None,
    until: float | None,
    everything: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Say how the stack is: backlog, rate, what is set aside and why, sick databases.

    With --since or --all also the reconciliation: received = delivered + set aside + in flight. That reads the whole ledger.
    """
    look = Look(stack)
    balanced = everything or since is not None or until is not None
    if watch:
        _watch(look, since, until, balanced=balanced)
        return
    state = look.state(since, until, balanced=balanced)
    if as_json:
        screen.show_json(document(state))
    else:
        screen.say(state.verdict)
        _show(state)
    ctx.exit(UNFINISHED if state.faults else 0)


def _watch(look: Look, since: float | None, until: float | None, *, balanced: bool) -> None:
    out = screen.console()
    with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
        while True:
            state = look.state(since, until, balanced=balanced)
            with out.capture() as captured:
                out.print(state.verdict, style="bold")
                for title, columns, rows in _tables(state):
                    if rows:
                        out.print(f"\n{title}")
                        out.print(screen.table(columns, rows))
            live.update(Text.from_ansi(captured.get()), refresh=True)
            time.sleep(_WATCH_SECONDS)


def _show(state: State) -> None:
    for title, columns, rows in _tables(state):
        if rows:
            screen.say(f"\n{title}")
            screen.show_table(columns, rows)


def _tables(state: State) -> Iterator[tuple[str, tuple[str, ...], list[tuple[object, ...]]]]:
    yield (
        f"Stream ({screen.plural(state.in_queue, 'envelope')} in the overflow queue)",
        ("shard", "behind", "records", "rows in open spans", "rows/s"),
        [
            (
                shard.shard,
                screen.lasting(shard.behind_seconds),
                shard.records if shard.is_complete else f"{shard.records:,}+",
                shard.open_rows,
                shard.rows_per_second,
            )
            for shard in state.shards
        ],
    )
    yield (
        "Set aside",
        ("kind", "account", "reason", "rows"),
        [(*place, rows) for place, rows in sorted(state.aside.items())],
    )
    yield (
        "Sick databases",
        ("database", "since", "reason"),
        [(one.database, screen.utc(one.since // 1000), one.reason) for one in state.breakers],
    )
    if state.balance is not None:
        columns = (
            "account",
            "table",
            "received",
            "delivered",
            "parked",
            "doubt",
            "dead",
            "in flight",
            "adds up",
        )
        yield "Reconciliation in rows", columns, _balanced(state.balance)
        yield (
            "Sent again by forced replays",
            columns,
            [_line(account, table, rows) for (account, table), rows in sorted(state.balance.forced.items())],
        )


def _balanced(balance: Balance) -> list[tuple[object, ...]]:
    lines = [_line(account, table, rows) for (account, table), rows in sorted(balance.tables.items())]
    return [*lines, _line("all", "", balance.total)]


def _line(account: str, table: str, rows: Rows) -> tuple[object, ...]:
    kinds = (rows.aside[kind] for kind in (Kind.PARKED, Kind.IN_DOUBT, Kind.DEAD_LETTER))
    return (
        account,
        table,
        rows.received,
        rows.delivered,
        *kinds,
        rows.in_flight,
        "yes" if rows.adds_up else "NO",
    )


def document(state: State) -> dict[str, Any]:
    """Return the state as JSON's types."""
    return {
        "healthy": not state.faults,
        "verdict": state.verdict,
        "behind_seconds": state.behind_seconds,
        "shards": [asdict(shard) for shard in state.shards],
        "in_queue": state.in_queue,
        "sick_databases": [asdict(breaker) for breaker in state.breakers],
        "aside": [
            {"kind": kind, "account": account, "reason": reason, "rows": rows}
            for (kind, account, reason), rows in sorted(state.aside.items())
        ],
        "held": state.held,
        "balance": None if state.balance is None else _balance_document(state.balance),
    }


def _balance_document(balance: Balance) -> dict[str, Any]:
    def rows(tables: Any) -> list[dict[str, Any]]:
        return [
            {
                "account": account,
                "table": table,
                "received": one.received,
                "delivered": one.delivered,
                "aside": {NAMES[kind]: one.aside[kind] for kind in Kind},
                "in_flight": one.in_flight,
                "adds_up": one.adds_up,
            }
            for (account, table), one in sorted(tables.items())
        ]

    return {
        "adds_up": balance.adds_up,
        "received": balance.total.received,
        "tables": rows(balance.tables),
        "forced": rows(balance.forced),
        "unread_records": balance.unread.on_stream,
        "spans": balance.spans,
        "open_spans": balance.open_spans,
    }
