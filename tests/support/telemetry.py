"""Telemetry that tests can read back."""

import json
from collections import Counter
from io import StringIO
from itertools import count
from logging import makeLogRecord
from typing import Any, NamedTuple

from shared.clock import Clock
from shared.telemetry import (
    COUNTERS,
    NAMESPACE,
    SERVICE,
    STAGE,
    NullTelemetry,
    PowertoolsTelemetry,
    with_subject,
)

_serial = count()
_TAKEN = {"message", "asctime", *vars(makeLogRecord({}))}  # what a log record already has


class Line(NamedTuple):
    """A log line."""

    level: str
    message: str
    fields: dict[str, Any]


class CollectedTelemetry(NullTelemetry):
    """Telemetry that remembers everything, and rejects what the logger would reject."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        self.lines: list[Line] = []

    def count(self, counter: str, value: int = 1) -> None:
        """Add to a counter that is documented."""
        if counter not in COUNTERS:
            raise KeyError(counter)
        self.counts[counter] += value

    def gauge(self, metric: str, value: float) -> None:
        """Remember the value."""
        self.gauges[metric] = value

    def info(self, message: str, **fields: Any) -> None:
        """Remember the line."""
        self._log("INFO", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Remember the line."""
        self._log("WARNING", message, fields)

    def error(self, message: str, error: BaseException | None = None, **fields: Any) -> None:
        """Remember the line, with the type of an exception."""
        named = {} if error is None else {"exception_name": type(error).__name__}
        self._log("ERROR", message, fields | named)

    def said(self, message: str) -> list[dict[str, Any]]:
        """Return the fields of all lines with this message."""
        return [line.fields for line in self.lines if line.message == message]

    def total(self, message: str, name: str) -> int:
        """Return the sum of a field over all lines with this message."""
        return sum(fields.get(name, 0) for fields in self.said(message))

    def _log(self, level: str, message: str, fields: dict[str, Any]) -> None:
        if taken := fields.keys() & _TAKEN:
            raise KeyError(*taken)
        self.lines.append(Line(level, message, with_subject(fields)))

    def codes(self) -> list[tuple[str, Any]]:
        """Return the message and code of each line."""
        return [(line.message, line.fields.get("code")) for line in self.lines]


class Output:
    """What a function writes to standard output. Its service is unique, because Python and Powertools cache loggers by name."""

    def __init__(self, clock: Clock, **environment: str) -> None:
        self._text = StringIO()
        self.service = f"test-{next(_serial)}"
        variables = {STAGE: "test", NAMESPACE: "Sluice"} | environment | {SERVICE: self.service}
        self.telemetry = PowertoolsTelemetry.from_environment(variables, clock, self._text)

    def lines(self) -> list[Any]:
        """Return everything that was written."""
        return [json.loads(line) for line in self._text.getvalue().splitlines()]

    def log(self) -> list[Any]:
        """Return the log lines."""
        return [line for line in self.lines() if "_aws" not in line]

    def metrics(self) -> list[Any]:
        """Return the lines with metrics."""
        return [line for line in self.lines() if "_aws" in line]
