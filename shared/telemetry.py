"""Metrics and JSON log lines for operators.

Both go to standard output. Metrics use CloudWatch's embedded format with the dimensions service and stage, never an account.
Log lines never contain a key, an address, a query, a header, a body or a row. Exceptions are logged by type and stack, never by
message, because a message may quote client input.

Warnings and errors are always written; the log level affects only info lines. `sluice status` shows them.
"""

import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from threading import Lock
from typing import Any, Protocol, Self, TextIO

import orjson
from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics
from aws_lambda_powertools.metrics.functions import is_metrics_disabled

from shared.clock import Clock

STAGE = "STAGE"
SERVICE = "POWERTOOLS_SERVICE_NAME"
NAMESPACE = "POWERTOOLS_METRICS_NAMESPACE"
LEVEL = "POWERTOOLS_LOG_LEVEL"
VERSION = "AWS_LAMBDA_FUNCTION_VERSION"
"""Variables that say how a function reports."""

INGEST_METRICS: Mapping[str, str] = {
    "EventsAccepted": "events accepted: on the stream or in the overflow queue",
    "EventsRejected": "events rejected with a code",
    "RequestsRefused": "requests rejected as a whole, 4xx",
    "RequestsFailed": "requests that failed, 5xx",
    "StreamRefusals": "envelopes that the stream definitely rejected, per attempt",
    "StreamDoubts": "envelopes that the stream may or may not have stored, per attempt",
    "EnvelopesOverflowed": "envelopes sent to the overflow queue instead",
    "EnvelopesNotStored": "envelopes that neither the stream nor the queue stored; their events are not accepted",
    "KeyringFailures": "failed attempts to read the signing secrets",
    "UnforeseenErrors": "unexpected errors: the request is answered with 500, or the batch is held",
}
"""Metrics of the ingest."""

DELIVERY_METRICS: Mapping[str, str] = {
    "RowsDelivered": "rows accepted by Treasure Data",
    "RowsParked": "rows set aside because their database is failing",
    "RowsInDoubt": "rows set aside because Treasure Data may already have them",
    "RowsDeadLettered": "rows set aside as dead letters",
    "RowsAmbiguous": "rows sent again although Treasure Data may have them: they may be duplicated",
    "RowsRedriven": "rows that were set aside and have now been delivered",
    "RowsMissing": "planned rows that were no longer on the stream when they were due to be sent",
    "RowsPassedOver": "rows that a forced replay left out, because rows planned with them are not delivered",
    "EnvelopesIgnored": "records whose rows do not count, because another copy of their envelope does",
    "Holds": "batches that stopped before their last record; Lambda delivers the rest again",
    "KeyRefused": "imports that Treasure Data rejected because of the API key",
    "AccountsStale": "accounts answered from memory because Redis failed",
    "LedgerErrors": "failed calls to the ledger",
    "UploadRetries": "imports sent again",
    "BreakersOpened": "databases found to be failing",
    "OverflowFound": "messages of the overflow queue whose envelope was already on the stream",
    "OverflowPut": "messages of the overflow queue whose envelope was put on the stream",
    "OverflowSetAside": "messages of the overflow queue that were set aside",
    "OverflowLeft": "messages left on the overflow queue for another attempt",
    "UnforeseenErrors": INGEST_METRICS["UnforeseenErrors"],
}
"""Metrics of the worker, the redrive and the drainer."""

METRICS: Mapping[str, str] = {**INGEST_METRICS, **DELIVERY_METRICS}
"""Every metric of every function, with what it counts."""

QUIET_SECONDS = 10
"""How long a function instance suppresses repeated lines with the same message and `code`."""

