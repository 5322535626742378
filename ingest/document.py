"""Parsing of request bodies: JSON or form-encoded."""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from ingest.intake import Admitted
from ingest.refusal import ANSWERS, Refused
from ingest.request import Request, parse_query
from shared import json_codec
from shared.errors import InvalidJsonError

FORM = "application/x-www-form-urlencoded"
PING = b"PING"
"""The body that a browser sends for `<a ping>`."""

# Whoever encodes a form escapes quotes and control characters; white space and raw UTF-8 are in forms written by hand.
_MAY_BE_FORM = re.compile(rb"""\s*[^\0-\x20"'<{\[][^\0-\x08\x0e-\x1f\x7f]*""")


class Document(NamedTuple):
    """A parsed document.

    Attributes:
        value: what it holds.
        text: the JSON that it was parsed from; empty for a form.
    """

    value: Any
    text: bytes

    def items(self, member: str = "") -> Callable[[], Sequence[bytes]]:
        """Return what finds the items of an array, each as it was sent.

        Args:
            member: the member that is the array, if the document is an object.
        """
        return partial(json_codec.items, self.text, member) if self.text else tuple

    def whole(self) -> Sequence[bytes]:
        """Return the document as it was sent, if it is one event."""
        return [self.text.strip()] if self.text else []


def read(request: Request, sender: Admitted | None) -> Document:
    """Parse the body of a verified sender's request, of JSON or of a form. If None, the sender's key is in the body.

    The content type alone does not decide: tools such as curl send everything as a form by default. A body without `=`, or
    that starts as no form does, is parsed as JSON.

    Raises:
        Refused: `invalid_json`, or as `Spending.body`.
    """
    body = request.body() if sender is None else sender.spending.body(request)
    return parse(body, request.headers)


def parse(body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> Document:
    """Parse a body that was sent with those headers, and has been decompressed.

    Raises:
        Refused: `invalid_json`.
    """
    body = body.removeprefix(BOM_UTF8)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = kind == FORM
    if is_form and b"=" in body and _MAY_BE_FORM.fullmatch(body):
        return Document(members(parse_query(body.decode("utf-8", "replace"))), b"")
    try:
        return Document(json_codec.parse(body), body)
    except InvalidJsonError as error:
        nor = ", nor a form" if is_form else ""
        why = _why(body, kind, headers.get("content-encoding", ""), str(error))
        raise Refused("invalid_json", f"{ANSWERS['invalid_json'].meaning}{nor}: {why}") from error


def _why(body: bytes, kind: str, encoding: str, error: str) -> str:
    """Return why a body cannot be parsed: a frequent mistake, or the parser's error."""
    if not body.strip():
        return "it is empty"
    if kind == "multipart/form-data":
        return f"it is {kind}; send JSON or {FORM}"
    if error.startswith("Extra data") and body.lstrip().startswith(b"{"):
        return f"{error}; send several events as an array"
    if error.startswith("'utf-8' codec") and encoding.strip().lower() == "deflate":
        return f"{error}; deflate means the zlib format (RFC 1950)"
    return error


def members(parameters: Iterable[tuple[str, str]], without: Container[str] = ()) -> dict[str, Any]:
    """Return parameters as an event, leaving out the names in `without`; a repeated parameter becomes a list."""
    event: dict[str, Any] = {}
    for name, value in parameters:
        if name in without:
            continue
        if name not in event:
            event[name] = value
        elif isinstance(event[name], list):
            event[name].append(value)
        else:
            event[name] = [event[name], value]
    return event
