"""HTTP responses in the form that API Gateway expects (payload format 2.0)."""

import re
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from ingest.refusal import ANSWERS, AnyCode, Refused
from ingest.request import Request
from shared import json_codec

_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.]{0,127}")
_SCRIPT_HEADERS = {
    "content-type": "application/javascript; charset=utf-8",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "cross-origin",
}


class Response(NamedTuple):
    """One HTTP response.

    Attributes:
        status: the HTTP status.
        headers: names in lower case.
        body: bytes are sent as base64.
        error: the code of a rejected request.
        cookie: a `Set-Cookie` header, if any.
    """

    status: int
    headers: Mapping[str, str]
    body: str | bytes = ""
    error: AnyCode | None = None
    cookie: str = ""

    def to_payload(self, added: Mapping[str, str]) -> dict[str, Any]:
        """Return the function's result, with additional headers."""
        payload = {
            "statusCode": self.status,
            "headers": {**self.headers, **added},
            "body": _base64(self.body) if isinstance(self.body, bytes) else self.body,
            "isBase64Encoded": isinstance(self.body, bytes),
        }
        return payload | {"cookies": [self.cookie]} if self.cookie else payload


@lru_cache(maxsize=4)
def _base64(body: bytes) -> str:
    """Encode bytes as base64. The cache is small because the only bytes are the pixel's image."""
    return b64encode(body).decode()


def json_response(
    status: int, value: Any, headers: Mapping[str, str] | None = None, cookie: str = ""
) -> Response:
    """Return a value as JSON."""
    headers = {"content-type": "application/json", **(headers or {})}
    return Response(status, headers, json_codec.dump(value), cookie=cookie)


def callback_of(request: Request) -> str:
    """Return the name of the page's callback function (JSONP), empty if the page asks for JSON.

    Raises:
        Refused: `invalid_callback`: it is not a function name, so it could inject a script.
    """
    callback = request.parameter("callback") or ""
    if callback and not _CALLBACK.fullmatch(callback):
        raise Refused("invalid_callback")
    return callback


def jsonp_response(request: Request, value: Any, cookie: str = "") -> Response:
    """Return a value as a script that passes it to the page's callback, or as JSON if there is no callback.

    Raises:
        Refused: `invalid_callback`.
    """
    callback = callback_of(request)
    if not callback:
        return json_response(200, value, {"cache-control": "no-store"}, cookie)
    # The leading comment keeps the response from being read as anything but a script.
    return Response(200, _SCRIPT_HEADERS, f"/**/{callback}({orjson.dumps(value).decode()})", cookie=cookie)


def refusal_response(refused: Refused) -> Response:
    """Return the JSON response to a request that is rejected as a whole."""
    return Response(
        ANSWERS[refused.code].status,
        {"content-type": "application/json", **refusal_headers(refused.code, refused.allow)},
        orjson.dumps({"error": {"code": refused.code, "message": refused.message}}).decode(),
        refused.code,
    )


def refusal_headers(code: AnyCode, allow: str = "") -> dict[str, str]:
    """Return the headers for a code, which do not depend on the body."""
    answer = ANSWERS[code]
    headers = {"x-sluice-error": code, "cache-control": "no-store"}
    if answer.status == 401:
        headers["www-authenticate"] = "Bearer"  # RFC 9110 requires it; browsers show no dialog for it
    if answer.retry_after is not None:
        headers["retry-after"] = str(answer.retry_after)
    if allow:
        headers["allow"] = allow
    return headers
