"""The events API: many events in one JSON body, each with its own verdict."""

from dataclasses import dataclass
from typing import Any

from ingest.intake import MAX_EVENTS, Intake
from ingest.refusal import ANSWERS, Refused
from ingest.request import Request
from ingest.response import Response, json_response
from shared import json_codec


@dataclass(frozen=True, slots=True)
class Batch:
    """A body's events and what it says of them all.

    Attributes:
        events: of JSON's types.
        table: where those go that name no table.
        write_key: as the body brings it.
    """

    events: list[Any]
    table: object = None
    write_key: object = None


def answer(request: Request, intake: Intake) -> Response:
    """Take the events in and answer with a verdict on each.

    A key outside the body is verified before the body is looked at.
    """
    sent_key = _bearer(request) or request.headers.get("x-write-key") or request.parameter("k")
    key = intake.verify(sent_key) if sent_key else None
    batch = read_batch(request.body())
    key = key or intake.verify(batch.write_key)
    table = request.parameter("t") if batch.table is None else batch.table
    verdict = intake.take(request, key, batch.events, table)
    rejected = [
        {"index": item.index, "code": item.code, "message": item.message} for item in verdict.rejected
    ]
    return json_response(
        200 if verdict.accepted else 400, {"accepted": verdict.accepted, "rejected": rejected}
    )


def read_batch(body: bytes) -> Batch:
    """Return the events of a body: an object whose `events` is an array, an array, or one event.

    Raises:
        Refused: `invalid_json`, `not_events`, `no_events`, `too_many_events`.
    """
    try:
        value = json_codec.parse(body)
    except json_codec.InvalidJsonError as error:
        raise Refused("invalid_json", f"{ANSWERS['invalid_json'].meaning}: {error}") from error
    match value:
        case {"events": list(events)}:
            batch = Batch(events, value.get("table"), value.get("write_key"))
        case list():
            batch = Batch(value)
        case dict():
            batch = Batch([value])
        case _:
            raise Refused("not_events")
    if not batch.events:
        raise Refused("no_events")
    if len(batch.events) > MAX_EVENTS:
        raise Refused("too_many_events")
    return batch


def _bearer(request: Request) -> str:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else ""
