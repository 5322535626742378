"""The index of a span object: which records the span has, and which rows of which chunk are theirs.

It is stored in columns, as one MessagePack array in one gzip member:

    [1, numbers, arrivals, receipts, request ids, claims, uncounted, chunks, plan]

- `numbers`: the sequence numbers, as text that sorts, joined by spaces; ordered.
- `arrivals` and `receipts`: for each record, the UNIX milliseconds at which it arrived on the stream and at the ingest.
- `claims`: for each record, 0; 1 if its rows count only if it owns the claim of its request id; if it was put again, the UNIX milliseconds at
  which its envelope was sent to the overflow queue.
- `uncounted`: the positions of the records that do not count, because another copy of their envelope does.
- `chunks`: `[name, rows, offset, length, digest, positions, row counts, byte counts]` for each. `offset`, `length` and `digest`
  describe its gzip member in the object. The last three name the records that its rows come from, in order, and how many rows and bytes
  of the uncompressed chunk are each record's own.
- `plan`: what else a ledger that was restored from a backup must learn about the span:
  `[after, planned_at, [[sender, destination], …], origin, received_at]`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Literal, NamedTuple

import msgspec

from shared.errors import InvalidObjectError
from worker.record import START, Number
from worker.span import ChunkKey

VERSION = 1
DIGEST_BYTES = 16

_Numbers = tuple[int, ...]
_Digest = Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES)]  # empty for a chunk without a body
_Chunk = tuple[str, int, int, int, _Digest, _Numbers, _Numbers, _Numbers]
_Plan = tuple[str, int, tuple[tuple[str, str], ...], str, int]
_Form = tuple[
    Literal[1], str, _Numbers, _Numbers, tuple[str, ...], _Numbers, _Numbers, tuple[_Chunk, ...], _Plan
]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Form).decode


class Member(NamedTuple):
    """A chunk within a span object.

    Attributes:
        rows: how many rows it has.
        offset: of its gzip member, in bytes.
        length: of its gzip member, in bytes.
        digest: of its gzip member.
        positions: of the records that its rows come from, in the chunk's order; a record may come twice.
        row_counts: how many of its rows come from each of these.
        byte_counts: how many of its bytes, uncompressed.
    """

    rows: int
    offset: int
    length: int
    digest: bytes
    positions: Sequence[int] = ()
    row_counts: Sequence[int] = ()
    byte_counts: Sequence[int] = ()

    def parts(self) -> Iterator[tuple[int, range, slice]]:
        """Yield the chunk's parts in order: the position of the record that each is of, its rows, and its bytes."""
        row = byte = 0
        for position, rows, size in zip(self.positions, self.row_counts, self.byte_counts, strict=True):
            yield position, range(row, row + rows), slice(byte, byte + size)
            row, byte = row + rows, byte + size


@dataclass(frozen=True)
class Index:
    """The index of a span object.

    Attributes:
        numbers: the records' sequence numbers, ordered.
        arrivals: UNIX milliseconds at which each arrived on the stream.
        receipts: UNIX milliseconds at which the ingest received each.
        request_ids: of each record; empty for records in JSON form and markers.
        claims: of each record: 0, 1, or for an envelope that was put again the UNIX milliseconds at which it was sent to the overflow queue.
        uncounted: positions of the records that do not count.
        members: the chunks.
        after: last sequence number of the preceding span of the chain.
        planned_at: UNIX milliseconds.
        destinations: the texts of the plan's destinations, by the senders' names; none for spans without records.
        origin: of a span without records.
        received_at: of a span without records, in UNIX milliseconds.
    """

    numbers: Sequence[Number] = ()
    arrivals: Sequence[int] = ()
    receipts: Sequence[int] = ()
    request_ids: Sequence[str] = ()
    claims: Sequence[int] = ()
    uncounted: frozenset[int] = frozenset()
    members: dict[ChunkKey, Member] = field(default_factory=dict)
    after: Number = START
    planned_at: int = 0
    destinations: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    received_at: int = 0

    @cached_property
    def positions(self) -> dict[Number, int]:
        """The position of each record, by its sequence number."""
        return {number: position for position, number in enumerate(self.numbers)}

    def encode(self) -> bytes:
        """Return the index as MessagePack."""
        return _encode(
            (
                VERSION,
                " ".join(self.numbers),
                self.arrivals,
                self.receipts,
                self.request_ids,
                self.claims,
                sorted(self.uncounted),
                [(key.name, *member) for key, member in self.members.items()],
                (self.after, self.planned_at, list(self.destinations.items()), self.origin, self.received_at),
            )
        )


def decode(data: bytes) -> Index:
    """Return the index that `Index.encode` encoded.

    Raises:
        InvalidObjectError: this is not an index of this version.
    """
    try:
        _, numbers, arrivals, receipts, request_ids, claims, uncounted, members, plan = _decode(data)
        after, planned_at, destinations, origin, received_at = plan
        found = Index(
            numbers.split(),
            arrivals,
            receipts,
            request_ids,
            claims,
            frozenset(uncounted),
            {ChunkKey.parse(one[0]): Member(*one[1:]) for one in members},
            after,
            planned_at,
            dict(destinations),
            origin,
            received_at,
        )
    except ValueError as error:  # msgspec's errors are ones
        raise InvalidObjectError(f"this release cannot read the index of a span object: {error}") from error
    lengths = {len(one) for one in (found.numbers, arrivals, receipts, request_ids, claims)}
    if len(lengths) != 1:
        raise InvalidObjectError("the columns of the index differ in length")
    return found


def digest_of(data: bytes) -> bytes:
    """Return the digest of a part of a span object."""
    return sha256(data).digest()[:DIGEST_BYTES]
