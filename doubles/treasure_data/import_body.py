"""The body of an import: rows as msgpack maps, written one after another, then gzipped."""

import zlib
from collections.abc import Iterator
from typing import Any

import msgpack

from doubles.treasure_data.exchange import Refusal

Row = dict[str, Any]

MAX_COLUMNS = 512
"""Columns of a row (fluent-plugin-td's limit)."""

LAST_TIME = 253_402_300_799
"""The end of the year 9999, UNIX seconds: a time in milliseconds lies behind it."""

_GZIP = 31  # zlib's window bits for "gzip, header and trailer included"


def inflated(body: bytes, most: int) -> bytes:
    """Return what is within gzip bytes, of one member or several.

    Args:
        body: the gzip bytes.
        most: how many bytes may be within.

    Raises:
        Refusal: it is not gzip, broken, or incomplete (400), or there is more within (413).
    """
    parts: list[bytes] = []
    left = most
    rest = body
    while rest or not parts:
        member = zlib.decompressobj(_GZIP)
        try:
            part = member.decompress(rest, left + 1)
        except zlib.error as error:
            raise Refusal(400, f"the body is not gzip: {error}") from error
        left -= len(part)
        if left < 0:
            raise Refusal(413, f"an import holds {most} bytes at most, before gzip")
        if not member.eof:
            raise Refusal(400, "the body is not gzip: it ends too early")
        parts.append(part)
        rest = member.unused_data
    return b"".join(parts)


def rows(stream: bytes) -> Iterator[Row]:
    """Yield the rows of a msgpack stream.

    Raises:
        Refusal: it is not msgpack, or holds something else than maps with text as keys (400).
    """
    for row, _ in rows_with_bytes(stream):
        yield row


def rows_with_bytes(stream: bytes) -> Iterator[tuple[Row, bytes]]:
    """Yield each row of a msgpack stream with its bytes.

    Raises:
        Refusal: as `rows` does.
    """
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=max(len(stream), 1))
    unpacker.feed(stream)
    start = 0
    try:
        for row in unpacker:
            if type(row) is not dict or set(map(type, row)) - {str}:
                raise Refusal(400, "each row is a msgpack map with text as keys")
            end = unpacker.tell()
            yield row, stream[start:end]
            start = end
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Refusal(400, f"the body is not msgpack: {error}") from error
    if start != len(stream):
        raise Refusal(400, "the body is not msgpack: it ends too early")


def count_checked(stream: bytes) -> int:
    """Return how many rows a msgpack stream holds, once each of them was found right.

    Raises:
        Refusal: as `rows` does; or a row lacks an int `time` between 1970 and 9999, or has too many columns (422).
    """
    count = 0
    for row in rows(stream):
        time = row.get("time")
        if type(time) is not int or not 0 <= time <= LAST_TIME:
            raise Refusal(422, f"row {count} has no int `time` in UNIX seconds between 1970 and 9999")
        if len(row) > MAX_COLUMNS:
            raise Refusal(422, f"row {count} has more than {MAX_COLUMNS} columns")
        count += 1
    return count
