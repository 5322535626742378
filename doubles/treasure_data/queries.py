"""Runs queries over rows in SQLite, as jobs. Each query has its own tables, filled with the rows that it may see.

A table has a column for each of the first 512 names in its rows, like TD's schema on read. Values that SQLite cannot
store become text: integers beyond 64 bits as digits, nested values as JSON. True and false are 1 and 0, NaN is NULL.
"""

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from doubles.http_server import RejectedError, Response
from doubles.treasure_data.imports import MAX_COLUMNS, Row
from doubles.treasure_data.response import as_json

Cell = str | int | float | bytes | None
Table = tuple[Sequence[Row], Mapping[str, str]]
"""A table as a query sees it: its rows, and the columns in its schema with their types."""

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}
_TD_TYPES = {bool: "int", int: "long", float: "double"}  # everything else is "string"
_COLUMN = re.compile("[a-z_][a-z0-9_]*")
_DELETE = re.compile('DELETE FROM ("[a-z0-9_]+") WHERE (.+)', re.DOTALL)


def columns(rows: Sequence[Row]) -> dict[str, str]:
    """Return the columns of a table with these rows, each with TD's type for its first value."""
    found: dict[str, Any] = {"time": 0}
    for row in rows:
        for name, value in row.items():
            known = found.get(name)
            if known is None and (name in found or len(found) < MAX_COLUMNS) and _COLUMN.fullmatch(name):
                found[name] = value
    return {name: _TD_TYPES.get(type(value), "string") for name, value in found.items()}


def run(query: str, tables: Mapping[str, Table]) -> list[tuple[Cell, ...]] | None:
    """Return the rows that a SELECT finds in tables; None if it is not a SELECT or invalid.

    TD_TIME_RANGE takes UNIX seconds.
    """
    with closing(sqlite3.connect(":memory:")) as sql:
        sql.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DML, False)  # noqa: FBT003 -- "x" is a name, never a string
        sql.create_function("TD_TIME_RANGE", 3, _time_range, deterministic=True)
        try:
            for name, table in tables.items():
                _fill(sql, name, table)
            sql.set_authorizer(
                lambda action, *_: sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY
            )
            found = sql.execute(query)
            return found.fetchall() if found.description else None  # an empty query has no description
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return None


def deletion(query: str) -> tuple[str, str] | None:
    """Return the table of a DELETE, and the query that finds its rows by their numbers, from 1; None if it is none.

    Like TD, it accepts no DELETE without WHERE.
    """
    found = _DELETE.fullmatch(query)
    return found and (found[1].strip('"'), f"SELECT rowid FROM {found[1]} WHERE {found[2]}")  # noqa: S608 -- runs in memory


def _fill(sql: sqlite3.Connection, name: str, table: Table) -> None:
    rows, names = table[0], list(table[1])
    quoted = ", ".join(f'"{name}"' for name in names)
    places = ", ".join("?" * len(names))
    sql.execute(f'CREATE TABLE "{name}" ({quoted})')
    sql.executemany(
        f'INSERT INTO "{name}" ({quoted}) VALUES ({places})',  # noqa: S608 -- names hold no quotes
        ([_cell(row.get(column)) for column in names] for row in rows),
    )


def _cell(value: Any) -> Cell:
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    return as_json(value).decode()


def _time_range(time: int, begin: int, end: int) -> bool:
    return begin <= time < end


@dataclass(frozen=True, slots=True)
class Job:
    """An issued query. It runs until `finished_at`, UNIX seconds; `rows` is None if it fails."""

    id: str
    database: str
    issued_at: float
    finished_at: float
    rows: list[tuple[Cell, ...]] | None

    def status(self, now: float) -> dict[str, object]:
        """Return the document of `job/status`, with exactly the members in TD's OpenAPI document."""
        done = now >= self.finished_at
        return {
            "job_id": self.id,
            "status": self._state(now),
            "created_at": _timestamp(self.issued_at),
            "updated_at": _timestamp(self.finished_at if done else self.issued_at),
            "start_at": _timestamp(self.issued_at),
            "end_at": _timestamp(self.finished_at) if done else None,
            "duration": int(min(now, self.finished_at) - self.issued_at),
            "cpu_time": 0 if done else None,
            "num_records": len(self.rows or ()) if done else None,
            "result_size": len(self._lines()) if done else None,
        }

    def result(self, now: float) -> Response:
        """Return the response with the result: one JSON array per line.

        Raises:
            RejectedError: the job has failed or is still running (404).
        """
        if self._state(now) != "success":
            raise RejectedError(404, f"job {self.id} has no result: it is {self._state(now)}")
        return Response(200, self._lines(), (("Content-Type", "application/json; charset=utf-8"),))

    def _state(self, now: float) -> str:
        if now < self.finished_at:
            return "running"
        return "error" if self.rows is None else "success"

    def _lines(self) -> bytes:
        return b"".join(as_json(row) + b"\n" for row in self.rows or ())


def _timestamp(seconds: float) -> str:
    """Format UNIX seconds as TD does."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
