"""Finds events: where they are, and what became of them.

An event is in a span object, whose span in the ledger says what became of it; or on the stream behind the last span of its shard; or in
the overflow queue. A search consumes and changes nothing, and ends at the moment it began.
"""

from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from ops.books import planned_spans
from ops.events.event_query import INACCURACY_SECONDS, EventQuery
from ops.events.event_tail import Kind, SeenEvent, events_of, rejected, unpacked
from shared.clock import Clock
from shared.errors import InvalidObjectError
from worker.index import Index
from worker.ledger import BEHIND_ALL, Ledger
from worker.record import START, Record, decode, from_stream, sequence_number
from worker.rejected_events import RejectedEvents
from worker.shards import Position, Shards
from worker.span import ChunkKey, Span
from worker.span_object import SpanObjects
from worker.states import Entry, State

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

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
        self._latest = 0.0  # arrival of what was found
        self.searched = Searched()

    def __iter__(self) -> Iterator[FoundEvent]:
        """Yield events as they are found.

        Raises:
            UnavailableError: the ledger, bucket or stream cannot be read.
            ClientError: SQS rejects the call.
            BotoCoreError: SQS cannot be reached.
        """
        yield from self._in_spans()
        yield from self._on_stream()
        yield from self._in_queue()

    def _is_time_up(self) -> bool:
        if self._clock.now() >= self._until:
            self.searched.is_complete = False
        return not self.searched.is_complete

    # Spans

    def _in_spans(self) -> Iterator[FoundEvent]:
        places = self._places
        held = places.shards.retention_seconds()
        until = self._began + 1
        for span in planned_spans.spans(places.ledger, places.objects, self._since, until, held):
            if self._is_time_up():
                return
            if not planned_spans.is_within(span, self._since, self._enough(until)):
                continue
            self.searched.spans += 1
            self.searched.at = span.planned_at / 1000
            try:
                for found in self._in_span(span):
                    self._missing -= self._query.ids_of(found.seen)
                    self._latest = max(self._latest, found.seen.arrived_at or found.seen.at)
                    yield found
            except InvalidObjectError:
                self.searched.unreadable += 1
            self._progress(self.searched)

    def _enough(self, until: float) -> float:
        """Return before when records may have arrived that are still of interest: once all ids are found, soon after them.

        An event may arrive days after the time in its id, because its client was offline.
        """
        if self._query.ids and not self._missing:
            return min(until, self._latest + INACCURACY_SECONDS)
        return until

    def _in_span(self, span: Span) -> Iterator[FoundEvent]:
        index = self._places.objects.index(span)
        asked = {position for position, one in enumerate(index.request_ids) if self._query.has_request(one)}
        for position in asked & index.uncounted:
            yield self._copy(span, index, position)
        for key in span.chunks:
            if self._query.account not in ("", key.account):
                continue
            if key.group.is_rejected:
                yield from self._in_rejected(span, key)
            elif self._query.table in ("", key.group.table):
                yield from self._in_chunk(span, index, key, asked)

    def _in_chunk(self, span: Span, index: Index, planned: ChunkKey, asked: set[int]) -> Iterator[FoundEvent]:
        member = index.members.get(planned)
        if member is None or not member.length:
            self.searched.unreadable += 1
            return
        payload = self._places.objects.payload(span, planned)
        if not asked.intersection(member.positions) and not self._query.may_be_in(payload):
            return
        owners = [
            position
            for position, rows in zip(member.positions, member.row_counts, strict=True)
            for _ in range(rows)
        ]
        for row_number, value in enumerate(unpacked(payload)):
            position = owners[row_number] if owners else None
            seen = _seen(span, index, planned, position, value)
            if self._query.is_about(seen):
                yield self._of_row(span, planned, row_number, seen)

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
            is_forced=span.is_forced,
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

    def _on_stream(self) -> Iterator[FoundEvent]:
        shards, ledger = self._places.shards, self._places.ledger
        for shard in shards.all():
            end = ledger.end(shards.chain_of(shard))
            if end is not None and end.last == BEHIND_ALL:
                end = ledger.preceding(end.chain, end.after)
            position = Position() if end is None else Position(after=end.last)
            for page in shards.pages(shard.shard_id, position, self._until):
                if page is None or self._is_time_up():
                    self.searched.is_complete = False
                    return
                records = from_stream(page.records, shard.shard_id)
                self.searched.records += len(records)
                self._progress(self.searched)
                yield from self._in_records(records, shard.shard_id, Stage.ON_STREAM)
                if page.at_tip or (records and records[-1].arrived_at > self._began):
                    break

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
            new = [one for one in received if one["MessageId"] not in known]
            idle = 0 if new else idle + 1
            if idle >= _PEEKS or self._is_time_up():
                return
            for message in new:
                known.add(message["MessageId"])
                sent_at = int(message["Attributes"]["SentTimestamp"]) / 1000
                record = _of_message(message["Body"], sent_at)
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


def _of_message(body: str, sent_at: float) -> Record | None:
    try:
        data = b64decode(body, validate=True)
    except ValueError:
        return None
    record = decode(data, "", START, sent_at)
    return record if record.request_id else None
