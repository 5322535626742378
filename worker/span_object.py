"""Span objects: the chunks of a span in S3, as they are sent, with an index of its records.

    spans/<hour>/<chain>/<first>-<last>-<digest>.gz

An object holds, for each chunk, the gzip member that is its import body, byte for byte; then the index as one member. It never
changes. Its name follows from the span's item in the ledger: the UTC hour of the plan (or, once the object has been written anew without
chunks that nobody needs, of that), the chain, the span's borders, and the digest of the index. The index has the digest of each chunk, so
any part can be read and checked on its own.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote, unquote

from shared.errors import BucketUnavailableError, InvalidObjectError, ObjectGoneError
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.executor import Executor
from worker.index import Index, Member, decode, digest_of
from worker.record import DIGITS, START, Number, number
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
_AN_HOUR = re.compile(r"\d{4}-\d\d-\d\dT\d\d")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk to store: its rows, and the records that they come from.

    Attributes:
        blocks: the rows in parts, MessagePack maps back to back.
        rows: how many rows there are.
        positions: for each part, the position of its record in the span.
        row_counts: for each part, its number of rows.
    """

    key: ChunkKey
    blocks: Sequence[bytes]
    rows: int
    positions: Sequence[int] = ()
    row_counts: Sequence[int] = ()


class Encoded(NamedTuple):
    """A span object that is ready to be put.

    Attributes:
        bodies: the import body of each chunk.
    """

    data: bytes
    ref: ObjectRef
    bodies: Mapping[ChunkKey, bytes]


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


def encode(chunks: Sequence[Chunk], index: Index, now: float) -> Encoded:
    """Encode the object of a span that is planned at `now` (UNIX seconds). `index` has everything but the chunks."""
    bodies: dict[ChunkKey, bytes] = {}
    members: dict[ChunkKey, Member] = {}
    offset = _add(chunks, bodies, members, 0)
    return _assembled(bodies, replace(index, members=members), offset, now)


def span_of_rows(
    chain: ChainId, chunks: Sequence[Chunk], received_at: int, now: float, origin: str = ""
) -> tuple[Span, bytes]:
    """Return a span of rows that come from no record of the stream, and its object. The sender decides where the rows go.

    Args:
        chain: of which it is the only span.
        chunks: its chunks.
        received_at: the earliest time at which the ingest received a row, in UNIX milliseconds.
        now: UNIX seconds.
        origin: the name of the place that the rows come from.
    """
    index = Index(planned_at=milliseconds(now), origin=origin, received_at=received_at)
    encoded = encode(chunks, index, now)
    rows = [chunk.key for chunk in chunks if not chunk.key.group.code]
    span = Span(
        chain=chain,
        after=START,
        first=START,
        last=START,
        planned_at=milliseconds(now),
        chunks={chunk.key: chunk.rows for chunk in chunks},
        destinations={key.group.sender: LATER for key in rows},
        received_at=received_at,
        object=encoded.ref,
        origin=origin,
    )
    entry = Entry(at=span.planned_at)
    return span.with_entries(dict.fromkeys(rows, entry), settled=True), encoded.data


def _add(
    chunks: Iterable[Chunk], bodies: dict[ChunkKey, bytes], members: dict[ChunkKey, Member], offset: int
) -> int:
    """Add chunks to an object's bodies, which end at `offset`, and to its index; return where the bodies end then."""
    for chunk in chunks:
        body = compress(b"".join(chunk.blocks))
        sizes = [len(block) for block in chunk.blocks] if chunk.positions else ()
        members[chunk.key] = Member(
            chunk.rows, offset, len(body), digest_of(body), chunk.positions, chunk.row_counts, sizes
        )
        bodies[chunk.key] = body
        offset += len(body)
    return offset


def _assembled(bodies: Mapping[ChunkKey, bytes], index: Index, offset: int, now: float) -> Encoded:
    last = compress(index.encode())
    ref = ObjectRef(hour_of(now), digest_of(last), offset, len(last))
    return Encoded(b"".join((*bodies.values(), last)), ref, bodies)


