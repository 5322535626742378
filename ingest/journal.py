"""What the ingest tells its operators: metrics of each request, and a bounded number of log lines.

Nothing here ever holds a key, an address, a query, a header or a body.
"""

import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any, Protocol

import orjson
from aws_lambda_powertools.metrics.functions import is_metrics_disabled

from shared.clock import Clock

METRICS: Mapping[str, str] = {
    "EventsAccepted": "events accepted: on the stream or in the overflow queue",
    "EventsRejected": "events rejected with a code",
    "RequestsRefused": "requests rejected as a whole, 4xx",
    "RequestsFailed": "requests that failed, 5xx",
    "StreamRefusals": "envelopes that the stream definitely rejected, per attempt",
    "StreamDoubts": "envelopes that the stream may or may not have stored, per attempt",
    "EnvelopesOverflowed": "envelopes sent to the overflow queue instead",
    "EnvelopesRepeated": "envelopes of repeated requests, which go through the overflow queue",
    "EnvelopesUntaken": "envelopes that neither the stream nor the queue stored; their events are not accepted",
    "KeyringFailures": "failed attempts to read the signing secrets",
    "UnforeseenErrors": "unexpected errors, answered with 500",
}
"""Each counts by stage and service."""

QUIET_SECONDS = 10
"""After a line of one kind and code, further ones are only counted for this long, by each sandbox."""


class Journal(Protocol):
    """Where the parts report to."""

    def count(self, metric: str, number: int = 1) -> None:
        """Add to one of METRICS."""

    def note(self, kind: str, code: str, **fields: Any) -> None:
        """Tell of something that its sender must mend."""

    def warn(self, kind: str, code: str, **fields: Any) -> None:
        """Tell of something that an operator may have to mend."""

    def fail(self, kind: str, error: BaseException) -> None:
        """Tell of a fault of the ingest itself, by where it arose: an error's message may quote what a client sent."""

    def flush(self) -> None:
        """Write out what was counted since the last time."""


class PowertoolsJournal:
    """Reports through Powertools: metrics in CloudWatch's embedded format, log lines in JSON.

    Args:
        logger: Powertools' Logger.
        metrics: Powertools' Metrics.
        clock: tells when a line may follow another.
    """

    def __init__(self, logger: Any, metrics: Any, clock: Clock) -> None:
        self._logger = logger
        self._metrics = metrics
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._lines: dict[tuple[str, ...], dict[str, Any]] = {}
        self._spoke_at: dict[tuple[str, str], float] = {}
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._is_mute = is_metrics_disabled()
        self._lock = Lock()  # a sandbox serves one request at a time, a local gateway several

    def count(self, metric: str, number: int = 1) -> None:
        """Add to one of METRICS."""
        with self._lock:
            self._counts[metric] += number

    def note(self, kind: str, code: str, **fields: Any) -> None:
        """Write a line of information, unless one of this kind and code was written just now."""
        if (suppressed := self._may_speak(kind, code)) is not None:
            self._logger.info(kind, code=code, suppressed=suppressed, **fields)

    def warn(self, kind: str, code: str, **fields: Any) -> None:
        """Write a warning, unless one of this kind and code was written just now."""
        if (suppressed := self._may_speak(kind, code)) is not None:
            self._logger.warning(kind, code=code, suppressed=suppressed, **fields)

    def fail(self, kind: str, error: BaseException) -> None:
        """Write an error with its type and the places that it passed, unless one of this kind was written just now."""
        code = type(error).__name__
        if (suppressed := self._may_speak(kind, code)) is not None:
            frames = traceback.extract_tb(error.__traceback__)
            places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
            self._logger.error(kind, code=code, suppressed=suppressed, places=places)

    def flush(self) -> None:
        """Write out what was counted since the last time, in one line; nothing where nothing was.

        Powertools composes the line of a set of metrics once; afterwards only time and numbers are put in, which takes a fifth
        of the CPU.
        """
        with self._lock:
            if not self._counts or self._is_mute:
                return
            names = tuple(self._counts)
            line = self._lines.get(names)
            if line is None:
                line = self._lines[names] = self._composed(names)
            line["_aws"]["Timestamp"] = int(self._clock.now() * 1000)
            for name, number in self._counts.items():
                line[name] = [float(number)]
            self._counts.clear()
            sys.stdout.write(orjson.dumps(line).decode() + "\n")

    def _composed(self, names: Iterable[str]) -> dict[str, Any]:
        for name in names:
            self._metrics.add_metric(name, "Count", 0)
        line: dict[str, Any] = self._metrics.serialize_metric_set()
        self._metrics.clear_metrics()
        return line

    def _may_speak(self, kind: str, code: str) -> int | None:
        """Return how many lines of this kind and code were left out before this one, None where it is left out too."""
        now = self._clock.now()
        since = self._spoke_at.get((kind, code))
        if since is not None and 0 <= now - since < QUIET_SECONDS:
            self._left_out[kind, code] += 1
            return None
        self._spoke_at[kind, code] = now
        return self._left_out.pop((kind, code), 0)
