"""The events API: many events in one body, each accepted or rejected on its own."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgpack

from ingest import document
from ingest.batch import MAX_ID_CHARACTERS, Batch
from ingest.intake import EventOutcome, Intake
from ingest.refusal import Refused
from ingest.request import Request
from ingest.response import Response, json_response

_KEY_PLACES = "`authorization: Bearer KEY`, `x-write-key: KEY`, the query parameter `k` or the field `write_key` of a batch"


def answer(request: Request, intake: Intake) -> Response:
    """Accept the events and answer with how many were accepted and which were rejected.

    A key outside the body is verified before the body is read.
    """
    sent_key = request.credentials("bearer") or request.headers.get("x-write-key") or request.parameter("k")
    sender = intake.verify(sent_key, _KEY_PLACES) if sent_key else None
    body = document.read(request, sender)
    value = body.value
    events = events_of(value) if body.text else [value]  # a form is one event, whatever its fields are called
    options = value if isinstance(value, dict) and events is value.get("events") else {}
    sender = sender or intake.verify(options.get("write_key"), _KEY_PLACES)
    table = options.get("table")
    visitor = intake.privacy.visitor(request)
    batch = Batch(
        events,
        request.parameter("t") if table is None else table,
        columns=visitor.columns,
        sent_at=options.get("sent_at"),
        id=_batch_id(request, options),
        originals=body.items("events") if options or events is value else body.whole,
    )
    outcome = intake.accept(request, sender, batch, visitor)
    return outcome_response(outcome, _ids(outcome, len(events)) if request.parameter("ids") == "1" else {})


def outcome_response(outcome: EventOutcome, more: Mapping[str, Any] = MappingProxyType({})) -> Response:
    """Return the response with the accepted and rejected events and `more` members: 200 if any was accepted, else 400."""
    rejected = [
        {"index": item.index, "code": item.code, "message": item.message} for item in outcome.rejected
    ]
    return json_response(
        200 if outcome.accepted else 400, {"accepted": outcome.accepted, "rejected": rejected, **more}
    )


def _ids(outcome: EventOutcome, count: int) -> dict[str, Any]:
    """Return the response's member with the id of each event by its index; None for a rejected event."""
    ids: list[str | None] = [None] * count
    for index, (_, row) in outcome.encoded.items():
        ids[index] = msgpack.unpackb(row).get("event_id")
    for item in outcome.rejected:
        ids[item.index] = None
    return {"event_ids": ids}


def events_of(value: Any) -> list[Any]:
    """Return the events of a body: an object with an `events` array, an array, or a single event.

    Raises:
        Refused: `not_events`.
    """
    match value:
        case {"events": list(events)} | list(events):
            return events
        case dict():
            return [value]
    raise Refused("not_events")


def _batch_id(request: Request, options: dict[str, Any]) -> str:
    """Return the batch id from the header or the body, empty if neither has one."""
    header = request.headers.get("idempotency-key")
    batch_id = options.get("batch_id") if header is None else header.strip().strip('"')
    if batch_id is None:
        return ""
    if not isinstance(batch_id, str) or not 1 <= len(batch_id) <= MAX_ID_CHARACTERS:
        raise Refused("invalid_batch_id")
    return batch_id
