"""The state of a stack, as its stream, ledger, bucket, queue and logs show it."""

import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice

from ops import open_spans, screen, set_aside
from ops.accounting import Accounting, Balance, Unread, UnreadShard, by_group
from ops.notes import Note, troubles
from ops.open_spans import Found
from ops.stack import Stack
from shared.clock import SystemClock
from worker.chain import ChainId
from worker.delivery import ASIDE, State
from worker.ledger import OpenBreaker, Place
from worker.selection import Selection

BEHIND_SECONDS = 60.0
"""A stack with older records is behind."""

_COUNT_SECONDS = 10.0
_RATE_SECONDS = 300
_NOTES_SECONDS = 3600
_OPEN_SECONDS = 3.0  # to search the ledger
_OPEN_AGAIN_SECONDS = 60.0  # it costs, so that --watch does it once a minute


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
class StackState:
    """The state of a stack.

    Attributes:
        shards: of the stream.
        in_queue: envelopes in the overflow queue.
        breakers: databases that are failing.
        aside: rows by kind, account and reason.
        aside_is_complete: all that is set aside was counted.
        held: why the worker holds, and since when it has said so; empty when it does not.
        balance: what was received and what became of it, where asked for.
        open: spans that have been open for long, beside those that shards are at.
        notes: of trouble, of the last hour, the oldest first.
        unreadable: logs that could not be read, each with the cause.
    """

    shards: list[ShardState]
    in_queue: int
    breakers: list[OpenBreaker]
    aside: Counter[tuple[str, str, str]]
    aside_is_complete: bool = True
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
        missing = 0 if self.balance is None else self.balance.total.states[State.MISSING]
        if missing:
            faults.append(f"{screen.plural(missing, 'row')} missing: their records expired undelivered")
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
        self._ledger = stack.ledger()
        self._accounting = Accounting(
            ledger=self._ledger,
            shards=stack.shards(),
            store=stack.set_aside_store(),
            sqs=stack.client("sqs"),
            queue_url=stack.outputs["OverflowQueueUrl"],
            clock=clock,
        )

    def state(self, since: float | None, until: float | None, *, balanced: bool) -> StackState:
        """Return how the stack is now."""
        if balanced:
            balance = self._accounting.take(since, until, seconds=_COUNT_SECONDS)
            unread = balance.unread
        else:
            balance, unread = None, self._accounting.unread(seconds=_COUNT_SECONDS)
        shards = [self._shard(chain, counted) for chain, counted in unread.shards.items()]
        notes, unreadable = troubles(self._stack, _NOTES_SECONDS)
        is_behind = any(shard.behind_seconds > BEHIND_SECONDS or shard.open_rows for shard in shards)
        aside, aside_is_complete = self._aside()
        return StackState(
            shards,
            unread.in_queue,
            list(self._ledger.breakers()),
            aside,
            aside_is_complete,
            _held(notes) if is_behind else "",
            balance,
            self._open_spans(unread),
            notes,
            unreadable,
        )

    def _shard(self, chain: ChainId, counted: UnreadShard) -> ShardState:
        now, delivered, open_rows, behind = time.time(), 0, 0, counted.behind_seconds
        for index, span in enumerate(self._ledger.latest(chain)):
            planned_at = span.planned_at / 1000
            if span.done and now - planned_at <= _RATE_SECONDS:
                delivered += sum(states[State.DELIVERED] for states in by_group(span).values())
            if index == 0 and not span.done:
                open_rows = sum(span.counts.values())
                behind = max(behind, now - planned_at)
            if now - planned_at > _RATE_SECONDS:
                break
        rate = round(delivered / _RATE_SECONDS, 2)
        return ShardState(
            chain.shard, counted.records, counted.is_complete, round(behind, 1), open_rows, rate
        )

    def _aside(self) -> tuple[Counter[tuple[str, str, str]], bool]:
        """Return what is set aside, and whether all of it was counted within the time."""
        rows: Counter[tuple[str, str, str]] = Counter()
        until = self._clock.now() + _COUNT_SECONDS
        for chunk in set_aside.chunks(self._ledger, Selection(tuple(ASIDE))):
            rows[set_aside.NAMES[chunk.entry.state], chunk.key.account, chunk.entry.reason] += (
                chunk.entry.rows
            )
            if self._clock.now() >= until:
                return rows, False
        return rows, True

    def _open_spans(self, unread: Unread) -> Found:
        """Return what has been open for long, except the spans that shards are at, which count as behind."""
        if self._clock.now() - self._open_at >= _OPEN_AGAIN_SECONDS:
            at = {
                Place(span.chain, span.after)
                for chain in unread.shards
                for span in islice(self._ledger.latest(chain), 1)
            }
            self._open = open_spans.find(self._ledger, self._clock, seconds=_OPEN_SECONDS, beside=at)
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
    "nobody can say where an account's rows go": "Redis does not say where an account's rows go",
}
