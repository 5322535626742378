"""The state of a stack, read from its stream, ledger, bucket, queue and logs."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from botocore.exceptions import BotoCoreError, ClientError

from ops.books.accounting import Accounting, Balance, UnreadShard, by_group
from ops.books.arrivals import Arrivals, StreamCount, of_gateway
from ops.books.budget_uses import BudgetUse
from ops.books.chunks import NAMES, ListedChunk, RowGroup, chunks
from ops.failure import FORESEEN, is_gone
from ops.logs import answers
from ops.logs.notes import Note, troubles
from ops.stack import Stack
from ops.state.checks import Checks
from ops.state.finding import Finding
from shared.clock import SystemClock
from shared.errors import InvalidObjectError, error_code
from worker.chain import ChainId
from worker.record import START
from worker.selection import Selection
from worker.span import Span
from worker.states import State
from worker.watermark import Completeness, Watermarks

_REJECTED_SECONDS = 86_400.0
_COUNT_SECONDS = 10.0
_RATE_SECONDS = 300
_NOTES_SECONDS = 3600
_CHECKED_SECONDS = 60.0  # a state that is read every few seconds repeats its checks this often
_SHOWN = (State.WAITING, State.AGAIN, State.DEAD)
_NOTABLE = 0.25
"""The share of its budget from which an account is shown."""


@dataclass(frozen=True, slots=True)
class ShardState:
    """One shard.

    Attributes:
        shard: its id.
        records: records after the last span.
        is_complete: whether all of them were counted.
        behind_seconds: age of the oldest of them.
        rows_per_second: delivery rate over the last five minutes.
        idle_seconds: for how long the worker has stored none of its records; None if it never has.
    """

    shard: str
    records: int
    is_complete: bool
    behind_seconds: float
    rows_per_second: float
    idle_seconds: float | None = None

    @property
    def is_left(self) -> bool:
        """Whether the worker has stored nothing since the oldest of the records arrived."""
        return self.idle_seconds is None or self.idle_seconds >= self.behind_seconds


@dataclass(frozen=True, slots=True)
class Hold:
    """Records that the worker could not store when it last tried.

    Attributes:
        reason: the reason in the worker's log.
        error: the type of the error in the worker's log.
        seconds: how long it has lasted.
    """

    reason: str
    error: str
    seconds: float


@dataclass(slots=True)
class WaitingRows:
    """Rows of one account that wait for one database, for one reason.

    Attributes:
        account: their account.
        database: where they go; empty if they were not tried yet.
        reason: why they wait, in one word.
        words: Treasure Data's own explanation.
        rows: how many.
        since: when the oldest of them was planned, UNIX seconds.
    """

    account: str
    database: str
    reason: str
    words: str = ""
    rows: int = 0
    since: float = float("inf")

    def add(self, chunk: ListedChunk) -> None:
        """Count a chunk."""
        self.rows += chunk.rows
        self.since = min(self.since, chunk.span.planned_at / 1000)
        self.words = self.words or chunk.entry.words


@dataclass(frozen=True, slots=True)
class StackState:
    """The state of a stack.

    Attributes:
        at: when it was read, UNIX seconds.
        shards: the stream's shards.
        in_queue: envelopes in the overflow queue.
        waiting: rows that wait, the oldest first.
        rows: waiting and dead rows by kind, account and reason.
        is_whole: whether all of them were counted.
        hold: why records are held; None if none are.
        balance: what was received and what happened to it, if requested.
        notes: warnings and errors of the last hour, oldest first.
        unreadable: logs and counts that could not be read, each with the cause.
        arrivals: the counts taken before the ledger, if requested and known.
        completeness: the watermarks, if requested.
        rejected: rejected events of the last day, by account, table and code.
        budgets: accounts that have spent much of their budgets, or more, within the last day.
        groups: the same rows, with Treasure Data's explanation and with what identifies them.
        checks: what the checks found.
    """

    shards: list[ShardState]
    in_queue: int
    waiting: list[WaitingRows]
    rows: Counter[tuple[str, str, str]]
    is_whole: bool = True
    hold: Hold | None = None
    balance: Balance | None = None
    notes: list[Note] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    arrivals: Arrivals | None = None
    completeness: Completeness | None = None
    rejected: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    at: float = field(default_factory=time.time)
    budgets: list[BudgetUse] = field(default_factory=list)
    groups: Mapping[tuple[str, str, str], RowGroup] = field(default_factory=dict)
    checks: list[Finding] = field(default_factory=list)

    def dead(self) -> Counter[str]:
        """Return the dead rows by reason."""
        counted: Counter[str] = Counter()
        for (kind, _, reason), rows in self.rows.items():
            counted[reason] += rows if kind == "dead" else 0
        return +counted

    @property
    def behind_seconds(self) -> float:
        """The longest that any shard is behind."""
        return max((shard.behind_seconds for shard in self.shards), default=0.0)

    @property
    def records(self) -> int:
        """Number of records that are in no span yet."""
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
        objects=stack.objects(),
        sqs=stack.client("sqs"),
        queue_url=stack.outputs["OverflowQueueUrl"],
        clock=SystemClock(),
    )


class StateReader:
    """Reads the state of a stack.

    Args:
        stack: the stack.
        watermarks: the source of watermarks; None if they are not requested.
        checks: the checks to run; None for the usual ones.
    """

    def __init__(
        self, stack: Stack, watermarks: Watermarks | None = None, checks: Checks | None = None
    ) -> None:
        self._checks = checks or Checks(stack)
        self._checked: tuple[float, list[Finding]] = float("-inf"), []
        self._watermarks = watermarks
        self._clock = SystemClock()
        self._stack = stack
        self._ledger = stack.ledger()
        self._accounting = accounting(stack)

    def state(self, since: float | None, until: float | None, *, balanced: bool) -> StackState:
        """Return the current state. If `balanced`, reconcile what was planned from `since` to `until`, UNIX seconds.

        If a resource of the stack is gone, the state is what the checks found.

        Raises:
            UnavailableError, ClientError, BotoCoreError: something cannot be read.
        """
        checks = self.check()
        try:
            return replace(self._read(since, until, balanced=balanced), checks=checks)
        except FORESEEN as error:
            if is_gone(error) and any(one.fault.endswith("_gone") for one in checks):
                return StackState([], 0, [], Counter(), checks=checks)
            raise

    def _read(self, since: float | None, until: float | None, *, balanced: bool) -> StackState:
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
        groups: dict[tuple[str, str, str], RowGroup] = {}
        waiting, rows, is_whole = self._rows(groups)
        return StackState(
            shards,
            unread.in_queue,
            waiting,
            rows,
            is_whole,
            max(filter(None, holds), key=lambda hold: hold.seconds, default=None),
            balance,
            notes,
            unreadable,
            arrivals,
            None if self._watermarks is None else self._watermarks.take(_COUNT_SECONDS),
            self._rejected() if balance is None else Counter(),
            self._clock.now(),
            self._budgets(unreadable),
            groups=groups,
        )

    def check(self) -> list[Finding]:
        """Return what the checks find, or found less than a minute ago."""
        now = self._clock.now()
        if now - self._checked[0] >= _CHECKED_SECONDS:
            self._checked = now, list(self._checks.findings())
        return self._checked[1]

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
        for chunk in chunks(self._ledger, selection):
            group = chunk.key.group
            events[group.sender.account, group.table, group.code] += chunk.rows
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
        now, delivered, idle = time.time(), 0, None
        for span in self._ledger.latest(chain):
            idle = round(max(0.0, now - span.planned_at / 1000), 1) if idle is None else idle
            if now - span.planned_at / 1000 > _RATE_SECONDS:
                break
            delivered += sum(states[State.DELIVERED] for states in by_group(span).values())
        rate = round(delivered / _RATE_SECONDS, 3)
        behind = round(counted.behind_seconds, 1)
        return ShardState(chain.shard, counted.records, counted.is_complete, behind, rate, idle)

    def _rows(
        self, groups: dict[tuple[str, str, str], RowGroup]
    ) -> tuple[list[WaitingRows], Counter[tuple[str, str, str]], bool]:
        """Return the rows that wait or are dead, as many as can be counted in _COUNT_SECONDS, and whether those are all.

        `groups` gets them by kind, account and reason.
        """
        waiting: dict[tuple[str, str, str], WaitingRows] = {}
        rows: Counter[tuple[str, str, str]] = Counter()
        until, is_whole = self._clock.now() + _COUNT_SECONDS, True
        for chunk in chunks(self._ledger, Selection(_SHOWN)):
            kind = NAMES[chunk.entry.state]
            rows[kind, chunk.key.account, chunk.reason] += chunk.rows
            groups.setdefault((kind, chunk.key.account, chunk.reason), RowGroup()).add(chunk)
            if chunk.entry.state is not State.DEAD:
                database = chunk.span.database(chunk.key)
                place = chunk.key.account, database, chunk.reason
                waiting.setdefault(place, WaitingRows(*place)).add(chunk)
            if self._clock.now() >= until:
                is_whole = False
                break
        return sorted(waiting.values(), key=lambda one: one.since), rows, is_whole


def find_hold(
    chain: ChainId, head: Span | None, notes: Sequence[Note], now: float, behind: float
) -> Hold | None:
    """Return why a shard's records are held; None if they are not.

    The worker logs the first record that it could not store. The record is still held if no span of the chain comes after it.

    Args:
        chain: the shard's chain.
        head: the last span of the chain, if any.
        notes: warnings and errors, oldest first.
        now: UNIX seconds.
        behind: the age of the shard's oldest record that is not planned. It counts if it is older than the notes, which go back an
            hour.
    """
    settled = START if head is None else head.last
    found = [note for note in notes if note.shard == chain.shard and note.is_about_after(settled)]
    began = [note.seconds for note in found]
    if not found:
        return None
    last = found[-1]
    reason = last.reason or f"unexpected error, a bug in Sluice ({last.why or "see the worker's log"})"
    return Hold(reason, last.error, max(0.0, behind, now - min(began)))
