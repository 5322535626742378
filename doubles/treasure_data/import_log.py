"""What Treasure Data has accepted: databases, tables, and each import with its bytes."""

import gzip
import math
import re
from dataclasses import dataclass, replace

import msgpack

from doubles.http_server import RejectedError
from doubles.treasure_data.import_body import Row, inflated, rows

# TD's own rule for databases and tables, written again so that the product's is checked against it.
_NAME = re.compile(r"[a-z0-9_]{3,128}")


@dataclass(frozen=True, slots=True)
class Import:
    """One import with its body, accepted at a time in UNIX seconds."""

    database: str
    table: str
    unique_id: str
    at: float
    body: bytes

    @property
    def rows(self) -> list[Row]:
        """The rows."""
        return rows(inflated(self.body, 1 << 40))


class ImportLog:
    """The databases and tables that exist, and what was imported into them. Not for two threads at once."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._imports: list[Import] = []
        self._accepted_at: dict[tuple[str, str, str], float] = {}

    def create(self, database: str, table: str | None = None) -> None:
        """Create a database, or a table in one.

        Raises:
            RejectedError: there is no such database (404), it exists already (409), or its name is illegal (422).
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
        """Raise RejectedError if a database, or a table in it, does not exist (404), or its name is illegal (422)."""
        names = [database] if table is None else [database, table]
        for name in names:
            _check_name(name)
        if database not in self._counts or (table is not None and table not in self._counts[database]):
            raise RejectedError(404, f"Couldn't find {'.'.join(names)}")

    def tables(self, database: str) -> set[str] | None:
        """Return the tables of a database, None if there is no such database."""
        tables = self._counts.get(database)
        return None if tables is None else set(tables)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of rows by database and table."""
        return {database: dict(sorted(tables.items())) for database, tables in sorted(self._counts.items())}

    def append(
        self, database: str, table: str, unique_id: str, body: bytes, *, row_count: int, now: float
    ) -> None:
        """Accept an import."""
        self._imports.append(Import(database, table, unique_id, now, body))
        self._accepted_at[database, table, unique_id] = now
        self._counts[database][table] += row_count

    def remembers(self, database: str, table: str, unique_id: str, since: float) -> bool:
        """Return whether a table has accepted an import under an id after some time."""
        return self._accepted_at.get((database, table, unique_id), -math.inf) > since

    def imports(self, database: str | None = None, table: str | None = None) -> list[Import]:
        """Return the imports in their order: all, or those of one database or table."""
        return [
            one for one in self._imports if database in (None, one.database) and table in (None, one.table)
        ]

    def lose(self, database: str, table: str, begin: int, end: int) -> int:
        """Forget the rows of a table whose `time` is in [begin, end); return how many."""
        lost = 0
        for place, one in enumerate(self._imports):
            if (one.database, one.table) == (database, table):
                kept = [row for row in one.rows if not begin <= row["time"] < end]
                lost += len(one.rows) - len(kept)
                body = gzip.compress(b"".join(msgpack.packb(row) for row in kept), mtime=0)
                self._imports[place] = replace(one, body=body)
        self._counts[database][table] -= lost
        return lost


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RejectedError(422, f"a name is 3 to 128 of a-z, 0-9 and _: {name!r}")
