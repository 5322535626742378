"""Finds events: where they are, and what became of them.

An event is in a span object, whose span in the ledger says what became of it; or on the stream behind the last span of its shard; or in
the overflow queue. A search consumes and changes nothing, and ends at the moment it began.
"""

from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from ops.books import planned_spans
from ops.events.event_query import INACCURACY_SECONDS, EventQuery
from ops.events.seen_event import Kind, SeenEvent, events_of, rejected, unpacked
from ops.lookahead import in_order
from shared.clock import Clock
from shared.errors import InvalidObjectError
from worker.index import Index
from worker.ledger import BEHIND_ALL, Ledger
from worker.record import START, Record, decode, from_stream, sequence_number
from worker.rejected_events import RejectedEvents
from worker.shards import Position, Shard, Shards
from worker.span import ChunkKey, Span
from worker.span_object import SpanObjects
from worker.states import Entry, State

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_PEEKS = 3  # consecutive receives without a new message after which the queue counts as read
_MOST_PEEKS = 500
_PEEK_SECONDS = 5  # how long a received message is hidden, so that the next receive returns others
_QUEUE_COUNTS: Final = (
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


class Stage(StrEnum):
    """What became of an event."""

    QUEUED = "queued"
    ON_STREAM = "on_stream"
    WAITING = "waiting"
    AGAIN = "again"
    DELIVERED = "delivered"
    DEAD = "dead"
    DROPPED = "dropped"
    REPLACED = "replaced"
    COPY = "copy"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class FoundEvent:
    """Where an event is, and what became of it.

    Attributes:
        seen: the event.
        stage: what became of it.
        entry: of its chunk; None if it is in no chunk.
        span: its span.
        key: its chunk.
        database: its Treasure Data database; empty if it was never sent.
        unique_id: the id under which its chunk is sent.
        at: when the stage began, UNIX seconds; 0 if unknown.
        owner: for a copy, the record that counts instead.
        is_forced: a forced replay sends it once more.
    """

    seen: SeenEvent
    stage: Stage
    entry: Entry | None = None
    span: Span | None = None
    key: ChunkKey | None = None
    database: str = ""
    unique_id: str = ""
    at: float = 0.0
    owner: str = ""
    is_forced: bool = False

    @property
    def reason(self) -> str:
        """Why it waits, is dead or was rejected."""
        return self.seen.code or (self.entry.reason if self.entry is not None else "")


@dataclass(slots=True)
class Searched:
    """The progress of a search.

    Attributes:
        spans: number of spans searched.
        records: number of records searched on the stream.
        at: up to when spans were searched, as an arrival time in UNIX seconds; 0 if unknown.
        unreadable: span objects that are gone or could not be read.
        hidden: messages of the overflow queue that SQS hides at present.
        is_complete: whether everything was searched.
    """

    spans: int = 0
    records: int = 0
    at: float = 0.0
    unreadable: int = 0
    hidden: int = 0
    is_complete: bool = True


@dataclass(slots=True)
class _SpanResult:
    """What a span has of the events that are looked for, and how many of its chunks could not be read."""

    events: list[FoundEvent] = field(default_factory=list)
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class Places:
    """Where events are."""

    shards: Shards
    ledger: Ledger
    objects: SpanObjects
    rejected: RejectedEvents
    sqs: "SQSClient"
    queue_url: str


class Finder:
    """Finds events.

    Args:
        places: where to search.
        query: selects events.
        since: where the search begins, UNIX seconds.
        seconds: the time limit.
        clock: measures the time limit.
        progress: called after each span and each read.

    Attributes:
        searched: the progress.
    """

    def __init__(
        self,
        places: Places,
        query: EventQuery,
        *,
        since: float,
        seconds: float,
        clock: Clock,
        progress: Callable[[Searched], None] = lambda _: None,
    ) -> None:
        self._places = places
        self._query = query
        self._since = since
        self._clock = clock
        self._began = clock.now()
        self._until = self._began + seconds
        self._progress = progress
        self._missing = set(query.ids)
        self._requests: set[str] = set()  # those of the ids that are a request's
        self._latest = 0.0  # arrival of what was found
        self._records: set[tuple[str, str]] = set()  # shard and number of what was found
        self._lock = Lock()
        self.searched = Searched()

    def __iter__(self) -> Iterator[FoundEvent]:
        """Yield events as they are found.

        Raises:
            UnavailableError: the ledger, bucket or stream cannot be read.
            ClientError: SQS rejects the call.
            BotoCoreError: SQS cannot be reached.
        """
        # what is planned during the search is then found on the stream, if not in a span
        unplanned = [(shard.shard_id, self._end(shard)) for shard in self._places.shards.all()]
        yield from self._in_spans()
        yield from self._on_stream(unplanned)
        yield from self._in_queue()

    def _is_time_up(self) -> bool:
        if self._clock.now() >= self._until:
            self.searched.is_complete = False
        return not self.searched.is_complete

    def _enough(self) -> float:
        """Return from when on arrivals are of no interest: once all ids are found, soon after them."""
        if self._query.ids and not self._missing:
            return self._latest + INACCURACY_SECONDS
        return float("inf")

    # Spans

    def _in_spans(self) -> Iterator[FoundEvent]:
        for span, result in in_order(lambda span: (span, self._in_span(span)), self._spans()):
            if self._is_time_up():
                return
            if not planned_spans.is_within(span, self._since, self._enough()):
                continue
            self.searched.spans += 1
            self.searched.at = span.planned_at / 1000
            self.searched.unreadable += result.unreadable
            for found in result.events:
                self._missing -= self._query.ids_of(found.seen)
                self._latest = max(self._latest, found.seen.arrived_at or found.seen.at)
                self._records.add((found.seen.shard, found.seen.sequence_number))
                yield found
            self._progress(self.searched)

    def _spans(self) -> Iterator[Span]:
        """Yield the spans to search: first those of the time in the ids, then later ones while an id is missing.

        An event may arrive days after the time in its id, because its client was offline.
        """
        until = self._began + 1
        soon = until if self._query.began is None else self._query.began + INACCURACY_SECONDS
        soon = min(until, max(self._since, soon))
        yield from self._planned(self._since, soon)
        if soon < until and self._missing:
            for span in self._planned(soon, until):
                if span.earliest >= soon * 1000 or not span.records:
                    yield span

    def _planned(self, since: float, until: float) -> Iterator[Span]:
        places = self._places
        held = places.shards.retention_seconds()
        return planned_spans.spans(
            places.ledger, places.objects, since, until, held=held, enough=self._enough
        )

    def _in_span(self, span: Span) -> _SpanResult:
        result = _SpanResult()
        try:
            self._search(span, result)
        except InvalidObjectError:
            result.unreadable += 1
        return result

    def _search(self, span: Span, result: _SpanResult) -> None:
        query, index = self._query, self._places.objects.index(span)
        requests = enumerate(index.request_ids)
        asked = frozenset(position for position, one in requests if query.has_request(one))
        for position in asked:
            self._requests |= query.requests_of(index.request_ids[position])
        result.events += [self._copy(span, index, position) for position in asked & index.uncounted]
        keys = [key for key in span.chunks if query.account in ("", key.account)]
        rows = [key for key in keys if self._may_have_rows(index, key, asked)]
        payloads = self._places.objects.payloads(span, rows)
        for key in keys:
            if key.group.is_rejected:
                result.events += self._in_rejected(span, key)
            elif key in payloads:
                result.events += self._in_chunk(span, index, key, asked, payloads[key])
        result.unreadable += len(rows) - len(payloads)

    def _may_have_rows(self, index: Index, key: ChunkKey, asked: frozenset[int]) -> bool:
        if key.group.is_rejected or self._query.table not in ("", key.group.table):
            return False
        is_about_events = not self._query.ids or not self._query.ids <= self._requests
        return is_about_events or (
            key in index.members and not asked.isdisjoint(index.members[key].positions)
        )

    def _in_chunk(
        self, span: Span, index: Index, key: ChunkKey, asked: frozenset[int], payload: bytes
    ) -> Iterator[FoundEvent]:
        query, member = self._query, index.members[key]

        def has(rows: bytes) -> bool:
            return query.has_event_in(rows, self._requests) and (
                bool(key.group.code) or query.has_values_in(rows)
            )

        if asked.isdisjoint(member.positions) and not has(payload):
            return
        parts: Iterable[tuple[int | None, int, int]] = [(None, member.rows, len(payload))]
        if member.positions:
            parts = zip(member.positions, member.row_counts, member.byte_counts, strict=True)
        row = byte = 0
        for position, rows, size in parts:
            part = payload[byte : byte + size]
            if position in asked or has(part):
                for number, value in enumerate(unpacked(part), row):
                    seen = _seen(span, index, key, position, value)
                    if query.is_about(seen):
                        yield self._of_row(span, key, number, seen)
            row, byte = row + rows, byte + size

    def _of_row(self, span: Span, planned: ChunkKey, row: int, seen: SeenEvent) -> FoundEvent:
        leaves = span.leaves(planned)
        key = next((leaf for leaf in leaves if row in leaf.within(span.chunks[planned])), planned)
        entry, database = span.entry(key), span.database(key)
        at = entry.at / 1000 or (
            span.final_at or 0 if entry.state is State.DELIVERED else span.planned_at / 1000
        )
        return FoundEvent(
            seen,
            Stage(entry.state.value),
            entry,
            span,
            key,
            database,
            span.unique_id(key, database) if database else "",
            float(at),
            is_forced=span.chain.is_forced,
        )

    def _in_rejected(self, span: Span, key: ChunkKey) -> Iterator[FoundEvent]:
        common = SeenEvent(kind=Kind.REJECTED, at=span.received_at / 1000, account=key.account)
        try:
            events = self._places.rejected.get(span, key)
        except InvalidObjectError:
            return
        for event in events:
            at = event.received_at / 1000
            seen = rejected(replace(common, at=at), key.group.code, key.group.table, event.original)
            if self._query.is_about(seen):
                state = span.entry(key).state
                yield FoundEvent(seen, Stage(state.value), span.entry(key), span, key, at=at)

    def _copy(self, span: Span, index: Index, position: int) -> FoundEvent:
        request_id = index.request_ids[position]
        claim = self._places.ledger.claims([request_id]).get(request_id)
        seen = SeenEvent(
            kind=Kind.EVENT,
            at=index.receipts[position] / 1000,
            arrived_at=index.arrivals[position] / 1000,
            request_id=request_id,
            shard=span.chain.shard,
            sequence_number=sequence_number(index.numbers[position]),
        )
        owner = "" if claim is None else f"{sequence_number(claim.owner.number)} of {claim.owner.chain.shard}"
        return FoundEvent(seen, Stage.COPY, span=span, owner=owner)

    # What is in no span yet

    def _end(self, shard: Shard) -> Span | None:
        """Return the last span of a shard that has records."""
        end = self._places.ledger.end(self._places.shards.chain_of(shard))
        if end is not None and end.last == BEHIND_ALL:
            return self._places.ledger.preceding(end.chain, end.after)
        return end

    def _on_stream(self, unplanned: Iterable[tuple[str, Span | None]]) -> Iterator[FoundEvent]:
        for found in in_order(lambda one: list(self._in_shard(*one)), unplanned):
            yield from found
            self._progress(self.searched)

    def _in_shard(self, shard: str, end: Span | None) -> Iterator[FoundEvent]:
        if end is not None and end.latest >= self._enough() * 1000:
            return
        position = Position(moment=self._since)
        if end is not None and end.latest >= self._since * 1000:
            position = Position(after=end.last)
        for page in self._places.shards.pages(shard, position, self._until):
            if page is None or self._is_time_up():
                self.searched.is_complete = False
                return
            records = [one for one in from_stream(page.records, shard) if one.arrived_at <= self._began]
            with self._lock:
                self.searched.records += len(records)
            for found in self._in_records(records, shard, Stage.ON_STREAM):
                if (shard, found.seen.sequence_number) not in self._records:
                    yield found
            if page.at_tip or len(records) < len(page.records):
                return

    def _in_queue(self) -> Iterator[FoundEvent]:
        """Receive messages without deleting them: each is hidden from the drainer for only a few seconds."""
        sqs, url = self._places.sqs, self._places.queue_url
        answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_QUEUE_COUNTS))
        self.searched.hidden = sum(int(answer["Attributes"][name]) for name in _QUEUE_COUNTS)
        known: set[str] = set()
        idle = 0
        for _ in range(_MOST_PEEKS):
            received = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=10,
                VisibilityTimeout=_PEEK_SECONDS,
                AttributeNames=["SentTimestamp"],
            ).get("Messages", [])
            new = [one for one in received if one["MessageId"] not in known and _sent_at(one) <= self._began]
            idle = 0 if new else idle + 1
            if idle >= _PEEKS or self._is_time_up():
                return
            for message in new:
                known.add(message["MessageId"])
                record = _of_message(message["Body"], _sent_at(message))
                if record is not None:
                    yield from self._in_records([record], "", Stage.QUEUED)

    def _in_records(self, records: list[Record], shard: str, stage: Stage) -> Iterator[FoundEvent]:
        for record in records:
            for seen in events_of(record, shard):
                if self._query.is_about(seen):
                    is_rejected = seen.kind is Kind.REJECTED
                    yield FoundEvent(seen, Stage.REJECTED if is_rejected else stage)


def _seen(span: Span, index: Index, key: ChunkKey, position: int | None, value: Any) -> SeenEvent:
    row = value if isinstance(value, dict) else {}
    received_at = row.get("received_at")
    seen = SeenEvent(
        kind=Kind.EVENT,
        at=(received_at if isinstance(received_at, int) else span.received_at) / 1000,
        account=key.account,
        table=key.group.table,
        event_id=str(row.get("event_id", "")),
        row=row,
    )
    if key.group.code:
        seen = rejected(seen, key.group.code, "", value)
    if position is None:
        return seen
    return replace(
        seen,
        arrived_at=index.arrivals[position] / 1000,
        request_id=index.request_ids[position],
        shard=span.chain.shard,
        sequence_number=sequence_number(index.numbers[position]),
    )


def _sent_at(message: "MessageTypeDef") -> float:
    return int(message["Attributes"]["SentTimestamp"]) / 1000


def _of_message(body: str, sent_at: float) -> Record | None:
    try:
        data = b64decode(body, validate=True)
    except ValueError:
        return None
    record = decode(data, "", START, sent_at)
    return record if record.request_id else None
