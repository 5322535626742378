"""Where events are and what became of them, from everything that holds them or knows of them.

The stream, the archive and the overflow queue hold envelopes; the set-aside store holds rows of its own. An envelope is *sighted* in
any number of these places. What became of an event, its whereabouts, is told by the ledger: the span that holds its record, and
the chunk of the span that holds its row. Nothing is consumed, and nothing is changed.
"""

from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from ops import set_aside
from ops.accounting import by_group
from ops.tail import Kind, Seen, rejected, text_of, unpacked
from shared.clock import Clock
from shared.errors import BucketUnavailableError, InvalidObjectError, NoSuchRecordError, ShardUnreadableError
from worker.archive import Archive
from worker.chain import OVERFLOW, ChainId
from worker.chunk import offsets, planned_chunks
from worker.claims import owner_name
from worker.deadline import Deadline
from worker.delivery import ASIDE, Entry, State
from worker.ledger import Ledger, Place
from worker.plan import group, owners_of
from worker.record import START, Number, Record, decode, from_stream, sequence_number
from worker.selection import Selection
from worker.set_aside import SetAsideStore
from worker.shards import Cursor, Position, Shards
from worker.span import ChunkKey, Database, Group, NotDeliverable, Owner, Span

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

INACCURACY_SECONDS = 300.0
"""By how much arrival times, and the clocks of those who make ids, may be wrong."""
SECONDS_PER_READ = 0.5
BYTES_PER_SECOND = 1_000_000
"""Half of what Kinesis grants a shard, so that the worker keeps the other half."""

