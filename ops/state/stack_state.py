"""The state of a stack, read from its stream, ledger, bucket, queue and logs."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from botocore.exceptions import BotoCoreError, ClientError

from ops.books.accounting import Accounting, Balance, Unread, by_group
from ops.books.arrivals import Arrivals, StreamCount, of_gateway, repeated_rows
from ops.books.budget_uses import BudgetUse
from ops.books.chunks import NAMES, ListedChunk, RowGroup, chunks
from ops.failure import FORESEEN, is_down, is_gone
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
class Hold:
    """Records that the worker could not store when it last tried: the reason and the type of the error in its log, and how long it has lasted."""

    reason: str
    error: str
    seconds: float


@dataclass(slots=True)
class WaitingRows:
    """Rows of one account that wait for one database, for one reason.

    Attributes:
        database: where they go; empty if they were not tried yet.
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
        rows: waiting and dead rows by kind, account and reason, with Treasure Data's explanation and with what identifies them.
        is_whole: whether all of them were counted.
        rates: rows delivered per second in the last five minutes, by the shard's chain.
        taken: when the worker last stored records of a shard, UNIX seconds, by its chain.
        hold: why records are held; None if none are.
        unreadable: logs and counts that could not be read, each with the cause.
        arrivals: the counts taken before the ledger, if requested and known.
        rejected: rejected events of the last day, by account, table and code.
        budgets: accounts that have spent much of their budgets, or more, within the last day.
        window: how long records may wait for a batch to fill, in seconds.
    """

    unread: Unread = field(default_factory=Unread)
    waiting: list[WaitingRows] = field(default_factory=list)
    rows: Mapping[tuple[str, str, str], RowGroup] = field(default_factory=dict)
    is_whole: bool = True
    rates: Mapping[ChainId, float] = field(default_factory=dict)
    taken: Mapping[ChainId, float] = field(default_factory=dict)
    hold: Hold | None = None
    balance: Balance | None = None
    notes: list[Note] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    arrivals: Arrivals | None = None
    completeness: Completeness | None = None
    rejected: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    at: float = field(default_factory=time.time)
    budgets: list[BudgetUse] = field(default_factory=list)
    checks: list[Finding] = field(default_factory=list)
    window: float = 0.0

    def dead(self) -> Counter[str]:
        """Return the dead rows by reason."""
        counted: Counter[str] = Counter()
        for (kind, _, reason), group in self.rows.items():
            counted[reason] += group.rows if kind == "dead" else 0
        return +counted


def accounting(stack: Stack) -> Accounting:
    """Return a stack's accounting."""
    return Accounting(
        ledger=stack.ledger(),
        shards=stack.shards(),
        bucket=stack.bucket(),
        sqs=stack.client("sqs"),
        queue_url=stack.outputs["OverflowQueueUrl"],
        clock=SystemClock(),
    )


