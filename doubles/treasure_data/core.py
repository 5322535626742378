"""Treasure Data without its sockets: a request comes in as a value, what becomes of it goes out as a value."""

from collections.abc import Mapping
from heapq import heappop, heappush
from itertools import count
from threading import RLock

from doubles.treasure_data.api import Api
from doubles.treasure_data.control import Control
from doubles.treasure_data.exchange import Request, Response
from doubles.treasure_data.fault import Faults, FaultSource
from doubles.treasure_data.import_body import Row
from doubles.treasure_data.import_log import Import, NumberedRow
from doubles.treasure_data.query_tables import Result
from doubles.treasure_data.settings import API_KEY, Right, Settings
from doubles.treasure_data.warehouse import Warehouse
from shared.clock import Clock, SystemClock


class TreasureData:
    """The stand-in. Its methods may be called from many threads.

    Args:
        path: the SQLite file that keeps databases, tables and rows, or `:memory:`.
        clock: tells the time; it is never asked to sleep.
        settings: what is not known of TD.
        keys: the API keys with their rights; None is API_KEY with all of them.
        faults: what decides on faults; None is a `Faults`, which `POST /-/faults` sets too.

    Attributes:
        settings: what is not known of TD; may be set anew at any time.
        faults: what decides on faults.
    """

    def __init__(
        self,
        path: str = ":memory:",
        *,
        clock: Clock | None = None,
        settings: Settings | None = None,
        keys: Mapping[str, frozenset[Right]] | None = None,
        faults: FaultSource | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.faults: FaultSource = Faults() if faults is None else faults
        self._clock = clock or SystemClock()
        self._warehouse = Warehouse(path)
        self._api = Api(self._warehouse, {API_KEY: frozenset(Right)} if keys is None else keys)
        self._control = Control(self)
        self._late: list[tuple[float, int, Request]] = []
        self._serials = count()
        self._lock = RLock()

    def close(self) -> None:
        """Close the file; that happens too once nobody needs the stand-in."""
        with self._lock:
            self._warehouse.close()

    def handle(self, request: Request) -> Response:
        """Carry out a request, or let it meet its fault.

        Requests to `/v3/` are TD's, requests to `/-/` look at the stand-in or set its faults and meet none.
        """
        if request.segments[0] == "-":
            return self._control.answer(request)
        with self._lock:
            fault = self.faults.strike(self._api.target(request.segments), self._clock.now())
        if fault is None or fault.reads_body:
            request.body  # noqa: B018 - reads it from a socket, maybe slowly: not under the lock
        with self._lock:
            now = self._catch_up()
            if fault is None:
                return self._api.answer(request, self.settings, now)
            if fault.alters:
                return fault.altered(self._api.answer(request, self.settings, now))
            if fault.lands is not None:
                heappush(self._late, (now + fault.lands, next(self._serials), request))
                self._catch_up()
            return fault.response(request)

    def create(self, database: str, *tables: str) -> None:
        """Create a database and tables, those that are not there yet, whatever faults are set.

        Raises:
            Refusal: a name is illegal.
        """
        with self._lock:
            now = self._catch_up()
            log = self._warehouse.log
            if database not in {named.name for named in log.databases()}:
                log.create_database(database, now)
            there = {named.name for named in log.tables(database)}
            for table in tables:
                if table not in there:
                    log.create_table(database, table, now)

    def imports(self, database: str | None = None, table: str | None = None) -> list[Import]:
        """Return the accepted imports in their order: all, or those of one database or table."""
        with self._lock:
            self._catch_up()
            return list(self._warehouse.log.imports(database, table))

    def rows(self, database: str, table: str) -> list[Row]:
        """Return a table's rows in the order of their import, with the values that were packed."""
        return [row for taken in self.imports(database, table) for row in taken.rows]

    def latest(
        self, database: str | None = None, table: str | None = None, *, limit: int = 100, after: int = 0
    ) -> list[NumberedRow]:
        """Return the last rows of all, of a database or of a table, the latest first.

        Args:
            database: only this database's.
            table: only this table's.
            limit: how many at most.
            after: only rows with a greater number.
        """
        with self._lock:
            self._catch_up()
            return self._warehouse.log.latest(database, table, limit=limit, after=after)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of rows by database and table."""
        with self._lock:
            self._catch_up()
            log = self._warehouse.log
            return {
                database.name: {table.name: table.row_count for table in log.tables(database.name)}
                for database in log.databases()
            }

    @property
    def duplicates(self) -> int:
        """How many imports were answered without being taken, as their unique_id was remembered."""
        return self._api.duplicates

    @property
    def conflicts(self) -> int:
        """How many of the duplicates held other rows than the import that is remembered."""
        return self._api.conflicts

    def query(self, database: str, query: str) -> Result:
        """Run a SELECT over the rows of a database that queries see by now.

        Raises:
            QueryError: it is none, or wrong, or takes too long.
            Refusal: there is no such database.
        """
        with self._lock:
            return self._warehouse.query(database, query, self._catch_up() - self.settings.query_delay)

    def lose(self, database: str, table: str, begin: int, end: int) -> int:
        """Lose accepted rows, as if TD had an accident; their unique_ids stay remembered.

        Args:
            database: their database.
            table: their table.
            begin: the first `time` that is lost, UNIX seconds.
            end: the first `time` behind it that is kept.

        Returns:
            How many rows were lost.
        """
        with self._lock:
            self._catch_up()
            return self._warehouse.lose(database, table, begin, end)

    def _catch_up(self) -> float:
        now = self._clock.now()
        while self._late and self._late[0][0] <= now:
            at, _, request = heappop(self._late)
            self._api.answer(request, self.settings, at)
        return now
