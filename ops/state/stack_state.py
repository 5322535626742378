"""The state of a stack, read from its stream, ledger, bucket, queue and logs."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from botocore.exceptions import BotoCoreError, ClientError

from ops.books import long_open_spans, set_aside
from ops.books.accounting import Accounting, Balance, Unread, UnreadShard, by_group
from ops.books.arrivals import Arrivals, StreamCount, of_gateway
from ops.books.budget_uses import BudgetUse
from ops.books.long_open_spans import LongOpenSpans
from ops.logs import answers
from ops.logs.notes import UPLOAD_FAILED, Note, troubles
from ops.stack import Stack
from shared.clock import SystemClock
from shared.errors import InvalidObjectError, error_code
from worker.chain import ChainId
from worker.delivery import ASIDE, State
from worker.ledger import OpenBreaker, Place
from worker.record import START
from worker.selection import Selection
from worker.span import Span
from worker.watermark import Completeness, Watermarks

_REJECTED_SECONDS = 86_400.0
_COUNT_SECONDS = 10.0
_RATE_SECONDS = 300
_NOTES_SECONDS = 3600
_NOTABLE = 0.25
"""The share of its budget from which an account is shown."""
_OPEN_SECONDS = 3.0  # to search the ledger
_OPEN_AGAIN_SECONDS = 60.0  # the search costs read units, so --watch repeats it only once a minute


@dataclass(frozen=True, slots=True)
class ShardState:
    """One shard.

    Attributes:
        shard: its id.
        records: records after the last planned span.
        is_complete: whether all of them were counted.
        behind_seconds: age of the oldest unplanned record, or of the open span if that is older.
        open_rows: rows planned but not settled.
        rows_per_second: delivery rate over the last five minutes.
    """

    shard: str
    records: int
    is_complete: bool
    behind_seconds: float
    open_rows: int
    rows_per_second: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Records that the worker could not settle when it last tried.

    Attributes:
        reason: the reason in the worker's log.
        error: the type of the error in the worker's log.
        seconds: how long it has lasted.
    """

    reason: str
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StackState:
    """The state of a stack.

    Attributes:
        shards: the stream's shards.
        in_queue: envelopes in the overflow queue.
        breakers: failing databases.
        aside: set-aside rows by kind, account and reason.
        aside_is_complete: whether all set-aside rows were counted.
        hold: why records are held; None if none are.
        balance: what was received and what happened to it, if requested.
        open: spans that have been open for a long time, except those that shards are working on.
        notes: warnings and errors of the last hour, oldest first.
        unreadable: logs and counts that could not be read, each with the cause.
        arrivals: the counts taken before the ledger, if requested and known.
        completeness: the watermarks, if requested.
        rejected: rejected events of the last day, by account, table and code.
        budgets: accounts that have spent much of their budgets, or more, within the last day.
    """

    shards: list[ShardState]
    in_queue: int
    breakers: list[OpenBreaker]
    aside: Counter[tuple[str, str, str]]
    aside_is_complete: bool = True
    hold: Hold | None = None
    balance: Balance | None = None
    open: LongOpenSpans = field(default_factory=LongOpenSpans)
    notes: list[Note] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    arrivals: Arrivals | None = None
    completeness: Completeness | None = None
    rejected: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    budgets: list[BudgetUse] = field(default_factory=list)

    @property
    def behind_seconds(self) -> float:
        """The longest that any shard is behind."""
        return max((shard.behind_seconds for shard in self.shards), default=0.0)

    @property
    def records(self) -> int:
        """Number of records that are not planned yet."""
        return sum(shard.records for shard in self.shards)

    @property
    def is_counted(self) -> bool:
        """Whether all records were counted."""
        return all(shard.is_complete for shard in self.shards)


def accounting(stack: Stack) -> Accounting:
    """Return a stack's accounting."""
    return Accounting(
        ledger=stack.ledger(),
        shards=stack.shards(),
        store=stack.set_aside_store(),
        archive=stack.archive(),
        archive_days=stack.archive_days,
        sqs=stack.client("sqs"),
        queue_url=stack.outputs["OverflowQueueUrl"],
        clock=SystemClock(),
    )


