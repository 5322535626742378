"""Watermarks: the `received_at` before which every accepted row is in Treasure Data, or dead.

A table is complete up to a time when at some later time the queue held nothing older, every shard has passed that later time, no row that was
put again and no copy whose counting record is in no span is older, and no waiting row of the table was received before it.
docs/completeness.md explains why each is needed. If one of them cannot be proved, the watermark does not advance.

Every request that was answered before `began` has left a message or a record. Requests that are answered later were received at most
INGEST_SECONDS earlier, by clocks that may each be wrong by CLOCK_SECONDS.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import batched, takewhile
from typing import TYPE_CHECKING

from shared.clock import Clock
from shared.errors import ShardGoneError, UnavailableError, UnprovenError, aws_errors
from shared.queue_counts import queue_counts
from worker.chain import ChainId
from worker.ledger import BEHIND_ALL, DRAINED, WORKLIST_KEYS, Ledger
from worker.passing import CLOCK_SECONDS, MARGIN_SECONDS, Passing
from worker.record import NOBODY, START, Number
from worker.shards import Shard, Shards
from worker.span import Place, Span, digest_of_numbers
from worker.states import UNSETTLED, State

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

INGEST_SECONDS = 10.0
"""Lambda ends an invocation of the ingest after this time."""
COUNTED_SECONDS = 200.0
"""How long the queue's counts may miss a message. SQS documents a minute or more. The notice of a message lasts longer."""
INDEX_SECONDS = 600.0
"""How long the ledger's index may lag."""

_MOST_DRAINED = 100  # times at which the queue was empty, beside the first
_GAPS_AT_ONCE = 50  # spans, each with two gaps, whose first spans the ledger returns together
_ALL_SERVERS_SECONDS = 1
"""SQS queries all of its servers only if a receive may wait."""

Table = tuple[str, str]
"""An account and one of its tables, or ALL_TABLES."""
ALL_TABLES = "*"
"""Stands for all tables of an account."""
_End = tuple[Shard, Span | None]  # a shard, and the last span of its chain


@dataclass(frozen=True, slots=True)
class Completeness:
    """Up to when rows are complete.

    Attributes:
        at: UNIX seconds at which this was found out.
        horizon: UNIX milliseconds; every row received before is delivered, dead or in `pending`. None if that cannot be proved.
        pending: by account and table, and by account for ALL_TABLES, the earliest `received_at` that a waiting row may have.
        dead: likewise, the number of dead rows.
        tables: the accounts and tables of all rows that were seen.
        obstacle: why the horizon cannot be proved.
    """

    at: float
    horizon: int | None
    pending: Mapping[Table, int] = field(default_factory=dict)
    dead: Mapping[Table, int] = field(default_factory=dict)
    tables: frozenset[Table] = frozenset()
    obstacle: str = ""

    def before(self, account: str, table: str) -> int | None:
        """Return a table's watermark, in UNIX milliseconds; None if none can be proved."""
        if self.horizon is None:
            return None
        return min(self.horizon, self.pending.get((account, table), self.horizon)) or None


@dataclass(slots=True)
class _Found:
    pending: dict[Table, int] = field(default_factory=dict)
    dead: Counter[Table] = field(default_factory=Counter)
    tables: set[Table] = field(default_factory=set)
    places: set[Place] = field(default_factory=set)
    oldest_copy: int | None = None