_MAX_COMPOSED = 64  # cached lines, one per set of metrics; the ingest needs about ten
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class Telemetry(Protocol):
    """Where functions report to; thread-safe.

    A line's fields are JSON values. Their names must not be those of logging.LogRecord's attributes: `name`, `module`,
    `process`, `args` and so on.
    """

    def count(self, metric: str, value: int = 1) -> None:
        """Add to a metric.

        Raises:
            KeyError: it is not one of METRICS.
        """
        ...

    def info(self, message: str, **fields: Any) -> None:
        """Log ordinary work."""
        ...

    def warning(self, message: str, **fields: Any) -> None:
        """Log something that an operator may have to act on, or that is held."""
        ...

    def error(self, message: str, error: BaseException | None = None, **fields: Any) -> None:
        """Log a fault, with an exception's type and stack, never its message."""
        ...

    def invocation(self, context: object) -> AbstractContextManager[None]:
        """Add the invocation's request id to every line inside the `with`, and flush the metrics at its end."""
        ...

    def flush(self) -> None:
        """Write the metrics counted since the last flush."""
        ...


class NullTelemetry:
    """Discards everything, for commands that report to people themselves."""

    def count(self, metric: str, value: int = 1) -> None:
        """Do nothing."""

    def info(self, message: str, **fields: Any) -> None:
        """Do nothing."""

    def warning(self, message: str, **fields: Any) -> None:
        """Do nothing."""

    def error(self, message: str, error: BaseException | None = None, **fields: Any) -> None:
        """Do nothing."""

    def invocation(self, context: object) -> AbstractContextManager[None]:  # noqa: ARG002 -- the port's signature
        """Do nothing."""
        return nullcontext()

    def flush(self) -> None:
        """Do nothing."""


