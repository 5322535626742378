"""An answer on its way to API Gateway (payload format 2.0)."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from ingest.refusal import ANSWERS, AnyCode, Refused


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer.

    Attributes:
        status: the HTTP status.
        headers: names in lower case.
        body: text; bytes are written in base64.
        error: the code that decided on the request, where one did.
        cookie: is set, where there is one.
    """

    status: int
    headers: Mapping[str, str]
    body: str | bytes = ""
    error: AnyCode | None = None
    cookie: str = ""

    def to_payload(self, added: Mapping[str, str]) -> dict[str, Any]:
        """Return what the function returns, with more headers."""
        binary = isinstance(self.body, bytes)
        payload = {
            "statusCode": self.status,
            "headers": {**self.headers, **added},
            "body": b64encode(self.body).decode() if isinstance(self.body, bytes) else self.body,
            "isBase64Encoded": binary,
        }
        return payload | {"cookies": [self.cookie]} if self.cookie else payload


def json_response(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as a JSON answer."""
    return Response(
        status, {"content-type": "application/json", **(headers or {})}, orjson.dumps(value).decode()
    )


def refusal_response(refused: Refused) -> Response:
    """Return the JSON answer to a request that is refused as a whole."""
    return Response(
        ANSWERS[refused.code].status,
        {"content-type": "application/json", **refusal_headers(refused.code, refused.allow)},
        orjson.dumps({"error": {"code": refused.code, "message": refused.message}}).decode(),
        refused.code,
    )


def refusal_headers(code: AnyCode, allow: str = "") -> dict[str, str]:
    """Return the headers that go with a code, whatever the body."""
    answer = ANSWERS[code]
    headers = {"x-sluice-error": code, "cache-control": "no-store"}
    if answer.status == 401:
        headers["www-authenticate"] = "Bearer"  # RFC 9110 asks for one; browsers show no dialog for it
    if answer.retry_after is not None:
        headers["retry-after"] = str(answer.retry_after)
    if allow:
        headers["allow"] = allow
    return headers
