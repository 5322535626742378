"""Finds events: where they are, and what happened to them.

`ops.events.sightings` searches the envelopes on the stream, in the archive and in the overflow queue; this module searches the rows in
the set-aside store. The ledger shows what happened to an event, through the span of its record and the chunk of its row. A search
consumes and changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from ops.books import set_aside
from ops.books.accounting import by_group
from ops.events.event_tail import Kind, SeenEvent, unpacked
from ops.events.sightings import (
    INACCURACY_SECONDS,
    REJECTED,
    EventQuery,
    EventSearch,
    Places,
    Searched,
    Sighting,
)
from shared.clock import Clock
from shared.errors import BucketUnavailableError, InvalidObjectError, NoSuchRecordError, ShardUnreadableError
from worker.chain import ChainId, ClaimOwner
from worker.chunk import offsets, planned_chunks
from worker.deadline import Deadline
from worker.delivery import ASIDE, Entry, State
from worker.ledger import Ledger, Place
from worker.plan import group, owners_of
from worker.record import START, Number, Record
from worker.selection import Selection
from worker.set_aside import SetAsideStore
from worker.span import ChunkKey, Database, Group, NotDeliverable, Owner, Span

_SPAN_SECONDS = 60.0
_SPANS_KEPT = 8


class Stage(StrEnum):
    """What happened to an event."""

    QUEUED = "queued"
    WAITING = "waiting"
    IN_FLIGHT = "in_flight"
    DELIVERED = "delivered"
    PARKED = "parked"
    IN_DOUBT = "in_doubt"
    DEAD_LETTER = "dead_letter"
    DROPPED = "dropped"
    MISSING = "missing"
    COPY = "copy"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


def _stage(state: State) -> Stage:
    return Stage.IN_FLIGHT if state is State.PENDING else Stage(state.value)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where an event is, and what happened to it.

    Attributes:
        sightings: where it was seen.
        stage: what happened to it.
        reason: why it is set aside, or waits.
        span: its span.
        key: its chunk.
        rows: number of rows in the chunk.
        database: its Treasure Data database.
        unique_id: the id under which its chunk is sent.
        object_name: its object in the set-aside store.
        at: when the stage began, UNIX seconds; 0 if unknown.
        owner: for a copy, the owner of the claim, which counts instead; else None.
    """

    sightings: tuple[Sighting, ...]
    stage: Stage
    reason: str = ""
    span: Span | None = None
    key: ChunkKey | None = None
    rows: int = 0
    database: str = ""
    unique_id: str = ""
    object_name: str = ""
    at: float = 0.0
    owner: ClaimOwner | None = None

    @property
    def seen(self) -> SeenEvent:
        """The event."""
        return self.sightings[0].seen


