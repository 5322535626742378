"""What API Gateway hands over (payload format 2.0) as a request.

Reads `rawQueryString` itself: the gateway's own `queryStringParameters` joins repeated parameters with commas.
"""

import re
import zlib
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ingest.refusal import Refused
from shared import rows

MAX_RAW_BYTES = 1024 * 1024
"""A body's size as it was sent."""
MAX_INFLATED_BYTES = 5 * 1024 * 1024
"""A body's size after gunzip."""

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's sign for: gzip, and nothing else
_ZLIB_WINDOW = 15  # what HTTP calls deflate (RFC 9110)
_MAX_COOKIES = 50  # are looked at
_SLASHES = re.compile("//+")
_PIECE = 16 * 1024  # so that what follows a member is copied only this far, however many members there are


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Attributes:
        method: upper case.
        path: as the gateway gives it, repeated slashes as one.
        query: parameters in order, repeated ones too; what is not UTF-8 became U+FFFD.
        headers: names in lower case.
        ip: the address that the gateway saw.
        id: the gateway's name of this request.
        raw_body: None where there was none.
        is_base64: how the gateway wrote the body.
        cookies: by name.
        path_parameters: what stands in the path where its route has a name in braces.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    ip: str
    id: str
    raw_body: str | None
    is_base64: bool
    cookies: Mapping[str, str] = field(default_factory=dict)
    path_parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> "Request":
        """Return the request of a payload 2.0 event.

        Raises:
            KeyError: the event is of another kind.
        """
        context = event["requestContext"]
        http = context["http"]
        path = event["rawPath"]
        cookies = (event.get("cookies") or ())[:_MAX_COOKIES]
        return cls(
            method=http["method"],
            path=_SLASHES.sub("/", path) if "//" in path else path,
            query=parse_query(event.get("rawQueryString") or ""),
            headers=event.get("headers") or {},
            ip=http.get("sourceIp") or "",
            id=context.get("requestId") or "",
            raw_body=event.get("body"),
            is_base64=bool(event.get("isBase64Encoded")),
            cookies={name.strip(): value for name, _, value in (text.partition("=") for text in cookies)},
        )

    @property
    def is_small(self) -> bool:
        """Whether its events take no more than `rows.SMALL_BYTES`, as far as that can be told without reading them."""
        size = sum([len(value) for _, value in self.query], len(self.raw_body or ""))
        return size <= rows.SMALL_BYTES and "content-encoding" not in self.headers

    def parameter(self, name: str) -> str | None:
        """Return the first value of a query parameter, None where there is none or it is empty."""
        for found, value in self.query:
            if found == name and value:
                return value
        return None

    def body(self) -> bytes:
        """Return the body, inflated.

        Raises:
            Refused: `body_too_large`, `unreadable_body`, `unsupported_encoding`.
        """
        data = self._sent_bytes()
        encoding = self.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Refused("unsupported_encoding")
        if data.startswith(_GZIP_MAGIC):  # no JSON starts so, and beacons cannot set headers
            return inflate(data)
        if data and encoding == "deflate":
            return inflate(data, _ZLIB_WINDOW)
        if data and encoding.endswith("gzip"):
            raise Refused("unreadable_body")
        return data

    def _sent_bytes(self) -> bytes:
        text = self.raw_body or ""
        if len(text) > (MAX_RAW_BYTES + 2) // 3 * 4 if self.is_base64 else len(text) > MAX_RAW_BYTES:
            raise Refused("body_too_large")
        try:
            data = b64decode(text, validate=True) if self.is_base64 else text.encode()
        except ValueError:  # not base64, or lone surrogates
            raise Refused("unreadable_body") from None
        if len(data) > MAX_RAW_BYTES:
            raise Refused("body_too_large")
        return data


def parse_query(text: str) -> tuple[tuple[str, str], ...]:
    """Return the parameters of a query string in order; one without `=` has an empty value."""
    if "+" in text:  # nothing else stands for a space, and what is escaped has none
        text = text.replace("+", " ")
    parameters = []
    for part in text.split("&"):
        if part:
            name, _, value = part.partition("=")
            if "%" in part:
                name, value = unquote(name), unquote(value)
            parameters.append((name, value))
    return tuple(parameters)


def inflate(data: bytes, window: int = _GZIP_WINDOW) -> bytes:
    """Return the content of a gzip file of one or more members, or of zlib's form as `window` says.

    Time and memory are bounded by MAX_INFLATED_BYTES, whatever the file claims to hold.

    Raises:
        Refused: `body_too_large`, or `unreadable_body`: cut off, corrupt, or followed by something else.
    """
    content = bytearray()
    member = zlib.decompressobj(window)
    pieces = memoryview(data)
    try:
        for start in range(0, len(data), _PIECE):
            piece: bytes | memoryview = pieces[start : start + _PIECE]
            while piece:
                if member.eof:
                    member = zlib.decompressobj(window)
                content += member.decompress(piece, MAX_INFLATED_BYTES + 1 - len(content))
                if len(content) > MAX_INFLATED_BYTES:
                    raise Refused("body_too_large")
                piece = member.unused_data
    except zlib.error:
        raise Refused("unreadable_body") from None
    if not member.eof:
        raise Refused("unreadable_body")
    return bytes(content)
