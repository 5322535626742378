"""Rows as chunks hold them: MessagePack maps, back to back, compressed with gzip.

They are decoded only to halve a chunk, or to query Treasure Data for them.
"""

from collections.abc import Buffer, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import msgpack
from isal import isal_zlib

from shared.errors import InvalidObjectError, WrongCountError

_MOST_HOURS = 24
_ASKED_FOR = ("event_id", "received_at", "time")
MOST_SPREAD = 800
"""The most rows that `spread` returns, about, and that one query asks for."""

compress: Callable[[Buffer], bytes] = partial(isal_zlib.compress, level=1, wbits=31)
"""Returns the gzip of bytes, reproducibly: the header that `wbits` selects holds neither a time nor a name."""


def decompress(data: bytes) -> bytes:
    """Return the bytes of one gzip member; raise InvalidObjectError if it is damaged."""
    try:
        return isal_zlib.decompress(data, wbits=31)
    except (isal_zlib.error, ValueError, EOFError) as error:  # type: ignore[misc]  # the stub gives an instance for the class
        raise InvalidObjectError("a gzip member cannot be decompressed") from error


def values(payload: bytes) -> Iterator[tuple[Any, int]]:
    """Yield each of MessagePack values that stand back to back, and where it ends; raise InvalidObjectError if what follows the last is none."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=len(payload) + 1)
    unpacker.feed(payload)
    number = end = 0
    with suppress(ValueError, TypeError, msgpack.UnpackException):
        for value in unpacker:
            number, end = number + 1, unpacker.tell()
            yield value, end
    if end < len(payload):
        raise InvalidObjectError(f"what follows value {number} is not MessagePack")


def slice_of(payload: bytes, positions: range, rows: int) -> bytes:
    """Return the rows at these positions of a payload; raise WrongCountError if it has another number of rows than `rows`."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(payload) + 1)
    unpacker.feed(payload)
    ends = [0]
    try:
        for _ in range(rows):
            unpacker.skip()
            ends.append(unpacker.tell())
    except (ValueError, msgpack.UnpackException) as error:
        raise WrongCountError("there are fewer rows than planned") from error
    if ends[-1] != len(payload):
        raise WrongCountError("there are more rows than planned")
    return payload[ends[positions.start] : ends[positions.stop]]


def sample(payload: bytes) -> list[Any]:
    """Return rows that show whether an import was accepted: the first, the last, and the first one of each hour.

    Treasure Data stores each hour separately. If the rows span very many hours, the sample covers only the first of these. Rows have only the
    columns that a query needs: a run asks about thousands of chunks.
    """
    by_hour: dict[Any, Any] = {}
    row = None
    for row in _rows(payload):
        time = row.get("time") if isinstance(row, dict) else None
        hour = time // 3600 if isinstance(time, int) else None
        if len(by_hour) < _MOST_HOURS:
            by_hour.setdefault(hour, row)
    shown = list(by_hour.values())
    if shown and row is not shown[-1]:
        shown.append(row)
    return list(map(_asked_for, shown))


def spread(payload: bytes) -> list[Any]:
    """Return rows that show whether Treasure Data has all of a chunk, a part or nothing: every row, or of many an even selection."""
    last = sum(1 for _ in _rows(payload)) - 1
    step = last // MOST_SPREAD + 1
    return [_asked_for(row) for place, row in enumerate(_rows(payload)) if place % step == 0 or place == last]


def _rows(payload: bytes) -> Iterator[Any]:
    """Yield the rows of a payload, as far as it can be read."""
    with suppress(InvalidObjectError):
        for row, _ in values(payload):
            yield row


def _asked_for(row: Any) -> Any:
    return {name: row[name] for name in _ASKED_FOR if name in row} if isinstance(row, dict) else row
