"""Chunks: rows of one account's table within a span that go to Treasure Data in one import request.

Rows are never decoded on the way: the blocks of envelopes are put one after another and compressed. Only when an
import was too large, or Treasure Data must be asked for a row, is one looked into.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
from isal import isal_zlib

from worker.record import NOBODY, Block, Number, Record
from worker.span import Cut, Span

GZIP_LEVEL = 1
_GZIP_FORMAT = 31  # zlib's way of asking for a gzip header, which then says nothing of time or name

Groups = dict[tuple[str, str], list[Block]]
"""The blocks of a span by owner and table, in the stream's order."""

UNPLANNED = "-unplanned"


@dataclass(slots=True, eq=False)
class Chunk:
    """Rows of one owner's table.

    Attributes:
        key: `owner/table/part`.
        blocks: the rows, or what could not become rows.
        sources: the blocks of records that they came from.
        count: how many rows.
    """

    key: str
    blocks: Sequence[Block]
    sources: Sequence[Block]
    count: int

    @classmethod
    def of_payload(cls, key: str, count: int, payload: bytes) -> "Chunk":
        """Return a chunk whose rows are at hand in one piece."""
        blocks = [(key.split("/")[1], count, payload)]
        return cls(key, blocks, blocks, count)

    @property
    def owner(self) -> str:
        """The account, or `account:key id` of a revoked key."""
        return self.key.partition("/")[0]

    @property
    def account(self) -> str:
        """Whose rows they are."""
        return self.owner.partition(":")[0]

    @property
    def table(self) -> str:
        """Their table, or `-` and the reason why they are none."""
        return self.key.split("/")[1]

    def payload(self) -> bytes:
        """Return the rows' MessagePack maps, one after another."""
        return b"".join([block[2] for block in self.blocks])

    def halves(self) -> "tuple[Chunk, Chunk] | None":
        """Return the two chunks that it becomes when it is too large; None for a single row."""
        if self.count < 2:
            return None
        payload = self.payload()
        half = self.count // 2
        border = _offset(payload, half)
        return (
            Chunk(f"{self.key}.0", [(self.table, half, payload[:border])], self.sources, half),
            Chunk(
                f"{self.key}.1",
                [(self.table, self.count - half, payload[border:])],
                self.sources,
                self.count - half,
            ),
        )


def compress(payload: bytes) -> bytes:
    """Return the gzip of the rows: the same bytes for the same rows."""
    data: bytes = isal_zlib.compress(payload, GZIP_LEVEL, _GZIP_FORMAT)
    return data


def group(records: Iterable[Record], owners: Mapping[tuple[str, str], str]) -> Groups:
    """Return the records' blocks by owner and table.

    Args:
        records: in the stream's order.
        owners: by account and key id, who owns their rows in the plan. Records of others, which only a change of
            code between two attempts can bring about, stand under `-unplanned`.
    """
    groups: Groups = {}
    for _number, _arrived_at, (_version, account, key_id, _received_at, _id, _attempt, blocks) in records:
        owner = owners.get((account, key_id))
        for block in blocks:
            place = (owner, block[0]) if owner is not None else (NOBODY, UNPLANNED)
            try:
                groups[place].append(block)
            except KeyError:
                groups[place] = [block]
    return groups


def chunks(groups: Groups, span: Span) -> Iterator[Chunk]:
    """Yield the span's chunks that are pending, cut as it was planned, split as it was noted since."""
    for (owner, table), blocks in groups.items():
        for part, (piece, count) in enumerate(_cut(blocks, span.cut)):
            yield from _pending(Chunk(f"{owner}/{table}/{part}", piece, piece, count), span)


def _pending(chunk: Chunk, span: Span) -> Iterator[Chunk]:
    entry = span.chunk(chunk.key)
    if entry.split:
        halves = chunk.halves()
        if halves is None:
            raise ValueError(f"{chunk.key} was split and holds a single row now")
        for half in halves:
            yield from _pending(half, span)
    elif entry.state == "pending":
        yield chunk


def _cut(blocks: list[Block], cut: Cut) -> Iterator[tuple[list[Block], int]]:
    """Yield the blocks in parts that keep to the limits, as far as whole blocks can, each with its number of rows."""
    total = sum([block[1] for block in blocks])
    if total <= cut.rows and sum([len(block[2]) for block in blocks]) <= cut.bytes:
        yield blocks, total
        return
    part: list[Block] = []
    count = size = 0
    for block in blocks:
        if part and (count + block[1] > cut.rows or size + len(block[2]) > cut.bytes):
            yield part, count
            part, count, size = [], 0, 0
        part.append(block)
        count += block[1]
        size += len(block[2])
    yield part, count


def origin(chunk: Chunk, records: Iterable[Record]) -> list[tuple[Number, float]]:
    """Return sequence number and arrival of the records that the chunk's rows came in."""
    wanted = {id(block) for block in chunk.sources}
    return [
        (record[0], record[1]) for record in records if any(id(block) in wanted for block in record[2][6])
    ]


def first_row(payload: bytes) -> dict[str, Any] | None:
    """Return the first row; None where the bytes begin with none."""
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(payload)
    try:
        row = unpacker.unpack()
    except (ValueError, msgpack.UnpackException):
        return None
    return row if isinstance(row, dict) else None


def _offset(payload: bytes, count: int) -> int:
    """Return how many bytes the first `count` rows take."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(payload))
    unpacker.feed(payload)
    for _row in range(count):
        unpacker.skip()
    offset: int = unpacker.tell()
    return offset
