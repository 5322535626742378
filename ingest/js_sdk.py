"""The dialects of Treasure Data's browser SDK before version 4.

Version 3 posts a record as JSON. Versions 1 and 2 load a script whose URL contains the record, and post to the same
URL without a body when the visitor leaves the page.
"""

from base64 import b64decode
from functools import partial

from ingest import document, td_client
from ingest.batch import Batch
from ingest.document import Document
from ingest.intake import Admitted, Intake
from ingest.refusal import Refused
from ingest.request import Request
from ingest.response import Response, callback_of, json_response, jsonp_response


def answer_post(request: Request, intake: Intake) -> Response:
    """Accept the record in the body, or in the URL if there is no body."""
    _accept(request, intake)
    return json_response(200, {})


def answer_get(request: Request, intake: Intake) -> Response:
    """Accept the record in the URL and answer with a script that says so."""
    callback_of(request)  # reject a bad callback before accepting the record
    _accept(request, intake)
    return jsonp_response(request, {"created": True})


def _accept(request: Request, intake: Intake) -> None:
    sender = td_client.verify(request, intake, request.path_parameters["database"])
    visitor = intake.privacy.visitor(request)
    sent = _document(request, sender)
    if not isinstance(sent.value, dict):
        raise Refused("not_events")
    batch = Batch(
        [sent.value],
        request.path_parameters["table"],
        single_table=True,
        rewrite=partial(td_client.fill_placeholders, visitor=visitor),
        originals=sent.whole,
    )
    if refusal := intake.accept(request, sender, batch, visitor).refusal:
        raise refusal


def _document(request: Request, sender: Admitted) -> Document:
    if request.method == "POST" and (body := sender.spending.body(request)):
        return document.parse(body, request.headers)
    try:
        # If the page did not URL-encode the record, its pluses arrive as spaces.
        text = (request.parameter("data") or "").replace(" ", "+").replace("-", "+").replace("_", "/")
        data = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise Refused("invalid_json", "the query parameter `data` is not base64") from None
    return document.parse(data)
