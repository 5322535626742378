"""Answers for script tags: a call of a function of the page, with the answer as its argument."""

import re
from typing import Any

import orjson

from ingest.refusal import Refused
from ingest.request import Request
from ingest.response import Response, json_response

_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.]{0,127}")
_HEADERS = {
    "content-type": "application/javascript; charset=utf-8",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "cross-origin",
}


def callback_of(request: Request) -> str:
    """Return the name of the function that the page wants called, empty where it asks for JSON.

    Raises:
        Refused: `invalid_callback`: it is no such name, but may be a script.
    """
    callback = request.parameter("callback") or ""
    if callback and not _CALLBACK.fullmatch(callback):
        raise Refused("invalid_callback")
    return callback


def response(request: Request, value: Any, cookie: str = "") -> Response:
    """Return a value as the request's page wants it.

    Raises:
        Refused: `invalid_callback`.
    """
    callback = callback_of(request)
    if not callback:
        plain = json_response(200, value, {"cache-control": "no-store"})
        return Response(plain.status, plain.headers, plain.body, cookie=cookie)
    # The comment keeps the answer from being anything but a script.
    return Response(200, _HEADERS, f"/**/{callback}({orjson.dumps(value).decode()})", cookie=cookie)
