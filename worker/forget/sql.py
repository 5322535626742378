"""What forgetting reads and deletes in Treasure Data. A DELETE is a Trino statement like a query."""

from collections.abc import Callable, Iterable

from worker.treasure_data.answer import TdAnswer, columns
from worker.treasure_data.statement import RowId, quoted

SHARED = "shared"
"""How a statement ends that is not run, because other accounts may have rows in the database."""


def by_value(column: str, values: Iterable[str], before: int) -> str:
    """Return the condition for rows that have one of these values and were received until `before` (UNIX milliseconds)."""
    listed = ", ".join(map(quoted, values))
    return f'CAST("{column}" AS VARCHAR) IN ({listed}) AND received_at <= {before}'


def by_id(rows: Iterable[RowId]) -> str:
    """Return the condition for rows."""
    found = sorted(set(rows))
    listed = " OR ".join(f"({one.condition})" for one in found)
    return f"TD_TIME_RANGE(time, {found[0].time}, {found[-1].time + 1}) AND ({listed})"


def counting(table: str, condition: str) -> str:
    """Return the statement that counts rows."""
    return f'SELECT COUNT(1) FROM "{table}" WHERE {condition}'  # noqa: S608 -- every part is quoted


def counting_each(table: str, column: str, condition: str) -> str:
    """Return the statement that counts rows by the text of a column."""
    return f'SELECT CAST("{column}" AS VARCHAR), COUNT(1) FROM "{table}" WHERE {condition} GROUP BY 1'  # noqa: S608 -- every part is quoted


def deleting(table: str, condition: str) -> str:
    """Return the statement that deletes rows."""
    return f'DELETE FROM "{table}" WHERE {condition}'  # noqa: S608 -- every part is quoted


def selecting(table: str, columns: Iterable[str], condition: str) -> str:
    """Return the statement that reads columns of rows."""
    listed = ", ".join(f'"{column}"' for column in columns)
    return f'SELECT {listed} FROM "{table}" WHERE {condition}'  # noqa: S608 -- every part is quoted


def columns_of_tables(api: Callable[..., TdAnswer], database: str) -> dict[str, list[str]] | None:
    """Return the columns of each table of a database; None if Treasure Data does not say."""
    answer = api("GET", "table", "list", database)
    if answer.is_refusal and answer.status == 404:
        return {}
    if answer.names("tables") is None:
        return None
    return {one["name"]: list(columns(one) or ()) for one in answer.document["tables"]}
