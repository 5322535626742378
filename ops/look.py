"""How a stack is: looked at through its stream, ledger, bucket, queue and logs."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ops import open_spans, screen
from ops.accounting import Accounting, Balance, Unread
from ops.notes import Note, troubles
from ops.open_spans import Found
from ops.set_aside import NAMES, aside, headers, listed
from ops.stack import Stack
from shared.clock import SystemClock
from worker.ledger import Ledger, OpenBreaker
from worker.shard import Shards
from worker.span import Kind, Span

BEHIND_SECONDS = 60.0
"""With records older than this a stack is behind."""

_COUNT_SECONDS = 10.0
_RATE_SECONDS = 300
_NOTES_SECONDS = 3600
_OPEN_SECONDS = 3.0  # to look the ledger through
_OPEN_AGAIN_SECONDS = 60.0  # it costs, so that --watch does it once a minute


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
        open: spans that were planned long ago and are not settled, beside those that shards are at.
        notes: of trouble, of the last hour, the oldest first.
        unreadable: logs that could not be read, each with the cause.
    """

    shards: list[ShardState]
    in_queue: int
    breakers: list[OpenBreaker]
    aside: Counter[tuple[str, str, str]]
    held: str = ""
    balance: Balance | None = None
    open: Found = field(default_factory=Found)
    notes: list[Note] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

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
        if self.open.spans:
            since = screen.utc(int(self.open.spans[0].planned_at))
            count = f"{len(self.open.spans)}{'' if len(self.open.spans) < open_spans.MOST else '+'}"
            faults.append(f"{count} {'span' if count == '1' else 'spans'} left open since {since}")
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
        self._clock = clock = SystemClock()
        self._stack = stack
        self._open, self._open_at = Found(), float("-inf")
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
        notes, unreadable = troubles(self._stack, _NOTES_SECONDS)
        held = ""
        if any(shard.behind_seconds > BEHIND_SECONDS or shard.open_rows for shard in shards):
            held = _held(notes)
        return State(
            shards,
            unread.in_queue,
            list(self._ledger.breakers()),
            self._aside(),
            held,
            balance,
            self._open_spans(unread),
            notes,
            unreadable,
        )

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

    def _open_spans(self, unread: Unread) -> Found:
        """Return what is open for long, but for the spans that shards are at, which count as behind."""
        if self._clock.now() - self._open_at >= _OPEN_AGAIN_SECONDS:
            chains = [self._shards.chain(shard) for shard in unread.shards]
            at = {(span.chain, span.after) for chain in chains for span in islice(self._latest(chain), 1)}
            self._open = open_spans.find(
                self._dynamodb, self._table, self._clock, seconds=_OPEN_SECONDS, beside=at
            )
            self._open_at = self._clock.now()
        return self._open


def _held(notes: list[Note]) -> str:
    found = [note for note in notes if (note.function, note.what) == ("worker", "held")]
    if not found:
        return ""
    last = found[-1].why
    first = next(note for note in found if note.why == last)
    reason = last.removeprefix("chunks are pending: ")
    return f"the worker holds since {first.at}: {_EXPLAINED.get(reason, reason)}"


_EXPLAINED = {
    "http_401": "Treasure Data refuses our key (401)",
    "http_403": "Treasure Data refuses our key (403)",
    "no_key": "there is no Treasure Data API key yet",
    "an account cannot be asked for": "Redis does not say where an account's rows go",
}
