"""Span objects: the chunks of a span in S3, as they are sent, with an index of its records.

    spans/<hour>/<chain>/<first>-<last>-<digest>.gz

An object holds, for each chunk, the gzip member that is its import body, byte for byte; then the index as one member. It never
changes. Its name follows from the span's item in the ledger: the UTC hour of the plan (or, once the object has been written anew without
chunks that nobody needs, of that), the chain, the span's borders, and the digest of the index. The index has the digest of each chunk, so
any part can be read and checked on its own.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import replace
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote, unquote

from shared.errors import BucketUnavailableError, InvalidObjectError, ObjectGoneError
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.executor import Executor
from worker.index import EMPTY, Index, Member, SpanPlan, decode, digest_of
from worker.record import START, Number, number, sequence_number
from worker.rows import compress, decompress, slice_of
from worker.span import LATER, ChunkKey, ObjectRef, Span, milliseconds
from worker.states import Entry

PREFIX = "spans/"
SECOND_TRY_SECONDS = 0.5
"""After this time without an answer, the same put is sent a second time."""
LONGEST_PUT_SECONDS = 10.0
"""After this time without an acknowledgement, a put has failed."""

_MOST_INDEXES = 64
_SAFE = "@#:!"
_NO_PARTS: tuple[tuple[int, ...], ...] = ((), (), ())  # of a chunk whose rows come from no record


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk to store: its rows in blocks, MessagePack maps back to back, and the records that they come from.

    Attributes:
        row_counts: for each block, its number of rows.
        positions: for each block, the position of its record in the span; empty if the rows come from no record.
    """

    key: ChunkKey
    blocks: list[bytes] = field(default_factory=list)
    row_counts: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(self.row_counts)

    def add(self, block: bytes, rows: int, *position: int) -> None:
        """Add a block, and the position of its record if its rows come from one."""
        self.blocks.append(block)
        self.row_counts.append(rows)
        self.positions.extend(position)

    def part(self, number: int, places: slice) -> "Chunk":
        """Return the blocks in these places as this part of the group."""
        key = self.key._replace(part=number)
        return Chunk(key, self.blocks[places], self.row_counts[places], self.positions[places])


class Encoded(NamedTuple):
    """A span object that is ready to be put, and the import body of each chunk."""

    data: bytes
    ref: ObjectRef
    bodies: dict[ChunkKey, bytes]


class Stored(NamedTuple):
    """A span object, as its name describes it.

    Attributes:
        hour: of its plan or of its last rewrite.
        digest: the first digits of the index's digest.
        size: in bytes.
    """

    name: str
    hour: str
    chain: ChainId
    first: Number
    last: Number
    digest: str
    size: int = 0


def encode(
    chunks: Iterable[Chunk],
    index: Index,
    now: float,
    *,
    bodies: Mapping[ChunkKey, bytes] = MappingProxyType({}),
    removed: Collection[ChunkKey] = (),
    counted: Mapping[ChunkKey, int] = MappingProxyType({}),
) -> Encoded:
    """Encode the object of a span that is planned at `now` (UNIX seconds), or one to replace a span's object, with these chunks added.

    `index` is that of a planned span, without its chunks, or of the object to replace. The chunks of the latter stay, with a body in `bodies`,
    the import bodies of that object, or without, except those that are `removed`. `counted` has the numbers of rows of more chunks in the
    index, without a body.
    """
    found: dict[ChunkKey, bytes] = {}
    members: list[Member] = []
    offset = 0
    for key, member in index.members.items():
        if key in bodies and key not in removed:
            found[key] = bodies[key]
            members.append(replace(member, offset=offset))
            offset += member.length
        elif key not in removed:
            members.append(replace(member, offset=0, length=0, digest=b""))
    for chunk in chunks:
        body = found[chunk.key] = compress(b"".join(chunk.blocks))
        place = (offset, len(body), digest_of(body))
        parts = (chunk.positions, chunk.row_counts, list(map(len, chunk.blocks)))
        members.append(Member(chunk.key, chunk.rows, *place, *(parts if chunk.positions else _NO_PARTS)))
        offset += len(body)
    members += [Member(key, rows, 0, 0, b"", *_NO_PARTS) for key, rows in counted.items()]
    last = compress(replace(index, chunks=members).encode())
    ref = ObjectRef(hour_of(now), digest_of(last), offset, len(last))
    return Encoded(b"".join((*found.values(), last)), ref, found)