class Finder:
    """Finds events.

    Args:
        places: the stores of envelopes.
        ledger: the ledger.
        store: the set-aside store.
        clock: paces the reads and measures the time limit.
    """

    def __init__(self, *, places: Places, ledger: Ledger, store: SetAsideStore, clock: Clock) -> None:
        self._places = places
        self._shards = places.shards
        self._archive = places.archive
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._spans: dict[Place, list[Record] | None] = {}

    def find(
        self,
        query: EventQuery,
        since: float,
        seconds: float,
        progress: Callable[[Searched], None] = lambda _: None,
    ) -> tuple[list[Whereabouts], Searched]:
        """Return the events found, in the order of their arrival, and how much was searched.

        Args:
            query: selects events.
            since: where the search begins, UNIX seconds.
            seconds: the time limit.
            progress: called after each read.

        Raises:
            UnavailableError: the ledger, bucket or stream cannot be read.
            ClientError: SQS rejects the call.
            BotoCoreError: SQS cannot be reached.
        """
        until = self._clock.now() + seconds
        search = EventSearch(
            self._places, query, since=since, until=until, clock=self._clock, progress=progress
        )
        found: dict[tuple[Any, ...], list[Sighting]] = {}
        for sighting in search.sightings():
            found.setdefault(sighting.identity, []).append(sighting)
        whereabouts = [self._whereabouts(each) for each in found.values()]
        if not whereabouts or not query.ids:
            held = {_place(one) for one in whereabouts}
            aside = self._set_aside(query, since, search)
            whereabouts += [one for one in aside if _place(one) not in held]
        return sorted(whereabouts, key=lambda one: one.seen.at), search.done

    # What happened to it

    def _whereabouts(self, sightings: Sequence[Sighting]) -> Whereabouts:
        """Return what happened to an event, according to the copy that counts."""
        every = tuple(sightings)
        if every[0].block[0] == REJECTED:
            return Whereabouts(every, Stage.REJECTED, every[0].seen.code)
        placed = [one for one in every if one.chain is not None]
        best: Whereabouts | None = None
        for sighting in placed:
            found = replace(self._of_record(sighting), sightings=every)
            if found.stage not in (Stage.COPY, Stage.WAITING, Stage.UNKNOWN):
                return found
            best = best or found
        if best is not None and best.stage is not Stage.COPY:
            return best
        return self._of_owner(every) or best or Whereabouts(every, Stage.QUEUED)

    def _of_owner(self, sightings: tuple[Sighting, ...]) -> Whereabouts | None:
        """Return what happened to the copy that owns the envelope's claim; None without a claim."""
        first = sightings[0]
        claim = self._ledger.owner(first.seen.request_id) if first.seen.request_id else None
        if claim is None:
            return None
        chain, at = claim.owner
        if at is None:
            return self._of_overflow(sightings, chain)
        record = self._owning_record(chain, at)
        if record is None:
            located = self._ledger.locate(chain, at)
            if not isinstance(located, Span):
                return Whereabouts(sightings, Stage.COPY, owner=claim.owner)
            return replace(self._of_group(first, located), sightings=sightings, owner=claim.owner)
        block = _block_in(record, first)
        if block is None:
            return Whereabouts(sightings, Stage.REJECTED, owner=claim.owner)
        owning = self._of_record(replace(first, chain=chain, record=record, block=block))
        return replace(owning, sightings=sightings, owner=claim.owner)

    def _owning_record(self, chain: ChainId, at: Number) -> Record | None:
        located = self._ledger.locate(chain, at)
        if isinstance(located, Span):
            for record in self._records_of(located) or ():
                if record.number == at:
                    return record
        try:
            deadline = Deadline(self._clock, self._clock.now() + _SPAN_SECONDS)
            found = self._shards.read(chain.shard, at, at, 1, deadline)
        except (ShardUnreadableError, NoSuchRecordError):
            return None
        return found[0] if found else None

    def _of_overflow(self, sightings: tuple[Sighting, ...], chain: ChainId) -> Whereabouts:
        """Return what happened to an event that the drainer has set aside. Until the ledger says so, it is in the queue."""
        span = self._ledger.get(Place(chain, START))
        if span is None:
            return Whereabouts(sightings, Stage.QUEUED, owner=ClaimOwner(chain))
        seen, (_, row) = sightings[0].seen, sightings[0].block
        for planned in span.counts:
            if planned.table == seen.table and planned.owner.account == seen.account:
                key = _leaf(span, ChunkKey(planned, 0), row, span.counts[planned])
                return replace(self._of_chunk(span, key), sightings=sightings, owner=ClaimOwner(chain))
        return Whereabouts(sightings, Stage.UNKNOWN, span=span, owner=ClaimOwner(chain))

    def _of_record(self, sighting: Sighting) -> Whereabouts:
        chain, record = sighting.chain, sighting.record
        if chain is None or record is None:
            return Whereabouts((sighting,), Stage.UNKNOWN)
        if chain.is_overflow:
            return self._of_overflow((sighting,), chain)
        span = self._ledger.locate(chain, record.number)
        if not isinstance(span, Span):
            claim = self._ledger.owner(record.request_id) if record.claim else None
            is_copy = claim is not None and claim.owner != ClaimOwner.record(chain, record.number)
            return Whereabouts((sighting,), Stage.COPY if is_copy else Stage.WAITING)
        records = self._records_of(span)
        if records is None:
            return self._of_group(sighting, span)
        numbers = [one.number for one in records]
        if record.number not in numbers:
            return Whereabouts((sighting,), Stage.UNKNOWN, "not_in_plan", span)
        if numbers.index(record.number) in span.ignored:
            return Whereabouts((sighting,), Stage.COPY, span=span)
        key = _key_of(span, records, record.number, sighting.block)
        if key is None:
            return Whereabouts((sighting,), Stage.UNKNOWN, "not_in_plan", span)
        return replace(self._of_chunk(span, key), sightings=(sighting,))

    def _of_group(self, sighting: Sighting, span: Span) -> Whereabouts:
        """Return what happened to an event whose span's records have expired: known only if all rows of its table share a state."""
        account, table = sighting.seen.account, sighting.seen.table
        key_id = "" if sighting.record is None else sighting.record.key_id
        for owner in (Owner(account, key_id), Owner(account)):
            of_table = Group(owner, table)
            if of_table in span.counts:
                states = [state for state, rows in by_group(span)[of_table].items() if rows]
                if len(states) != 1:
                    return Whereabouts((sighting,), Stage.UNKNOWN, "records_expired", span)
                return Whereabouts((sighting,), _stage(states[0]), span=span, at=float(span.final_at or 0))
        return Whereabouts((sighting,), Stage.UNKNOWN, "not_in_plan", span)

    def _of_chunk(self, span: Span, key: ChunkKey) -> Whereabouts:
        entry = span.entry(key)
        destination = NotDeliverable("") if span.chain.is_overflow else span.destination(key)
        if entry.database:
            destination = Database(entry.database)
        database = destination.name if isinstance(destination, Database) else ""
        reason = entry.reason
        if isinstance(destination, NotDeliverable) and not reason:
            reason = destination.reason
        is_aside = entry.state in ASIDE
        return Whereabouts(
            sightings=(),
            stage=_stage(entry.state),
            reason=reason,
            span=span,
            key=key,
            rows=entry.rows,
            database=database,
            unique_id=span.unique_id(key, database, entry.generation) if database else "",
            object_name=self._store.name(span, key, entry.edit, entry.digest) if is_aside else "",
            at=_began(span, entry),
        )

    def _records_of(self, span: Span) -> list[Record] | None:
        """Return a span's records, from the archive or the stream; None if neither has all of them."""
        place = Place(span.chain, span.after)
        if place not in self._spans:
            try:
                records = self._archive.get(span)
            except BucketUnavailableError:
                records = None
            if records is None:
                records = self._from_stream(span)
            if records is not None and not span.is_whole([one.number for one in records]):
                records = None
            while len(self._spans) >= _SPANS_KEPT:
                del self._spans[next(iter(self._spans))]
            self._spans[place] = records
        return self._spans[place]

    def _from_stream(self, span: Span) -> list[Record] | None:
        deadline = Deadline(self._clock, self._clock.now() + _SPAN_SECONDS)
        try:
            return self._shards.read(span.chain.shard, span.first, span.last, span.records, deadline)
        except (ShardUnreadableError, NoSuchRecordError):
            return None

    def _set_aside(self, query: EventQuery, since: float, search: EventSearch) -> Iterator[Whereabouts]:
        """Search the set-aside store, for events that have expired on the stream."""
        selection = Selection(tuple(ASIDE), account=query.account or None, table=query.table or None)
        for chunk in set_aside.chunks(self._ledger, selection):
            if search.is_time_up():
                return
            if chunk.key.group.code or chunk.entry.aside_at < (since - INACCURACY_SECONDS) * 1000:
                continue
            try:
                stored = self._store.get(chunk.span, chunk.key, chunk.entry.edit, chunk.entry.digest)
                begin, end = offsets(stored.payload, chunk.key.within(stored.rows))
            except (InvalidObjectError, ValueError):
                continue
            common = SeenEvent(
                kind=Kind.EVENT,
                at=stored.first_seen / 1000,
                account=chunk.key.account,
                table=chunk.key.group.table,
                shard=stored.shard,
            )
            for place, row in enumerate(unpacked(stored.payload[begin:end])):
                received_at = row.get("received_at")
                at = received_at / 1000 if isinstance(received_at, int) else common.at
                seen = replace(common, at=at, event_id=str(row.get("event_id", "")), row=row)
                if query.is_about(seen):
                    sighting = Sighting("set_aside", seen, block=(0, place))
                    yield replace(self._of_chunk(chunk.span, chunk.key), sightings=(sighting,))


