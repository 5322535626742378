"""The records API: Treasure Data's browser SDK 4, its mobile SDKs 1 and other clients of its records endpoint."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ingest import document, td_client
from ingest.batch import Batch
from ingest.document import Document
from ingest.intake import EventOutcome, Intake
from ingest.refusal import Refused
from ingest.request import Request
from ingest.response import Response, json_response

SINGLE = "application/vnd.treasuredata.v1.single+json"
"""The content type of a body that is a single record, even if it has an `events` or `records` member."""

_NAMES_EVENTS = ("TD-Android-SDK/", "TD-iOS-SDK/")
"""How the User-Agent of mobile SDKs starts. They name each event with `uuid`; to other senders that is a column."""
_SERVER_ADDRESS = ("application/vnd.treasuredata.v1.js+json", "application/vnd.treasuredata.v1.mobile+json")
_ERRORS: Mapping[str, str] = {
    # On these three names a mobile SDK drops the event; on any other it sends the event again.
    "invalid_table": "InvalidCollectionNameError",
    "too_many_columns": "InvalidPropertyNameError",
    "stream_unavailable": "ServiceUnavailableError",
}
_OTHER_ERROR = "InvalidPropertyValueError"


def answer(request: Request, intake: Intake) -> Response:
    """Accept the records and answer with a receipt for each; without receipts a mobile SDK retries forever."""
    sender = td_client.verify(request, intake, request.path_parameters["database"])
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    visitor = intake.privacy.visitor(request)
    sent, originals = _records(document.read(request, sender), kind)
    columns = {"td_ip": visitor.ip} if kind in _SERVER_ADDRESS and visitor.ip else {}
    batch = Batch(
        sent,
        request.path_parameters["table"],
        single_table=True,
        columns=columns,
        rewrite=partial(td_client.fill_placeholders, visitor=visitor),
        sent=sent if request.headers.get("user-agent", "").startswith(_NAMES_EVENTS) else (),
        originals=originals,
    )
    outcome = intake.accept(request, sender, batch, visitor)
    return json_response(200, {"receipts": receipts(len(sent), outcome)})


def receipts(count: int, outcome: EventOutcome) -> list[dict[str, Any]]:
    """Return a receipt for each of `count` events."""
    answers: list[dict[str, Any]] = [{"success": True} for _ in range(count)]
    for item in outcome.rejected:
        error = {"name": _ERRORS.get(item.code, _OTHER_ERROR), "description": f"{item.code}: {item.message}"}
        answers[item.index] = {"success": False, "error": error}
    return answers


def _records(body: Document, kind: str) -> tuple[list[Any], Callable[[], Sequence[bytes]]]:
    """Return a body's records, and what returns each as it was sent."""
    value = body.value
    if kind != SINGLE and body.text:  # a form is one record
        if isinstance(value, list):
            return value, body.items()
        for name in ("events", "records") if isinstance(value, dict) else ():
            if isinstance(value.get(name), list):
                return value[name], body.items(name)
    if isinstance(value, dict):
        return [value], body.whole
    raise Refused("not_events")
