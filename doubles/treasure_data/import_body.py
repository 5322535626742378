"""The body of an import: rows as msgpack maps, one after another, then gzipped."""

import gzip
import zlib
from typing import Any

import msgpack

from doubles.http_server import RejectedError

Row = dict[str, Any]

MAX_COLUMNS = 512
"""Columns of a row, fluent-plugin-td's limit, and of a table that is streamed to, TD's own."""

LAST_TIME = 253_402_300_799
"""The end of the year 9999, UNIX seconds: a time in milliseconds is later."""


def inflated(body: bytes, most: int) -> bytes:
    """Return the content of gzip bytes, of one member or several, at most so many bytes.

    Raises:
        RejectedError: they are not gzip, broken or incomplete (400), or hold more (413).
    """
    try:
        stream = gzip.decompress(body) if body else b""
    except (EOFError, OSError, zlib.error) as error:
        raise RejectedError(400, f"the body is not gzip: {error}") from error
    if not body:
        raise RejectedError(400, "the body is empty")
    if len(stream) > most:
        raise RejectedError(413, f"an import holds {most} bytes at most, before gzip")
    return stream


def rows(stream: bytes) -> list[Row]:
    """Return the rows of a msgpack stream.

    Raises:
        RejectedError: it is not msgpack, or holds something else than maps with text as keys (400).
    """
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=max(len(stream), 1))
    unpacker.feed(stream)
    found, end = [], 0
    try:
        for row in unpacker:
            found.append(row)
            end = unpacker.tell()
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RejectedError(400, f"the body is not msgpack: {error}") from error
    if end != len(stream):
        raise RejectedError(400, "the body is not msgpack: it ends too early")
    if not all(type(row) is dict and set(map(type, row)) <= {str} for row in found):
        raise RejectedError(400, "each row is a msgpack map with text as keys")
    return found


def checked_rows(stream: bytes) -> list[Row]:
    """Return the rows of a msgpack stream, after checking each of them.

    Raises:
        RejectedError: as `rows` does; or a row lacks an int `time` between 1970 and 9999, or has too many columns (422).
    """
    checked = rows(stream)
    for number, row in enumerate(checked):
        time = row.get("time")
        if type(time) is not int or not 0 <= time <= LAST_TIME:
            raise RejectedError(422, f"row {number} has no int `time` in UNIX seconds between 1970 and 9999")
        if len(row) > MAX_COLUMNS:
            raise RejectedError(422, f"row {number} has more than {MAX_COLUMNS} columns")
    return checked
