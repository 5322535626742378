"""Builds responses with Treasure Data's documents."""

from http import HTTPStatus

import orjson

from doubles.http_server import Response


def as_json(value: object) -> bytes:
    """Encode rows or cells as JSON: bytes as hexadecimal digits, NaN as null."""
    return orjson.dumps(value, default=bytes.hex, option=orjson.OPT_NON_STR_KEYS)


def answer(document: object, *, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(status, as_json(document), (("Content-Type", "application/json; charset=utf-8"),))


def error(status: int, message: str) -> Response:
    """Return a response with TD's error document, which has exactly these five members."""
    shown = {"error": HTTPStatus(status).phrase, "message": message, "text": message, "severity": "error"}
    return answer(shown | {"status_code": status}, status=status)
