"""The index of a span object: which records the span has, and which rows of which chunk are theirs.

It is stored in columns, as one MessagePack array in one gzip member: the version, then the attributes of `Index`. A chunk is an array of the
attributes of `Member`, and `plan` one of the attributes of `SpanPlan`.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import Struct

from shared.errors import InvalidObjectError
from worker.record import START, Number
from worker.span import ChunkKey, Destination, RowSender

VERSION = 1
DIGEST_BYTES = 16


class Member(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A chunk within a span object.

    Attributes:
        offset: of its gzip member, in bytes.
        length: of its gzip member, in bytes; 0 if the object does not have it.
        digest: of its gzip member; empty if the object does not have it.
        positions: of the records that its rows come from, in the chunk's order; a record may come twice.
        row_counts: how many of its rows come from each of these.
        byte_counts: how many of its bytes, uncompressed.
    """

    key: ChunkKey
    rows: int
    offset: int
    length: int
    digest: Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES)]
    positions: Sequence[int]
    row_counts: Sequence[int]
    byte_counts: Sequence[int]

    def parts(self) -> Iterator[tuple[int, range, slice]]:
        """Yield the chunk's parts in order: the position of the record that each is of, its rows, and its bytes."""
        row = byte = 0
        for position, rows, size in zip(self.positions, self.row_counts, self.byte_counts, strict=True):
            yield position, range(row, row + rows), slice(byte, byte + size)
            row, byte = row + rows, byte + size


class SpanPlan(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a ledger that was restored from a backup must learn about a span, besides its records and chunks.

    Attributes:
        after: last sequence number of the preceding span of the chain.
        planned_at: UNIX milliseconds.
        destinations: where each sender's rows go; none for spans without records.
        origin: of a span without records.
        received_at: of a span without records, in UNIX milliseconds.
    """

    after: Number
    planned_at: int
    destinations: Sequence[tuple[RowSender, Destination]]
    origin: str
    received_at: int


class Index(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=VERSION, dict=True):
    """The index of a span object.

    Attributes:
        joined: the records' sequence numbers, ordered, joined by spaces.
        arrivals: UNIX milliseconds at which each arrived on the stream.
        receipts: UNIX milliseconds at which the ingest received each.
        request_ids: of each record; empty for records in JSON form and markers.
        claims: of each record: 0; 1 if its rows count only if it owns the claim of its request id; for an envelope that was put again, the
            UNIX milliseconds at which it was sent to the overflow queue.
        uncounted: positions of the records that do not count, because another copy of their envelope does.
    """

    joined: str
    arrivals: Sequence[int]
    receipts: Sequence[int]
    request_ids: Sequence[str]
    claims: Sequence[int]
    uncounted: frozenset[int]
    chunks: Sequence[Member]
    plan: SpanPlan

    @cached_property
    def numbers(self) -> list[Number]:
        """The records' sequence numbers, ordered."""
        return self.joined.split()

    @cached_property
    def positions(self) -> dict[Number, int]:
        """The position of each record, by its sequence number."""
        return {number: position for position, number in enumerate(self.numbers)}

    @cached_property
    def members(self) -> dict[ChunkKey, Member]:
        """The chunks by their keys."""
        return {member.key: member for member in self.chunks}

    def encode(self) -> bytes:
        """Return the index as MessagePack: the same one always as the same bytes."""
        return _encode(self)


EMPTY = Index("", [], [], [], [], frozenset(), [], SpanPlan(START, 0, [], "", 0))
"""Of no record and no chunk."""

_encode = msgspec.msgpack.Encoder(order="deterministic").encode  # sorts `uncounted`
_decode = msgspec.msgpack.Decoder(Index).decode


def decode(data: bytes) -> Index:
    """Return the index that `Index.encode` encoded; raise InvalidObjectError if this is not an index of this version."""
    try:
        index = _decode(data)
    except ValueError as error:  # msgspec's errors are ones
        raise InvalidObjectError(f"this release cannot read the index of a span object: {error}") from error
    columns = (index.numbers, index.arrivals, index.receipts, index.request_ids, index.claims)
    if len(set(map(len, columns))) != 1:
        raise InvalidObjectError("the columns of the index differ in length")
    return index


def digest_of(data: bytes) -> bytes:
    """Return the digest of a part of a span object."""
    return sha256(data).digest()[:DIGEST_BYTES]
