"""The events that arrived, from S3, to compare with tracking plans."""

from collections.abc import Iterator, Mapping
from copy import replace
from typing import Any

import msgpack

from ops.books import planned_spans
from ops.events.event_query import EventQuery
from ops.events.seen_event import SeenEvent
from ops.events.span_search import SpanSearch
from ops.stack import Stack
from shared import rows
from shared.clock import SystemClock
from shared.rows import Arrival
from worker.states import State

_COUNT_ELSEWHERE = (State.REPLACED, State.COPY)


def events_since(stack: Stack, account: str, since: float) -> Iterator[SeenEvent]:
    """Yield the events of an account that were received since a time and are in S3, as the rows that they became.

    Rejected events of which copies are kept are there too, as the rows that they would have become. Each counts once: of rows that were
    edited, only the new ones, and no copies of rows that count elsewhere.
    """
    ledger, objects = stack.ledger(), stack.objects()
    search = SpanSearch(EventQuery(account), ledger, objects, stack.bucket())
    for span in planned_spans.spans(ledger, objects, since, SystemClock().now() + 1):
        for found in () if span.is_forced else search.search(span).events:
            group = None if found.key is None else found.key.group
            if group is None or found.seen.at < since or found.state in _COUNT_ELSEWHERE:
                continue
            if not group.code:
                yield found.seen
            elif group.is_rejected and group.table and (row := _row(found.seen.row, found.seen.at)):
                yield replace(found.seen, row=row)


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
