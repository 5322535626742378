"""The events that arrived, from S3, to compare with tracking plans."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import msgpack

from ops.books import planned_spans
from ops.books.stored_spans import kept_events, payloads
from ops.events.seen_event import json_object
from ops.stack import Stack
from shared import rows
from shared.clock import SystemClock
from shared.errors import InvalidObjectError
from shared.rows import Arrival
from worker.bucket import Bucket
from worker.ledger import Ledger
from worker.rows import values
from worker.span import ChunkKey, Span
from worker.span_object import SpanObjects


class Arrived(NamedTuple):
    """An event that arrived, as the row that it became or, if it was rejected, would have become.

    `at` is when the ingest received it, UNIX seconds.
    """

    account: str
    table: str
    row: Mapping[str, Any]
    at: float


def events_since(stack: Stack, account: str, since: float) -> Iterator[Arrived]:
    """Yield the events of an account that were received since a time, as `stored_events`."""
    return stored_events(stack.ledger(), stack.objects(), stack.bucket(), account, since)


def stored_events(
    ledger: Ledger, objects: SpanObjects, bucket: Bucket, account: str, since: float
) -> Iterator[Arrived]:
    """Yield the events of an account that were received since a time and are in S3, with the rejected events of which copies are kept."""
    for span in planned_spans.spans(ledger, objects, since, SystemClock().now() + 1):
        if not span.is_forced:
            keys = [key for key in span.chunks if key.account == account]
            found = chain(_accepted(bucket, objects, span, keys), _rejected(bucket, span, keys))
            yield from (event for event in found if event.at >= since)


def _accepted(
    bucket: Bucket, objects: SpanObjects, span: Span, keys: Iterable[ChunkKey]
) -> Iterator[Arrived]:
    with suppress(InvalidObjectError):  # no longer kept, or damaged
        planned = [key for key in keys if not key.group.code]
        for key, payload in payloads(bucket, span, objects.index(span), planned).items():
            for row, _ in values(payload):
                at = row.get("received_at", span.received_at) / 1000
                yield Arrived(key.account, key.group.table, row, at)


def _rejected(bucket: Bucket, span: Span, keys: Iterable[ChunkKey]) -> Iterator[Arrived]:
    for key in keys:
        if key.group.is_rejected and key.group.table:
            with suppress(InvalidObjectError):
                for event in kept_events(bucket, span, key):
                    at = event.received_at / 1000
                    if row := _row(json_object(event.original), at):
                        yield Arrived(key.account, key.group.table, row, at)


def _row(event: Mapping[str, Any], at: float) -> dict[str, Any] | None:
    """Return the row that a rejected event would have become; None if it cannot become one."""
    if not event:
        return None
    try:
        packed = rows.encode(dict(event), Arrival(int(at * 1000)), lambda: "-")
    except rows.Rejected:
        return None
    row: dict[str, Any] = msgpack.unpackb(packed)
    return row
