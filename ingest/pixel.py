"""The pixel dialect: one event in the query string of an image, for pages without scripts, emails and AMP.

`k` is the write key and `t` the table. Every other parameter is a member of the event, so `table`, `time` and
`event_id` work as in other dialects. The same URL can be the `ping` of a link.
"""

from ingest import document
from ingest.batch import Batch
from ingest.intake import Intake
from ingest.refusal import ANSWERS, Refused
from ingest.request import Request
from ingest.response import Response, refusal_headers

GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00"
    b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
"""A transparent one-pixel image."""

HEADERS = {
    "content-type": "image/gif",
    "cache-control": "no-store, no-cache, must-revalidate, private, max-age=0",
    "pragma": "no-cache",  # mail clients' proxies
    "cross-origin-resource-policy": "cross-origin",  # for pages that embed only resources that allow it
}
_NOT_MEMBERS = {"k", "t"}


def answer(request: Request, intake: Intake) -> Response:
    """Accept the event and answer with the image, even if the event is rejected."""
    page = request.headers.get("referer")  # an image's referrer is the page that shows it
    return _accept(request, intake, {"td_url": page} if page else {})


def answer_ping(request: Request, intake: Intake) -> Response:
    """Accept the event of a followed link (`<a ping>`); the posted body carries no information."""
    headers = {"td_url": request.headers.get("ping-from"), "ping_to": request.headers.get("ping-to")}
    return _accept(request, intake, {name: text for name, text in headers.items() if text})


def refuse(refused: Refused) -> Response:
    """Answer with the image all the same, so that pages never show a broken one."""
    status = ANSWERS[refused.code].status
    return Response(status, {**refusal_headers(refused.code), **HEADERS}, GIF, refused.code)


def answer_head(_request: Request, _intake: Intake) -> Response:
    """Answer with the headers of a GET, without accepting an event."""
    return Response(200, HEADERS)


def _accept(request: Request, intake: Intake, columns: dict[str, str]) -> Response:
    sender = intake.verify(request.parameter("k"), "the query parameter `k`")
    visitor = intake.privacy.visitor(request)
    table = request.parameter("t")
    # in the event, so that the copy of a rejected one names it
    named = {} if table is None else {"table": table}
    event = named | document.members(request.query, _NOT_MEMBERS)
    batch = Batch([event], columns={**columns, **visitor.columns})
    outcome = intake.accept(request, sender, batch, visitor)
    return refuse(outcome.refusal) if outcome.refusal else Response(200, HEADERS, GIF)