_LOOKS = 2  # answers that must say that nothing follows
_FIRST_LIMIT = 100
_LIMIT_GROWTH = 4
_MOST_RECORDS = 10_000
_SPAN_SECONDS = 60.0
_REJECTED = -1  # in place of a block's number: the record's rejected events
_PEEKS = 3  # receives without a new message, after which the queue counts as seen
_MOST_PEEKS = 500
_PEEK_SECONDS = 5  # for which a message is hidden, so that the next receive brings others
_SPANS_KEPT = 8
_QUEUE_COUNTS: Final = (
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


class Stage(StrEnum):
    """What became of an event."""

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


_STAGES = {
    State.PENDING: Stage.IN_FLIGHT,
    State.DELIVERED: Stage.DELIVERED,
    State.PARKED: Stage.PARKED,
    State.IN_DOUBT: Stage.IN_DOUBT,
    State.DEAD_LETTER: Stage.DEAD_LETTER,
    State.DROPPED: Stage.DROPPED,
    State.MISSING: Stage.MISSING,
    State.REJECTED: Stage.REJECTED,
}


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events to find: those with one of these ids, or those with all of these columns; without either all.

    Attributes:
        ids: event ids, or request ids, with or without `#` and the number of an envelope.
        columns: values as text, by column.
        account: only this account's.
        table: only this table's.
    """

    ids: frozenset[str] = frozenset()
    columns: Mapping[str, str] = field(default_factory=dict)
    account: str = ""
    table: str = ""

    def is_about(self, seen: Seen) -> bool:
        """Tell whether an event is sought."""
        return (
            self.account in ("", seen.account)
            and self.table in ("", seen.table)
            and (not self.ids or seen.event_id in self.ids or self.has_request(seen.request_id))
            and all(text_of(seen.row.get(name)) == value for name, value in self.columns.items())
        )

    def has_request(self, request_id: str) -> bool:
        """Tell whether a request is sought."""
        return request_id in self.ids or request_id.partition("#")[0] in self.ids

    def may_be_in(self, rows: bytes) -> bool:
        """Tell whether rows may hold a sought event id; without decoding them."""
        return any(one.encode(errors="replace") in rows for one in self.ids)

    @property
    def began(self) -> float | None:
        """The earliest time, in UNIX seconds, that an id tells: that of a UUIDv7. None if there is none."""
        times = [_moment(one) for one in self.ids]
        return min((one for one in times if one is not None), default=None)


def _moment(name: str) -> float | None:
    try:
        value = UUID(name.partition("#")[0])
    except ValueError:
        return None
    return (value.int >> 80) / 1000 if value.version == 7 else None


@dataclass(frozen=True, slots=True)
class Sighting:
    """One place that holds an event.

    Attributes:
        source: `stream`, `archive`, `queue` or `set_aside`.
        seen: the event.
        chain: of the shard that holds it; None where no shard does.
        record: what holds it; None in the set-aside store.
        block: which of the record's blocks, rows before what could not become rows, and which item of the block it is.
    """

    source: str
    seen: Seen
    chain: ChainId | None = None
    record: Record | None = None
    block: tuple[int, int] = (0, 0)

    @property
    def identity(self) -> tuple[str, str, str, str, tuple[int, int]]:
        """What copies of the same event have in common."""
        seen = self.seen
        return seen.account, seen.request_id, seen.table, seen.event_id, self.block


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where an event is, and what became of it.

    Attributes:
        sightings: where it was seen.
        stage: what became of it.
        reason: why it is set aside, or waits.
        span: that holds it.
        key: its chunk.
        rows: of the chunk.
        database: to which it goes, or went.
        unique_id: under which it is, or was, sent.
        object_name: of the object that holds it in the set-aside store.
        at: when the stage began, UNIX seconds; 0 where nobody knows.
        owner: of a copy, what counts in its place.
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
    owner: str = ""

    @property
    def seen(self) -> Seen:
        """The event."""
        return self.sightings[0].seen


@dataclass(slots=True)
class Searched:
    """How far a search has come.

    Attributes:
        records: that were looked at.
        shards: how many are read.
        ended: how many of them have been read to the end.
        at: the arrival of the record that is furthest behind, UNIX seconds; 0 where nobody knows.
        hidden: messages of the overflow queue that SQS does not show now.
        is_complete: everything was searched.
    """

    records: int = 0
    shards: int = 0
    ended: int = 0
    at: float = 0.0
    hidden: int = 0
    is_complete: bool = True


class _Lane:
    """One shard that is being searched."""

    def __init__(self, chain: ChainId, cursor: Cursor) -> None:
        self.chain = chain
        self.cursor = cursor
        self.due = 0.0
        self.limit = _FIRST_LIMIT
        self.looks = 0
        self.at = 0.0


class Finder:
    """Finds events.

    Args:
        shards: the stream.
        ledger: the ledger.
        store: the set-aside store.
        sqs: a boto3 client.
        queue_url: the overflow queue.
        clock: paces the reads, and tells when the time is up.
        archive: the archive.
    """

    def __init__(
        self,
        *,
        shards: Shards,
        ledger: Ledger,
        store: SetAsideStore,
        sqs: "SQSClient",
        queue_url: str,
        clock: Clock,
        archive: Archive,
    ) -> None:
        self._shards = shards
        self._ledger = ledger
        self._store = store
        self._sqs = sqs
        self._queue_url = queue_url
        self._clock = clock
        self._archive = archive
        self._spans: dict[Place, list[Record] | None] = {}

    def find(
        self,
        query: EventQuery,
        since: float,
        seconds: float,
        progress: Callable[[Searched], None] = lambda _: None,
    ) -> tuple[list[Whereabouts], Searched]:
        """Return where the events are, in the order of their arrival, and how far the search has come.

        Args:
            query: which events.
            since: UNIX seconds; what was sent before is not searched.
            seconds: after which the search ends, complete or not.
            progress: told of each read.

        Raises:
            UnavailableError: ledger, bucket or stream cannot be read.
            ClientError: SQS refuses.
            BotoCoreError: SQS cannot be reached.
        """
        done, until = Searched(), self._clock.now() + seconds
        found: dict[tuple[Any, ...], list[Sighting]] = {}
        for sighting in self._sightings(query, since, until, done, progress):
            found.setdefault(sighting.identity, []).append(sighting)
        whereabouts = [self._whereabouts(each) for each in found.values()]
        if not whereabouts or not query.ids:
            held = {_place(one) for one in whereabouts}
            aside = self._set_aside(query, since, until, done)
            whereabouts += [one for one in aside if _place(one) not in held]
        return sorted(whereabouts, key=lambda one: one.seen.at), done

    def _sightings(
        self,
        query: EventQuery,
        since: float,
        until: float,
        done: Searched,
        progress: Callable[[Searched], None],
    ) -> Iterator[Sighting]:
        is_found = False
        for sighting in self._in_archive(query, since, until, done, progress):
            is_found = True
            yield sighting
        yield from self._on_queue(query, done)
        if not (is_found and query.ids):
            yield from self._on_stream(query, since, until, done, progress)

    def _in_archive(
        self,
        query: EventQuery,
        since: float,
        until: float,
        done: Searched,
        progress: Callable[[Searched], None],
    ) -> Iterator[Sighting]:
        """Read what the stream may have forgotten; once an id is found, only what arrived about then.

        A stream that was deleted, and created again under its name, has forgotten everything.
        """
        summary = self._shards.summary()
        kept = self._clock.now() - summary["RetentionPeriodHours"] * 3600 + INACCURACY_SECONDS
        enough = float("inf")
        for chain in self._archive.chains(summary["StreamName"]):
            latest = kept if self._shards.has(chain) else float("inf")
            if since >= latest:
                continue
            for archived in self._archive.listed(chain, since):
                if self._clock.now() >= until:
                    done.is_complete = False
                    return
                if archived.since / 1000 > min(latest, enough):
                    continue
                records = from_stream(self._archive.read(archived) or (), chain.shard)
                done.records += len(records)
                done.at = archived.since / 1000
                progress(done)
                for sighting in self._in(records, chain, "archive", query):
                    if query.ids:
                        enough = min(enough, sighting.seen.arrived_at + 2 * INACCURACY_SECONDS)
                    yield sighting

    def _on_stream(
        self,
        query: EventQuery,
        since: float,
        until: float,
        done: Searched,
        progress: Callable[[Searched], None],
    ) -> Iterator[Sighting]:
        """Read all shards in turn; once an id is found, only what arrived about then."""
        enough = float("inf")
        lanes = [
            _Lane(
                self._shards.chain(shard.shard_id),
                self._shards.cursor(shard.shard_id, Position(moment=since)),
            )
            for shard in self._shards.all()
        ]
        done.shards = len(lanes)
        while lanes:
            lane = min(lanes, key=lambda one: one.due)
            if max(self._clock.now(), lane.due) >= until:
                done.is_complete = False
                return
            self._clock.sleep(max(0.0, lane.due - self._clock.now()))
            records = self._read(lane)
            done.records += len(records)
            for sighting in self._in(records, lane.chain, "stream", query):
                if query.ids:
                    enough = min(enough, sighting.seen.arrived_at + 2 * INACCURACY_SECONDS)
                yield sighting
            if lane.looks >= _LOOKS or lane.at > enough:
                lanes.remove(lane)
            done.ended = done.shards - len(lanes)
            done.at = min((one.at for one in lanes), default=0.0)
            progress(done)

    def _read(self, lane: _Lane) -> list[Record]:
        """Make one read, within the budget."""
        began = self._clock.now()
        try:
            page = lane.cursor.read(lane.limit)
        except NoSuchRecordError:  # records have expired meanwhile, or this clock is ahead
            lane.cursor.seek(Position())
            page = None
        lane.due = max(began + SECONDS_PER_READ, lane.cursor.due if page is None else 0.0)
        if page is None:
            return []
        size = sum(len(record["Data"]) + len(record["PartitionKey"]) for record in page.records)
        lane.due = max(lane.due, began + size / BYTES_PER_SECOND)
        if page.records:
            fitting = BYTES_PER_SECOND * len(page.records) // max(1, 2 * size)
            lane.limit = max(1, min(fitting, lane.limit * _LIMIT_GROWTH, _MOST_RECORDS))
        lane.looks = lane.looks + 1 if page.at_tip and not page.records else 0
        if page.ended:
            lane.looks = _LOOKS
        records = from_stream(page.records, lane.chain.shard)
        lane.at = records[-1].arrived_at if records else began if page.at_tip else lane.at
        return records

    def _on_queue(self, query: EventQuery, done: Searched) -> Iterator[Sighting]:
        """Look at messages without taking them: each is hidden from the drainer for seconds only, and none is deleted."""
        answer = self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=list(_QUEUE_COUNTS))
        done.hidden = sum(int(answer["Attributes"][name]) for name in _QUEUE_COUNTS)
        known: set[str] = set()
        idle = 0
        for _ in range(_MOST_PEEKS):
            received = self._sqs.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=10,
                VisibilityTimeout=_PEEK_SECONDS,
                AttributeNames=["SentTimestamp"],
            ).get("Messages", [])
            fresh = [one for one in received if one["MessageId"] not in known]
            idle = 0 if fresh else idle + 1
            if idle >= _PEEKS:
                break
            for message in fresh:
                known.add(message["MessageId"])
                sent_at = int(message["Attributes"]["SentTimestamp"]) / 1000
                record = _of_message(message["Body"], sent_at)
                if record is not None:
                    yield from self._in([record], None, "queue", query)

    def _in(
        self, records: Iterable[Record], chain: ChainId | None, source: str, query: EventQuery
    ) -> Iterator[Sighting]:
        for record in records:
            if query.account in ("", record.account):
                for block, seen in _events(record, chain, query):
                    if query.is_about(seen):
                        yield Sighting(source, seen, chain, record, block)

    # What became of it

    def _whereabouts(self, sightings: Sequence[Sighting]) -> Whereabouts:
        """Return what became of an event: of its copies, the one that counts tells."""
        every = tuple(sightings)
        if every[0].block[0] == _REJECTED:
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
        """Return what became of the copy that owns the envelope's claim; None if none does, or it is one of these."""
        first = sightings[0]
        claim = self._ledger.owner(first.seen.request_id) if first.seen.request_id else None
        if claim is None:
            return None
        if claim.owner.startswith(f"{OVERFLOW}#"):
            span = self._ledger.get(Place(ChainId.parse(claim.owner), START))
            if span is None:
                return Whereabouts(sightings, Stage.QUEUED, owner=claim.owner)
            return self._of_overflow(sightings, span, claim.owner)
        name, _, at = claim.owner.rpartition("#")
        chain = ChainId.parse(name)
        record = self._owning_record(chain, at)
        if record is None:
            located = self._ledger.locate(chain, at)
            if not isinstance(located, Span):
                return Whereabouts(sightings, Stage.COPY, owner=claim.owner)
            return replace(self._of_group(first, located), sightings=sightings, owner=claim.owner)
        owning = self._of_record(replace(first, chain=chain, record=record))
        return replace(owning, sightings=sightings, owner=claim.owner)

    def _owning_record(self, chain: ChainId, at: Number) -> Record | None:
        located = self._ledger.locate(chain, at)
        if isinstance(located, Span):
            for record in self._records_of(located) or ():
                if record.number == at:
                    return record
        try:
            deadline = Deadline(self._clock, self._clock.now() + _SPAN_SECONDS)
            found = self._shards.read(chain.shard, at, at, deadline)
        except (ShardUnreadableError, NoSuchRecordError):
            return None
        return found[0] if found else None

    def _of_overflow(self, sightings: tuple[Sighting, ...], span: Span, owner: str) -> Whereabouts:
        seen, (_, row) = sightings[0].seen, sightings[0].block
        for planned in span.counts:
            if planned.table == seen.table and planned.owner.account == seen.account:
                key = _leaf(span, ChunkKey(planned, 0), row, span.counts[planned])
                return replace(self._of_chunk(span, key), sightings=sightings, owner=owner)
        return Whereabouts(sightings, Stage.UNKNOWN, span=span, owner=owner)

    def _of_record(self, sighting: Sighting) -> Whereabouts:
        chain, record = sighting.chain, sighting.record
        if chain is None or record is None:
            return Whereabouts((sighting,), Stage.UNKNOWN)
        span = self._ledger.locate(chain, record.number)
        if not isinstance(span, Span):
            claim = self._ledger.owner(record.request_id) if record.claim else None
            is_copy = claim is not None and claim.owner != owner_name(chain, record.number)
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
        """Return what became of an event in a span whose records have expired, as far as all rows of its table fared alike."""
        account, table = sighting.seen.account, sighting.seen.table
        key_id = "" if sighting.record is None else sighting.record.key_id
        for owner in (Owner(account, key_id), Owner(account)):
            of_table = Group(owner, table)
            if of_table in span.counts:
                states = [state for state, rows in by_group(span)[of_table].items() if rows]
                if len(states) != 1:
                    return Whereabouts((sighting,), Stage.UNKNOWN, "records_expired", span)
                return Whereabouts((sighting,), _STAGES[states[0]], span=span, at=float(span.settled_at or 0))
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
            stage=_STAGES[entry.state],
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
        """Return a span's records, from the archive or the stream; None where neither has all of them."""
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
            return self._shards.read(span.chain.shard, span.first, span.last, deadline)
        except (ShardUnreadableError, NoSuchRecordError):
            return None

    def _set_aside(
        self, query: EventQuery, since: float, until: float, done: Searched
    ) -> Iterator[Whereabouts]:
        """Look through the set-aside store, for what the stream has forgotten."""
        selection = Selection(tuple(ASIDE), account=query.account or None, table=query.table or None)
        for chunk in set_aside.chunks(self._ledger, selection):
            if self._clock.now() >= until:
                done.is_complete = False
                return
            if chunk.key.group.code or chunk.entry.aside_at < (since - INACCURACY_SECONDS) * 1000:
                continue
            try:
                stored = self._store.get(chunk.span, chunk.key, chunk.entry.edit, chunk.entry.digest)
                begin, end = offsets(stored.payload, chunk.key.within(stored.rows))
            except (InvalidObjectError, ValueError):
                continue
            common = Seen(
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


def _events(
    record: Record, chain: ChainId | None, query: EventQuery
) -> Iterator[tuple[tuple[int, int], Seen]]:
    """Yield the events of a record that may be sought, each with its block and its place in that."""
    common = Seen(
        kind=Kind.EVENT,
        at=record.received_at / 1000,
        arrived_at=record.arrived_at,
        account=record.account,
        key_id=record.key_id,
        request_id=record.request_id,
        shard="" if chain is None else chain.shard,
        sequence_number="" if chain is None else sequence_number(record.number),
    )
    is_sought = not query.ids or query.has_request(record.request_id)
    for index, (table, _, rows) in enumerate(record.blocks):
        if is_sought or query.may_be_in(rows):
            for place, row in enumerate(unpacked(rows)):
                event_id = str(row.get("event_id", ""))
                yield (index, place), replace(common, table=table, event_id=event_id, row=row)
    for index, (code, _, originals) in enumerate(record.refused, len(record.blocks)):
        for place, original in enumerate(unpacked(originals)):
            yield (index, place), rejected(common, code, "", original)
    for event in record.rejected:
        yield (_REJECTED, event.place), rejected(common, event.code, event.table, event.original)


def _place(one: Whereabouts) -> tuple[object, ...]:
    """Return what tells a row from any other, whichever source shows it."""
    seen, span = one.seen, one.span
    return seen.account, seen.table, seen.event_id, one.key, span and span.chain, span and span.after


def _began(span: Span, entry: Entry) -> float:
    """Return when a chunk came into its state, UNIX seconds; 0 where the ledger does not tell."""
    if entry.state in ASIDE:
        return entry.aside_at / 1000
    if entry.state is State.PENDING:
        return span.planned_at / 1000
    return float(span.settled_at or 0)


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


def _leaf(span: Span, planned: ChunkKey, row: int, rows: int) -> ChunkKey:
    """Return what stands for the row of a planned chunk: the chunk itself, or a half, or half of a half."""
    for leaf in span.leaves(planned):
        if row in leaf.within(rows):
            return leaf
    return planned


def _of_message(body: str, sent_at: float) -> Record | None:
    try:
        data = b64decode(body, validate=True)
    except ValueError:
        return None
    record = decode(data, "", START, sent_at)
    return record if record.request_id else None
