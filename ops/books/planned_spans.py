"""Spans by the time at which their records arrived: from the names of their objects, which are in the order of the plan."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import batched

from worker.ledger import Ledger
from worker.span import Place, Span
from worker.span_object import SpanObjects, Stored, hour_of, name_of

_CLOCKS_DIFFER_SECONDS = 3600.0
_AT_ONCE = 10  # as many as a boto3 client has connections
_BATCH = 200


def spans(
    ledger: Ledger, objects: SpanObjects, since: float, until: float, held: float = 0.0
) -> Iterator[Span]:
    """Yield the spans with rows whose records arrived between two times, at least in part, in the order of their plan.

    Args:
        ledger: the ledger.
        objects: the span objects.
        since: UNIX seconds.
        until: UNIX seconds; exclusive.
        held: for how many seconds a record may have been on the stream before it was planned.

    Raises:
        UnavailableError: S3 or the ledger cannot be reached.
    """
    first, last = (
        hour_of(max(0.0, since - _CLOCKS_DIFFER_SECONDS)),
        hour_of(until + held + _CLOCKS_DIFFER_SECONDS),
    )
    names = (stored for hour in objects.hours() if first <= hour <= last for stored in objects.of_hour(hour))
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for batch in batched(names, _BATCH, strict=False):
            for span in threads.map(lambda stored: span_of(ledger, stored), batch):
                if span is not None and is_within(span, since, until):
                    yield span


def span_of(ledger: Ledger, stored: Stored) -> Span | None:
    """Return the span that refers to an object; None if none does."""
    span = (
        ledger.preceding(stored.chain, stored.first)
        if stored.chain.is_of_stream
        else ledger.get(Place(stored.chain, stored.first))
    )
    if span is None or span.object is None or name_of(span) != stored.name:
        return None
    return span


def is_within(span: Span, since: float, until: float) -> bool:
    """Return whether records of a span may have arrived between two times (UNIX seconds)."""
    if not span.records:
        return since * 1000 <= span.received_at < until * 1000
    return span.earliest < until * 1000 and span.latest >= since * 1000