class PowertoolsTelemetry:
    """Telemetry through Powertools.

    Lines with a `code` are rate limited: each function instance writes one line with the same message and code per QUIET_SECONDS. The next
    one says how many were `suppressed`. Lines without a `code` are always written. Give a code to lines that clients can cause
    at will, and none to lines about a batch.

    Args:
        logger: Powertools' Logger; its own level must include INFO.
        metrics: Powertools' EphemeralMetrics, with its dimensions.
        output: receives the lines with metrics.
        clock: times the rate limit.
        with_info: whether to write info lines; warnings and errors always are.
        version: of the function. Lines with metrics have it as a property, not a dimension, for the canary's metric filter.
    """

    def __init__(
        self,
        logger: Logger,
        metrics: EphemeralMetrics,
        output: TextIO,
        clock: Clock,
        *,
        with_info: bool = True,
        version: str = "",
    ) -> None:
        self._logger = logger
        self._metrics = metrics
        self._output = output
        self._clock = clock
        self._with_info = with_info
        self._version = version
        self._latest = _Latest()
        self._counts: defaultdict[str, int] = defaultdict(int)  # implemented in C, unlike Counter
        self._composed: dict[tuple[str, ...], str] = {}
        self._written_at: dict[tuple[str, str], float] = {}
        self._suppressed: Counter[tuple[str, str]] = Counter()
        self._is_disabled = is_metrics_disabled()
        # The worker reports from several threads, and a local gateway serves concurrent requests.
        self._lock = Lock()

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], clock: Clock, output: TextIO | None = None
    ) -> Self:
        """Return the telemetry of a function.

        Args:
            environment: has the variables STAGE, SERVICE, NAMESPACE, LEVEL and VERSION. Powertools does not get to see the level,
                because it gives Lambda's own precedence.
            clock: times the rate limit.
            output: receives all lines; None is standard output.
        """
        output = output or sys.stdout
        stage = environment.get(STAGE) or "none"
        service = environment.get(SERVICE)
        logger = Logger(
            service=service,
            level="INFO",
            stream=output,
            use_rfc3339=True,  # Lambda treats lines with other timestamps as INFO
            location="%(module)s:%(lineno)d",
            stage=stage,
        )
        metrics = EphemeralMetrics(service=service, namespace=environment.get(NAMESPACE))
        metrics.set_default_dimensions(stage=stage)
        level = environment.get(LEVEL) or "INFO"
        with_info = level.upper() in ("DEBUG", "INFO")
        return cls(
            logger, metrics, output, clock, with_info=with_info, version=environment.get(VERSION) or ""
        )

    def invocation(self, context: object) -> AbstractContextManager[None]:
        """Add the invocation's request id to every line inside the `with`, and flush the metrics at its end.

        Lines from threads that the invocation starts have it as well. If several invocations run concurrently, each in its own
        thread, only lines from those threads have the right id.

        Args:
            context: Lambda's context.
        """
        return _Invocation(getattr(context, "aws_request_id", None), self._latest, self.flush)

    def count(self, metric: str, value: int = 1) -> None:
        """Add to a metric.

        Raises:
            KeyError: it is not one of METRICS.
        """
        if metric not in METRICS:
            raise KeyError(metric)
        with self._lock:
            self._counts[metric] += value

    def info(self, message: str, **fields: Any) -> None:
        """Log ordinary work, unless the log level excludes it."""
        if self._with_info and (line := self._line(message, fields)) is not None:
            self._logger.info(message, extra=line, stacklevel=3)

    def warning(self, message: str, **fields: Any) -> None:
        """Log something that an operator may have to act on, or that is held."""
        if (line := self._line(message, fields)) is not None:
            self._logger.warning(message, extra=line, stacklevel=3)

    def error(self, message: str, error: BaseException | None = None, **fields: Any) -> None:
        """Log a fault, with an exception's type (`exception_name`) and stack (`frames`), never its message."""
        if (line := self._line(message, fields)) is not None:
            if error is not None:
                frames = traceback.extract_tb(error.__traceback__)
                line["exception_name"] = type(error).__name__
                line["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
            self._logger.error(message, extra=line, stacklevel=3)

    def flush(self) -> None:
        """Write the metrics counted since the last flush as one line, or nothing if there are none.

        Powertools composes the line once per set of metrics. Later flushes only fill in the time and the numbers, which takes
        a tenth of the CPU time.
        """
        with self._lock:
            if not self._counts or self._is_disabled:
                return
            names = tuple(self._counts)
            line = self._composed.get(names) or self._compose(names)
            self._output.write(line % (int(self._clock.now() * 1000), *self._counts.values()))
            self._counts.clear()

    def _compose(self, names: tuple[str, ...]) -> str:
        """Return the line for a set of metrics, with `%d` for the time in milliseconds and for each metric."""
        for name in names:
            self._metrics.add_metric(name, "Count", 0)
        values: dict[str, Any] = {**self._metrics.serialize_metric_set()}
        self._metrics.clear_metrics()
        if self._version:
            values["version"] = self._version
        values["_aws"]["Timestamp"] = "%d"
        values.update({name: ["%d"] for name in names})
        line = orjson.dumps(values).decode().replace("%", "%%").replace('"%%d"', "%d") + "\n"
        if len(self._composed) >= _MAX_COMPOSED:
            self._composed.clear()
        self._composed[names] = line
        return line

    def _line(self, message: str, fields: dict[str, Any]) -> dict[str, Any] | None:
        """Return a line's fields, None if it is suppressed."""
        if (code := fields.get("code")) is not None:
            suppressed = self._admit(message, code)
            if suppressed is None:
                return None
            fields["suppressed"] = suppressed
        fields["function_request_id"] = _request_id.get() or self._latest.request_id
        return fields

    def _admit(self, message: str, code: str) -> int | None:
        """Return how many lines like this were suppressed before it, None if this one is suppressed too."""
        kind = message, code
        with self._lock:
            now = self._clock.now()
            since = self._written_at.get(kind)
            if since is not None and 0 <= now - since < QUIET_SECONDS:
                self._suppressed[kind] += 1
                return None
            self._written_at[kind] = now
            return self._suppressed.pop(kind, 0)


class _Latest:
    """The most recently started invocation, for threads without one of their own."""

    __slots__ = ("request_id",)

    def __init__(self) -> None:
        self.request_id: str | None = None


class _Invocation:
    """The context manager of PowertoolsTelemetry.invocation; a generator-based one takes twice as long."""

    __slots__ = ("_flush", "_latest", "_request_id", "_token")

    def __init__(self, request_id: str | None, latest: _Latest, flush: Callable[[], None]) -> None:
        self._request_id = request_id
        self._latest = latest
        self._flush = flush

    def __enter__(self) -> None:
        self._token = _request_id.set(self._request_id)
        self._latest.request_id = self._request_id

    def __exit__(self, *_: object) -> None:
        self._latest.request_id = None
        _request_id.reset(self._token)
        self._flush()