def span_of_rows(
    chain: ChainId, chunks: Sequence[Chunk], received_at: int, now: float, origin: str = ""
) -> tuple[Span, bytes]:
    """Return a span of rows that come from no record of the stream, the only one of its chain, and its object. The sender decides where they go.

    `received_at` is the earliest time at which the ingest received a row, in UNIX milliseconds; `now` is UNIX seconds; `origin` is the name of
    the place that the rows come from.
    """
    plan = SpanPlan(START, milliseconds(now), (), origin, received_at)
    encoded = encode(chunks, replace(EMPTY, plan=plan), now)
    rows = [chunk.key for chunk in chunks if not chunk.key.group.code]
    span = Span(
        chain=chain,
        after=START,
        first=START,
        last=START,
        planned_at=plan.planned_at,
        chunks={chunk.key: chunk.rows for chunk in chunks},
        destinations={key.group.sender: LATER for key in rows},
        received_at=received_at,
        object=encoded.ref,
        origin=origin,
    )
    entry = Entry(at=span.planned_at)
    return span.with_entries(dict.fromkeys(rows, entry), settled=True), encoded.data


def hour_of(moment: float) -> str:
    """Return the UTC hour of a time in UNIX seconds: `2026-11-24T03`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H")


def moment_of(hour: str) -> float:
    """Return the time at which an hour begins, in UNIX seconds; raise ValueError if there is no such hour."""
    return datetime.fromisoformat(f"{hour}:00+00:00").timestamp()


def _is_hour(text: str) -> bool:
    try:
        return hour_of(moment_of(text)) == text
    except ValueError:
        return False


def name_of(span: Span) -> str:
    """Return the name of a span's object; raise ObjectGoneError if the span has none."""
    ref = _ref(span)
    borders = f"{sequence_number(span.first)}-{sequence_number(span.last)}-{ref.digest.hex()}"
    return f"{PREFIX}{ref.hour}/{quote(span.chain.name, safe=_SAFE)}/{borders}.gz"


def _ref(span: Span) -> ObjectRef:
    if span.object is None:
        raise ObjectGoneError("the span's object has been deleted")
    return span.object


def parse(name: str, size: int = 0) -> Stored | None:
    """Return the object with this name; None if it is not the name of a span object."""
    try:
        hour, chain, borders = name.removeprefix(PREFIX).split("/")
        first, last, digest = borders.removesuffix(".gz").split("-")
        if not name.startswith(PREFIX) or not _is_hour(hour):
            return None
        return Stored(name, hour, ChainId.parse(unquote(chain)), number(first), number(last), digest, size)
    except ValueError:
        return None