def hour_of(moment: float) -> str:
    """Return the UTC hour of a time in UNIX seconds: `2026-11-24T03`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H")


def name_of(span: Span) -> str:
    """Return the name of a span's object.

    Raises:
        ObjectGoneError: the span has none.
    """
    if span.object is None:
        raise ObjectGoneError("the span's object has been deleted")
    borders = f"{span.first[DIGITS]}-{span.last[DIGITS]}-{span.object.digest.hex()}"
    return f"{PREFIX}{span.object.hour}/{quote(span.chain.name, safe=_SAFE)}/{borders}.gz"


def parse(name: str, size: int = 0) -> Stored | None:
    """Return the object with this name; None if it is not the name of a span object."""
    try:
        hour, chain, borders = name.removeprefix(PREFIX).split("/")
        first, last, digest = borders.removesuffix(".gz").split("-")
        if not name.startswith(PREFIX):
            return None
        return Stored(name, hour, ChainId.parse(unquote(chain)), number(first), number(last), digest, size)
    except ValueError:
        return None


def cut_anew(
    index: Index,
    bodies: Mapping[ChunkKey, bytes],
    now: float,
    *,
    removed: Collection[ChunkKey] = (),
    added: Iterable[Chunk] = (),
    counted: Mapping[ChunkKey, int] = MappingProxyType({}),
) -> Encoded:
    """Return an object with other chunks, and with the index of all its records.

    Args:
        index: the index of the object that it replaces.
        bodies: import bodies of that object; the index names all its chunks, with a body or without.
        now: UNIX seconds.
        removed: chunks that the new object's index does not have.
        added: chunks that it has instead.
        counted: more chunks in the index, without a body: their numbers of rows.
    """
    kept: dict[ChunkKey, bytes] = {}
    members: dict[ChunkKey, Member] = {}
    offset = 0
    for key, member in index.members.items():
        if key in removed:
            continue
        if key in bodies:
            kept[key], members[key] = bodies[key], member._replace(offset=offset)
            offset += member.length
        else:
            members[key] = member._replace(offset=0, length=0, digest=b"")
    offset = _add(added, kept, members, offset)
    members |= {key: Member(rows, 0, 0, b"") for key, rows in counted.items()}
    return _assembled(kept, replace(index, members=members), offset, now)


@dataclass(eq=False)
class SpanObjects:
    """Reads and writes span objects.

    Every method raises BucketUnavailableError if S3 cannot be reached, or does not acknowledge what is put. Those that read raise
    ObjectGoneError if the object, or the chunk in it, is gone, and InvalidObjectError if it holds something else than was written.
    """

    _bucket: Bucket
    _indexes: dict[str, Index] = field(default_factory=dict, init=False)

    def put(self, span: Span, data: bytes, executor: Executor | None = None) -> None:
        """Write a span's object; with an executor, write it again if there is no answer after half a second."""
        name = name_of(span)
        if executor is None:
            self._bucket.put(name, data)
        else:
            put_within(executor, name, lambda: (name, self._try_put(name, data)))

    def _try_put(self, name: str, data: bytes) -> str:
        try:
            self._bucket.put(name, data)
        except BucketUnavailableError as error:
            return str(error) or "S3 failed"
        return ""

    def index(self, span: Span) -> Index:
        """Return a span's index."""
        name = name_of(span)
        found = self._indexes.get(name)
        if found is None and span.object is not None:
            data = self._part(name, span.object.offset, span.object.length, span.object.digest)
            found = self._remember(name, decode(decompress(data)))
        if found is None:
            raise ObjectGoneError(f"{name} is gone")
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
        data = self._part(name_of(span), member.offset, member.length, member.digest)
        if not key.path:
            return data
        return compress(slice_of(decompress(data), key.within(member.rows), member.rows))

    def payload(self, span: Span, key: ChunkKey) -> bytes:
        """Return the rows of a chunk, or of a half of one: MessagePack maps, back to back. Raises what `body` raises."""
        return decompress(self.body(span, key))

    def without(self, span: Span, needed: Callable[[ChunkKey], bool], now: float) -> Encoded:
        """Return a span's object with only those chunks that are needed, and the whole index."""
        index = self.index(span)
        kept = [key for key, member in index.members.items() if member.length and needed(key)]
        return cut_anew(index, {key: self.body(span, key) for key in kept}, now)

    def whole(self, span: Span) -> tuple[Index, Mapping[ChunkKey, bytes]]:
        """Return a span's index, and the import body of each planned chunk that its object has, by one read."""
        name, ref = name_of(span), span.object
        data = None if ref is None else self._bucket.get(name)
        if ref is None or data is None:
            raise ObjectGoneError(f"{name} is gone")
        last = _checked(name, data[ref.offset : ref.offset + ref.length], ref.digest)
        index = self._remember(name, decode(decompress(last)))
        return index, {
            key: _checked(name, data[member.offset : member.offset + member.length], member.digest)
            for key, member in index.members.items()
            if member.length
        }

    def delete(self, name: str) -> bool:
        """Delete an object; return whether S3 did."""
        return self._bucket.delete(name)

    def hours(self) -> Iterator[str]:
        """Yield the hours that have objects, in order. A folder of another name is not Sluice's."""
        for page in self._bucket.pages(PREFIX, Delimiter="/"):
            for folder in page.get("CommonPrefixes", []):
                hour = folder["Prefix"].removeprefix(PREFIX).rstrip("/")
                if _AN_HOUR.fullmatch(hour):
                    yield hour

    def of_hour(self, hour: str, after: str = "") -> Iterator[Stored]:
        """Yield the objects of an hour, in the order of their names, behind the name `after`."""
        request = {"StartAfter": after} if after else {}
        for page in self._bucket.pages(f"{PREFIX}{hour}/", **request):
            for item in page.get("Contents", []):
                if (stored := parse(item["Key"], item.get("Size", 0))) is not None:
                    yield stored

    def _part(self, name: str, offset: int, length: int, digest: bytes) -> bytes:
        data = self._bucket.get(name, (offset, length))
        if data is None:
            raise ObjectGoneError(f"{name} is gone")
        return _checked(name, data, digest)


def _checked(name: str, data: bytes, digest: bytes) -> bytes:
    if digest_of(data) != digest:
        raise InvalidObjectError(f"{name} holds other bytes than were written")
    return data


def put_within(executor: Executor, name: str, put: Callable[[], tuple[str, str]]) -> None:
    """Run a put, which returns an object's name and why it failed; run it a second time if it fails or takes longer than SECOND_TRY_SECONDS.

    Raises:
        BucketUnavailableError: neither try was acknowledged.
    """
    executor.submit(put)
    failure = _failure_of(executor, name, SECOND_TRY_SECONDS)
    if failure == "":
        return
    under_way = 1 if failure is None else 0
    executor.submit(put)
    for _ in range(under_way + 1):
        answer = _failure_of(executor, name, LONGEST_PUT_SECONDS)
        if answer == "":
            return
        failure = answer or failure
    raise BucketUnavailableError(failure or "S3 did not answer in time")


def _failure_of(executor: Executor, name: str, seconds: float) -> str | None:
    """Return why the next put of an object failed, empty if it did not; None if none ends in time.

    The first try of another object, which was put twice, may end now.
    """
    while (done := executor.wait(seconds)) is not None:
        if done[0] == name:
            return str(done[1])
    return None
