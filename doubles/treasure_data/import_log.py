"""What Treasure Data has accepted: databases, tables, and each import with its bytes, in SQLite."""

import gzip
import re
import sqlite3
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import msgpack

from doubles.treasure_data.exchange import RejectedError
from doubles.treasure_data.import_body import Row, inflated, rows

# TD's own rule for databases and tables, written again so that the product's is checked against it.
_NAME = re.compile(r"[a-z0-9_]{3,128}")

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS databases (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS tables ("database" TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY ("database", name));
CREATE TABLE IF NOT EXISTS imports (
    number INTEGER PRIMARY KEY AUTOINCREMENT, "database" TEXT NOT NULL, "table" TEXT NOT NULL,
    unique_id TEXT NOT NULL, at REAL NOT NULL, first_row INTEGER NOT NULL, row_count INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS imports_by_id ON imports ("database", "table", unique_id);
"""
_COLUMNS = 'number, "database", "table", unique_id, at, first_row, row_count, body'


@dataclass(frozen=True, slots=True)
class Import:
    """One accepted import.

    Attributes:
        number: its place in the order of acceptance, from 1.
        unique_id: the id that the client gave it.
        at: when it was accepted, UNIX seconds.
        first_row: the number of its first row, counted over all tables from 1.
        body: the request's body.
    """

    number: int
    database: str
    table: str
    unique_id: str
    at: float
    first_row: int
    row_count: int
    body: bytes

    @property
    def stream(self) -> bytes:
        """The rows as msgpack maps, one after another."""
        return inflated(self.body, 1 << 40)

    @property
    def rows(self) -> list[Row]:
        """The rows."""
        return rows(self.stream)


class ImportLog:
    """The databases and tables that exist, and what was imported into them. Not for two threads at once.

    Args:
        path: the SQLite file, or `:memory:`.

    Attributes:
        close: closes the file; it is also closed when the log is collected.
    """

    def __init__(self, path: str) -> None:
        self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.close = weakref.finalize(self, self._sql.close)
        self._sql.executescript(_SCHEMA)
        last = self._sql.execute("SELECT max(first_row + row_count) FROM imports").fetchone()[0]
        self._next_row: int = last or 1

    def create(self, database: str, table: str | None = None) -> None:
        """Create a database, or a table in one.

        Raises:
            RejectedError: there is no such database (404), it exists already (409), or its name is illegal (422).
        """
        if table is not None:
            self.check(database)
        _check_name(table or database)
        sql = "INSERT INTO databases VALUES (?)" if table is None else "INSERT INTO tables VALUES (?, ?)"
        try:
            self._sql.execute(sql, (database,) if table is None else (database, table))
        except sqlite3.IntegrityError:
            raise RejectedError(409, f"{table or database} already exists") from None

    def check(self, database: str, table: str | None = None) -> None:
        """Raise RejectedError if a database, or a table in it, does not exist (404), or its name is illegal (422)."""
        names = [database] if table is None else [database, table]
        for name in names:
            _check_name(name)
        found = self._sql.execute("SELECT 1 FROM databases WHERE name = ?", (database,)).fetchone()
        if found and table is not None:
            sql = 'SELECT 1 FROM tables WHERE "database" = ? AND name = ?'
            found = self._sql.execute(sql, (database, table)).fetchone()
        if not found:
            raise RejectedError(404, f"Couldn't find {'.'.join(names)}")

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of rows by database and table."""
        counts: dict[str, dict[str, int]] = {
            name: {} for (name,) in self._sql.execute("SELECT name FROM databases ORDER BY name")
        }
        for database, table in self._sql.execute("SELECT * FROM tables ORDER BY name"):
            counts[database][table] = 0
        totals = 'SELECT "database", "table", sum(row_count) FROM imports GROUP BY "database", "table"'
        for database, table, total in self._sql.execute(totals):
            counts[database][table] = total
        return counts

    def append(
        self, database: str, table: str, unique_id: str, body: bytes, *, row_count: int, now: float
    ) -> None:
        """Accept an import."""
        self._sql.execute(
            f"INSERT INTO imports ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 -- our own columns
            (database, table, unique_id, now, self._next_row, row_count, body),
        )
        self._next_row += row_count

    def find_id(self, database: str, table: str, unique_id: str, since: float) -> Import | None:
        """Return the import that a table accepted under an id after some time."""
        known = {'"database" =': database, '"table" =': table, "unique_id =": unique_id, "at >": since}
        return next(self._select(known), None)

    def imports(self, database: str | None = None, table: str | None = None) -> Iterator[Import]:
        """Yield the imports in their order: all, or those of one database or table."""
        return self._select({'"database" =': database, '"table" =': table})

    def latest(self, limit: int, after: int) -> list[dict[str, object]]:
        """Return the last rows of all with their origin, the latest first.

        Args:
            limit: how many at most.
            after: only rows with a greater number, counted over all tables from 1.
        """
        latest = (
            {"number": number, "database": one.database, "table": one.table, "at": one.at, "row": row}
            for one in self._select({"first_row + row_count - 1 >": after}, order="number DESC")
            for number, row in reversed(list(enumerate(one.rows, one.first_row)))
            if number > after
        )
        return list(islice(latest, max(limit, 0)))

    def lose(self, database: str, table: str, begin: int, end: int) -> int:
        """Forget the rows of a table whose `time` is in [begin, end); return how many."""
        lost = 0
        for one in list(self.imports(database, table)):
            kept = [row for row in one.rows if not begin <= row["time"] < end]
            lost += one.row_count - len(kept)
            body = gzip.compress(b"".join(msgpack.packb(row) for row in kept), mtime=0)
            self._sql.execute(
                "UPDATE imports SET row_count = ?, body = ? WHERE number = ?", (len(kept), body, one.number)
            )
        return lost

    def _select(self, where: Mapping[str, object], order: str = "number") -> Iterator[Import]:
        wanted = {condition: value for condition, value in where.items() if value is not None}
        conditions = " AND ".join(f"{condition} ?" for condition in wanted) or "TRUE"
        sql = f"SELECT {_COLUMNS} FROM imports WHERE {conditions} ORDER BY {order}"  # noqa: S608 -- literals of this class
        return (Import(*columns) for columns in self._sql.execute(sql, tuple(wanted.values())))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RejectedError(422, f"a name is 3 to 128 of a-z, 0-9 and _: {name!r}")
