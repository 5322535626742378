"""The archive: every span's records in S3, as the stream had them, for replays after the stream's retention.

    archive/<stream>/<start>/<shard>/<hour>/<first>-<last>-<since>-<until>.gz

An object holds one span and never changes. Its name follows from the span's item in the ledger: the shard's chain (`start` is the
shard's first possible sequence number, which distinguishes a recreated stream from the old one), the UTC hour in which the span was
planned, the sequence numbers of its first and last record, and the UNIX milliseconds at which the earliest and the latest record
arrived. A listing therefore finds the spans of a range of time or of sequence numbers, and the ledger names each span's object.

An overflow envelope that bypasses the stream is a span of its own. Its chain has neither stream nor start, and its record has no
sequence number.

An object is the gzip of MessagePack values back to back: a map that repeats the span's chain and borders, then for each record its
sequence number, its arrival in UNIX seconds, its partition key, and its bytes.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgpack

from shared.errors import BucketUnavailableError
from worker.batch import Work
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.chunk import compress
from worker.deadline import Deadline
from worker.executor import Executor
from worker.record import DIGITS, Number, Record, from_stream, number
from worker.span import Span

if TYPE_CHECKING:  # the `sluice` command reads the archive, and loads none of the modules that deliver
    from worker.execution import Delivery

PREFIX = "archive/"
CLOCKS_DIFFER_SECONDS = 3600.0
"""Because clocks differ, a span may seem to have been planned up to this long before its records arrived."""

_BEHIND_ALL = "~"
_LATEST = 1e11  # UNIX seconds that fit a date
_MOST_REMEMBERED = 100
_WAIT_SECONDS = 2.0  # how long a put may take past the deadline, out of the time reserved for settling


class ArchivedSpan(NamedTuple):
    """A span in the archive, as its object's name describes it.

    Attributes:
        chain: of its shard.
        hour: in which it was planned, `2026-11-24T03`.
        first: sequence number of its first record.
        last: sequence number of its last record.
        since: UNIX milliseconds at which its earliest record arrived.
        until: UNIX milliseconds at which its latest record arrived.
    """

    chain: ChainId
    hour: str
    first: Number
    last: Number
    since: int
    until: int

    @classmethod
    def of(cls, span: Span) -> Self | None:
        """Return the description of a span; None if its plan does not archive it."""
        if span.archived is None:
            return None
        hour = _hour(span.planned_at / 1000)
        return cls(span.chain.root, hour, span.first, span.last, span.archived.since, span.archived.until)

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Return the span that an object's name describes; None if it is not such a name."""
        try:
            stream, start, shard, hour, borders = name.removeprefix(PREFIX).split("/")
            first, last, since, until = borders.removesuffix(".gz").split("-")
            chain = ChainId(stream, start, shard)
            return cls(chain, hour, number(first), number(last), int(since), int(until))
        except ValueError:
            return None

    @property
    def name(self) -> str:
        """The object's name."""
        borders = f"{self.first[DIGITS]}-{self.last[DIGITS]}-{self.since}-{self.until}"
        return f"{_folder(self.chain)}{self.hour}/{borders}.gz"

    def header(self, records: int) -> dict[str, Any]:
        """Return the header of an object with this many records."""
        first, last = self.first[DIGITS], self.last[DIGITS]
        return {"chain": self.chain.name, "first": first, "last": last, "records": records}


