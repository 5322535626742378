"""Spans by the time at which their records arrived: from the names of their objects, which most often are in the order of the plan."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import batched

from ops.background import in_order
from worker.chain import ChainId
from worker.ledger import Ledger
from worker.record import Number
from worker.span import Place, Span
from worker.span_object import SpanObjects, Stored, hour_of, name_of
from worker.sweeper import span_there

_CLOCKS_DIFFER_SECONDS = 3600.0
_UNORDERED_SECONDS = 60.0  # by which a chain's arrivals, which are approximate, may be out of order
_BATCH = 100  # DynamoDB returns as many items at once


def spans(
    ledger: Ledger,
    objects: SpanObjects,
    since: float,
    until: float,
    *,
    held: float = 0.0,
    enough: Callable[[], float] = lambda: float("inf"),
) -> Iterator[Span]:
    """Yield the spans with rows whose records arrived between two times, at least in part, hour by hour in the order of their objects.

    A chain's records arrive in its order: behind the first span that is too late, nothing more of it is read. Times are in UNIX seconds;
    `until` is exclusive. A record may have been on the stream for `held` seconds before it was planned. `enough`, asked again and again,
    returns a time from which on nothing is of interest any more. Until then, later hours are looked through too, for edited rows and for
    objects that the sweep or forgetting has written anew.
    """
    first, last = (
        hour_of(max(0.0, since - _CLOCKS_DIFFER_SECONDS)),
        hour_of(until + held + _CLOCKS_DIFFER_SECONDS),
    )
    over: dict[ChainId, Number] = {}  # the first record that is too late
    hours = (hour for hour in objects.hours() if first <= hour and (hour <= last or enough() == float("inf")))
    listed = in_order(lambda hour: list(objects.listed(hour)), hours)
    wanted = (
        (stored, place)
        for names in listed
        for stored, place in _guessed(names)
        if stored.chain not in over or stored.first < over[stored.chain]
    )
    batches = batched(wanted, _BATCH, strict=False)
    for found in in_order(lambda batch: list(_of(ledger, batch)), batches):
        for span in found:
            end = min(until, enough())
            if is_within(span, since, end):
                yield span
            elif span.chain.is_of_stream and span.earliest >= (end + _UNORDERED_SECONDS) * 1000:
                over[span.chain] = min(span.first, over.get(span.chain, span.first))


def _guessed(names: Iterable[Stored]) -> Iterator[tuple[Stored, Place]]:
    """Yield objects, each with the place where its span most likely is: behind the one before."""
    last: dict[ChainId, str] = {}
    for stored in names:
        chain = stored.chain
        after = last.get(chain, stored.first) if chain.is_of_stream else stored.first
        last[chain] = stored.last
        yield stored, Place(chain, after)


def _of(ledger: Ledger, batch: Sequence[tuple[Stored, Place]]) -> Iterator[Span]:
    """Yield the spans that refer to objects."""
    guessed = ledger.get_all({place for _, place in batch})
    for stored, place in batch:
        span = _if_of(stored, guessed.get(place)) or _if_of(stored, span_there(ledger, stored))
        if span is not None:
            yield span


def _if_of(stored: Stored, span: Span | None) -> Span | None:
    """Return a span if it refers to the object."""
    is_so = span is not None and span.object is not None and name_of(span) == stored.name
    return span if is_so else None


def is_within(span: Span, since: float, until: float) -> bool:
    """Return whether records of a span may have arrived between two times (UNIX seconds)."""
    if not span.records:
        return since * 1000 <= span.received_at < until * 1000
    return span.earliest < until * 1000 and span.latest >= since * 1000
