"""Metrics and JSON log lines for operators.

Both go to standard output. Success writes nothing, because AWS itself counts requests, records and invocations. Failures add to
COUNTERS; each counter adds to one of METRICS, and the metrics have alarms. Log lines never contain a key, an address, a query, a
header, a body or a row. Exceptions are logged by type and stack, never by message, because a message may quote client input.

Warnings, errors and metrics are always written; the log level affects only info lines. `sluice status` shows them.
"""

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from threading import Lock
from typing import Any, NamedTuple, Protocol, Self, TextIO, override

import orjson
from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics
from aws_lambda_powertools.metrics.functions import is_metrics_disabled

from shared.clock import Clock
from shared.errors import SluiceError, UnforeseenError

STAGE = "STAGE"
SERVICE = "POWERTOOLS_SERVICE_NAME"
NAMESPACE = "POWERTOOLS_METRICS_NAMESPACE"
LEVEL = "POWERTOOLS_LOG_LEVEL"
VERSION = "AWS_LAMBDA_FUNCTION_VERSION"
"""Environment variables that configure a function's telemetry."""

ATTENTION, DEPENDENCY, FAILED, REJECTED, NOT_READY, OLDEST = (
    "NeedsAttention",
    "DependencyFailures",
    "RequestsFailed",
    "EventsRejected",
    "NotReady",
    "OldestWaitingSeconds",
)

METRICS: Mapping[str, str] = {
    ATTENTION: "problems that a person must look at; raise the alarm `attention`",
    DEPENDENCY: "failures of what Sluice depends on; raise the alarm `dependency` if they last",
    FAILED: "requests that failed, 5xx, by `version` of the ingest; raise the alarm `canary`",
    REJECTED: "events rejected with a code; a high rate per request raises the alarm `rejected`",
    NOT_READY: "health checks answered with 503, which the alarm `ingest-5xx` does not count",
    OLDEST: "age in seconds of the oldest waiting row, every minute; raises `waiting-warn`, `waiting-page` and, if missing, `not-running`",
}
"""Every metric that CloudWatch bills, with what it counts. RequestsFailed has the dimension `version`, the others have none."""


class Counter(NamedTuple):
    """A counter: the one of METRICS that it adds to, and what it counts."""

    metric: str
    meaning: str


INGEST_COUNTERS: Mapping[str, Counter] = {
    "EventsRejected": Counter(REJECTED, "events rejected with a code"),
    "RequestsFailed": Counter(FAILED, "requests that failed, 5xx"),
    "NotReady": Counter(NOT_READY, "health checks answered with 503: events would not become durable"),
    "EnvelopesNotStored": Counter(
        DEPENDENCY, "envelopes that neither the stream nor the queue stored; their events are not accepted"
    ),
    "KeyringFailures": Counter(DEPENDENCY, "failed attempts to read the signing secrets"),
    "UnforeseenErrors": Counter(
        ATTENTION,
        "unforeseen errors: the request is answered with 500, the batch is held, or the invocation fails",
    ),
}
"""Counters of the ingest."""

DELIVERY_COUNTERS: Mapping[str, Counter] = {
    "Holds": Counter(
        DEPENDENCY,
        "batches that stopped before their last record, for the reason in the log; Lambda delivers the rest again",
    ),
    "KeyRefused": Counter(DEPENDENCY, "imports that Treasure Data rejected because of the API key"),
    "AccountsStale": Counter(DEPENDENCY, "accounts answered from memory because Redis failed"),
    "RowsWaiting": Counter(DEPENDENCY, "rows that the worker left to the sender"),
    "RowsDead": Counter(
        ATTENTION,
        "rows that became dead, unless the invocation was killed or DynamoDB's answer was lost: `sluice status` counts all",
    ),
    "RowsAmbiguous": Counter(
        ATTENTION, "rows sent again although Treasure Data may have them: they may be duplicated"
    ),
    "LedgerRestored": Counter(
        ATTENTION, "invocations that did nothing, because the ledger was restored and has not been repaired"
    ),
    "ShardsExhausted": Counter(DEPENDENCY, "runs of the scaler that found MaxShards shards too few"),
    "ScalerFailures": Counter(DEPENDENCY, "runs of the scaler in which AWS refused or failed a call"),
    "EnvelopesOverdue": Counter(
        DEPENDENCY, "envelopes that are in the overflow queue for more than half an hour"
    ),
    "UnforeseenErrors": INGEST_COUNTERS["UnforeseenErrors"],
}
"""Counters of the worker, the sender, the drainer and the scaler."""

