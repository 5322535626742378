"""A response of the double, as a value: no sockets, no waiting."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson


@dataclass(frozen=True, slots=True)
class Response:
    """What becomes of a request.

    Attributes:
        headers: the header fields without Content-Length.
        delay: seconds before the response's first byte, or before the connection ends; may be infinite.
        drop: how the connection ends instead of a response: the `Kind` of fault that ends it.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: str | None = None


def as_json(value: object) -> bytes:
    """Return values of rows or cells as JSON: bytes as hexadecimal digits, NaN as null."""
    return orjson.dumps(value, default=bytes.hex, option=orjson.OPT_NON_STR_KEYS)


def answer(document: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response."""
    fields = {"Content-Type": "application/json; charset=utf-8"} | dict(headers or {})
    return Response(status, as_json(document), fields)


def error(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return TD's error document: exactly these five members."""
    shown = {"error": HTTPStatus(status).phrase, "message": message, "text": message, "severity": "error"}
    return answer(shown | {"status_code": status}, status=status, headers=headers)
