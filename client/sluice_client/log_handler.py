"""Sends log records as events."""

import logging
from typing import Any

from sluice_client.client import Client


class SluiceHandler(logging.Handler):
    """A handler for the standard library's logging that stores each record as an event.

    Args:
        client: stores the events.
        table: the table for their rows.
        level: records below this level are ignored.
    """

    def __init__(self, client: Client, table: str = "logs", level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._client = client
        self._table = table

    def handle(self, record: logging.LogRecord) -> bool:
        """Ignore the client's own records: sending them could cause more of them, and the client must not wait for this handler."""
        return record.name.partition(".")[0] != "sluice_client" and super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Store a record."""
        try:
            self._client.track(self._table, self.columns(record))
        except Exception:  # noqa: BLE001 -- as logging's own handlers do
            self.handleError(record)

    def columns(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return a record's columns; override it to add others."""
        columns: dict[str, Any] = {
            "time": int(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "file": record.pathname,
            "line": record.lineno,
            "function": record.funcName,
            "process_id": record.process,
            "thread": record.threadName,
        }
        if record.exc_info and record.exc_info[0]:
            columns["exception"] = (self.formatter or _formatter).formatException(record.exc_info)
        return columns


_formatter = logging.Formatter()
