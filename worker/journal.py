"""What the worker tells its operators: one log line per batch and set-aside chunk, and metrics.

METRICS is the one list of metrics; docs and dashboard follow it. Dimensions are service and stage, never an account.
"""

import threading
from collections import Counter
from typing import Any, Protocol

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

METRICS = {
    "RowsDelivered": "rows that Treasure Data has taken",
    "RowsParked": "rows set aside because their database is sick",
    "RowsInDoubt": "rows set aside because Treasure Data may have them already",
    "RowsDeadLettered": "rows set aside because they were refused",
    "RowsAmbiguous": "rows sent again without knowing whether Treasure Data has them: they may be doubled",
    "RowsRedriven": "rows that were set aside and are delivered now",
    "RowsMissing": "planned rows that the stream no longer held when they were to be sent",
    "Holds": "batches that end before their last record, to be delivered again from there",
    "KeyRefused": "imports that Treasure Data refused because of our API key",
    "AccountsStale": "accounts answered from memory because Redis failed",
    "LedgerErrors": "calls to the ledger that failed",
    "UploadRetries": "imports sent again",
    "BreakersOpened": "databases found sick",
    "OverflowFound": "messages of the overflow queue whose envelope was on the stream",
    "OverflowPut": "messages of the overflow queue whose envelope was put on the stream",
    "OverflowSetAside": "messages of the overflow queue that were set aside",
    "OverflowLeft": "messages left on the overflow queue for another look",
    "UnforeseenErrors": "errors that no rule foresaw; their batches are held",
}


class Journal(Protocol):
    """Where counts and notes go."""

    def count(self, metric: str, value: int = 1) -> None:
        """Add to one of METRICS."""
        ...

    def note(self, message: str, **fields: Any) -> None:
        """Write a line for a person."""
        ...

    def flush(self) -> None:
        """Hand over what was counted in this invocation."""
        ...


class PowertoolsJournal:
    """Structured log lines, and metrics in CloudWatch's embedded format, both on standard output."""

    def __init__(self, stage: str) -> None:
        self._logger = Logger()
        self._stage = stage
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, metric: str, value: int = 1) -> None:
        """Add to one of METRICS."""
        if metric not in METRICS:
            raise KeyError(metric)
        with self._lock:
            self._counts[metric] += value

    def note(self, message: str, **fields: Any) -> None:
        """Write a line for a person."""
        self._logger.info(message, extra=fields)

    def flush(self) -> None:
        """Write one line of metrics, if anything was counted."""
        if not self._counts:
            return
        metrics = EphemeralMetrics()
        metrics.add_dimension("stage", self._stage)
        for name, value in self._counts.items():
            metrics.add_metric(name, "Count", value)
        self._counts.clear()
        metrics.flush_metrics()
