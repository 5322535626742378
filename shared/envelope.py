"""The payload of one Kinesis record: rows of one HTTP request for one account, encoded for Treasure Data.

MessagePack `[1, account, key_id, received_at, request_id, claim, [[table, row_count, rows], …],
[[index, code, table, original, message], …]]`. `rows` is the rows' MessagePack maps, concatenated: the worker joins and compresses
them without decoding any. The last member holds rejected events as they were sent.
"""

import re
from collections.abc import Iterable, Iterator
from string import ascii_letters, digits
from typing import Any, NamedTuple

import msgpack

from shared import names
from shared.errors import EnvelopeError

VERSION = 1
MAX_ENVELOPE_BYTES = 700 * 1024
"""In base64, an envelope must fit into a message of the overflow queue (1 MiB)."""

MAX_MESSAGE = 256
"""Maximum characters of a rejected event's message."""

MAX_REQUEST_ID = 128
"""Maximum characters of an envelope's request id."""

NOBODY = "-"
"""Stands for the account of records that name none."""

CODE = re.compile("[a-z0-9_]{1,64}")
"""Matches the code of a rejected event."""

ROOM = MAX_ENVELOPE_BYTES - 512
"""Bytes available for rows and table names; the other members need less than the rest."""

_ID_BYTES = (ascii_letters + digits + "#_.:-").encode()
_PART = "#"  # separates the request's id from the number of its envelope


class TableRows(NamedTuple):
    """Rows of one table: their MessagePack maps, concatenated."""

    table: str
    row_count: int
    rows: bytes


class RejectedEvent(NamedTuple):
    """A rejected event. Its sender has been told.

    Attributes:
        place: its position in the request, from 0.
        code: why it was rejected.
        table: its table; empty if it named none that is legal.
        original: the event as it was sent; empty if it is only counted.
        message: the message that its sender got; empty if the event is only counted, or there was no room.
    """

    place: int
    code: str
    table: str
    original: bytes
    message: str = ""


class Envelope(NamedTuple):
    """The rows of one request, as they follow the version in the record.

    Attributes:
        account: whose rows they are.
        key_id: id of the write key they were sent with; empty if there was none.
        received_at: UNIX milliseconds.
        request_id: unique id of this envelope; copies of a claim share it.
        claim: not 0 if the rows count only for the record that owns the claim of `request_id`. If the envelope was put again, when it was
            sent to the overflow queue, in UNIX milliseconds; else 1.
        tables: the rows by table; empty if all events were rejected, and in markers.
        rejected: events of the same request that did not become rows.
    """

    account: str
    key_id: str
    received_at: int
    request_id: str
    claim: int
    tables: tuple[TableRows, ...]
    rejected: tuple[RejectedEvent, ...] = ()

    @property
    def row_count(self) -> int:
        """Number of rows."""
        return sum([table.row_count for table in self.tables])

    def encode(self) -> bytes:
        """Return the record for the stream."""
        data: bytes = msgpack.packb((VERSION, *self))
        return data


def decode(data: bytes) -> Envelope:
    """Decode a record that `Envelope.encode` returned.

    Raises:
        EnvelopeError: the bytes are not an envelope.
    """
    try:
        value: Any = msgpack.unpackb(data, use_list=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise EnvelopeError(f"not MessagePack: {error}") from None
    if not isinstance(value, tuple) or not value:
        raise EnvelopeError("not an envelope")
    if value[0] != VERSION:
        raise EnvelopeError(f"unknown version {value[0]!r}")
    match value[1:]:
        case (
            str(account),
            str(key_id),
            int(received_at),
            str(request_id),
            int(claim),
            tuple(tables),
            tuple(rejected),
        ):
            is_marker = account == NOBODY and not tables and not rejected
            if are_ids(key_id, request_id) and (
                is_marker or (names.is_account(account) and (tables or rejected))
            ):
                rows = tuple(_table(table) for table in tables)
                events = tuple(rejected_event(item) for item in rejected)
                return Envelope(account, key_id, received_at, request_id, claim, rows, events)
    raise EnvelopeError("not an envelope")


def are_ids(key_id: str, request_id: str) -> bool:
    """Return whether these may be an envelope's: longer ones would fit neither a key nor an item of the ledger."""
    return (
        (not key_id or names.is_key_id(key_id))
        and len(request_id) <= MAX_REQUEST_ID
        and has_only_id_characters(request_id)
    )


def has_only_id_characters(text: str) -> bool:
    """Return whether a text consists of characters that request ids have. The ledger's names of chunks hold these ids."""
    return not text.encode().translate(None, _ID_BYTES)


def marker(at: int) -> Envelope:
    """Return an envelope without rows. Behind it, the shard has passed that time.

    Args:
        at: UNIX milliseconds.
    """
    return Envelope(NOBODY, "", at, "", 0, ())


def divide(
    rows: Iterable[tuple[str, bytes]], account: str, key_id: str, received_at: int, request_id: str
) -> Iterator[Envelope]:
    """Split the rows of one request, given as `(table, row)`, into envelopes of at most MAX_ENVELOPE_BYTES.

    Rows keep their order. From the second envelope on, `#1`, `#2` … is appended to the request id; `request_of` removes it.
    """
    number, size, name = 0, 0, request_id
    tables: dict[str, list[bytes]] = {}
    for table, row in rows:
        cost = len(row) + (0 if table in tables else len(table) + 16)
        if tables and size + cost > ROOM:
            yield Envelope(account, key_id, received_at, name, 0, _joined(tables))
            number, size, tables = number + 1, 0, {}
            name = f"{request_id}{_PART}{number}"
            cost = len(row) + len(table) + 16
        tables.setdefault(table, []).append(row)
        size += cost
    if tables:
        yield Envelope(account, key_id, received_at, name, 0, _joined(tables))


def request_of(request_id: str) -> str:
    """Return the id of the whole request, given the request id of any of its envelopes."""
    return request_id.partition(_PART)[0]


def gather(
    rows: Iterable[tuple[str, bytes]], account: str, key_id: str, received_at: int, request_id: str
) -> Envelope:
    """Return one envelope with a claim for rows of a request with a batch id, given as `(table, row)`, that fit into ROOM."""
    tables: dict[str, list[bytes]] = {}
    for table, row in rows:
        tables.setdefault(table, []).append(row)
    return Envelope(account, key_id, received_at, request_id, 1, _joined(tables))


def _joined(tables: dict[str, list[bytes]]) -> tuple[TableRows, ...]:
    return tuple([TableRows(table, len(rows), b"".join(rows)) for table, rows in tables.items()])


def _table(item: object) -> TableRows:
    match item:
        case (str(table), int(count), bytes(rows)) if names.is_table(table) and count > 0 and rows:
            return TableRows(table, count, rows)
    raise EnvelopeError("illegal table")


def rejected_event(item: object) -> RejectedEvent:
    """Parse an item of an envelope's last member.

    Raises:
        EnvelopeError: it is not a rejected event.
    """
    match item:
        case (int(place), str(code), str(table), bytes(original), str(message), *_) if (
            place >= 0 and CODE.fullmatch(code) and (not table or names.is_table(table))
        ):
            return RejectedEvent(place, code, table, original, message[:MAX_MESSAGE])
    raise EnvelopeError("illegal rejected event")
