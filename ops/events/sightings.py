"""Searches the envelopes on the stream, in the archive and in the overflow queue for events.

An event may be *sighted* in several of these places. A search consumes and changes nothing.
"""

from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from uuid import UUID

from ops.events.event_tail import EventFilter, SeenEvent, common_of, rejected, unpacked
from shared.clock import Clock
from shared.envelope import request_of
from shared.errors import NoSuchRecordError
from worker.archive import Archive
from worker.chain import NO_STREAM, ChainId
from worker.record import START, Record, decode, from_stream
from worker.shards import Cursor, Position, Shards

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

INACCURACY_SECONDS = 300.0
"""How far off arrival times, and the clocks of clients that make ids, may be."""
SECONDS_PER_READ = 0.5
BYTES_PER_SECOND = 1_000_000
"""Half of what Kinesis allows per shard, so that the worker keeps the other half."""

REJECTED = -1
"""Used as a block's number for the record's rejected events."""

_LOOKS = 2  # empty reads at the tip after which a shard counts as read
_FIRST_LIMIT = 100
_LIMIT_GROWTH = 4
_MOST_RECORDS = 10_000
_PEEKS = 3  # consecutive receives without a new message after which the queue counts as read
_MOST_PEEKS = 500
_PEEK_SECONDS = 5  # how long a received message is hidden, so that the next receive returns others
_QUEUE_COUNTS: Final = (
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass(frozen=True, slots=True)
class EventQuery(EventFilter):
    """A filter that also selects by id. Without ids, it selects as `Wanted` does.

    Attributes:
        ids: event ids, or request ids, with or without `#` and the number of an envelope.
    """

    ids: frozenset[str] = frozenset()

    def is_about(self, seen: SeenEvent) -> bool:
        """Return whether the query selects an event."""
        is_known = not self.ids or seen.event_id in self.ids or self.has_request(seen.request_id)
        return is_known and self.has(seen)

    def has_request(self, request_id: str) -> bool:
        """Return whether the query names a request."""
        return request_id in self.ids or request_of(request_id) in self.ids

    def may_be_in(self, rows: bytes) -> bool:
        """Return whether rows may contain one of the event ids, without decoding them."""
        return any(one.encode(errors="replace") in rows for one in self.ids)

    @property
    def began(self) -> float | None:
        """The earliest time in the ids that are UUIDv7s, in UNIX seconds; None if there are none."""
        times = [_moment(one) for one in self.ids]
        return min((one for one in times if one is not None), default=None)


def _moment(name: str) -> float | None:
    try:
        value = UUID(request_of(name))
    except ValueError:
        return None
    return (value.int >> 80) / 1000 if value.version == 7 else None


@dataclass(frozen=True, slots=True)
class Sighting:
    """One place that holds an event.

    Attributes:
        source: `stream`, `archive`, `queue` or `set_aside`.
        seen: the event.
        chain: the chain of its shard; None in the queue and the set-aside store.
        record: its record; None in the set-aside store.
        block: the number of its block in the record, counting `blocks` before `refused`, and its place in the block.
    """

    source: str
    seen: SeenEvent
    chain: ChainId | None = None
    record: Record | None = None
    block: tuple[int, int] = (0, 0)

    @property
    def identity(self) -> tuple[str, str, str, str, tuple[int, int]]:
        """What copies of the same event have in common."""
        seen = self.seen
        return seen.account, seen.request_id, seen.table, seen.event_id, self.block


@dataclass(slots=True)
class Searched:
    """The progress of a search.

    Attributes:
        records: number of records searched.
        shards: number of shards to read.
        ended: number of these read to the end.
        at: how far all shards have been read, as an arrival time in UNIX seconds; 0 if unknown.
        hidden: messages of the overflow queue that SQS hides at present.
        is_complete: whether everything was searched.
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


@dataclass(frozen=True, slots=True)
class Places:
    """The stores of envelopes.

    Attributes:
        shards: the stream.
        archive: the archive.
        sqs: a boto3 client.
        queue_url: the overflow queue.
    """

    shards: Shards
    archive: Archive
    sqs: "SQSClient"
    queue_url: str


class EventSearch:
    """Searches for events in all places.

    Args:
        places: where to search.
        query: selects events.
        since: where the search begins, UNIX seconds.
        until: when the search ends, complete or not, UNIX seconds.
        clock: paces the reads and measures the time limit.
        progress: called after each read.

    Attributes:
        done: the progress.
    """

    def __init__(
        self,
        places: Places,
        query: EventQuery,
        *,
        since: float,
        until: float,
        clock: Clock,
        progress: Callable[[Searched], None] = lambda _: None,
    ) -> None:
        self._places = places
        self._query = query
        self._since = since
        self._until = until
        self._clock = clock
        self._progress = progress
        self._enough = float("inf")  # records that arrived later need not be read
        self.done = Searched()

    def sightings(self) -> Iterator[Sighting]:
        """Yield where the events are. Once an id is found, only records that arrived around the same time are read.

        Raises:
            UnavailableError: the bucket or stream cannot be read.
            ClientError: SQS rejects the call.
            BotoCoreError: SQS cannot be reached.
        """
        is_found = False
        for sighting in self._in_archive():
            is_found = True
            yield sighting
        yield from self._on_queue()
        if not (is_found and self._query.ids):
            self._enough = float("inf")
            yield from self._on_stream()

    def is_time_up(self) -> bool:
        """Return whether the time is up; if so, mark the search as incomplete."""
        if self._clock.now() >= self._until:
            self.done.is_complete = False
        return not self.done.is_complete

    def _in_archive(self) -> Iterator[Sighting]:
        """Read records that may have expired on the stream, and those from the overflow queue that were never on it.

        A stream that was deleted and recreated under its name has lost all records.
        """
        shards, archive = self._places.shards, self._places.archive
        summary = shards.summary()
        kept = self._clock.now() - summary["RetentionPeriodHours"] * 3600 + INACCURACY_SECONDS
        for chain in (*archive.chains(NO_STREAM), *archive.chains(summary["StreamName"])):
            is_on_stream = not chain.is_overflow and shards.has(chain)
            latest = kept if is_on_stream else float("inf")
            if self._since >= latest:
                continue
            for archived in archive.listed(chain, self._since):
                if self.is_time_up():
                    return
                if archived.since / 1000 > min(latest, self._enough):
                    continue
                records = from_stream(archive.read(archived) or (), chain.shard)
                self.done.records += len(records)
                self.done.at = archived.since / 1000
                self._progress(self.done)
                yield from self._in(records, chain, "archive")

    def _on_stream(self) -> Iterator[Sighting]:
        """Read all shards, each when it is due."""
        shards = self._places.shards
        lanes = [
            _Lane(shards.chain(shard.shard_id), shards.cursor(shard.shard_id, Position(moment=self._since)))
            for shard in shards.all()
        ]
        self.done.shards = len(lanes)
        while lanes:
            lane = min(lanes, key=lambda one: one.due)
            if max(self._clock.now(), lane.due) >= self._until:
                self.done.is_complete = False
                return
            self._clock.sleep(max(0.0, lane.due - self._clock.now()))
            records = self._read(lane)
            self.done.records += len(records)
            yield from self._in(records, lane.chain, "stream")
            if lane.looks >= _LOOKS or lane.at > self._enough:
                lanes.remove(lane)
            self.done.ended = self.done.shards - len(lanes)
            self.done.at = min((one.at for one in lanes), default=0.0)
            self._progress(self.done)

    def _read(self, lane: _Lane) -> list[Record]:
        """Make one read, within the read budget."""
        began = self._clock.now()
        try:
            page = lane.cursor.read(lane.limit)
        except NoSuchRecordError:  # records have just expired, or this clock is ahead
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

    def _on_queue(self) -> Iterator[Sighting]:
        """Receive messages without deleting them: each is hidden from the drainer for only a few seconds."""
        sqs, url = self._places.sqs, self._places.queue_url
        answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_QUEUE_COUNTS))
        self.done.hidden = sum(int(answer["Attributes"][name]) for name in _QUEUE_COUNTS)
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
            if idle >= _PEEKS:
                break
            for message in new:
                known.add(message["MessageId"])
                sent_at = int(message["Attributes"]["SentTimestamp"]) / 1000
                record = _of_message(message["Body"], sent_at)
                if record is not None:
                    yield from self._in([record], None, "queue")

    def _in(self, records: Iterable[Record], chain: ChainId | None, source: str) -> Iterator[Sighting]:
        query = self._query
        for record in records:
            if query.account in ("", record.account):
                for block, seen in _events(record, chain, query):
                    if query.is_about(seen):
                        if query.ids and chain is not None:
                            self._enough = min(self._enough, seen.arrived_at + 2 * INACCURACY_SECONDS)
                        yield Sighting(source, seen, chain, record, block)


def _events(
    record: Record, chain: ChainId | None, query: EventQuery
) -> Iterator[tuple[tuple[int, int], SeenEvent]]:
    """Yield the events of a record that the query may select, each with its block and its place in it."""
    common = common_of(record, None if chain is None else chain.shard)
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
        yield (REJECTED, event.place), rejected(common, event.code, event.table, event.original)


def _of_message(body: str, sent_at: float) -> Record | None:
    try:
        data = b64decode(body, validate=True)
    except ValueError:
        return None
    record = decode(data, "", START, sent_at)
    return record if record.request_id else None
