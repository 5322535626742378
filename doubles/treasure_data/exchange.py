"""A request to the stand-in and what comes of it, as values: no sockets, no waiting."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, unquote

from werkzeug.formparser import parse_form_data

JSON = "application/json; charset=utf-8"


class Refusal(Exception):  # noqa: N818 - TD refuses a request; nothing of the stand-in failed
    """A request that is answered with an error.

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
        target: path and query as they stand in the request line.
        headers: the header fields, their names in any case.
        body: the body, or what reads it: at most once, and not at all when the connection is to be reset first.

    Attributes:
        method: the method, in capitals.
        target: path and query as they stand in the request line.
        headers: the header fields, their names in lower case.
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
        """The body, whole."""
        return self._read()

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The path's segments, each decoded by itself, so that `%2F` stays within its segment."""
        path = self.target.partition("?")[0]
        return tuple(unquote(segment) for segment in path.removeprefix("/").split("/"))

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's parameters; of a repeated one the last."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @cached_property
    def form(self) -> dict[str, str]:
        """The body's fields, `multipart/form-data` (as td-client sends them) or urlencoded; of a repeated one the first."""
        environ = {
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(self.body)),
        }
        return parse_form_data(environ | {"wsgi.input": BytesIO(self.body)})[1].to_dict()

    @cached_property
    def json(self) -> Any:
        """The body read as JSON.

        Raises:
            Refusal: it is none (400).
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Refusal(400, f"the body is not JSON: {error}") from error


class Drop(StrEnum):
    """How a connection ends that gets no answer."""

    REFUSE = "refuse"  # nobody listens: the connection is refused
    UNREACHABLE = "unreachable"  # the connection cannot be made, until the client gives up
    RESET = "reset"  # reset before the body was read
    CLOSE = "close"  # closed after the body was read


@dataclass(frozen=True, slots=True)
class Response:
    """What becomes of a request.

    Attributes:
        status: the HTTP status.
        body: the body.
        headers: the header fields, Content-Length aside.
        delay: seconds that pass before the answer's first byte, or before the connection ends; may be infinite.
        drop: how the connection ends instead of an answer.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: Drop | None = None


def answer(
    document: object, *, status: int = 200, headers: Mapping[str, str] | None = None, delay: float = 0.0
) -> Response:
    """Return a JSON answer."""
    fields = {"Content-Type": JSON} | dict(headers or {})
    return Response(status, json.dumps(document).encode(), fields, delay)


def error(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in the form of TD's error document."""
    document = {
        "error": HTTPStatus(status).phrase,
        "message": message,
        "text": message,
        "severity": "error",
        "status_code": status,
    }
    return answer(document, status=status, headers=headers)