@dataclass(eq=False)
class SpanObjects:
    """Reads and writes span objects.

    Every method raises BucketUnavailableError if S3 cannot be reached, or does not acknowledge what is put. Those that read raise
    ObjectGoneError if the object, or the chunk in it, is gone, and InvalidObjectError if it holds something else than was written.
    """

    _bucket: Bucket
    _indexes: dict[str, Index] = field(default_factory=dict, init=False)

    def put(self, span: Span, data: bytes, executor: Executor | None = None) -> None:
        """Write a span's object; with an executor, a second time if that fails, or is not acknowledged within half a second."""
        name = name_of(span)
        if executor is None:
            self._bucket.put(name, data)
            return
        failure, under_way = "S3 did not answer in time", 0
        for seconds in (SECOND_TRY_SECONDS, LONGEST_PUT_SECONDS):
            executor.submit(partial(self._try_put, name, data))
            under_way += 1
            while under_way and (done := executor.wait(seconds)) is not None:
                if done == (name, ""):
                    return
                if done[0] == name:  # not the first try of another object, which was put twice
                    failure, under_way = done[1], under_way - 1
        raise BucketUnavailableError(failure)

    def _try_put(self, name: str, data: bytes) -> tuple[str, str]:
        """Write an object; return its name, and why that failed, empty if it did not."""
        try:
            self._bucket.put(name, data)
        except BucketUnavailableError as error:
            return name, str(error) or "S3 failed"
        return name, ""

    def index(self, span: Span) -> Index:
        """Return a span's index."""
        name, ref = name_of(span), _ref(span)
        found = self._indexes.get(name)
        if found is None:
            found = self._remember(name, decode(decompress(self._part(name, ref))))
        return found

    def _remember(self, name: str, index: Index) -> Index:
        if len(self._indexes) >= _MOST_INDEXES:
            self._indexes.clear()
        self._indexes[name] = index
        return index

    def body(self, span: Span, key: ChunkKey) -> bytes:
        """Return the import body of a chunk, or of a half of one; raise WrongCountError if that has another number of rows than planned."""
        member = self.index(span).members.get(key.planned)
        if member is None or not member.length:
            raise ObjectGoneError(f"the object no longer has the chunk {key.planned.name}")
        data = self._part(name_of(span), member)
        if not key.path:
            return data
        return compress(slice_of(decompress(data), key.within(member.rows), member.rows))

    def payload(self, span: Span, key: ChunkKey) -> bytes:
        """Return the rows of a chunk, or of a half of one: MessagePack maps, back to back. Raises what `body` raises."""
        return decompress(self.body(span, key))

    def without(self, span: Span, needed: Callable[[ChunkKey], bool], now: float) -> Encoded:
        """Return a span's object with only those chunks that are needed, and the whole index."""
        index, bodies = self.whole(span, needed)
        return encode((), index, now, bodies=bodies)

    def whole(
        self, span: Span, needed: Callable[[ChunkKey], bool] = lambda _: True
    ) -> tuple[Index, Mapping[ChunkKey, bytes]]:
        """Return a span's index, and the import body of each planned chunk that its object has and that is needed, by one read."""
        name, ref = name_of(span), _ref(span)
        data = self._bucket.get(name)
        if data is None:
            raise ObjectGoneError(f"{name} is gone")
        index = self._remember(name, decode(decompress(checked_part(name, data, 0, ref))))
        kept = {key: member for key, member in index.members.items() if member.length and needed(key)}
        return index, {key: checked_part(name, data, 0, member) for key, member in kept.items()}

    def delete(self, name: str) -> bool:
        """Delete an object; return whether S3 did."""
        return self._bucket.delete(name)

    def hours(self) -> Iterator[str]:
        """Yield the hours that have objects, in order. A folder of another name is not Sluice's."""
        for page in self._bucket.pages(PREFIX, Delimiter="/"):
            for folder in page.get("CommonPrefixes", []):
                hour = folder["Prefix"].removeprefix(PREFIX).rstrip("/")
                if _is_hour(hour):
                    yield hour

    def listed(self, hour: str = "", after: str = "") -> Iterator[Stored]:
        """Yield the objects of an hour, or of all, in the order of their names, behind the name `after`."""
        request = {"StartAfter": after} if after else {}
        for page in self._bucket.pages(f"{PREFIX}{hour}/" if hour else PREFIX, **request):
            for item in page.get("Contents", []):
                if (stored := parse(item["Key"], item.get("Size", 0))) is not None:
                    yield stored

    def _part(self, name: str, part: ObjectRef | Member) -> bytes:
        data = self._bucket.get(name, (part.offset, part.length))
        if data is None:
            raise ObjectGoneError(f"{name} is gone")
        return checked_part(name, data, part.offset, part)


def checked_part(name: str, data: bytes, begin: int, part: ObjectRef | Member) -> bytes:
    """Return a part of an object, given the object's bytes from `begin` on; raise InvalidObjectError if it is not what was written."""
    found = data[part.offset - begin : part.offset - begin + part.length]
    if digest_of(found) != part.digest:
        raise InvalidObjectError(f"{name} holds other bytes than were written")
    return found