@dataclass
class StateReader:
    """Reads the state of a stack; with a source of watermarks, them too."""

    stack: Stack
    watermarks: Watermarks | None = None
    checks: Checks | None = None

    def __post_init__(self) -> None:
        self._checks = self.checks or Checks(self.stack)
        self._checked: tuple[float, list[Finding]] = float("-inf"), []
        self._clock = SystemClock()
        self._ledger = self.stack.ledger()
        self._accounting = accounting(self.stack)

    def state(
        self, since: float | None = None, until: float | None = None, *, balanced: bool = False
    ) -> StackState:
        """Return the current state. If `balanced`, reconcile what was planned from `since` to `until`, UNIX seconds.

        If a resource of the stack is gone, or does not answer, the state is what the checks found.
        """
        checks = self.check()
        try:
            return replace(self._read(since, until, balanced=balanced), checks=checks)
        except FORESEEN as error:
            is_known = is_gone(error) and any(one.fault.endswith("_gone") for one in checks)
            if is_known or (is_down(error) and any(one.state == "holding" for one in checks)):
                return StackState(checks=checks)
            raise

    def _read(self, since: float | None, until: float | None, *, balanced: bool) -> StackState:
        notes, unreadable = troubles(self.stack, _NOTES_SECONDS)
        balance, arrivals = None, None
        if balanced:
            balance, arrivals = self._balance(since, until, unreadable)
            unread = balance.unread
        else:
            unread = self._accounting.unread(seconds=_COUNT_SECONDS)
        rates, taken, holds = {}, {}, []
        for chain, counted in unread.shards.items():
            head, rates[chain] = self._latest(chain)
            taken[chain] = 0.0 if head is None else head.planned_at / 1000
            holds.append(find_hold(chain, head, notes, self._clock.now(), counted.behind_seconds))
        waiting, rows, is_whole = self._rows()
        return StackState(
            unread,
            waiting,
            rows,
            is_whole,
            rates,
            taken,
            max(filter(None, holds), key=lambda hold: hold.seconds, default=None),
            balance,
            notes,
            unreadable,
            arrivals,
            None if self.watermarks is None else self.watermarks.take(_COUNT_SECONDS),
            self._rejected() if balance is None else Counter(),
            self._clock.now(),
            self._budgets(unreadable),
            window=self.stack.window_seconds,
        )

    def check(self) -> list[Finding]:
        """Return what the checks find, or found less than a minute ago."""
        now = self._clock.now()
        if now - self._checked[0] >= _CHECKED_SECONDS:
            self._checked = now, list(self._checks.findings())
        return self._checked[1]

    def _budgets(self, unreadable: list[str]) -> list[BudgetUse]:
        try:
            found = self.stack.spending().all(self._clock.now())
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
        if self.stack.folder is not None:
            counted = answers.read(self.stack.folder).accepted
            balance = self._accounting.take(since, seconds=_COUNT_SECONDS)
            if since is not None:
                return balance, None
            return balance, of_gateway(counted, balance, lambda: repeated_rows(self.stack.shards()))
        shards = self.stack.shards()
        count = StreamCount.of(shards, self.stack.membership(), self._clock, since)
        if count is None:
            return self._accounting.take(since, seconds=_COUNT_SECONDS), None
        balance = self._accounting.take(since, seconds=_COUNT_SECONDS, each=count.add)
        try:
            cloudwatch, stream = self.stack.client("cloudwatch"), self.stack.outputs["StreamName"]
            return balance, count.result(cloudwatch, stream, balance)
        except (ClientError, BotoCoreError) as error:
            unreadable.append(f"the stream's own count: {error_code(error)}")
            return balance, None

    def _latest(self, chain: ChainId) -> tuple[Span | None, float]:
        """Return the last span of a shard, and how many rows a second were delivered lately."""
        head, delivered = None, 0
        for span in self._ledger.latest(chain):
            head = head or span
            if self._clock.now() - span.planned_at / 1000 > _RATE_SECONDS:
                break
            delivered += sum(states[State.DELIVERED] for states in by_group(span).values())
        return head, round(delivered / _RATE_SECONDS, 3)

    def _rows(self) -> tuple[list[WaitingRows], dict[tuple[str, str, str], RowGroup], bool]:
        """Return the rows that wait or are dead, as many as can be counted in _COUNT_SECONDS, and whether those are all."""
        waiting: dict[tuple[str, str, str], WaitingRows] = {}
        rows: dict[tuple[str, str, str], RowGroup] = {}
        until, is_whole = self._clock.now() + _COUNT_SECONDS, True
        for chunk in chunks(self._ledger, Selection(_SHOWN)):
            kind = NAMES[chunk.entry.state]
            rows.setdefault((kind, chunk.key.account, chunk.reason), RowGroup()).add(chunk)
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
    """Return why a shard's records are held, given the last span of its chain and notes, oldest first; None if they are not.

    The worker logs the first record that it could not store. The record is still held if no span of the chain comes after it. `behind` is the
    age of the oldest record that is not planned: it counts if it is older than the notes, which go back an hour.
    """
    settled = START if head is None else head.last
    found = [note for note in notes if note.shard == chain.shard and note.is_about_after(settled)]
    began = [note.seconds for note in found]
    if not found:
        return None
    last = found[-1]
    reason = last.reason or f"unexpected error, a bug in Sluice ({last.why or "see the worker's log"})"
    return Hold(reason, last.error, max(0.0, behind, now - min(began)))
