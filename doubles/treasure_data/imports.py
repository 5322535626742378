"""Parses the bodies of imports, and stores the imports that Treasure Data has accepted."""

import gzip
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import msgpack

from doubles.http_server import RejectedError

Row = dict[str, Any]

# TD's own rule for database and table names, repeated here so that the product's rule is checked against it.
_NAME = re.compile(r"[a-z0-9_]{3,128}")

MAX_COLUMNS = 512
"""The maximum number of columns: of a row (fluent-plugin-td's limit) and of a table with streaming imports (TD's limit)."""

_LAST_TIME = 253_402_300_799  # the end of the year 9999; a time in milliseconds would be later


def inflated(body: bytes, most: int) -> bytes:
    """Decompress gzip bytes of one or several members into at most `most` bytes.

    Raises:
        RejectedError: they are not gzip, corrupt or truncated (400), or contain more (413).
    """
    try:
        stream = gzip.decompress(body) if body else b""
    except (EOFError, OSError, zlib.error) as error:
        raise RejectedError(400, f"the body is not gzip: {error}") from error
    if not body:
        raise RejectedError(400, "the body is empty")
    if len(stream) > most:
        raise RejectedError(413, f"an import may have at most {most} bytes before gzip")
    return stream


def rows(stream: bytes) -> list[Row]:
    """Return the rows of a msgpack stream.

    Raises:
        RejectedError: it is not msgpack, or contains anything but maps with string keys (400).
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
        raise RejectedError(400, "each row must be a msgpack map with string keys")
    return found


def checked_rows(stream: bytes) -> list[Row]:
    """Return the rows of a msgpack stream, after checking each of them.

    Raises:
        RejectedError: as in `rows`; or a row lacks an int `time` between 1970 and 9999, or has too many columns (422).
    """
    checked = rows(stream)
    for number, row in enumerate(checked):
        time = row.get("time")
        if type(time) is not int or not 0 <= time <= _LAST_TIME:
            raise RejectedError(422, f"row {number} has no int `time` in UNIX seconds between 1970 and 9999")
        if len(row) > MAX_COLUMNS:
            raise RejectedError(422, f"row {number} has more than {MAX_COLUMNS} columns")
    return checked


@dataclass(frozen=True, slots=True)
class Import:
    """One import with its body, accepted at `at`, UNIX seconds."""

    database: str
    table: str
    unique_id: str
    at: float
    body: bytes

    @property
    def rows(self) -> list[Row]:
        """The rows, unpacked."""
        return rows(inflated(self.body, 1 << 40))


class ImportLog:
    """The existing databases and tables, and the imports into them. Not thread-safe."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._imports: list[Import] = []
        self._accepted_at: dict[tuple[str, str, str], float] = {}

    def create(self, database: str, table: str | None = None) -> None:
        """Create a database, or a table in one.

        Raises:
            RejectedError: the table's database does not exist (404), the database or table already exists (409), or a name is
                invalid (422).
        """
        if table is not None:
            self.check(database)
        _check_name(table or database)
        if (table or database) in (self._counts if table is None else self._counts[database]):
            raise RejectedError(409, f"{table or database} already exists")
        if table is None:
            self._counts[database] = {}
        else:
            self._counts[database][table] = 0

    def check(self, database: str, table: str | None = None) -> None:
        """Raise RejectedError if a database, or a table in it, does not exist (404), or its name is invalid (422)."""
        names = [database] if table is None else [database, table]
        for name in names:
            _check_name(name)
        if database not in self._counts or (table is not None and table not in self._counts[database]):
            raise RejectedError(404, f"Couldn't find {'.'.join(names)}")

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of rows by database and table."""
        return {database: dict(sorted(tables.items())) for database, tables in sorted(self._counts.items())}

    def append(self, one: Import, row_count: int) -> None:
        """Accept an import."""
        self._imports.append(one)
        self._accepted_at[one.database, one.table, one.unique_id] = one.at
        self._counts[one.database][one.table] += row_count

    def remembers(self, database: str, table: str, unique_id: str, since: float) -> bool:
        """Return whether a table has accepted an import with an id after a time, UNIX seconds."""
        return self._accepted_at.get((database, table, unique_id), -math.inf) > since

    def imports(self, database: str | None = None, table: str | None = None) -> list[Import]:
        """Return the imports in order: all, or those of one database or table."""
        return [
            one for one in self._imports if database in (None, one.database) and table in (None, one.table)
        ]

    def delete(self, database: str, table: str, moment: float, numbers: set[int]) -> None:
        """Delete rows by their numbers, from 1, among those of imports that were accepted until a moment, UNIX seconds."""
        number = count(1)
        self._delete(database, table, moment, lambda _: next(number) in numbers)

    def lose(self, database: str, table: str, begin: int, end: int) -> int:
        """Delete the rows of a table whose `time` is in [begin, end), and return how many."""
        before = self._counts[database][table]
        self.delete_if(database, table, lambda row: begin <= row["time"] < end)
        return before - self._counts[database][table]

    def delete_if(self, database: str, table: str, is_gone: Callable[[Row], bool]) -> None:
        """Delete the rows of a table of which that is true."""
        self._delete(database, table, math.inf, is_gone)

    def _delete(self, database: str, table: str, moment: float, is_gone: Callable[[Row], bool]) -> None:
        for place, one in enumerate(self._imports):
            if (one.database, one.table) == (database, table) and one.at <= moment:
                kept = [row for row in one.rows if not is_gone(row)]
                self._counts[database][table] -= len(one.rows) - len(kept)
                body = gzip.compress(b"".join(msgpack.packb(row) for row in kept), mtime=0)
                self._imports[place] = replace(one, body=body)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RejectedError(422, f"a name must have 3 to 128 characters of a-z, 0-9 and _: {name!r}")
