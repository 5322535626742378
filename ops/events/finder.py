"""Finds events: where they are, and what became of them.

An event is in a span object, whose span in the ledger says what became of it; or on the stream after the last span of its shard; or in
the overflow queue. A search consumes and changes nothing, and ends at the moment it began.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from threading import Lock

from ops.background import in_order
from ops.books import planned_spans
from ops.books.accounting import last_planned
from ops.events.event_query import INACCURACY_SECONDS, EventQuery
from ops.events.found_event import ON_STREAM, QUEUED, FoundEvent
from ops.events.seen_event import Kind, events_of
from ops.events.span_search import SpanSearch
from ops.stack import Stack
from ops.stream import overflow_queue
from ops.stream.readable_shards import Position, from_stream
from shared.clock import Clock
from shared.queue_counts import queue_counts
from worker.record import Record
from worker.span import Span
from worker.states import State


@dataclass(slots=True)
class Searched:
    """The progress of a search.

    Attributes:
        records: number of records searched on the stream.
        at: up to when spans were searched, as an arrival time in UNIX seconds; 0 if unknown.
        unreadable: span objects, and chunks, that are gone or could not be read.
        hidden: messages of the overflow queue that SQS has not shown, about: they are hidden at present, or too many.
    """

    spans: int = 0
    records: int = 0
    at: float = 0.0
    unreadable: int = 0
    hidden: int = 0
    is_complete: bool = True


@dataclass
class Finder:
    """Finds events from a time on, UNIX seconds, within some seconds. `progress` is called after each span and each read."""

    stack: Stack
    query: EventQuery
    _: KW_ONLY
    since: float
    seconds: float
    clock: Clock
    progress: Callable[[Searched], None] = lambda _: None
    searched: Searched = field(default_factory=Searched)

    def __post_init__(self) -> None:
        stack = self.stack
        self._shards, self._ledger, self._objects = stack.shards(), stack.ledger(), stack.objects()
        self._began = self.clock.now()
        self._until = self._began + self.seconds
        self._missing = set(self.query.ids)
        self._latest = 0.0  # arrival of what was found
        self._records: set[tuple[str, str]] = set()  # shard and number of what was found
        self._lock = Lock()

    def __iter__(self) -> Iterator[FoundEvent]:
        """Yield events as they are found."""
        # what is planned during the search is then found on the stream, if not in a span
        shards = self._shards
        unplanned = [(one.shard_id, last_planned(self._ledger, one.chain)) for one in shards.all()]
        yield from self._in_spans()
        yield from self._on_stream(unplanned)
        yield from self.queued()

    def _is_time_up(self) -> bool:
        if self.clock.now() >= self._until:
            self.searched.is_complete = False
        return not self.searched.is_complete

    def _enough(self) -> float:
        """Return from when on arrivals are of no interest: once all ids are found, soon after them."""
        if self.query.ids and not self._missing:
            return self._latest + INACCURACY_SECONDS
        return float("inf")

    def _in_spans(self) -> Iterator[FoundEvent]:
        search = SpanSearch(self.query, self._ledger, self._objects, self.stack.bucket())
        for spans in self._spans():
            for span, result in in_order(lambda span: (span, search.search(span)), spans):
                if self._is_time_up():
                    return
                if not planned_spans.is_within(span, self.since, self._enough()):
                    continue
                self.searched.spans += 1
                self.searched.at = span.planned_at / 1000
                self.searched.unreadable += result.unreadable
                for found in result.events:
                    self._missing -= self.query.ids_of(found.seen)
                    self._latest = max(self._latest, found.seen.arrived_at or found.seen.at)
                    self._records.add((found.seen.shard, found.seen.sequence_number))
                    yield found
                self.progress(self.searched)

    def _spans(self) -> Iterator[Iterable[Span]]:
        """Yield the spans to search: those of the time in the ids; once they are searched, later ones if an id is missing.

        An event may arrive days after the time in its id, because its client was offline.
        """
        until = self._began + 1
        soon = until if self.query.began is None else self.query.began + INACCURACY_SECONDS
        soon = min(until, max(self.since, soon))
        yield self._planned(self.since, soon)
        if soon < until and self._missing:
            later = self._planned(soon, until)
            yield (span for span in later if span.earliest >= soon * 1000 or not span.records)

    def _planned(self, since: float, until: float) -> Iterator[Span]:
        held = self._shards.retention_seconds()
        return planned_spans.spans(self._ledger, self._objects, since, until, held=held, enough=self._enough)

    def _on_stream(self, unplanned: Iterable[tuple[str, Span | None]]) -> Iterator[FoundEvent]:
        for found in in_order(lambda one: list(self._in_shard(*one)), unplanned):
            yield from found
            self.progress(self.searched)

    def _in_shard(self, shard: str, end: Span | None) -> Iterator[FoundEvent]:
        if end is not None and end.latest >= self._enough() * 1000:
            return
        position = Position(moment=self.since)
        if end is not None and end.latest >= self.since * 1000:
            position = Position(after=end.last)
        for page in self._shards.pages(shard, position, self._until):
            if self._is_time_up():
                return
            records = [one for one in from_stream(page.records, shard) if one.arrived_at <= self._began]
            with self._lock:
                self.searched.records += len(records)
            for found in self._in_records(records, shard, ON_STREAM):
                if (shard, found.seen.sequence_number) not in self._records:
                    yield found
            if page.at_tip or len(records) < len(page.records):
                return
        self.searched.is_complete = False

    def queued(self) -> Iterator[FoundEvent]:
        """Yield only the events in the overflow queue."""
        sqs, url = self.stack.client("sqs"), self.stack.outputs["OverflowQueueUrl"]
        self.searched.hidden = sum(queue_counts(sqs, url))
        for record in overflow_queue.peeked(sqs, url, self._began, self._is_time_up):
            self.searched.hidden = max(0, self.searched.hidden - 1)
            yield from self._in_records([record] if record is not None else [], "", QUEUED)

    def _in_records(self, records: list[Record], shard: str, state: str) -> Iterator[FoundEvent]:
        for record in records:
            for seen in events_of(record, shard):
                if self.query.is_about(seen):
                    is_rejected = seen.kind is Kind.REJECTED
                    yield FoundEvent(seen, State.REJECTED if is_rejected else state)
