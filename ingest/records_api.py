"""The dialect of records.in: Treasure Data's browser SDK 4, its mobile SDKs 1 and its other senders of records."""

from collections.abc import Mapping
from typing import Any

from ingest import document, td_client
from ingest.batch import Batch
from ingest.events_api import check_count
from ingest.intake import Intake, Outcome
from ingest.refusal import Refused
from ingest.request import Request
from ingest.response import Response, json_response

SINGLE = "application/vnd.treasuredata.v1.single+json"
"""The content type of a body that is one record, whatever its members are called."""

_SERVER_ADDRESS = ("application/vnd.treasuredata.v1.js+json", "application/vnd.treasuredata.v1.mobile+json")
_ERRORS: Mapping[str, str] = {
    # By these three names a mobile SDK forgets an event; any other makes it send the event again.
    "invalid_table": "InvalidCollectionNameError",
    "too_many_columns": "InvalidPropertyNameError",
    "stream_unavailable": "ServiceUnavailableError",
}
_OTHER_ERROR = "InvalidPropertyValueError"


def answer(request: Request, intake: Intake) -> Response:
    """Take the records in and answer with a receipt for each: without it a mobile SDK sends them for ever."""
    key = td_client.verify(request, intake, request.path_parameters["database"])
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    visitor = intake.privacy.visitor(request)
    events = [td_client.fill_placeholders(event, visitor) for event in _records(document.read(request), kind)]
    columns = {"td_ip": visitor.ip} if kind in _SERVER_ADDRESS and visitor.ip else {}
    batch = Batch(events, request.path_parameters["table"], single_table=True, columns=columns)
    outcome = intake.accept(request, key, batch, visitor)
    return json_response(200, {"receipts": receipts(len(events), outcome)})


def receipts(count: int, outcome: Outcome) -> list[dict[str, Any]]:
    """Return what became of each of `count` events."""
    answers: list[dict[str, Any]] = [{"success": True} for _ in range(count)]
    for item in outcome.rejected:
        error = {"name": _ERRORS.get(item.code, _OTHER_ERROR), "description": f"{item.code}: {item.message}"}
        answers[item.index] = {"success": False, "error": error}
    return answers


def _records(value: Any, kind: str) -> list[Any]:
    if kind != SINGLE:
        match value:
            case {"events": list(events)} | {"records": list(events)} | list(events):
                return check_count(events)
    if isinstance(value, dict):
        return [value]
    raise Refused("not_events")
