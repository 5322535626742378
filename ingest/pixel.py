"""The pixel dialect: one event in the query string of an image, for pages, mails and AMP without a script.

`k` is the write key and `t` the table; every other parameter is a member of the event, so `table`, `time` and
`event_id` mean what they mean everywhere.
"""

from collections.abc import Mapping
from typing import Any

from ingest.intake import Intake
from ingest.refusal import ANSWERS, AnyCode, Refused
from ingest.request import Request
from ingest.response import Response, refusal_headers

GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00"
    b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
"""A transparent image of one pixel."""

_HEADERS = {
    "content-type": "image/gif",
    "cache-control": "no-store, no-cache, must-revalidate, private, max-age=0",
    "pragma": "no-cache",  # mail clients' proxies
    "cross-origin-resource-policy": "cross-origin",  # pages that embed only what allows it
}
_NOT_MEMBERS = {"k", "t"}


def answer(request: Request, intake: Intake) -> Response:
    """Take the event in and answer with the image, also where the event is rejected."""
    key = intake.verify(request.parameter("k"))
    page = request.headers.get("referer")  # the page that shows an image is the image's referrer
    columns = {"td_url": page} if page else None
    verdict = intake.take(request, key, [_event(request.query)], request.parameter("t"), columns)
    return _image(verdict.rejected[0].code) if verdict.rejected else Response(200, _HEADERS, GIF)


def refuse(refused: Refused) -> Response:
    """Answer with the image all the same: no page shows a broken one."""
    return _image(refused.code)


def answer_head(_request: Request, _intake: Intake) -> Response:
    """Answer what a GET would be answered, and take nothing in: who asks for headers has not seen the page."""
    return Response(200, _HEADERS)


def _event(query: tuple[tuple[str, str], ...]) -> Mapping[str, Any]:
    """Return the parameters as an event; a repeated one holds a list."""
    event: dict[str, Any] = {}
    for name, value in query:
        if name in _NOT_MEMBERS:
            continue
        if name not in event:
            event[name] = value
        elif isinstance(event[name], list):
            event[name].append(value)
        else:
            event[name] = [event[name], value]
    return event


def _image(code: AnyCode) -> Response:
    return Response(ANSWERS[code].status, {**refusal_headers(code), **_HEADERS}, GIF, code)
