"""The events that arrived, from the stream, S3 or a file, to compare with tracking plans."""

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ops.books import planned_spans
from ops.events.event_tail import Kind, events_of, unpacked
from ops.failure import Failure
from ops.stack import Stack
from ops.stream.reader import RangeEnd, StreamReader
from shared import rows
from shared.clock import SystemClock
from shared.errors import InvalidObjectError
from shared.rows import Arrival
from worker.record import decode, number
from worker.shards import Shards
from worker.span import ChunkKey, Span
from worker.span_object import SpanObjects


class Arrived(NamedTuple):
    """An event that arrived, as the row that it became or, if it was rejected, would have become.

    Attributes:
        account: its account.
        table: its table.
        row: values by column.
        at: when the ingest received it, UNIX seconds.
    """

    account: str
    table: str
    row: Mapping[str, Any]
    at: float


def rows_of(record: Mapping[str, Any], shard: str) -> Iterator[Arrived]:
    """Yield the events of a record as GetRecords returns it, including the rows that rejected events would have become."""
    arrived_at = record["ApproximateArrivalTimestamp"].timestamp()
    found = decode(record["Data"], shard, number(record["SequenceNumber"]), arrived_at)
    for event in events_of(found, shard):
        if event.kind is Kind.EVENT:
            yield Arrived(event.account, event.table, event.row, event.at)
        elif event.table and (row := _row(event.row, event.at)):
            yield Arrived(event.account, event.table, row, event.at)


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
            for event in events_of(decode(data, shard, number(kinesis["sequenceNumber"]), arrived_at), shard):
                if event.kind is Kind.EVENT:
                    yield Arrived(event.account, event.table, event.row, event.at)
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{file} was not written by `sluice record`") from error


def stream_events(shards: Shards, since: float | None = None) -> Iterator[Arrived]:
    """Yield the events on the stream that were received at a time or later.

    Raises:
        Failure: the stream does not go back that far.
        ShardUnreadableError: Kinesis does not answer.
    """
    reader, start = StreamReader(shards, SystemClock()), RangeEnd(at=since)
    reader.check(start)
    for shard in reader.shards():
        for page in reader.read(shard, start, RangeEnd()):
            yield from _rows(page, shard, since)


def events_since(stack: Stack, since: float | None, *, archive: bool) -> Iterator[Arrived]:
    """Yield the events received since a time, from the stream or from S3, where rejected events are not among them."""
    if not archive:
        yield from stream_events(stack.shards(), since)
        return
    clock, objects = SystemClock(), stack.objects()
    for span in planned_spans.spans(stack.ledger(), objects, since or 0.0, clock.now() + 1):
        for key in span.chunks if not span.is_forced else ():
            if not key.group.code and not key.group.is_rejected:
                yield from _rows_in(objects, span, key, since)


def _rows_in(objects: SpanObjects, span: Span, key: ChunkKey, since: float | None) -> Iterator[Arrived]:
    try:
        payload = objects.payload(span, key)
    except InvalidObjectError:
        return  # no longer kept
    for row in unpacked(payload):
        at = row.get("received_at", span.received_at) / 1000
        if since is None or at >= since:
            yield Arrived(key.account, key.group.table, row, at)


def _rows(records: Iterable[Mapping[str, Any]], shard: str, since: float | None) -> Iterator[Arrived]:
    for record in records:
        for event in rows_of(record, shard):
            if since is None or event.at >= since:
                yield event


def _row(event: Mapping[str, Any], at: float) -> dict[str, Any] | None:
    """Return the row that a rejected event would have become; None if it cannot become one."""
    if not event:
        return None
    try:
        packed = rows.encode(dict(event), Arrival(int(at * 1000)), lambda: "-")
    except rows.Rejected:
        return None
    return next(iter(unpacked(packed)), None)
