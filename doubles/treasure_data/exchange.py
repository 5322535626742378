"""A request to the double and its response, as values: no sockets, no waiting."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from io import BytesIO
from urllib.parse import parse_qsl, unquote

import orjson
from werkzeug.formparser import parse_form_data


class Request:
    """One HTTP request.

    Args:
        method: the method, in capitals.
        target: path and query as in the request line.
        headers: the header fields, their names in any case.
        body: the body.
    """

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.method = method
        self.target = target
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The path's segments, each decoded by itself, so that `%2F` stays within its segment."""
        path = self.target.partition("?")[0]
        return tuple(
            unquote(segment) for segment in path.lstrip("/").split("/")
        )  # td-client sends two slashes

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's parameters; of a repeated one the last."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @cached_property
    def form(self) -> dict[str, str]:
        """The body's fields: JSON (as the Node client sends them), `multipart/form-data` (as td-client does) or urlencoded."""
        if self.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
            fields = orjson.loads(self.body or b"{}")
            return {name: str(value) for name, value in fields.items()} if isinstance(fields, dict) else {}
        environ = {"wsgi.input": BytesIO(self.body), "CONTENT_LENGTH": str(len(self.body))}
        return parse_form_data(environ | {"CONTENT_TYPE": self.headers.get("content-type", "")})[1].to_dict()


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