@dataclass(eq=False)
class Watermarks:
    """Takes watermarks. Its queues are the overflow queue, and that of the notices that the overflow queue was used."""

    _passing: Passing
    _shards: Shards
    _ledger: Ledger
    _sqs: "SQSClient"
    _queue_url: str
    _notices_url: str
    _clock: Clock

    def take(self, seconds: float = 60.0) -> Completeness:
        """Return up to when rows are complete, as far as that can be proved in `seconds`. This only reads."""
        began = self._clock.now()
        try:
            return self._take(began, began + seconds)
        except UnprovenError as error:
            return Completeness(self._clock.now(), None, obstacle=str(error))

    def _take(self, began: float, until: float) -> Completeness:
        ends = [(shard, self._ledger.end(shard.chain)) for shard in self._passing.shards()]
        passed = self._passed_by_all(ends, until)
        # all messages that were sent by then were on the stream at a time that every shard has passed
        proved = [sent for sent, at in self._drained() if (at + CLOCK_SECONDS) * 1000 <= passed]
        if not proved:
            raise UnprovenError(
                "only some seven minutes after the overflow queue was seen empty is it certain that all it had is stored"
            )
        horizon = (max(proved) - INGEST_SECONDS - 2 * CLOCK_SECONDS) * 1000
        found = _Found()
        for span in self._with_replacements(self._spans(ends, began), began):
            if self._clock.now() >= until:
                raise UnprovenError("the time was up before all waiting rows were counted")
            if span.place not in found.places:
                _judge(span, found)
        if found.oldest_copy is not None:
            horizon = min(horizon, found.oldest_copy)
        tables = frozenset(table for table in found.tables if table[0] != NOBODY)
        return Completeness(self._clock.now(), int(horizon), found.pending, found.dead, tables)

    def note(self) -> None:
        """Note in the ledger that the overflow queue is empty, if it is. Watermarks need such a note from before every shard's last arrival."""
        now = self._clock.now()
        with suppress(UnprovenError):
            sent = self._in_queue(now)
            kept = sorted({*self._drained(), (sent, now)})
            self._ledger.note(DRAINED, kept[:1] + kept[1:][-_MOST_DRAINED:])

    def _drained(self) -> list[tuple[float, float]]:
        return [(sent, at) for sent, at in self._ledger.noted(DRAINED) or ()]

    def _in_queue(self, began: float) -> float:
        """Return the UNIX seconds up to which no message sent to the queue is left there; raise UnprovenError if it holds messages.

        The queue's counts show older messages. A notice shows that there may be newer ones; it is received, but stays in its queue.
        """
        try:
            notices = self._sqs.receive_message(
                QueueUrl=self._notices_url, VisibilityTimeout=0, WaitTimeSeconds=_ALL_SERVERS_SECONDS
            )
            waiting = sum(queue_counts(self._sqs, self._queue_url))
        except aws_errors() as error:
            raise UnavailableError(f"the overflow queue cannot be looked at: {error}") from error
        if waiting:
            raise UnprovenError(f"about {waiting:,} envelopes are in the overflow queue")
        return began - COUNTED_SECONDS if notices.get("Messages") else began

    def _passed_by_all(self, ends: Iterable[_End], until: float) -> float:
        """Return the UNIX milliseconds that every shard has passed.

        This raises UnprovenError if a shard has no span yet, or a closed one may hold records that are in none.
        """
        passed = float("inf")
        for shard, end in ends:
            if shard.is_open:
                if end is None or not end.latest:
                    raise UnprovenError(f"the shard {shard.shard_id} has delivered no record yet")
                passed = min(passed, end.latest - MARGIN_SECONDS * 1000)
                continue
            try:
                self._check_read_out(shard, end, until)
            except ShardGoneError:
                if shard.keys:
                    raise  # only a shard that is not listed may be gone
        return passed

    def _check_read_out(self, shard: Shard, end: Span | None, until: float) -> None:
        """Raise UnprovenError if a closed shard may hold a record behind the last one that is in a span of its chain.

        If the sender has closed the chain, records that the event source delivers later are in the chain of the gap before its end. That
        has no gaps itself, unless records were passed over.
        """
        is_closed = end is not None and end.last == BEHIND_ALL
        last = START if end is None else end.after if is_closed else end.last
        left: set[Number] = set()
        for numbers in self._shards.behind(shard.shard_id, last):
            if self._clock.now() >= until or (numbers and not is_closed):
                raise UnprovenError(_unread(shard))
            left.update(numbers)
        if left and len(left) != self._in_gap(shard.chain.before(last), sorted(left)):
            raise UnprovenError(_unread(shard))

    def _in_gap(self, gap: ChainId, numbers: Sequence[Number]) -> int:
        """Return how many records are in spans of a gap, as far as these have no other records."""
        found = 0
        for span in self._ledger.spans_of(gap):
            between = numbers[bisect_left(numbers, span.first) : bisect_right(numbers, span.last)]
            found += len(between) if digest_of_numbers(between) == span.digest else 0
        return found

    def _with_replacements(self, spans: Iterable[Span], began: float) -> Iterator[Span]:
        """Yield spans, and those of rows that have replaced chunks of theirs so recently that the index may not list them."""
        since = _unlisted_since(began)
        for span in spans:
            yield span
            new = [
                span.place.replacement_of(key)
                for key, entry in span.all_leaves()
                if entry.state is State.REPLACED and entry.at >= since
            ]
            for some in batched(new, 2 * _GAPS_AT_ONCE, strict=False):
                yield from self._with_replacements(self._ledger.get_all(some).values(), began)

    def _spans(self, ends: Iterable[_End], began: float) -> Iterator[Span]:
        """Yield the spans that may have waiting or dead rows: recent ones from the chains, because the index lags; others from the index."""
        since = _unlisted_since(began)
        for chain in _chains(ends):
            recent = takewhile(lambda span: span.planned_at >= since, self._ledger.latest(chain))
            for some in batched(recent, _GAPS_AT_ONCE, strict=False):
                yield from some
                gaps = (gap(one.after) for one in some for gap in (one.chain.before, one.chain.within))
                for first in self._ledger.get_all([Place(gap, START) for gap in gaps]):
                    yield from self._ledger.spans_of(first.chain)
        for kind in ("waiting", "dead"):
            for part in range(WORKLIST_KEYS):
                yield from self._ledger.work(kind, part)


def _chains(ends: Iterable[_End]) -> Iterator[ChainId]:
    """Yield the chains that the event source may go on with: of all shards, and of the gaps before the ends of closed chains."""
    for shard, end in ends:
        yield shard.chain
        if end is not None and end.last == BEHIND_ALL:
            yield shard.chain.before(end.after)


def _unread(shard: Shard) -> str:
    return f"the closed shard {shard.shard_id} has records that are in no span"


def _unlisted_since(began: float) -> float:
    """Return the UNIX milliseconds since which spans may have been written that the index does not list yet."""
    return (began - INDEX_SECONDS - 2 * CLOCK_SECONDS) * 1000


def _judge(span: Span, found: _Found) -> None:
    """Note what of a span waits or is dead."""
    found.places.add(span.place)
    if span.is_forced:
        return
    for key, entry in span.all_leaves():
        if not key.group.code:
            found.tables.add(key.group.table_of)
        for table in (key.group.table_of, (key.account, ALL_TABLES)):
            if entry.state in UNSETTLED:
                found.pending[table] = min(span.received_at, found.pending.get(table, span.received_at))
            elif entry.state is State.DEAD:
                found.dead[table] += span.rows(key)
    if span.copies:
        found.oldest_copy = min(span.received_at, found.oldest_copy or span.received_at)
