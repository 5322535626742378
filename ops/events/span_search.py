"""Searches spans for events: their indexes tell requests, their chunks and the copies of rejected events tell the rest."""

from collections.abc import Callable, Iterator, Mapping
from copy import replace
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ops.books.stored_spans import kept_events, payloads
from ops.events.event_query import EventQuery
from ops.events.found_event import FoundEvent
from ops.events.seen_event import Kind, SeenEvent, rejected
from shared.errors import InvalidObjectError
from worker.bucket import Bucket
from worker.index import Index
from worker.ledger import Ledger
from worker.record import sequence_number
from worker.rows import values
from worker.span import ChunkKey, Span
from worker.span_object import SpanObjects
from worker.states import State


@dataclass(slots=True)
class SpanResult:
    """What a span has of the events that are looked for, and how many of its chunks could not be read."""

    events: list[FoundEvent] = field(default_factory=list)
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class SpanSearch:
    """Searches spans. Threads may share it. The ledger tells which copy of a request counts."""

    query: EventQuery
    ledger: Ledger
    objects: SpanObjects
    bucket: Bucket
    _requests: set[str] = field(default_factory=set)  # those of the ids that are a request's

    @property
    def _is_about_events(self) -> bool:
        """Whether any of the ids may be an event's."""
        return not self.query.ids or not self.query.ids <= self._requests

    def search(self, span: Span) -> SpanResult:
        """Return the events of a span."""
        result = SpanResult()
        try:
            self._search(span, result)
        except InvalidObjectError:
            result.unreadable += 1
        return result

    def _search(self, span: Span, result: SpanResult) -> None:
        query, index = self.query, self.objects.index(span)
        requests = enumerate(index.request_ids)
        asked = frozenset(position for position, one in requests if query.has_request(one))
        for position in asked:
            self._requests.update(query.requests_of(index.request_ids[position]))
        result.events += [self._copy(span, index, position) for position in asked & index.uncounted]
        keys = [
            key
            for key in span.chunks
            if query.account in ("", key.account) and span.entry(key).state is not State.FORGOTTEN
        ]
        rows = [key for key in keys if self._may_have_rows(index, key, asked)]
        found = payloads(self.bucket, span, index, rows)
        for key in keys:
            try:
                if key.group.is_rejected and self._is_about_events:
                    result.events += self._in_rejected(span, key)
                elif key in found:
                    result.events += self._in_chunk(span, index, key, asked, found[key])
            except InvalidObjectError:
                result.unreadable += 1
        result.unreadable += len(rows) - len(found)

    def _may_have_rows(self, index: Index, key: ChunkKey, asked: frozenset[int]) -> bool:
        if key.group.is_rejected or self.query.table not in ("", key.group.table):
            return False
        return self._is_about_events or (
            key in index.members and not asked.isdisjoint(index.members[key].positions)
        )

    def _in_chunk(
        self, span: Span, index: Index, key: ChunkKey, asked: frozenset[int], payload: bytes
    ) -> Iterator[FoundEvent]:
        query, member = self.query, index.members[key]

        def has(rows: bytes) -> bool:
            return query.has_event_in(rows, self._requests) and (
                bool(key.group.code) or query.has_values_in(rows)
            )

        if asked.isdisjoint(member.positions) and not has(payload):
            return
        leaves = [(leaf.within(span.chunks[key]), _outcome(span, leaf)) for leaf in span.leaves(key)]
        whole = (None, range(member.rows), slice(None))
        for position, rows, bytes_ in member.parts() if member.positions else (whole,):
            part, place = payload[bytes_], _place(span, index, position)
            if position in asked or has(part):
                for number, (value, _) in enumerate(values(part), rows.start):
                    seen = _seen(span, key, place, value)
                    if query.is_about(seen):
                        outcomes = (outcome for own, outcome in leaves if number in own)
                        yield next(outcomes, leaves[-1][1])(seen)

    def _in_rejected(self, span: Span, key: ChunkKey) -> Iterator[FoundEvent]:
        common = SeenEvent(kind=Kind.REJECTED, at=span.received_at / 1000, account=key.account)
        try:
            events = kept_events(self.bucket, span, key)
        except InvalidObjectError:
            return
        for event in events:
            at = event.received_at / 1000
            seen = rejected(replace(common, at=at), key.group.code, key.group.table, event.original)
            if self.query.is_about(seen):
                entry = span.entry(key)
                yield FoundEvent(seen, entry.state, entry, span, key, at=at)

    def _copy(self, span: Span, index: Index, position: int) -> FoundEvent:
        request_id = index.request_ids[position]
        claim = self.ledger.claims([request_id]).get(request_id)
        place = _place(span, index, position)
        seen = SeenEvent(kind=Kind.EVENT, at=index.receipts[position] / 1000, **place)
        owner = "" if claim is None else f"{sequence_number(claim.owner.number)} of {claim.owner.chain.shard}"
        return FoundEvent(seen, State.COPY, span=span, owner=owner)


def _outcome(span: Span, key: ChunkKey) -> Callable[[SeenEvent], FoundEvent]:
    """Return what makes a found event of a row of a chunk."""
    entry, database = span.entry(key), span.database(key)
    at = entry.at / 1000 or (span.final_at or 0 if entry.state is State.DELIVERED else span.planned_at / 1000)
    return partial(
        FoundEvent,
        state=entry.state,
        entry=entry,
        span=span,
        key=key,
        database=database,
        unique_id=span.unique_id(key, database) if database else "",
        at=float(at),
        is_forced=span.is_forced,
    )


def _place(span: Span, index: Index, position: int | None) -> dict[str, Any]:
    """Return the members of an event that tell its record, if that is known."""
    if position is None:
        return {}
    return {
        "arrived_at": index.arrivals[position] / 1000,
        "request_id": index.request_ids[position],
        "shard": span.chain.shard,
        "sequence_number": sequence_number(index.numbers[position]),
    }


def _seen(span: Span, key: ChunkKey, place: Mapping[str, Any], value: Any) -> SeenEvent:
    row = value if isinstance(value, dict) else {}
    received_at = row.get("received_at")
    seen = SeenEvent(
        kind=Kind.EVENT,
        at=(received_at if isinstance(received_at, int) else span.received_at) / 1000,
        account=key.account,
        table=key.group.table,
        event_id=str(row.get("event_id", "")),
        row=row,
        **place,
    )
    return rejected(seen, key.group.code, "", value) if key.group.code else seen
