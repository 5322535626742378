"""HTTP requests as API Gateway passes them to the function (payload format 2.0).

The query is parsed from `rawQueryString`, because the gateway's `queryStringParameters` joins repeated parameters with commas.
"""

import math
import re
import zlib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from ingest.refusal import Refused
from shared.json_codec import without_surrogates

MAX_RAW_BYTES = 1024 * 1024
"""Maximum size of a body as sent."""
MAX_INFLATED_BYTES = 2 * 1024 * 1024
"""Maximum size of a decompressed body."""
FIRST_PARTY = "/c"
"""Every path also works with this prefix, so that a site's own CDN can route it here. No database name is this short."""

_FIRST_PARTY_PATHS = f"{FIRST_PARTY}/"
_GZIP_MAGIC = b"\x1f\x8b"
_JSON_OR_GZIP_IN_BASE64 = (b"e", b"W", b"H4", b"I", b"C", b"D")  # the last three begin with white space
_GZIP_WINDOW = 31  # tells zlib to accept only gzip
_ZLIB_WINDOW = 15  # the zlib format, which HTTP calls deflate (RFC 9110)
_MAX_COOKIES = 50
_SLASHES = re.compile("//+")
_PIECE = 16 * 1024  # bounds what is copied at the end of each gzip member, however many there are


class Request(NamedTuple):
    """One HTTP request.

    Attributes:
        method: upper case.
        path: as the gateway passes it, with repeated slashes collapsed, and without the FIRST_PARTY prefix.
        query: parameters in order, including repeated ones; bytes that are not UTF-8 become U+FFFD.
        headers: names in lower case.
        ip: the address that the gateway saw; behind trusted proxies, the visitor's.
        id: the gateway's request id.
        raw_body: None if there is none.
        is_base64: whether the gateway encoded the body.
        cookies: each `name=value`.
        path_parameters: values for the names in braces in the route's path.
        deadline: when the response must be ready, UNIX seconds.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    ip: str
    id: str
    raw_body: str | None
    is_base64: bool
    cookies: Sequence[str] = ()
    path_parameters: Mapping[str, str] = MappingProxyType({})
    deadline: float = math.inf

    @classmethod
    def from_event(cls, event: Mapping[str, Any], deadline: float = math.inf) -> "Request":
        """Parse a payload 2.0 event.

        Raises:
            KeyError: it is a different kind of event.
        """
        context = event["requestContext"]
        http = context["http"]
        path = event["rawPath"]
        path = _SLASHES.sub("/", path) if "//" in path else path
        if path.startswith(_FIRST_PARTY_PATHS):
            path = path.removeprefix(FIRST_PARTY)
        return cls(
            method=http["method"],
            path=path,
            query=parse_query(event.get("rawQueryString") or ""),
            headers=event.get("headers") or {},
            ip=http.get("sourceIp") or "",
            id=context.get("requestId") or "",
            raw_body=event.get("body"),
            is_base64=bool(event.get("isBase64Encoded")),
            cookies=(event.get("cookies") or ())[:_MAX_COOKIES],
            deadline=deadline,
        )

    def parameter(self, name: str) -> str | None:
        """Return the first non-empty value of a query parameter, else None."""
        for found, value in self.query:
            if found == name and value:
                return value
        return None

    def credentials(self, scheme: str) -> str:
        """Return the credentials in the `authorization` header; empty if its scheme is not `scheme` (in lower case)."""
        found, _, credentials = self.headers.get("authorization", "").partition(" ")
        return credentials.strip() if found.lower() == scheme else ""

    def body(self, at_most: int = MAX_INFLATED_BYTES) -> bytes:
        """Return the decompressed body.

        Args:
            at_most: bytes that it may have. Decompression ends there.

        Raises:
            Refused: `body_too_large`, `unreadable_body`, `unsupported_encoding`.
        """
        encoding = self.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Refused("unsupported_encoding")
        data = self._sent_bytes()
        if data.startswith(_GZIP_MAGIC):  # JSON never starts like this, and beacons cannot set headers
            return inflate(data, at_most=at_most)
        if encoding not in ("", "identity") and _is_zlib(data):
            return inflate(data, _ZLIB_WINDOW, at_most)
        # plain even if a header says otherwise: some proxies decompress a body and keep the header
        if len(data) > at_most:
            raise Refused("body_too_large")
        return data

    def _sent_bytes(self) -> bytes:
        text = self.raw_body or ""
        if len(text) > (MAX_RAW_BYTES + 2) // 3 * 4 if self.is_base64 else len(text) > MAX_RAW_BYTES:
            raise Refused("body_too_large")
        try:
            data = b64decode(text, validate=True) if self.is_base64 else _plain_bytes(text)
        except ValueError:
            raise Refused("unreadable_body") from None
        if len(data) > MAX_RAW_BYTES:
            raise Refused("body_too_large")
        return _decoded(data) if data.startswith(_JSON_OR_GZIP_IN_BASE64) else data


def _plain_bytes(text: str) -> bytes:
    """Return the bytes of a body that the gateway did not encode."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return without_surrogates(text).encode()


def _decoded(data: bytes) -> bytes:
    """Return what a body holds if its sender encoded JSON or gzip as base64; else the body."""
    with suppress(ValueError):
        found = b64decode(b"".join(data.split()), validate=True)
        if found.startswith(_GZIP_MAGIC) or found.lstrip().startswith((b"{", b"[")):
            return found
    return data


def _is_zlib(data: bytes) -> bool:
    """Return whether the data starts with the header of a zlib stream (RFC 1950, 2.2). No JSON document does."""
    return len(data) > 1 and data[0] & 15 == 8 and int.from_bytes(data[:2]) % 31 == 0


def parse_query(text: str) -> tuple[tuple[str, str], ...]:
    """Parse a query string; parameters stay in order, and one without `=` has an empty value."""
    if "+" in text:  # before unquoting, so that an escaped plus stays one
        text = text.replace("+", " ")
    parameters = []
    for part in text.split("&"):
        if part:
            name, _, value = part.partition("=")
            if "%" in name:
                name = unquoted(name)
            if "%" in value:
                value = unquoted(value)
            parameters.append((name, value))
    return tuple(parameters)


def unquoted(text: str) -> str:
    """Return the same as urllib's `unquote`, but for ASCII text skip its search for other characters, which is slow."""
    return unquote_to_bytes(text).decode(errors="replace") if text.isascii() else unquote(text)


def inflate(data: bytes, window: int = _GZIP_WINDOW, at_most: int = MAX_INFLATED_BYTES) -> bytes:
    """Decompress a gzip file of one or more members, or, depending on `window`, a zlib stream.

    `at_most` bounds time and memory, whatever size the file claims.

    Raises:
        Refused: `body_too_large`, or `unreadable_body`: truncated, corrupt, or followed by other data.
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
                content += member.decompress(piece, at_most + 1 - len(content))
                if len(content) > at_most:
                    raise Refused("body_too_large")
                piece = member.unused_data
    except zlib.error:
        raise Refused("unreadable_body") from None
    if not member.eof:
        raise Refused("unreadable_body")
    return bytes(content)
