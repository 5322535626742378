"""A double of Treasure Data: imports, databases and tables, queries, and faults in all of them.

`TreasureData.handle` turns a request into a response, without sockets and without waiting. Serve it over sockets with
`HttpServer`, or call it without sockets by `InProcess`. `Settings` decides behaviour that TD does not document, such
as how long it remembers a unique_id.
"""

import json
from collections.abc import Callable, Collection, Mapping
from heapq import heappop, heappush
from itertools import count, islice
from threading import RLock

from doubles.http_server import Request, Response
from doubles.treasure_data.api import API_KEY, Api, Settings
from doubles.treasure_data.fault import Action, Fault, Faults, Kind, Target
from doubles.treasure_data.imports import Import, ImportLog, Row
from doubles.treasure_data.in_process import InProcess
from doubles.treasure_data.response import answer, error
from shared.clock import Clock, SystemClock

__all__ = [
    "API_KEY",
    "Action",
    "Fault",
    "InProcess",
    "Kind",
    "Request",
    "Response",
    "Settings",
    "Target",
    "TreasureData",
]


class TreasureData:
    """The double. Its methods are thread-safe.

    Args:
        clock: provides the time; the double never sleeps on it.
        settings: TD's undocumented behaviour.
        keys: the API keys and what each may do; by default only API_KEY, which may do everything.
        strike: returns the fault that strikes a request at a time, called once per request; by default `faults.strike`.

    Attributes:
        settings: may be replaced at any time.
        faults: the faults that are set.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        settings: Settings | None = None,
        keys: Mapping[str, frozenset[Action]] | None = None,
        strike: Callable[[Target, float], Fault | None] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.faults = Faults()
        self._strike = strike or self.faults.strike
        self._clock = clock or SystemClock()
        self._log = ImportLog()
        self._api = Api(self._log, {API_KEY: frozenset(Action)} if keys is None else keys)
        self._late: list[tuple[float, int, Request]] = []
        self._serials = count()
        self._lock = RLock()

    def handle(self, request: Request) -> Response:
        """Execute a request, or let a fault strike it.

        Requests to `/v3/` are TD's. Requests to `/-/` inspect the double or set its faults; no fault strikes them.
        """
        if request.segments[0] == "-":
            return self._control(request)
        with self._lock:
            now = self._clock.now()
            target, _ = self._api.route(request)
            fault = self._strike(target, now)
            self._caught_up()
            if fault is None:
                return self._api.answer(request, self.settings, now)
            if fault.alters:
                return fault.altered(self._api.answer(request, self.settings, now))
            if fault.lands is not None:
                heappush(self._late, (now + fault.lands, next(self._serials), request))
                self._caught_up()
            return fault.response()

    def create(self, database: str, *tables: str) -> None:
        """Create a database and tables unless they exist, whatever faults are set."""
        with self._lock:
            there = self._caught_up().counts().get(database)
            if there is None:
                self._log.create(database)
            for table in set(tables) - (there or {}).keys():
                self._log.create(database, table)

    def imports(self, database: str | None = None, table: str | None = None) -> list[Import]:
        """Return the accepted imports in order: all, or those of one database or table."""
        with self._lock:
            return self._caught_up().imports(database, table)

    def rows(self, database: str, table: str) -> list[Row]:
        """Return a table's rows in the order of their imports, with the values as they were packed."""
        return [row for one in self.imports(database, table) for row in one.rows]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of rows by database and table."""
        with self._lock:
            return self._caught_up().counts()

    def event_ids(self) -> dict[str, dict[str, list[str]]]:
        """Return the event ids of all rows by database and table, an empty string for a row without one."""
        return {
            database: {
                table: [row.get("event_id", "") for row in self.rows(database, table)] for table in tables
            }
            for database, tables in self.counts().items()
        }

    @property
    def duplicates(self) -> int:
        """The number of imports that were answered but not stored, because their unique_id was remembered."""
        return self._api.duplicates

    @property
    def queries(self) -> int:
        """The number of queries that were issued."""
        return len(self._api.jobs)

    def lose(self, database: str, table: str, begin: int, end: int) -> int:
        """Delete the rows whose `time` is in [begin, end), as in an accident at TD, and return how many.

        TD still remembers their unique_ids.
        """
        with self._lock:
            return self._caught_up().lose(database, table, begin, end)

    def delete(self, database: str, table: str, numbers: Collection[int]) -> None:
        """Delete the rows of a table whose `n` is one of these, as an operator does. TD still remembers their unique_ids."""
        with self._lock:
            self._caught_up().delete_if(database, table, lambda row: row.get("n") in numbers)

    def _control(self, request: Request) -> Response:
        """Execute a request of the local stack or its tests to a route that TD does not have.

        - `GET /-/counts`: {database: {table: rows}}
        - `GET /-/event_ids`: {database: {table: [event id]}}
        - `GET /-/rows?limit=`: {"rows": [{"database", "table", "at", "row"}]}, the latest first, at most `limit`
        - `POST /-/faults` with a fault as an object: set it; `DELETE /-/faults`: remove all faults
        - `POST /-/lose` with {"database", "table", "begin", "end"}: {"lost": n}
        """
        try:
            match request.method, request.segments[1:]:
                case "GET", ("counts",):
                    return answer(self.counts())
                case "GET", ("event_ids",):
                    return answer(self.event_ids())
                case "GET", ("rows",):
                    latest = (
                        {"database": one.database, "table": one.table, "at": one.at, "row": row}
                        for one in reversed(self.imports())
                        for row in reversed(one.rows)
                    )
                    limit = int(request.target.partition("?limit=")[2])
                    return answer({"rows": list(islice(latest, limit))})
                case "POST", ("faults",):
                    self.faults.add(Fault.from_document(json.loads(request.body)))
                    return answer({})
                case "DELETE", ("faults",):
                    self.faults.clear()
                    return answer({})
                case "POST", ("lose",):
                    return answer({"lost": self.lose(**json.loads(request.body))})
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            return error(400, f"{type(problem).__name__}: {problem}")
        return error(404, f"there is no {request.method} {request.target}")

    def _caught_up(self) -> ImportLog:
        """Execute the delayed requests that are due, and return the log of imports."""
        now = self._clock.now()
        while self._late and self._late[0][0] <= now:
            at, _, request = heappop(self._late)
            self._api.answer(request, self.settings, at)
        return self._log