class Archive:
    """Reads and writes the archive's objects. Every method raises BucketUnavailableError if S3 cannot be reached."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._acknowledged: set[str] = set()

    def put(self, span: Span, records: Sequence[Record]) -> None:
        """Write a span's object, with all its records, unless S3 has it. Do nothing if the span's plan does not archive it.

        Raises:
            BucketUnavailableError: S3 did not acknowledge it, or has something else in its place.
        """
        archived = ArchivedSpan.of(span)
        if archived is None or (name := archived.name) in self._acknowledged:
            return
        if not self._bucket.put(name, compress(_encode(archived, records)), is_new=True):
            self._check_existing(span)
        if len(self._acknowledged) >= _MOST_REMEMBERED:
            self._acknowledged.clear()
        self._acknowledged.add(name)

    def _check_existing(self, span: Span) -> None:
        """Check that the existing object holds the span's records: S3's word that there is an object proves nothing."""
        if self.get(span) is None:
            raise BucketUnavailableError("S3 says that the span's object exists, but does not return it")

    def get(self, span: Span) -> list[Record] | None:
        """Return a span's records; None if the archive does not have them.

        Raises:
            BucketUnavailableError: S3 cannot be reached, or the object holds something else.
        """
        archived = ArchivedSpan.of(span)
        found = None if archived is None else self.read(archived)
        if found is None:
            return None
        records = from_stream(found, span.chain.shard)
        if not span.is_whole([record.number for record in records]):
            raise BucketUnavailableError("the span's object holds other records than were planned")
        return records

    def read(self, archived: ArchivedSpan) -> list[Mapping[str, Any]] | None:
        """Return the records of an object, in the form of GetRecords; None if there is no such object.

        Raises:
            BucketUnavailableError: S3 cannot be reached, or the object holds something else.
        """
        name = archived.name
        data = self._bucket.get(name)
        if data is None:
            return None
        try:
            return _decode(archived, data)
        except (zlib.error, msgpack.UnpackException, ValueError, TypeError) as error:
            raise BucketUnavailableError(f"{name} does not hold the span's records") from error

    def chains(self, stream: str) -> list[ChainId]:
        """Return the chains of a stream's shards that have objects in the archive."""
        return [
            ChainId(stream, start, shard)
            for folder in self._folders(f"{PREFIX}{stream}/")
            for start, shard in (name.split("/")[-3:-1] for name in self._folders(folder))
        ]

    def planned_since(self, chain: ChainId, hour: str) -> Iterator[ArchivedSpan]:
        """Yield the archived spans of a shard that were planned in `hour` or later, hour by hour."""
        folder = _folder(chain)
        for page in self._bucket.pages(folder, StartAfter=f"{folder}{hour}"):
            yield from filter(None, (ArchivedSpan.parse(item["Key"]) for item in page.get("Contents", [])))

    def listed(
        self,
        chain: ChainId,
        since: float | None = None,
        until: float | None = None,
        held_at_most: float = float("inf"),
    ) -> Iterator[ArchivedSpan]:
        """Yield the archived spans of a shard whose records arrived between `since` and `until` (UNIX seconds), at least in part.

        They come hour by hour, by the time of their plan. A record is planned at most `held_at_most` seconds after it arrives.
        """
        begin = "" if since is None else _hour(since - CLOCKS_DIFFER_SECONDS)
        latest = _BEHIND_ALL if until is None else _hour(until + held_at_most)
        for found in self.planned_since(chain, begin):
            if found.hour > latest:
                return
            starts_before = until is None or found.since < until * 1000
            if starts_before and (since is None or found.until >= since * 1000):
                yield found

    def _folders(self, prefix: str) -> list[str]:
        pages = self._bucket.pages(prefix, Delimiter="/")
        return [folder["Prefix"] for page in pages for folder in page.get("CommonPrefixes", [])]


@dataclass(slots=True)
class Archiving:
    """Writes a span's object to the archive while the span's chunks are sent.

    Attributes:
        executor: runs the put.
        work: the span and its records; if some have expired, nothing is put.
        failure: why the put failed; empty if it succeeded, None until its result is known.
    """

    archive: Archive
    delivery: "Delivery"
    executor: Executor
    work: Work
    deadline: Deadline
    failure: str | None = None

    def put(self) -> str:
        """Write the object; return why that failed, or an empty string."""
        try:
            if self.work.is_whole:
                self.archive.put(self.work.span, self.work.records)
        except BucketUnavailableError as error:
            return str(error) or "S3 failed"
        return ""

    def may_close(self) -> bool:
        """Wait for the put; return whether the span may be marked done.

        It may if the archive has its records, or if they have been held for as long as they may be.
        """
        clock = self.delivery.clock
        if self.failure is None:
            self.failure = self.executor.wait(max(0.0, self.deadline.at - clock.now()) + _WAIT_SECONDS)
        if self.failure == "":
            return True
        oldest = min(record.arrived_at for record in self.work.records)
        if not self.delivery.rules.is_held_too_long(oldest, clock.now()):
            return False
        self.delivery.telemetry.error(
            "a span is settled without being archived, because S3 does not accept its records"
        )
        return True


def _folder(chain: ChainId) -> str:
    return f"{PREFIX}{chain.stream}/{chain.start}/{chain.shard}/"


def _hour(moment: float) -> str:
    if moment > _LATEST:
        return _BEHIND_ALL
    return datetime.fromtimestamp(max(0.0, moment), UTC).strftime("%Y-%m-%dT%H")


def _encode(archived: ArchivedSpan, records: Sequence[Record]) -> memoryview:
    packer = msgpack.Packer(autoreset=False)  # one buffer: joining pieces takes several times as long
    packer.pack(archived.header(len(records)))
    for record in records:
        packer.pack((record[0][DIGITS], record[1], record.partition_key, record.data))
    return memoryview(packer.getbuffer())


def _decode(archived: ArchivedSpan, data: bytes) -> list[Mapping[str, Any]]:
    content = zlib.decompress(data, wbits=zlib.MAX_WBITS | 16)
    unpacker = msgpack.Unpacker(max_buffer_size=len(content) + 1)
    unpacker.feed(content)
    header, *records = unpacker
    if header != archived.header(len(records)):
        raise ValueError("the object belongs to another span")
    return [
        {
            "SequenceNumber": digits,
            "ApproximateArrivalTimestamp": datetime.fromtimestamp(arrived_at, UTC),
            "PartitionKey": partition_key,
            "Data": record,
        }
        for digits, arrived_at, partition_key, record in records
    ]
