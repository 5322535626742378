"""The events that arrived, from S3 or a file, to compare with tracking plans."""

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ops.books import planned_spans
from ops.events import seen_event
from ops.events.seen_event import Kind, json_object, unpacked
from ops.failure import Failure
from ops.stack import Stack
from shared import rows
from shared.clock import SystemClock
from shared.errors import InvalidObjectError
from shared.rows import Arrival
from worker.ledger import Ledger
from worker.record import decode, number
from worker.rejected_events import RejectedEvents
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


def saved_events(file: Path) -> Iterator[Arrived]:
    """Yield the events that `sluice record` saved.

    Raises:
        Failure: the file cannot be read, or is not from `sluice record`.
    """
    try:
        records = json.loads(file.read_text())["Records"]
        for one_of in records:
            kinesis = one_of["kinesis"]
            shard = one_of["eventID"].partition(":")[0]
            arrived_at = kinesis["approximateArrivalTimestamp"]
            data = b64decode(kinesis["data"])
            for event in seen_event.events_of(
                decode(data, shard, number(kinesis["sequenceNumber"]), arrived_at), shard
            ):
                if event.kind is Kind.EVENT:
                    yield Arrived(event.account, event.table, event.row, event.at)
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{file} was not written by `sluice record`") from error


def events_since(stack: Stack, account: str, since: float) -> Iterator[Arrived]:
    """Yield the events of an account that were received since a time, as `stored_events`."""
    return stored_events(stack.ledger(), stack.objects(), stack.rejected_events(), account, since)


def stored_events(
    ledger: Ledger, objects: SpanObjects, copies: RejectedEvents, account: str, since: float
) -> Iterator[Arrived]:
    """Yield the events of an account that were received since a time and are in S3, with the rejected events of which copies are kept."""
    for span in planned_spans.spans(ledger, objects, since, SystemClock().now() + 1):
        if not span.is_forced:
            keys = [key for key in span.chunks if key.account == account]
            found = chain(_accepted(objects, span, keys), _rejected(copies, span, keys))
            yield from (event for event in found if event.at >= since)


def _accepted(objects: SpanObjects, span: Span, keys: Iterable[ChunkKey]) -> Iterator[Arrived]:
    with suppress(InvalidObjectError):  # no longer kept, or damaged
        payloads = objects.payloads(span, [key for key in keys if not key.group.code])
        for key, payload in payloads.items():
            for row in unpacked(payload):
                at = row.get("received_at", span.received_at) / 1000
                yield Arrived(key.account, key.group.table, row, at)


def _rejected(copies: RejectedEvents, span: Span, keys: Iterable[ChunkKey]) -> Iterator[Arrived]:
    for key in keys:
        if key.group.is_rejected and key.group.table:
            with suppress(InvalidObjectError):
                for event in copies.get(span, key):
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
    return next(iter(unpacked(packed)), None)
