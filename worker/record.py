"""From a Kinesis record to rows.

A record's content has the shape of an envelope whatever the record was: records in JSON form become rows here, and
what cannot become rows stands in a table whose name is `-` and a reason, which no table of Treasure Data can be called.

Sequence numbers are kept as text that sorts as the numbers do: three digits that say how many digits follow, then
the number as Kinesis writes it. The ledger's sort keys are the same text.
"""

from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgpack
from msgpack import unpackb
from pybase64 import b64decode

from shared import envelope, event_id, json_codec, names, rows
from shared.errors import InvalidJsonError, TooDeepError

Number = str
"""A sequence number that sorts: `056` and 56 digits."""
Block = tuple[str, int, bytes]
"""Table, how many rows, and their MessagePack maps one after another."""
Content = tuple[int, str, str, int, str, int, tuple[Block, ...]]
"""Version, account, key id, received at, request id, attempt, blocks: an envelope's members."""
Record = tuple[Number, float, Content]
"""Sequence number, arrival in UNIX seconds, content."""

START: Number = "000"
"""Sorts before every sequence number."""
NOBODY = "-"
"""Stands for the account of a record that names none."""
UNDECODABLE = "undecodable"
MAX_BLOCKS = 500
"""Tables that one record may have rows of, so that its span's item stays small."""

_LENGTHS = [f"{length:03d}" for length in range(1000)]
_ENVELOPE = bytes((envelope.FIRST_BYTE,))


def number(sequence_number: str) -> Number:
    """Return the sequence number as text that sorts."""
    return _LENGTHS[len(sequence_number)] + sequence_number


def sequence_number(number: Number) -> str:
    """Return the sequence number as Kinesis writes it."""
    return number[3:]


def is_reason(table: str) -> bool:
    """Tell whether a table's name stands for a reason why its blocks hold no rows."""
    return table.startswith("-")


def from_event(event: Mapping[str, Any]) -> dict[str, list[Record]]:
    """Return the records of a Lambda event by shard, in the shard's order, each once."""
    shards: dict[str, list[Mapping[str, Any]]] = {}
    prefix, items = "\0", []
    for item in event["Records"]:
        if not item["eventID"].startswith(prefix):
            shard = item["eventID"].partition(":")[0]
            prefix, items = f"{shard}:", shards.setdefault(shard, [])
        items.append(item["kinesis"])
    return {shard: _records(items, shard) for shard, items in shards.items()}


def _records(items: Iterable[Mapping[str, Any]], shard: str) -> list[Record]:
    records: list[Record] = []
    last, ordered = START, True
    for item in items:
        digits = item["sequenceNumber"]
        this = _LENGTHS[len(digits)] + digits
        arrived_at = item["approximateArrivalTimestamp"]
        try:
            data = b64decode(item["data"], validate=True)
        except Base64Error:  # only hand-made events get here
            data = item["data"].encode()
        # `decode`, with what is frequent first
        try:
            content = unpackb(data, use_list=False) if data[:1] == _ENVELOPE else None
        except (ValueError, TypeError, msgpack.UnpackException):
            content = None
        if content is None or not _is_content(content):
            content = decode(data, shard, this, arrived_at)
        records.append((this, arrived_at, content))
        if this <= last:
            ordered = False
        last = this
    return records if ordered else _ordered(records)


def from_stream(records: Iterable[Mapping[str, Any]], shard: str) -> list[Record]:
    """Return the records of a GetRecords answer."""
    result: list[Record] = []
    for item in records:
        this = number(item["SequenceNumber"])
        stamp: datetime = item["ApproximateArrivalTimestamp"]
        arrived_at = stamp.timestamp()
        result.append((this, arrived_at, decode(item["Data"], shard, this, arrived_at)))
    return result


def decode(data: bytes, shard: str, this: Number, arrived_at: float) -> Content:
    """Return the record's content, whatever its bytes are; the same bytes in the same place give the same content."""
    if data[:1] == _ENVELOPE:
        try:
            content: Content = unpackb(data, use_list=False)
        except (ValueError, TypeError, msgpack.UnpackException):
            pass
        else:
            if _is_content(content):
                return content
    elif data[:1] == b"{":
        rows_or_none = _from_json(data, shard, this, milliseconds(arrived_at))
        if rows_or_none is not None:
            return rows_or_none
    return _content(NOBODY, milliseconds(arrived_at), ((f"-{UNDECODABLE}", 1, packed(data)),))


def milliseconds(seconds: float) -> int:
    """Return UNIX milliseconds."""
    return round(seconds * 1000)


def packed(data: bytes) -> bytes:
    """Return original bytes as one MessagePack value, so that several can stand one after another."""
    value: bytes = msgpack.packb(data)
    return value


def _ordered(records: list[Record]) -> list[Record]:
    """Bring hand-made disorder into the shard's order, each record once."""
    once = {record[0]: record for record in records}
    return [once[key] for key in sorted(once)]


def _content(account: str, arrived_at: int, blocks: tuple[Block, ...]) -> Content:
    return envelope.VERSION, account, "", arrived_at, "", 0, blocks


_known_names: set[tuple[str, str]] = set()
_KNOWN_NAMES = 10_000


def _is_content(content: Any) -> bool:
    """Tell whether it is an envelope's members; the same test as `envelope.decode`, which is too slow here."""
    try:
        version, account, key_id, received_at, request_id, attempt, blocks = content
        if version != envelope.VERSION or blocks.__class__ is not tuple or not 0 < len(blocks) <= MAX_BLOCKS:
            return False
        for table, count, data in blocks:
            if (account, table) not in _known_names and not _learn(account, table):
                return False
            if data.__class__ is not bytes or not data or count.__class__ is not int or count < 1:
                return False
    except (TypeError, ValueError):
        return False
    return (
        key_id.__class__ is str
        and request_id.__class__ is str
        and received_at.__class__ is int
        and attempt.__class__ is int
    )


def _learn(account: object, table: object) -> bool:
    if not isinstance(account, str) or not isinstance(table, str):
        return False
    if not names.is_account(account) or not names.is_table(table):
        return False
    if len(_known_names) >= _KNOWN_NAMES:
        _known_names.clear()
    _known_names.add((account, table))
    return True


def _from_json(data: bytes, shard: str, this: Number, arrived_at: int) -> Content | None:
    """Return the content of a record in JSON form: `{"account", "events": […]}`; None when it is not of that form."""
    try:
        body = json_codec.parse(data)
    except InvalidJsonError:
        return None
    account, events = body.get("account"), body.get("events")
    if not isinstance(account, str) or not names.is_account(account):
        return None
    if not isinstance(events, list) or not events:
        return None
    arrival = rows.Arrival(arrived_at)
    blocks: dict[str, list[bytes]] = {}
    for index, event in enumerate(events):
        table, row = _row(event, arrival, body.get("table"), (shard, sequence_number(this), index))
        blocks.setdefault(table, []).append(row)
    if len(blocks) > MAX_BLOCKS:
        return None
    joined = tuple((table, len(parts), b"".join(parts)) for table, parts in blocks.items())
    return _content(account, arrived_at, joined)


def _row(
    event: Any, arrival: rows.Arrival, default: object, place: tuple[str, str, int]
) -> tuple[str, bytes]:
    try:
        table = rows.table_of(event, default)
        return table, rows.encode(event, arrival, lambda: event_id.derived_event_id(*place))
    except rows.Rejected as rejected:
        return f"-{rejected.code}", packed(_original(event))


def _original(event: Any) -> bytes:
    try:
        return json_codec.dump(event).encode()
    except TooDeepError:
        return repr(event).encode(errors="replace")
