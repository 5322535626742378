"""One database's rows as SQL tables, in SQLite: filled when a query wants them, so that an import need not wait for it.

A table has a column for each of the first 512 names seen in its rows, like TD's schema on read; what SQLite cannot hold is kept as text:
integers beyond 64 bits as digits, nested values as JSON. True and false are 1 and 0, NaN is NULL.
"""

import re
import sqlite3
import weakref
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import orjson

from doubles.treasure_data.import_body import Row
from doubles.treasure_data.import_log import Import

Cell = str | int | float | bytes | None

MAX_STEPS = 500_000_000
"""SQLite's instructions after which a query is given up: some ten seconds."""

_MAX_COLUMNS = 512  # TD's own limit for tables that are streamed to; columns seen later cannot be queried
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_TD_TYPES = {bool: "int", int: "long", float: "double"}  # everything else is "string"
_TRINO_TYPES = {int: "bigint", float: "double", bytes: "varbinary"}  # everything else is "varchar"


@dataclass(frozen=True, slots=True)
class Result:
    """What a query found.

    Attributes:
        columns: name and Trino type of each column.
        rows: the cells, row by row.
    """

    columns: list[tuple[str, str]]
    rows: list[tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: the name in the rows.
        type: TD's type, from the first value seen.
        alias: the name in SQL.
    """

    name: str
    type: str
    alias: str


@dataclass(slots=True)
class _Table:
    filled: int = 0
    columns: dict[str, Column] = field(default_factory=dict)
    aliases: set[str] = field(default_factory=set)


class QueryError(Exception):
    """A query is wrong, forbidden or too much."""


class QueryTables:
    """The tables of one database. Not for two threads at once.

    Args:
        database: the database's name.

    Attributes:
        close: lets go of the tables; that happens too once nobody needs them.
    """

    def __init__(self, database: str) -> None:
        self._schema = _quoted(database)
        self._tables: dict[str, _Table] = {}
        self._sql = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.close = weakref.finalize(self, self._sql.close)
        if database not in ("main", "temp"):  # these two there are already
            self._sql.execute(f"ATTACH '' AS {self._schema}")  # '' is a private file that goes away by itself
        self._sql.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DML, False)  # noqa: FBT003 - "x" is a name, never a text
        self._sql.create_function("TD_TIME_RANGE", -1, _time_range, deterministic=True)

    def filled(self, table: str) -> int:
        """Return the number of the last import that a table was filled with, or 0."""
        return self._tables[table].filled if table in self._tables else 0

    def fill(self, table: str, imports: Iterable[Import]) -> None:
        """Put the rows of imports into a table, which is made if it is not there.

        SQLite keeps names that begin with `sqlite_` to itself: a table with such a name is not made.
        """
        if table.startswith("sqlite_"):
            return
        filling = self._tables.get(table)
        if filling is None:
            filling = self._tables[table] = _Table()
            self._sql.execute(f'CREATE TABLE {self._schema}.{_quoted(table)} ("time" INTEGER)')
            filling.columns["time"] = Column("time", "long", "time")
            filling.aliases.add("time")
        for taken in imports:
            self._insert(table, filling, taken.rows)
            filling.filled = taken.number

    def forget(self, table: str) -> None:
        """Empty a table and forget its columns."""
        if self._tables.pop(table, None) is not None:
            self._sql.execute(f"DROP TABLE {self._schema}.{_quoted(table)}")

    def columns(self, table: str) -> list[Column]:
        """Return a table's columns in the order in which they were seen."""
        return list(self._tables[table].columns.values()) if table in self._tables else []

    def run(self, query: str) -> Result:
        """Run one SELECT.

        Raises:
            QueryError: it is none, or wrong, or takes too long.
        """
        self._sql.set_authorizer(_only_reading)
        self._sql.set_progress_handler(lambda: 1, MAX_STEPS)
        try:
            with closing(self._sql.execute(query)) as found:
                if found.description is None:
                    raise QueryError("the query is empty")
                rows = found.fetchall()
                names = [column[0] for column in found.description]
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise QueryError(str(error)) from error
        finally:
            self._sql.set_progress_handler(None, 0)
            self._sql.set_authorizer(None)
        return Result([(name, _trino_type(rows, place)) for place, name in enumerate(names)], rows)

    def _insert(self, table: str, filling: _Table, rows: list[Row]) -> None:
        self._sql.execute("BEGIN")
        for names, alike in groupby(rows, key=tuple):
            batch = list(alike)
            for name in names:
                if name not in filling.columns:
                    self._add_column(table, filling, name, (row[name] for row in batch))
            held = [name for name in names if name in filling.columns]
            into = ", ".join(_quoted(filling.columns[name].alias) for name in held)
            places = ", ".join("?" * len(held))
            self._sql.executemany(
                f"INSERT INTO {self._schema}.{_quoted(table)} ({into}) VALUES ({places})",  # noqa: S608 - quoted names
                ([_cell(row[name]) for name in held] for row in batch),
            )
        self._sql.execute("COMMIT")

    def _add_column(self, table: str, filling: _Table, name: str, values: Iterable[Any]) -> None:
        if len(filling.columns) >= _MAX_COLUMNS:
            return
        first = next((value for value in values if value is not None), None)
        alias = _alias(name, filling.aliases)
        filling.aliases.add(alias)
        filling.columns[name] = Column(name, _TD_TYPES.get(type(first), "string"), alias)
        self._sql.execute(f"ALTER TABLE {self._schema}.{_quoted(table)} ADD COLUMN {_quoted(alias)}")


def _quoted(name: str) -> str:
    return f'"{name}"'  # the names of databases, tables and aliases hold no quotes


def _alias(name: str, taken: set[str]) -> str:
    base = alias = re.sub("[^a-z0-9_]", "_", name.lower()) or "_"
    serial = 0
    while alias in taken:
        serial += 1
        alias = f"{base}_{serial}"
    return alias


def _integer(value: int) -> Cell:
    return value if -(1 << 63) <= value < 1 << 63 else str(value)


def _same(value: Any) -> Cell:
    cell: Cell = value
    return cell


def _text(value: object) -> Cell:
    return as_json(value).decode()


_CELLS: dict[type, Callable[[Any], Cell]] = {
    type(None): _same,
    str: _same,
    float: _same,
    bytes: _same,
    bool: int,
    int: _integer,
}


def _cell(value: Any) -> Cell:
    return _CELLS.get(type(value), _text)(value)


def as_json(value: object) -> bytes:
    """Return values of rows or cells as JSON: bytes as hexadecimal digits, NaN as null, other kinds as Python shows them."""
    try:
        return orjson.dumps(value, default=_json_default, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # nested beyond 254 levels
        return orjson.dumps("(nested too deep to be shown)")


def _json_default(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else repr(value)


def _trino_type(rows: list[tuple[Cell, ...]], place: int) -> str:
    first = next((row[place] for row in rows if row[place] is not None), None)
    return _TRINO_TYPES.get(type(first), "varchar")


def _only_reading(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


def _time_range(time: int | None, begin: Cell = None, end: Cell = None, zone: str = "UTC") -> bool | None:
    if zone != "UTC":
        raise ValueError("TD_TIME_RANGE: the stand-in knows UTC only")
    if time is None:
        return None
    return (begin is None or _seconds(begin) <= time) and (end is None or time < _seconds(end))


def _seconds(moment: str | float | bytes) -> float:
    if isinstance(moment, int | float):
        return moment
    return datetime.fromisoformat(str(moment)).replace(tzinfo=UTC).timestamp()
