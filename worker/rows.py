"""Rows as chunks hold them: MessagePack maps, back to back, compressed with gzip.

They are decoded only to halve a chunk, or to query Treasure Data for them.
"""

from collections.abc import Buffer, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgpack
from isal import isal_zlib

from shared.errors import InvalidObjectError, WrongCountError

_MOST_HOURS = 24
_ASKED_FOR = ("event_id", "received_at", "time")

compress: Callable[[Buffer], bytes] = partial(isal_zlib.compress, level=1, wbits=31)
"""Returns the gzip of bytes, reproducibly: the header that `wbits` selects holds neither a time nor a name."""


def decompress(data: bytes) -> bytes:
    """Return the bytes of one gzip member.

    Raises:
        InvalidObjectError: it is damaged.
    """
    try:
        return isal_zlib.decompress(data, wbits=31)
    except (isal_zlib.error, ValueError, EOFError) as error:  # type: ignore[misc]  # the stub gives an instance for the class
        raise InvalidObjectError("a gzip member cannot be decompressed") from error


def slice_of(payload: bytes, positions: range, rows: int) -> bytes:
    """Return the rows at these positions of a payload, which has `rows` rows.

    Raises:
        WrongCountError: it has another number of rows.
    """
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


def sample(payload: bytes, *, every: bool = False) -> list[Any]:
    """Return rows that show whether an import was accepted: the first, the last, and the first one of each hour; or every row.

    Treasure Data stores each hour separately. If the rows span very many hours, the sample covers only the first of these. Rows have only the
    columns that a query needs: a run asks about thousands of chunks.
    """
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=len(payload) + 1)
    unpacker.feed(payload)
    shown: dict[Any, Any] = {}
    row = None
    with suppress(ValueError, TypeError, msgpack.UnpackException):
        for number, found in enumerate(unpacker):
            row = (
                {name: found[name] for name in _ASKED_FOR if name in found}
                if isinstance(found, dict)
                else found
            )
            time = row.get("time") if isinstance(row, dict) else None
            hour = time // 3600 if isinstance(time, int) else None
            if every or len(shown) < _MOST_HOURS:
                shown.setdefault(number if every else hour, row)
    rows = list(shown.values())
    return rows if not rows or row is rows[-1] else [*rows, row]
