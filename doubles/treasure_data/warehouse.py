"""What Treasure Data holds: the log of imports, and the tables that queries read."""

from doubles.treasure_data.import_log import Import, ImportLog
from doubles.treasure_data.query_tables import Column, QueryTables, Result


class Warehouse:
    """Databases, tables and rows. Not for two threads at once.

    Args:
        path: the SQLite file that keeps them, or `:memory:`.

    Attributes:
        log: the databases and tables that exist, and what was imported into them.
    """

    def __init__(self, path: str) -> None:
        self.log = ImportLog(path)
        self._queried: dict[str, QueryTables] = {}

    def close(self) -> None:
        """Close the file."""
        for tables in self._queried.values():
            tables.close()
        self.log.close()

    def delete_database(self, database: str) -> None:
        """Delete a database with all that is in it.

        Raises:
            Refusal: there is no such database (404), or its name is illegal (422).
        """
        self.log.delete_database(database)
        if database in self._queried:
            self._queried.pop(database).close()

    def delete_table(self, database: str, table: str) -> None:
        """Delete a table with all that is in it.

        Raises:
            Refusal: there is no such database or table (404), or a name is illegal (422).
        """
        self.log.delete_table(database, table)
        self._tables(database).forget(table)

    def lose(self, database: str, table: str, begin: int, end: int) -> int:
        """Forget the rows of a table whose `time` lies from `begin` to before `end`; return how many."""
        self._tables(database).forget(table)
        return self.log.lose(database, table, begin, end)

    def visible(self, database: str, table: str, moment: float) -> list[Import]:
        """Return a table's imports up to a moment, UNIX seconds."""
        return [taken for taken in self.log.imports(database, table) if taken.at <= moment]

    def query(self, database: str, query: str, moment: float) -> Result:
        """Run a SELECT over the rows that a database had at a moment, UNIX seconds.

        Raises:
            QueryError: it is none, or wrong, or takes too long.
            Refusal: there is no such database (404), or its name is illegal (422).
        """
        self.log.find_database(database)
        for table in self.log.tables(database):
            if table.name in query:
                self._fill(database, table.name, moment)
        return self._tables(database).run(query)

    def columns(self, database: str, table: str, moment: float) -> list[Column]:
        """Return the columns that a table had at a moment, UNIX seconds."""
        self._fill(database, table, moment)
        return self._tables(database).columns(table)

    def _tables(self, database: str) -> QueryTables:
        if database not in self._queried:
            self._queried[database] = QueryTables(database)
        return self._queried[database]

    def _fill(self, database: str, table: str, moment: float) -> None:
        tables = self._tables(database)
        new = self.log.imports(database, table, after=tables.filled(table))
        tables.fill(table, [taken for taken in new if taken.at <= moment])
