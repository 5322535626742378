"""What Treasure Data has taken: databases, tables, and each import with its bytes, in SQLite."""

import gzip
import re
import sqlite3
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from doubles.treasure_data.exchange import Refusal
from doubles.treasure_data.import_body import Row, inflated, rows, rows_with_bytes

# TD's own rule for databases and tables, told here again so that what the product believes is checked against it.
_NAME = re.compile(r"[a-z0-9_]{3,128}")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS databases (name TEXT PRIMARY KEY, created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS tables (
    "database" TEXT NOT NULL, name TEXT NOT NULL, created_at REAL NOT NULL, PRIMARY KEY ("database", name)
);
CREATE TABLE IF NOT EXISTS imports (
    number INTEGER PRIMARY KEY AUTOINCREMENT, "database" TEXT NOT NULL, "table" TEXT NOT NULL,
    unique_id TEXT, at REAL NOT NULL, first_row INTEGER NOT NULL, row_count INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS imports_by_id ON imports ("database", "table", unique_id);
"""
_COLUMNS = 'number, "database", "table", unique_id, at, first_row, row_count, body'


@dataclass(frozen=True, slots=True)
class Import:
    """One accepted import.

    Attributes:
        number: its place in the order of acceptance, from 1.
        database: its database.
        table: its table.
        unique_id: the id that the client gave it.
        at: when it was accepted, UNIX seconds.
        first_row: the number of its first row, counted over all tables from 1.
        row_count: how many rows it holds.
        body: the request's body as it came.
    """

    number: int
    database: str
    table: str
    unique_id: str | None
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
        return list(rows(self.stream))


@dataclass(frozen=True, slots=True)
class NumberedRow:
    """One row with its origin.

    Attributes:
        number: its place among the rows of all tables, from 1.
        database: its database.
        table: its table.
        at: when it was accepted, UNIX seconds.
        row: the row.
    """

    number: int
    database: str
    table: str
    at: float
    row: Row


@dataclass(frozen=True, slots=True)
class Named:
    """A database or a table.

    Attributes:
        name: its name.
        created_at: when it was created, UNIX seconds.
        row_count: how many rows it holds.
        size: how many bytes its imports had.
        last_import: when the last one was accepted, UNIX seconds, or None.
    """

    name: str
    created_at: float
    row_count: int
    size: int
    last_import: float | None


class ImportLog:
    """The databases and tables that exist, and what was imported into them. Not for two threads at once.

    Args:
        path: the SQLite file, or `:memory:`.

    Attributes:
        close: closes the file; it is closed too once nobody needs the log.
    """

    def __init__(self, path: str) -> None:
        self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.close = weakref.finalize(self, self._sql.close)
        self._sql.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + _SCHEMA)
        last = self._sql.execute("SELECT max(first_row + row_count) FROM imports").fetchone()[0]
        self._next_row: int = last or 1

    def create_database(self, database: str, now: float) -> None:
        """Create a database.

        Raises:
            Refusal: it exists (409), or its name is illegal (422).
        """
        _check_name(database)
        try:
            self._sql.execute("INSERT INTO databases VALUES (?, ?)", (database, now))
        except sqlite3.IntegrityError:
            raise Refusal(409, f"Database {database} already exists") from None

    def create_table(self, database: str, table: str, now: float) -> None:
        """Create a table.

        Raises:
            Refusal: there is no such database (404), the table exists (409), or its name is illegal (422).
        """
        self.find_database(database)
        _check_name(table)
        try:
            self._sql.execute("INSERT INTO tables VALUES (?, ?, ?)", (database, table, now))
        except sqlite3.IntegrityError:
            raise Refusal(409, f"Table {database}.{table} already exists") from None

    def delete_database(self, database: str) -> None:
        """Delete a database with all that is in it.

        Raises:
            Refusal: there is no such database (404), or its name is illegal (422).
        """
        self.find_database(database)
        for sql in (
            'DELETE FROM imports WHERE "database" = ?',
            'DELETE FROM tables WHERE "database" = ?',
            "DELETE FROM databases WHERE name = ?",
        ):
            self._sql.execute(sql, (database,))

    def delete_table(self, database: str, table: str) -> None:
        """Delete a table with all that is in it.

        Raises:
            Refusal: there is no such database or table (404), or a name is illegal (422).
        """
        self.find_table(database, table)
        self._sql.execute('DELETE FROM imports WHERE "database" = ? AND "table" = ?', (database, table))
        self._sql.execute('DELETE FROM tables WHERE "database" = ? AND name = ?', (database, table))

    def find_database(self, database: str) -> None:
        """Do nothing if the database exists.

        Raises:
            Refusal: it does not (404), or its name is illegal (422).
        """
        _check_name(database)
        if self._sql.execute("SELECT 1 FROM databases WHERE name = ?", (database,)).fetchone() is None:
            raise Refusal(404, f"Couldn't find Database with name = {database}")

    def find_table(self, database: str, table: str) -> None:
        """Do nothing if the table exists.

        Raises:
            Refusal: it does not, or its database does not (404), or a name is illegal (422).
        """
        self.find_database(database)
        _check_name(table)
        found = 'SELECT 1 FROM tables WHERE "database" = ? AND name = ?'
        if self._sql.execute(found, (database, table)).fetchone() is None:
            raise Refusal(404, f"Couldn't find Table with name = {database}.{table}")

    def databases(self) -> list[Named]:
        """Return all databases by name."""
        found = self._sql.execute("""
            SELECT name, created_at, coalesce(sum(row_count), 0), coalesce(sum(length(body)), 0), max(at)
            FROM databases LEFT JOIN imports ON "database" = name GROUP BY name ORDER BY name
        """)
        return [Named(*values) for values in found]

    def tables(self, database: str) -> list[Named]:
        """Return a database's tables by name."""
        found = self._sql.execute(
            """
            SELECT name, created_at, coalesce(sum(row_count), 0), coalesce(sum(length(body)), 0), max(at)
            FROM tables LEFT JOIN imports ON imports."database" = tables."database" AND "table" = name
            WHERE tables."database" = ? GROUP BY name ORDER BY name
            """,
            (database,),
        )
        return [Named(*values) for values in found]

    def append(
        self, database: str, table: str, unique_id: str | None, body: bytes, *, row_count: int, now: float
    ) -> None:
        """Take an import."""
        self._sql.execute(
            f"INSERT INTO imports ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own columns
            (database, table, unique_id, now, self._next_row, row_count, body),
        )
        self._next_row += row_count

    def find_id(self, database: str, table: str, unique_id: str, since: float) -> Import | None:
        """Return the import that a table took under an id after some time."""
        known = {'"database" =': database, '"table" =': table, "unique_id =": unique_id, "at >": since}
        return next(self._select(known), None)

    def imports(
        self, database: str | None = None, table: str | None = None, *, after: int = 0
    ) -> Iterator[Import]:
        """Yield the imports in their order.

        Args:
            database: only this database's.
            table: only this table's.
            after: only those with a greater number.
        """
        return self._select({'"database" =': database, '"table" =': table, "number >": after})

    def latest(self, database: str | None, table: str | None, *, limit: int, after: int) -> list[NumberedRow]:
        """Return the last rows, the latest first.

        Args:
            database: only this database's.
            table: only this table's.
            limit: how many at most.
            after: only rows with a greater number.
        """
        where = {'"database" =': database, '"table" =': table, "first_row + row_count - 1 >": after}
        latest = (
            NumberedRow(number, taken.database, taken.table, taken.at, row)
            for taken in self._select(where, order="number DESC")
            for number, row in reversed(list(enumerate(taken.rows, taken.first_row)))
            if number > after
        )
        return list(islice(latest, max(limit, 0)))

    def lose(self, database: str, table: str, begin: int, end: int) -> int:
        """Forget the rows of a table whose `time` lies from `begin` to before `end`; return how many."""
        lost = 0
        for taken in list(self.imports(database, table)):
            kept = [data for row, data in rows_with_bytes(taken.stream) if not begin <= row["time"] < end]
            if len(kept) < taken.row_count:
                lost += taken.row_count - len(kept)
                self._sql.execute(
                    "UPDATE imports SET row_count = ?, body = ? WHERE number = ?",
                    (len(kept), gzip.compress(b"".join(kept), mtime=0), taken.number),
                )
        return lost

    def _select(self, where: Mapping[str, object], order: str = "number") -> Iterator[Import]:
        wanted = {condition: value for condition, value in where.items() if value is not None}
        conditions = " AND ".join(f"{condition} ?" for condition in wanted)
        sql = f"SELECT {_COLUMNS} FROM imports WHERE {conditions} ORDER BY {order}"  # noqa: S608 - literals of this class
        return (Import(*columns) for columns in self._sql.execute(sql, tuple(wanted.values())))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Refusal(422, f"a name is 3 to 128 of a-z, 0-9 and _: {name!r}")
