"""The dialects of Treasure Data's browser SDK before version 4.

Version 3 posts a record as JSON. Versions 1 and 2 ask for a script whose address holds the record, and post the same
address without a body when the page is left.
"""

from base64 import b64decode
from typing import Any

from ingest import document, jsonp, td_client
from ingest.batch import Batch
from ingest.intake import Intake
from ingest.refusal import ANSWERS, Refused
from ingest.request import Request
from ingest.response import Response, json_response, refusal_response


def answer_post(request: Request, intake: Intake) -> Response:
    """Take the record of the body in, or of the address where there is no body."""
    return _accept(request, intake) or json_response(200, {})


def answer_get(request: Request, intake: Intake) -> Response:
    """Take the record of the address in, and answer with a script that says so."""
    jsonp.callback_of(request)  # refused before anything is taken in
    return _accept(request, intake) or jsonp.response(request, {"created": True})


def _accept(request: Request, intake: Intake) -> Response | None:
    """Return the refusal of a rejected record."""
    key = td_client.verify(request, intake, request.path_parameters["database"])
    visitor = intake.privacy.visitor(request)
    value = _value(request)
    if not isinstance(value, dict):
        raise Refused("not_events")
    event = td_client.fill_placeholders(value, visitor)
    outcome = intake.accept(
        request, key, Batch([event], request.path_parameters["table"], single_table=True), visitor
    )
    if not outcome.rejected:
        return None
    [rejection] = outcome.rejected
    return refusal_response(Refused(rejection.code, rejection.message))


def _value(request: Request) -> Any:
    body = request.body()
    if body and request.method == "POST":
        return document.read(request)
    try:
        # A browser that did not encode the address made spaces of its pluses.
        text = (request.parameter("data") or "").replace(" ", "+").replace("-", "+").replace("_", "/")
        data = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise Refused("invalid_json", f"{ANSWERS['invalid_json'].meaning}: data is not base64") from None
    return document.value_of(data, "")