class StateReader:
    """Reads the state of a stack.

    Args:
        stack: the stack.
        watermarks: the source of watermarks; None if they are not requested.
    """

    def __init__(self, stack: Stack, watermarks: Watermarks | None = None) -> None:
        self._watermarks = watermarks
        self._clock = SystemClock()
        self._stack = stack
        self._open, self._open_at = LongOpenSpans(), float("-inf")
        self._ledger = stack.ledger()
        self._accounting = accounting(stack)

    def state(self, since: float | None, until: float | None, *, balanced: bool) -> StackState:
        """Return the current state. If `balanced`, reconcile what was planned from `since` to `until`, UNIX seconds."""
        notes, unreadable = troubles(self._stack, _NOTES_SECONDS)
        balance, arrivals = None, None
        if balanced:
            balance, arrivals = self._balance(since, until, unreadable)
            unread = balance.unread
        else:
            unread = self._accounting.unread(seconds=_COUNT_SECONDS)
        shards, holds = [], []
        for chain, counted in unread.shards.items():
            head = next(self._ledger.latest(chain), None)
            shards.append(self._shard(chain, counted))
            holds.append(find_hold(chain, head, notes, self._clock.now(), counted.behind_seconds))
        aside, aside_is_complete = self._aside()
        return StackState(
            shards,
            unread.in_queue,
            list(self._ledger.breakers()),
            aside,
            aside_is_complete,
            max(filter(None, holds), key=lambda hold: hold.seconds, default=None),
            balance,
            self._open_spans(unread),
            notes,
            unreadable,
            arrivals,
            None if self._watermarks is None else self._watermarks.take(_COUNT_SECONDS),
            self._rejected() if balance is None else Counter(),
            self._budgets(unreadable),
        )

    def _budgets(self, unreadable: list[str]) -> list[BudgetUse]:
        try:
            found = self._stack.spending().all(self._clock.now())
        except (ClientError, InvalidObjectError) as error:
            unreadable.append(f"the counters of what accounts spend: {error_code(error)}")
            return []
        return [one for one in found if one.refused_requests or one.spent >= _NOTABLE]

    def _rejected(self) -> Counter[tuple[str, str, str]]:
        """Return the rejected events of the last day, as many as can be counted in _COUNT_SECONDS."""
        events: Counter[tuple[str, str, str]] = Counter()
        now = self._clock.now()
        selection = Selection((State.REJECTED,), since=now - _REJECTED_SECONDS)
        for chunk in set_aside.chunks(self._ledger, selection):
            group = chunk.key.group
            events[group.owner.account, group.table, group.code] += chunk.entry.rows
            if self._clock.now() >= now + _COUNT_SECONDS:
                break
        return events

    def _balance(
        self, since: float | None, until: float | None, unreadable: list[str]
    ) -> tuple[Balance, Arrivals | None]:
        """Return a balance, and the arrivals to compare it with; None for these if the balance ends in the past."""
        if until is not None:
            return self._accounting.take(since, until, seconds=_COUNT_SECONDS), None
        if self._stack.folder is not None:
            counted = answers.read(self._stack.folder).accepted
            balance = self._accounting.take(since, seconds=_COUNT_SECONDS)
            return balance, None if since is not None else of_gateway(counted, balance)
        shards = self._stack.shards()
        count = StreamCount.of(shards, self._clock, since)
        if count is None:
            return self._accounting.take(since, seconds=_COUNT_SECONDS), None
        balance = self._accounting.take(since, seconds=_COUNT_SECONDS, each=count.add)
        try:
            cloudwatch, stream = self._stack.client("cloudwatch"), self._stack.outputs["StreamName"]
            return balance, count.result(cloudwatch, stream, balance)
        except (ClientError, BotoCoreError) as error:
            unreadable.append(f"the stream's own count: {error_code(error)}")
            return balance, None

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
        """Return the set-aside rows, and whether all of them were counted in _COUNT_SECONDS."""
        rows: Counter[tuple[str, str, str]] = Counter()
        until = self._clock.now() + _COUNT_SECONDS
        for chunk in set_aside.chunks(self._ledger, Selection(tuple(ASIDE))):
            rows[set_aside.NAMES[chunk.entry.state], chunk.key.account, chunk.entry.reason] += (
                chunk.entry.rows
            )
            if self._clock.now() >= until:
                return rows, False
        return rows, True

    def _open_spans(self, unread: Unread) -> LongOpenSpans:
        """Return spans that have been open for a long time, except each shard's last one, which counts as behind."""
        if self._clock.now() - self._open_at >= _OPEN_AGAIN_SECONDS:
            at = {
                Place(span.chain, span.after)
                for chain in unread.shards
                for span in islice(self._ledger.latest(chain), 1)
            }
            self._open = long_open_spans.find(self._ledger, self._clock, seconds=_OPEN_SECONDS, beside=at)
            self._open_at = self._clock.now()
        return self._open


def find_hold(
    chain: ChainId, head: Span | None, notes: Sequence[Note], now: float, behind: float
) -> Hold | None:
    """Return why a shard's records are held; None if they are not.

    The worker logs the first record that it could not settle. The record is still held if the ledger has not settled it.

    Args:
        chain: the shard's chain.
        head: the last span of the chain, if any.
        notes: warnings and errors, oldest first.
        now: UNIX seconds.
        behind: the age of the shard's oldest record that is not planned. It counts if it is older than the notes, which go back an
            hour.
    """
    settled = START if head is None else head.last if head.done else head.after
    found = [note for note in notes if note.shard == chain.shard and note.is_about_after(settled)]
    began = [note.seconds for note in found]
    if head is not None and not head.done:
        planned_at = head.planned_at / 1000
        failed = [note for note in notes if note.what == UPLOAD_FAILED and note.seconds >= int(planned_at)]
        began += [planned_at] if found or failed else []
        found = found or failed
    if not found:
        return None
    last = found[-1]
    reason = last.reason or f"unexpected error, a bug in Sluice ({last.why or "see the worker's log"})"
    return Hold(reason, last.error, max(0.0, behind, now - min(began)))
