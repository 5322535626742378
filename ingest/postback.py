"""The postback dialect: an event from a third party's server, email or ad, as JSON or in the URL."""

from typing import Any
from urllib.parse import quote, urlsplit

from ingest import document, pixel, td_client
from ingest.batch import Batch
from ingest.document import Document
from ingest.events_api import outcome_response
from ingest.intake import Admitted, Intake
from ingest.refusal import Refused
from ingest.request import Request
from ingest.response import Response, json_response, refusal_headers, refusal_response
from shared import names, rows

OLDEST_SECONDS = 7 * 86_400
"""Maximum age of `td_record_time`."""

_NOT_MEMBERS = {*td_client.KEY_PARAMETERS, "td_format", "td_redirect"}
_URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"  # not encoded
_MAX_URL = 4096


def answer(request: Request, intake: Intake) -> Response:
    """Accept the event; answer with `{}`, an image or a redirect, or to an array of events as the events API does.

    The visitor is redirected even if the event is rejected.

    Raises:
        Refused: `invalid_redirect`.
    """
    target = _redirect(request, intake)
    refused = None
    try:
        response = _accept(request, intake)
    except Refused as refusal:
        refused, response = refusal, refusal_response(refusal)
    if target:
        headers = {"location": target, "cache-control": "no-store"}
        error = refused.code if refused else None
        return Response(302, headers | (refusal_headers(error) if error else {}), "", error)
    if request.parameter("td_format") == "pixel":
        return pixel.refuse(refused) if refused else Response(200, pixel.HEADERS, pixel.GIF)
    return response


def _accept(request: Request, intake: Intake) -> Response:
    """Return the response to a sender that asked for neither image nor redirect.

    Raises:
        Refused: no event was accepted. If some events of an array were, an error would make the sender send them again.
    """
    sender = td_client.verify(request, intake, request.path_parameters["database"])
    visitor = intake.privacy.visitor(request)
    body = _document(request, sender)
    value = body.value
    sent = value if isinstance(value, list) else [value]
    now = int(intake.now())
    batch = Batch(
        sent,
        request.path_parameters["table"],
        single_table=True,
        rewrite=lambda event: td_client.fill_placeholders(_with_time(event, now), visitor),
        originals=body.items() if isinstance(value, list) else body.whole,
    )
    outcome = intake.accept(request, sender, batch, visitor)
    if isinstance(value, list) and outcome.accepted:
        return outcome_response(outcome)
    if outcome.refusal:
        raise outcome.refusal
    return json_response(200, {}, {"cache-control": "no-store"})


def _document(request: Request, sender: Admitted) -> Document:
    body = sender.spending.body(request) if request.method == "POST" else b""
    if body.strip() in (b"", document.PING):
        return Document(document.members(request.query, _NOT_MEMBERS), b"")
    return document.parse(body, request.headers)


def _with_time(event: Any, now: int) -> Any:
    """Rename `td_record_time` to `time`, or leave the event to its time of arrival if that is too old."""
    if not isinstance(event, dict) or "td_record_time" not in event:
        return event
    stamp = event["td_record_time"]
    plain = {name: value for name, value in event.items() if name not in ("td_record_time", "time")}
    if isinstance(stamp, int | float | str):
        _, odd = rows.event_time(stamp, now, earliest=now - OLDEST_SECONDS)
        if odd.get("time_rule") == "out_of_range":
            has_room = len(plain) + len(odd) + len(names.ROW_COLUMNS) <= rows.MAX_COLUMNS
            return plain | odd if has_room else plain
    return plain | {"time": stamp}


def _redirect(request: Request, intake: Intake) -> str:
    """Return the URL to redirect to, empty if none is requested.

    Raises:
        Refused: `invalid_redirect`.
    """
    sent = request.parameter("td_redirect")
    if not sent:
        return ""
    global_id = intake.privacy.visitor(request).global_id
    url = ""
    try:
        url = quote(sent.replace("td_global_id", global_id), safe=_URL_CHARACTERS)  # a lone surrogate raises
        parts = urlsplit(url)
        allowed = (
            parts.scheme in ("https", "http")
            and "@" not in parts.netloc
            and parts.netloc.lower() in intake.redirect_hosts
            and len(url) <= _MAX_URL
        )
    except ValueError:
        allowed = False
    if not allowed:
        raise Refused("invalid_redirect")
    return url
