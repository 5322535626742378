"""What is set aside, seen from outside: by its objects' names, and the reasons by their first bytes."""

import json
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops.stack import Stack
from worker.aside import Aside, AsideUnavailableError, Listed
from worker.span import Kind

KINDS = {"parked": Kind.PARKED, "doubt": Kind.IN_DOUBT, "dead": Kind.DEAD_LETTER}
"""Kinds by their names on the command line."""
NAMES = {kind: name for name, kind in KINDS.items()}

HEADERS_READ = 500
"""Of more objects than these the reasons are not read."""
_FIRST_BYTES = 4096  # the header's beginning, gzipped: reason and times stand before whatever can be long
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Header:
    """What an object says of its chunk.

    Attributes:
        listed: what its name says.
        reason: why it is set aside; `?` where it was not read.
        database: where it was to go.
        set_aside_at: UNIX milliseconds; None where it was not read.
    """

    listed: Listed
    reason: str = "?"
    database: str = ""
    set_aside_at: int | None = None

    def may_be(self, reason: str | None, since: float | None) -> bool:
        """Tell whether it is set aside for that reason, since that time (UNIX seconds); true where it cannot be told."""
        if reason is not None and self.reason not in (reason, "?"):
            return False
        return since is None or self.set_aside_at is None or self.set_aside_at >= since * 1000


def aside(stack: Stack) -> Aside:
    """Return the stack's bucket."""
    return Aside(stack.client("s3"), stack.outputs["AsideBucket"])


def listed(
    stack: Stack,
    kinds: Iterator[Kind] | tuple[Kind, ...],
    account: str | None = None,
    table: str | None = None,
) -> Iterator[Listed]:
    """Yield what is set aside, of these kinds.

    Raises:
        AsideUnavailableError: S3 refuses, or cannot be reached.
    """
    bucket = aside(stack)
    for kind in kinds:
        yield from bucket.listed(kind, account, table)


def headers(stack: Stack, objects: Iterator[Listed]) -> Iterator[Header]:
    """Yield what objects say of themselves; of the first `HEADERS_READ` also what stands in them.

    Raises:
        AsideUnavailableError: S3 refuses, or cannot be reached.
    """
    first = [one for one, _ in zip(objects, range(HEADERS_READ), strict=False)]
    s3, bucket = stack.client("s3"), stack.outputs["AsideBucket"]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        yield from threads.map(lambda one: _header(s3, bucket, one), first)
    yield from map(Header, objects)


def _header(s3: Any, bucket: str, one: Listed) -> Header:
    try:
        answer = s3.get_object(Bucket=bucket, Key=one.name, Range=f"bytes=0-{_FIRST_BYTES - 1}")
        members = _members(answer["Body"].read())
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return Header(one)
        raise AsideUnavailableError(str(error)) from error
    except BotoCoreError as error:
        raise AsideUnavailableError(str(error)) from error
    return Header(
        one, str(members.get("reason", "?")), str(members.get("database", "")), members.get("set_aside_at")
    )


def _members(first_bytes: bytes) -> Mapping[str, Any]:
    """Return the members that the beginning of a gzipped header holds whole."""
    text = (
        zlib.decompressobj(zlib.MAX_WBITS | 16)
        .decompress(first_bytes)
        .partition(b"\n")[0]
        .decode(errors="replace")
    )
    decoder, position, members = json.JSONDecoder(), 1, {}
    try:
        while position < len(text):
            name, position = decoder.raw_decode(text, position)
            value, position = decoder.raw_decode(text, position + 2)
            members[name] = value
            position += 2
    except ValueError:
        pass  # the header's end is not among these bytes
    return members
