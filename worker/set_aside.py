"""The set-aside store: chunks in S3, complete, so that they can be understood and sent without anything else.

    aside/<account>/<table>/<object id>-<edit>-<digest>.gz
    rejected/<account>/<table>!<code>/<object id>-<edit>-<digest>.gz

An object holds one planned chunk and never changes; the digest of its content is part of its name. Only the ledger says why the chunk
is set aside and what state it is in now.

An object is the gzip of one line of JSON that describes the chunk, followed by its payload. `payload_form` says what that is:

- `rows`: MessagePack maps, back to back.
- `original`: MessagePack byte strings, one per record or event that could not become rows.
- `rejected`: `[received_at, original, message]` for each rejected event; an earlier version wrote no message. A lifecycle rule of the
  bucket deletes these objects after RejectedDays.
- `tables`: `[table, number, rows]` for each block of rows of several tables.

If an operator has edited the rows, the line also holds the original ones, in Base64.
"""

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any, Self

from shared.errors import InvalidObjectError
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.chunk import Chunk, compress
from worker.guards import NONE, Guard, Without
from worker.ledger import Place
from worker.record import Number
from worker.span import ChunkKey, Span

PREFIX = "aside/"
REJECTED_PREFIX = "rejected/"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """One planned chunk that is set aside.

    Attributes:
        account: the account that owns the rows; `-` if none could be read.
        table: their table; `-` and a code for originals that could not become rows.
        rows: how many rows or events the chunk holds; of rejected events, fewer may have been kept.
        payload_form: what the payload holds; see the module's docstring.
        first_seen: UNIX milliseconds at which the first of their records arrived.
        last_seen: UNIX milliseconds at which the last one arrived.
        object_id: follows from chain, after and chunk.
        edit: how often an operator has edited the rows.
        original: the rows before the first edit; empty if there was none.
    """

    account: str
    table: str
    rows: int
    payload_form: str
    shard: str
    sequence_numbers: tuple[str, ...]
    first_seen: int
    last_seen: int
    chain: str
    after: Number
    chunk: str
    object_id: str
    edit: int = 0
    payload: bytes
    original: bytes = b""

    @classmethod
    def of(
        cls, span: Span, chunk: Chunk, seen: Sequence[int], shard: str = "", numbers: Sequence[str] = ()
    ) -> Self:
        """Return the object of a planned chunk.

        `seen` holds the UNIX milliseconds at which the records that it came in arrived, `numbers` their sequence numbers.
        """
        group = chunk.key.group
        form = "original" if group.code else "rows"
        if group.is_gathered:
            form = "rejected" if group.is_rejected else "tables"
        return cls(
            account=chunk.key.account,
            table=group.label,
            rows=chunk.count,
            payload_form=form,
            shard=shard,
            sequence_numbers=tuple(numbers),
            first_seen=min(seen),
            last_seen=max(seen),
            chain=span.chain.name,
            after=span.after,
            chunk=chunk.key.name,
            object_id=span.object_id(chunk.key),
            payload=chunk.payload(),
        )

    @property
    def digest(self) -> str:
        """The digest of its content before compression."""
        return sha256(self._content()).hexdigest()[:32]

    @property
    def place(self) -> Place:
        """Where its span is in the ledger."""
        return Place(ChainId.parse(self.chain), self.after)

    @property
    def key(self) -> ChunkKey:
        """The planned chunk."""
        return ChunkKey.parse(self.chunk)

    def encode(self) -> bytes:
        """Return the object's bytes."""
        return compress(self._content())

    def edited(self, payload: bytes) -> "SetAside":
        """Return the chunk with new rows; it keeps the original ones beside them."""
        return replace(self, payload=payload, original=self.original or self.payload, edit=self.edit + 1)

    def _content(self) -> bytes:
        header = asdict(self)
        payload: bytes = header.pop("payload")
        if original := header.pop("original"):
            header["original"] = b64encode(original).decode()
        return json.dumps(header).encode() + b"\n" + payload


def decode(data: bytes) -> SetAside:
    """Return the chunk that `SetAside.encode` made these bytes from.

    Raises:
        InvalidObjectError: these are other bytes.
    """
    try:
        header, _, payload = zlib.decompress(data, wbits=zlib.MAX_WBITS | 16).partition(b"\n")
        members: dict[str, Any] = json.loads(header)
        members["sequence_numbers"] = tuple(members["sequence_numbers"])
        members["original"] = b64decode(members.get("original", ""))
        chunk = SetAside(**members, payload=payload)
        _ = chunk.place, chunk.key
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidObjectError("the object does not hold a set-aside chunk") from error
    return chunk


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in the bucket; `written_at` is UNIX seconds."""

    name: str
    written_at: float


class SetAsideStore:
    """Reads and writes set-aside objects. Every method but `delete` raises BucketUnavailableError if S3 cannot be reached."""

    def __init__(self, bucket: Bucket, without: Without = NONE) -> None:
        self._bucket = bucket
        self._without = without

    def name(self, span: Span, key: ChunkKey, edit: int, digest: str) -> str:
        """Return the name of the object that holds a chunk's planned chunk."""
        if Guard.DIGEST_IN_NAME in self._without:
            digest = ""
        group = key.group
        prefix = REJECTED_PREFIX if group.is_rejected else PREFIX
        return f"{prefix}{group.owner.account}/{group.label}/{span.object_id(key)}-{edit}-{digest}.gz"

    def put(self, span: Span, chunk: SetAside) -> None:
        """Write a chunk's object. If an object of this name exists, it has the same content.

        Raises:
            BucketUnavailableError: S3 did not acknowledge it.
        """
        self._bucket.put(self.name(span, chunk.key, chunk.edit, chunk.digest), chunk.encode())

    def get(self, span: Span, key: ChunkKey, edit: int, digest: str) -> SetAside:
        """Return the object of a chunk's planned chunk.

        Raises:
            InvalidObjectError: there is no such object, or it holds something else.
        """
        name = self.name(span, key, edit, digest)
        chunk = self.read(name)
        if Guard.DIGEST_IN_NAME not in self._without and chunk.digest != digest:
            raise InvalidObjectError(f"{name} holds other bytes than were written")
        return chunk

    def read(self, name: str) -> SetAside:
        """Return the chunk that an object holds; `is_name_of` checks whether it belongs there.

        Raises:
            InvalidObjectError: there is no such object, or it does not hold a chunk.
        """
        data = self._bucket.get(name)
        if data is None:
            raise InvalidObjectError(f"{name} has gone")
        return decode(data)

    def is_name_of(self, name: str, span: Span, chunk: SetAside) -> bool:
        """Return whether a chunk belongs in the object with this name."""
        return name == self.name(span, chunk.key, chunk.edit, chunk.digest)

    def may_delete(self, span: Span, key: ChunkKey) -> bool:
        """Return whether the objects of a chunk's planned chunk may be deleted, because all its rows are in a final state."""
        return span.is_final(key) or Guard.FINAL_DELETE in self._without

    def delete(self, name: str) -> bool:
        """Delete an object, which only `may_delete` may allow; return whether S3 did."""
        return self._bucket.delete(name)  # if this fails, the sweeper tries again

    def listed(self) -> Iterator[Listed]:
        """Yield all objects of set-aside chunks, except rejected events, ordered by name."""
        for page in self._bucket.pages(PREFIX):
            for item in page.get("Contents", []):
                yield Listed(item["Key"], item["LastModified"].timestamp())
