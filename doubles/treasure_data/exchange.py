"""A request to the double and its response, as values: no sockets, no waiting."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from http import HTTPStatus
from io import BytesIO
from urllib.parse import parse_qsl, unquote

import orjson
from werkzeug.formparser import parse_form_data


class RejectedError(Exception):
    """A request that gets an error response.

    Attributes:
        status: the HTTP status, 400 to 499.
        message: what is wrong, for a person.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Request:
    """One HTTP request.

    Args:
        method: the method, in capitals.
        target: path and query as in the request line.
        headers: the header fields, their names in any case.
        body: the body, or what reads it: at most once, and not at all if the connection is to be reset first.
    """

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | Callable[[], bytes] = b""
    ) -> None:
        self.method = method
        self.target = target
        self.headers = {name.lower(): value for name, value in headers.items()}
        self._read = body if callable(body) else lambda: body

    @cached_property
    def body(self) -> bytes:
        """The whole body."""
        return self._read()

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
        """The body's fields, `multipart/form-data` (as td-client sends them) or urlencoded."""
        environ = {"wsgi.input": BytesIO(self.body), "CONTENT_LENGTH": str(len(self.body))}
        return parse_form_data(environ | {"CONTENT_TYPE": self.headers.get("content-type", "")})[1].to_dict()


class Drop(StrEnum):
    """How a connection ends without a response."""

    REFUSE = "refuse"  # the connection is refused
    UNREACHABLE = "unreachable"  # the connection cannot be made, until the client gives up
    RESET = "reset"  # reset before the body was read
    CLOSE = "close"  # closed after the body was read


@dataclass(frozen=True, slots=True)
class Response:
    """What becomes of a request.

    Attributes:
        headers: the header fields without Content-Length.
        delay: seconds before the response's first byte, or before the connection ends; may be infinite.
        drop: how the connection ends instead of a response.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: Drop | None = None


def as_json(value: object) -> bytes:
    """Return values of rows or cells as JSON: bytes as hexadecimal digits, NaN as null, other kinds as Python shows them."""
    try:
        return orjson.dumps(value, default=_json_default, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # nested beyond 254 levels
        return orjson.dumps("(nested too deep to be shown)")


def _json_default(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else repr(value)


def answer(document: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response."""
    fields = {"Content-Type": "application/json; charset=utf-8"} | dict(headers or {})
    return Response(status, as_json(document), fields)


def error(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return TD's error document: exactly these five members."""
    shown = {"error": HTTPStatus(status).phrase, "message": message, "text": message, "severity": "error"}
    return answer(shown | {"status_code": status}, status=status, headers=headers)