COUNTERS: Mapping[str, Counter] = {**INGEST_COUNTERS, **DELIVERY_COUNTERS}
"""Every counter of every function."""

QUIET_SECONDS = 10
"""How long a function instance suppresses repeated lines with the same message and `code`."""

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_subject: ContextVar[Mapping[str, Any]] = ContextVar("subject")


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Add these fields to every line inside the `with`, and to those of the jobs that a worker's executor is given there."""
    token = _subject.set(with_subject(fields))
    try:
        yield
    finally:
        _subject.reset(token)


def with_subject(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line's fields with those that `about` adds."""
    return {**_subject.get({}), **fields}


class Telemetry(Protocol):
    """Where functions report to; thread-safe.

    A line's fields are JSON values. Their names must not be those of logging.LogRecord's attributes: `name`, `module`,
    `process`, `args` and so on.
    """

    def count(self, counter: str, value: int = 1) -> None:
        """Add to a counter.

        Raises:
            KeyError: it is not one of COUNTERS.
        """
        ...

    def gauge(self, metric: str, value: float) -> None:
        """Report the current value of one of METRICS."""
        ...

    def info(self, message: str, **fields: Any) -> None:
        """Log ordinary work."""
        ...

    def warning(self, message: str, **fields: Any) -> None:
        """Log something that is held, or that an operator may have to act on."""
        ...

    def error(self, message: str, error: BaseException | None = None, **fields: Any) -> None:
        """Log a fault, with an exception's type and stack, never its message."""
        ...

    def unforeseen(self, message: str, error: Exception, **fields: Any) -> None:
        """Count an unforeseen error, and log it as `error` does."""
        ...

    def invocation(self, context: object) -> AbstractContextManager[None]:
        """Add the invocation's request id to every line inside the `with`, and flush the counters at its end.

        Raises:
            UnforeseenError: something other than a SluiceError was raised inside; it is counted and logged.
        """
        ...


class NullTelemetry:
    """Discards everything, for commands that report to people themselves."""

    def count(self, *_args: object, **_fields: object) -> None:
        """Do nothing."""

    gauge = info = warning = error = count

    def unforeseen(self, message: str, error: Exception, **fields: Any) -> None:
        """Count and log it like others."""
        self.count("UnforeseenErrors")
        self.error(message, error, **fields)

    def invocation(self, context: object) -> AbstractContextManager[None]:  # noqa: ARG002 -- the port's signature
        """Do nothing."""
        return nullcontext()


class PowertoolsTelemetry(Telemetry):
    """Telemetry through Powertools.

    Lines with a `code` are rate limited: each function instance writes one line with the same message and code per QUIET_SECONDS. The next
    one says how many were `suppressed`. Lines without a `code` are always written. Give a code to lines that clients can cause
    at will, and none to lines about a batch.

    Args:
        logger: Powertools' Logger; its own level must include INFO.
        about: members of every line with metrics: the function's `service`, `stage` and `version`.
    """

    def __init__(
        self,
        logger: Logger,
        namespace: str | None,
        output: TextIO,
        clock: Clock,
        *,
        with_info: bool,
        about: Mapping[str, str],
    ) -> None:
        self._logger = logger
        self._namespace = namespace
        self._output = output
        self._clock = clock
        self._with_info = with_info
        self._about = about
        self._counts: dict[str, int] = {}
        self._written_at: dict[tuple[str, str], float] = {}
        self._suppressed: dict[tuple[str, str], int] = {}
        # The worker reports from several threads, and a local gateway serves concurrent requests.
        self._lock = Lock()

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], clock: Clock, output: TextIO | None = None
    ) -> Self:
        """Return the telemetry of a function.

        Args:
            environment: has the variables STAGE, SERVICE, NAMESPACE, LEVEL and VERSION. The level is kept from Powertools, which
                would let Lambda's own level override it.
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
        level = environment.get(LEVEL) or "INFO"
        return cls(
            logger,
            environment.get(NAMESPACE),
            output,
            clock,
            with_info=level.upper() in ("DEBUG", "INFO"),
            about={"service": service or "", "stage": stage, "version": environment.get(VERSION) or ""},
        )

    @override
    def invocation(self, context: object) -> AbstractContextManager[None]:
        """Add the invocation's request id to lines, and flush the counters at its end.

        Threads that the invocation starts in a copy of its context have the id too. Lambda would log the message of an unforeseen error,
        so another one takes its place.
        """
        return _Invocation(getattr(context, "aws_request_id", None), self)

    @override
    def count(self, counter: str, value: int = 1) -> None:
        if counter not in COUNTERS:
            raise KeyError(counter)
        with self._lock:
            self._counts[counter] = self._counts.get(counter, 0) + value

    @override
    def gauge(self, metric: str, value: float) -> None:
        self._write({metric: value}, {}, {})

    @override
    def info(self, message: str, **fields: Any) -> None:
        """Log ordinary work, unless the log level excludes it."""
        if self._with_info and (line := self._line(message, fields)) is not None:
            self._logger.info(message, extra=line, stacklevel=3)

    @override
    def warning(self, message: str, **fields: Any) -> None:
        if (line := self._line(message, fields)) is not None:
            self._logger.warning(message, extra=line, stacklevel=3)

    @override
    def error(self, message: str, error: BaseException | None = None, **fields: Any) -> None:
        """Log a fault, with an exception's type (`exception_name`) and stack (`frames`), never its message."""
        self._error(message, error, fields)

    @override
    def unforeseen(self, message: str, error: Exception, **fields: Any) -> None:
        self.count("UnforeseenErrors")
        self._error(message, error, fields)

    def _error(self, message: str, error: BaseException | None, fields: dict[str, Any]) -> None:
        if (line := self._line(message, fields)) is not None:
            if error is not None:
                frames = traceback.extract_tb(error.__traceback__)
                line["exception_name"] = type(error).__name__
                line["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
            self._logger.error(message, extra=line, stacklevel=4)

    def flush(self) -> None:
        """Write what was counted since the last flush, or nothing if nothing was.

        There is one line for each set of dimensions. Every line also has all counters as members.
        """
        if not self._counts:
            return
        with self._lock:
            counts, self._counts = self._counts, {}
        totals: dict[str, int] = {}
        for counter, value in counts.items():
            metric = COUNTERS[counter].metric
            totals[metric] = totals.get(metric, 0) + value
        failed = {FAILED: totals.pop(FAILED)} if FAILED in totals else {}
        self._write(totals, counts, {})
        self._write(failed, counts, {"version": self._about.get("version") or "none"})

    def _write(
        self, totals: Mapping[str, float], counts: Mapping[str, int], dimensions: Mapping[str, str]
    ) -> None:
        if not totals or is_metrics_disabled():
            return
        metrics = EphemeralMetrics(namespace=self._namespace)
        metrics.service = ""  # Powertools would make a dimension of it
        metrics.set_default_dimensions(**dimensions)
        for name, value in (*self._about.items(), *counts.items()):
            if name not in totals and name not in dimensions:
                metrics.add_metadata(name, value)
        if request_id := _request_id.get():
            metrics.add_metadata("function_request_id", request_id)
        for name, total in totals.items():
            metrics.add_metric(name, "Seconds" if name == OLDEST else "Count", total)
        self._output.write(orjson.dumps(metrics.serialize_metric_set()).decode() + "\n")

    def _line(self, message: str, fields: dict[str, Any]) -> dict[str, Any] | None:
        """Return a line's fields, None if it is suppressed."""
        fields = with_subject(fields)
        if (code := fields.get("code")) is not None:
            suppressed = self._admit(message, code)
            if suppressed is None:
                return None
            fields["suppressed"] = suppressed
        fields["function_request_id"] = _request_id.get()
        return fields

    def _admit(self, message: str, code: str) -> int | None:
        """Return how many lines like this were suppressed before it, None if this one is suppressed too."""
        kind = message, code
        with self._lock:
            now = self._clock.now()
            since = self._written_at.get(kind)
            if since is not None and 0 <= now - since < QUIET_SECONDS:
                self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
                return None
            self._written_at[kind] = now
            return self._suppressed.pop(kind, 0)


class _Invocation:
    """The context manager of PowertoolsTelemetry.invocation; one made from a generator takes twice as long."""

    __slots__ = ("_request_id", "_telemetry", "_token")

    def __init__(self, request_id: str | None, telemetry: PowertoolsTelemetry) -> None:
        self._request_id = request_id
        self._telemetry = telemetry

    def __enter__(self) -> None:
        self._token = _request_id.set(self._request_id)

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        unforeseen = error if isinstance(error, Exception) and not isinstance(error, SluiceError) else None
        if unforeseen is not None:
            self._telemetry.unforeseen("an unforeseen error", unforeseen)
        self._telemetry.flush()
        _request_id.reset(self._token)
        if unforeseen is not None:
            raise UnforeseenError(f"{type(unforeseen).__name__}: the function's log has its stack") from None
