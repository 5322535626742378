"""Events as commands see them: read from records, selected by filters."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from shared.errors import InvalidObjectError
from worker.record import Record, sequence_number
from worker.rows import values


class Kind(StrEnum):
    """The kind of what was seen: an accepted event, a rejected event of an accepted request, or a request refused as a whole."""

    EVENT = "event"
    REJECTED = "rejected"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """An event, or a refused request. What is unknown, or does not apply, is empty.

    Attributes:
        at: when the ingest received it, UNIX seconds.
        arrived_at: when it arrived on the stream, UNIX seconds, approximately; 0 for a refused request.
        request_id: its envelope's request id; for a refused request, the gateway's.
        row: its columns; for a rejected event, the original if that is a JSON object.
        code: why it was rejected or refused.
        path: the route of a refused request.
    """

    kind: Kind
    at: float
    arrived_at: float = 0.0
    account: str = ""
    table: str = ""
    key_id: str = ""
    event_id: str = ""
    request_id: str = ""
    shard: str = ""
    sequence_number: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    path: str = ""

    @property
    def of(self) -> str:
        """Its account and table in one word."""
        return f"{self.account}.{self.table}" if self.table else self.account


@dataclass(frozen=True, slots=True)
class Notice:
    """A tail's report about itself, a sentence about a source: a shard or `log`. If `is_over`, what was said before holds no more."""

    source: str
    said: str
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class EventFilter:
    """A filter for events. By default it selects all; columns are compared as text. `rejected_only` also selects refused requests."""

    account: str = ""
    table: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    rejected_only: bool = False

    def has(self, seen: SeenEvent) -> bool:
        """Return whether the filter selects an event or a refused request."""
        return (
            not (self.rejected_only and seen.kind is Kind.EVENT)
            and self.account in ("", seen.account)
            and self.table in ("", seen.table)
            and all(text_of(seen.row.get(name)) == value for name, value in self.columns.items())
        )


def text_of(value: Any) -> str:
    """Return a column's value as text: a string as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=repr)


def events_of(record: Record, shard: str) -> Iterator[SeenEvent]:
    """Yield the events of a record, including those that could not become rows. Damaged rows are one undecodable event."""
    common = SeenEvent(
        kind=Kind.EVENT,
        at=record.received_at / 1000,
        arrived_at=record.arrived_at,
        account=record.account,
        key_id=record.key_id,
        request_id=record.request_id,
        shard=shard,
        sequence_number=sequence_number(record.number),
    )
    for table, _, data in record.blocks:
        try:
            for row, _ in values(data):
                columns = row if isinstance(row, dict) else {}
                if table.startswith("-"):
                    yield rejected(common, table[1:], "", row)
                else:
                    yield replace(common, table=table, event_id=str(columns.get("event_id", "")), row=columns)
        except InvalidObjectError:
            yield rejected(common, "undecodable", table, "")
    for event in record.rejected:
        yield rejected(common, event.code, event.table, event.original)


def rejected(common: SeenEvent, code: str, table: str, original: Any) -> SeenEvent:
    """Return a rejected event, with what it shares with its record's other events; the original is empty if it was not kept.

    If no table is given, the event's own member `table` counts.
    """
    members = json_object(original)
    named = members.get("table")
    table = table or (named if isinstance(named, str) else "")
    event_id = members.get("event_id")
    return replace(
        common,
        kind=Kind.REJECTED,
        table=table,
        event_id=event_id if isinstance(event_id, str) else "",
        code=code,
        row=members,
    )


def json_object(text: Any) -> dict[str, Any]:
    """Return a text if it is a JSON object, else an empty one. In a sender's other text, personal data cannot be told apart."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
