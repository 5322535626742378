"""Queries Treasure Data to find out whether it has rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from worker.deadline import Deadline
from worker.states import Presence
from worker.treasure_data.answer import TdAnswer
from worker.treasure_data.statement import End, RowId, Statements

DATABASES = ("database", "list")
"""The path of the list of databases."""

_ROW = "event_id || '/' || CAST(received_at AS VARCHAR) || '/' || CAST(time AS VARCHAR)"


@dataclass(eq=False)
class Question:
    """One question about chunks of rows of a table. A query that began before `not_before` (UNIX seconds) does not prove that rows are absent."""

    _statements: Statements
    _database: str
    _table: str
    _deadline: Deadline
    _not_before: float

    def ask(self, chunks: Sequence[Sequence[object]]) -> list[Presence]:
        """Query for rows of several imports, each row by its event_id, received_at and time; return the presence of each import.

        Treasure Data has either all rows of an import or none; any other count is undecided. One query counts for all of them. If this raises
        urllib3.exceptions.HTTPError or SecretUnavailableError, nothing is settled.
        """
        ids = [dict.fromkeys(map(RowId.of, rows)) for rows in chunks]
        found = dict.fromkeys(range(len(chunks)), Presence.UNASKABLE)
        wanted = {
            n: [f"({id_.condition})" for id_ in one if id_]
            for n, one in enumerate(ids)
            if one and None not in one
        }
        if wanted:
            times = {n: dict.fromkeys(map(_times, chunks[n])) for n in wanted}
            found |= self._presences(wanted, times)
        return [found[n] for n in range(len(chunks))]

    def _presences(
        self, wanted: Mapping[int, Collection[str]], times: Mapping[int, Collection[str]]
    ) -> dict[int, Presence]:
        counts = self._counts("DISTINCT ", _ROW, wanted)
        if isinstance(counts, Presence):
            return dict.fromkeys(wanted, counts)
        found = {
            n: Presence.PRESENT if count == len(wanted[n]) else Presence.UNDECIDED
            for n, count in counts.items()
            if count
        }
        rest = wanted.keys() - found.keys()
        if not rest:
            return found
        if counts and self._show().shows_columns(self._table):
            return found | dict.fromkeys(rest, Presence.ABSENT)
        if not counts and self.is_gone(End.FAILED):
            return dict.fromkeys(rest, Presence.ABSENT)
        return found | self._by_time({n: times[n] for n in rest})

    def _by_time(self, times: Mapping[int, Collection[str]]) -> dict[int, Presence]:
        """Query for any rows of the same seconds, after a query that failed or a table that does not show our columns.

        The table may never have had a row of ours, or its schema may lag behind the rows, be closed to changes, or be full.
        Whatever the schema shows, each row has its `time`.
        """
        counts = self._counts("", "1", times)
        if isinstance(counts, Presence):
            return dict.fromkeys(times, counts)
        return {n: Presence.ABSENT if counts.get(n) == 0 else Presence.UNDECIDED for n in times}

    def _counts(self, what: str, of: str, wanted: Mapping[int, Collection[str]]) -> dict[int, int] | Presence:
        """Return the count for each chunk, the presence if the answer settles that without counts, or nothing if the query failed.

        A count that proves nothing is -1.
        """
        sums = [f"COUNT({what}CASE WHEN {' OR '.join(one)} THEN {of} END)" for one in wanted.values()]
        rows = " OR ".join(dict.fromkeys(chain.from_iterable(wanted.values())))
        query = f'SELECT {", ".join(sums)} FROM "{self._table}" WHERE {rows}'  # noqa: S608 -- every part is quoted
        job = self._statements.run(self._database, query, self._deadline)
        if job.end is End.FORBIDDEN:
            return Presence.UNASKABLE
        if job.end is End.MISSING:  # perhaps because the database is gone, with all its rows
            return Presence.ABSENT if self.is_gone(job.end) else Presence.UNDECIDED
        if job.end is End.FAILED:
            return {}
        counts = job.counts(len(wanted))
        if counts is None:
            return Presence.UNDECIDED
        proves = job.began >= self._not_before
        return {n: count if count or proves else -1 for n, count in zip(wanted, counts, strict=True)}

    def is_gone(self, end: End) -> bool:
        """Return whether the table is gone, after a query of it ended so.

        Treasure Data both says that there is no such table and does not list it, or so of its database.
        """
        if end is not End.FAILED:
            return end is End.MISSING and self._lacks(self._database, *DATABASES)
        shown = self._show()
        is_absent = shown.is_refusal and shown.status == 404
        return is_absent and self._lacks(self._table, "table", "list", self._database)

    def _lacks(self, name: str, kind: str, *path: str) -> bool:
        names = self._statements.api("GET", kind, *path).names(f"{kind}s")
        return names is not None and name not in names

    def _show(self) -> TdAnswer:
        return self._statements.api("GET", "table", "show", self._database, self._table)


def _times(row: Any) -> str:
    """Return SQL that is true for all rows of the same second."""
    return f"TD_TIME_RANGE(time, {row['time']}, {row['time'] + 1})"