def _place(one: Whereabouts) -> tuple[object, ...]:
    """Return a row's identity, the same for every source that shows it."""
    seen, span = one.seen, one.span
    return seen.account, seen.table, seen.event_id, one.key, span and span.chain, span and span.after


def _began(span: Span, entry: Entry) -> float:
    """Return when a chunk entered its state, UNIX seconds; 0 if the ledger does not say."""
    if entry.state in ASIDE:
        return entry.aside_at / 1000
    if entry.state is State.PENDING:
        return span.planned_at / 1000
    return float(span.final_at or 0)


def _key_of(span: Span, records: Sequence[Record], at: Number, block: tuple[int, int]) -> ChunkKey | None:
    """Return the chunk that holds a row of a record."""
    index, row = block
    ignored = frozenset(record.number for place, record in enumerate(records) if place in span.ignored)
    holder = next(record for record in records if record.number == at)
    mine = (*holder.blocks, *holder.refused)[index]
    groups = group(records, owners_of(records, span.destinations), ignored)
    for chunk in planned_chunks(groups, span.cut):
        before = 0
        for one in chunk.blocks:
            if one is mine:
                return _leaf(span, chunk.key, before + row, chunk.count)
            before += one[1]
    return None


def _block_in(record: Record, sighting: Sighting) -> tuple[int, int] | None:
    """Return the place of a sighted event in another copy of its envelope.

    None means that this copy rejects the event: copies may have been checked against different tracking plans.
    """
    seen = sighting.seen
    places = [
        (index, place)
        for index, (table, _, rows) in enumerate(record.blocks)
        if table == seen.table
        for place, row in enumerate(unpacked(rows))
        if str(row.get("event_id", "")) == seen.event_id
    ]
    if places:
        return sighting.block if sighting.block in places else places[0]
    return None if record.rejected else sighting.block


def _leaf(span: Span, planned: ChunkKey, row: int, rows: int) -> ChunkKey:
    """Return the chunk that holds a row of a planned chunk: the chunk itself or, after splits, one of its parts."""
    for leaf in span.leaves(planned):
        if row in leaf.within(rows):
            return leaf
    return planned
