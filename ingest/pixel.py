"""The pixel dialect: one event in the query string of an image, for pages, mails and AMP without a script.

`k` is the write key and `t` the table; every other parameter is a member of the event, so `table`, `time` and
`event_id` mean what they mean everywhere. The same address serves as a link's `ping`.
"""

from ingest import document
from ingest.batch import Batch
from ingest.intake import Intake
from ingest.refusal import ANSWERS, AnyCode, Refused
from ingest.request import Request
from ingest.response import Response, refusal_headers

GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00"
    b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
"""A transparent image of one pixel."""

HEADERS = {
    "content-type": "image/gif",
    "cache-control": "no-store, no-cache, must-revalidate, private, max-age=0",
    "pragma": "no-cache",  # mail clients' proxies
    "cross-origin-resource-policy": "cross-origin",  # pages that embed only what allows it
}
_NOT_MEMBERS = {"k", "t"}


def answer(request: Request, intake: Intake) -> Response:
    """Take the event in and answer with the image, also where the event is rejected."""
    page = request.headers.get("referer")  # the page that shows an image is the image's referrer
    return _accept(request, intake, {"td_url": page} if page else {})


def answer_ping(request: Request, intake: Intake) -> Response:
    """Take in the event of a link that was followed, as `<a ping>` has browsers tell; what they post says nothing."""
    headers = {"td_url": request.headers.get("ping-from"), "ping_to": request.headers.get("ping-to")}
    return _accept(request, intake, {name: text for name, text in headers.items() if text})


def refuse(refused: Refused) -> Response:
    """Answer with the image all the same: no page shows a broken one."""
    return _image(refused.code)


def answer_head(_request: Request, _intake: Intake) -> Response:
    """Answer what a GET would be answered, and take nothing in: who asks for headers has not seen the page."""
    return Response(200, HEADERS)


def _accept(request: Request, intake: Intake, columns: dict[str, str]) -> Response:
    key = intake.verify(request.parameter("k"))
    visitor = intake.privacy.visitor(request)
    event = document.members(pair for pair in request.query if pair[0] not in _NOT_MEMBERS)
    batch = Batch([event], request.parameter("t"), columns={**columns, **visitor.columns})
    outcome = intake.accept(request, key, batch, visitor)
    return _image(outcome.rejected[0].code) if outcome.rejected else Response(200, HEADERS, GIF)


def _image(code: AnyCode) -> Response:
    return Response(ANSWERS[code].status, {**refusal_headers(code), **HEADERS}, GIF, code)
