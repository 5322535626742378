"""Chunks: rows of one account's table within a span, sent to Treasure Data in one import request.

A chunk joins and compresses blocks of envelopes without decoding their rows. Rows are decoded only to halve a chunk, or to query
Treasure Data for them.
"""

from collections.abc import Buffer, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgpack
from isal import isal_zlib

from worker.delivery import State
from worker.plan import Groups
from worker.record import Block
from worker.span import ChunkKey, Cut, Span

_MOST_HOURS = 24

compress: Callable[[Buffer], bytes] = partial(isal_zlib.compress, level=1, wbits=31)
"""Returns the gzip of bytes, reproducibly: the header that `wbits` selects holds neither a time nor a name."""


@dataclass(slots=True, eq=False)
class Chunk:
    """Rows of one group, or originals that could not become rows."""

    key: ChunkKey
    blocks: Sequence[Block]
    count: int

    @classmethod
    def of_payload(cls, key: ChunkKey, count: int, payload: bytes) -> "Chunk":
        """Return a chunk made from all its rows in one block."""
        return cls(key, [(key.group.table, count, payload)], count)

    def payload(self) -> bytes:
        """Return the rows' MessagePack maps, back to back."""
        return b"".join([block[2] for block in self.blocks])

    def leaf(self, key: ChunkKey) -> "Chunk":
        """Return the part of this chunk that `key` names: itself, a half, or half of a half.

        Raises:
            ValueError: the payload holds fewer rows than it should.
        """
        if key == self.key:
            return self
        positions = key.within(self.count)
        payload = self.payload()
        rows = payload[slice(*offsets(payload, positions))]
        return Chunk(key, [(key.group.table, len(positions), rows)], len(positions))


def planned_chunks(groups: Groups, cut: Cut) -> Iterator[Chunk]:
    """Yield the chunks that the groups are cut into; the same groups and cut always give the same chunks."""
    for group, blocks in groups.items():
        for part, (piece, count) in enumerate(_cut(blocks, cut)):
            yield Chunk(ChunkKey(group, part), piece, count)


def pending_leaves(chunk: Chunk, span: Span) -> Iterator[Chunk]:
    """Yield the pending parts of a planned chunk: itself, or halves of it."""
    for key in span.leaves(chunk.key):
        if span.entry(key).state is State.PENDING:
            yield chunk.leaf(key)


def _cut(blocks: Sequence[Block], cut: Cut) -> Iterator[tuple[Sequence[Block], int]]:
    """Yield the blocks in parts within the limits, each with its number of rows. Blocks are never cut, so a large one exceeds the limits."""
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


def sample(payload: bytes) -> list[Any]:
    """Return rows that show whether an import was accepted: the first, the last, and the first one of each hour.

    Treasure Data stores each hour separately. If the rows span very many hours, the sample covers only the first of these.
    """
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=len(payload) + 1)
    unpacker.feed(payload)
    by_hour: dict[Any, Any] = {}
    row = None
    try:
        for row in unpacker:
            time = row.get("time") if isinstance(row, dict) else None
            hour = time // 3600 if isinstance(time, int) else None
            if len(by_hour) < _MOST_HOURS:
                by_hour.setdefault(hour, row)
    except (ValueError, msgpack.UnpackException):
        pass
    shown = list(by_hour.values())
    return shown if not shown or row is shown[-1] else [*shown, row]


def offsets(payload: bytes, positions: range) -> tuple[int, int]:
    """Return the byte offsets at which the rows at these positions begin and end.

    Raises:
        ValueError: the payload holds fewer rows.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(payload) + 1)
    unpacker.feed(payload)
    begin = 0
    try:
        for position in range(positions.stop):
            if position == positions.start:
                begin = unpacker.tell()
            unpacker.skip()
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError("there are fewer rows than planned") from error
    return begin, unpacker.tell()
