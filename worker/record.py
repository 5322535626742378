"""Decodes Kinesis records into rows.

The members of an envelope are kept as they are. A record in JSON form is turned into rows here. Originals that cannot become rows
are kept unchanged, under a code that says why.

Sequence numbers are kept as text that sorts like the numbers: three digits for the number of digits, then the number as Kinesis
writes it. The ledger's sort keys are the same text.
"""

from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from itertools import chain, repeat
from operator import itemgetter, lt
from typing import Any, NamedTuple

import msgpack
from msgpack import unpackb
from pybase64 import b64decode

from shared import envelope, event_id, json_codec, names, rows
from shared.errors import InvalidJsonError

Number = str
"""A sequence number as text that sorts, for example `056` and 56 digits."""
Block = tuple[str, int, bytes]
"""Table, number of rows, and their MessagePack maps back to back."""
Refused = tuple[str, int, bytes]
"""Code, number of originals, and the originals as MessagePack byte strings back to back."""


class Record(NamedTuple):
    """A record of the stream.

    Attributes:
        number: its sequence number.
        arrived_at: UNIX seconds, approximately.
        account: the account that owns its rows; NOBODY if none could be read.
        key_id: of the write key that the rows came by; empty if there was none.
        received_at: UNIX milliseconds at which the ingest received them.
        request_id: the envelope's id; empty for records in JSON form.
        claim: CLAIMED if the rows count only for the record that owns the claim of `request_id`; if the envelope was put again, the
            UNIX milliseconds at which it was sent to the overflow queue instead; else 0.
        blocks: the rows by table.
        refused: originals that could not become rows, by code.
        rejected: events that the ingest rejected, and told their senders so; they are kept for operators only.
    """

    number: Number
    arrived_at: float
    account: str
    key_id: str
    received_at: int
    request_id: str
    claim: int
    blocks: tuple[Block, ...]
    refused: tuple[Refused, ...] = ()
    rejected: tuple[envelope.RejectedEvent, ...] = ()


DIGITS = slice(3, None)
"""The part of a Number that Kinesis writes."""
START: Number = "000"
"""Sorts before every sequence number."""
NOBODY = envelope.NOBODY
UNDECODABLE = "undecodable"
CLAIMED = 1
"""The claim of an envelope whose rows count only for the record that owns it, and that was not put again. A larger one is of an envelope that
was put again, because an earlier put of it may have landed."""
MAX_BLOCKS = 300
"""The most tables in one record, so that its span fits the ledger's item. An envelope of the ingest has far fewer."""

_LENGTHS = [f"{length:03d}" for length in range(1000)]
_ENVELOPE = bytes((envelope.FIRST_BYTE,))
_TUPLE: set[type] = {tuple}
_BYTES: set[type] = {bytes}
_STR: set[type] = {str}
_INT: set[type] = {int}
_new = tuple.__new__


def number(sequence_number: str) -> Number:
    """Return the sequence number as text that sorts."""
    return _LENGTHS[len(sequence_number)] + sequence_number


def sequence_number(number: Number) -> str:
    """Return the sequence number as Kinesis writes it."""
    return number[DIGITS]


def from_event(event: Mapping[str, Any]) -> dict[str, list[Record]]:
    """Return the records of a Lambda event by shard, in the shard's order, without duplicates."""
    items = event["Records"]
    shards = [item["eventID"].partition(":")[0] for item in items]  # Lambda's events are of one
    return {
        shard: _records(
            [item["kinesis"] for item, one in zip(items, shards, strict=True) if one == shard], shard
        )
        for shard in dict.fromkeys(shards)
    }


def _records(items: list[Mapping[str, Any]], shard: str) -> list[Record]:
    digits = [item["sequenceNumber"] for item in items]
    numbers = [_LENGTHS[len(one)] + one for one in digits]
    arrivals = [item["approximateArrivalTimestamp"] for item in items]
    records = _envelopes(items, numbers, arrivals)
    if records is None:
        data = [_bytes(item["data"]) for item in items]
        records = [decode(*one) for one in zip(data, repeat(shard), numbers, arrivals, strict=False)]
    return records if all(map(lt, numbers, numbers[1:])) else _ordered(records)


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except Base64Error:  # only hand-made events get here
        return text.encode()


def _envelopes(
    items: list[Mapping[str, Any]], numbers: list[Number], arrivals: list[float]
) -> list[Record] | None:
    """Return what `decode` does if every record is an envelope without rejected events; else None.

    It checks the envelopes' members by column, which takes half of the time.
    """
    try:
        # one after the other: to free each text's bytes before the next is decoded has the heap shrink and grow, which takes longer
        texts, validate = map(itemgetter("data"), items), repeat(True)  # noqa: FBT003 -- by keyword, it takes half as long again
        data = list(map(b64decode, texts, repeat(None), validate))
        contents = [unpackb(one, use_list=False) for one in data]
        columns = list(zip(*contents, strict=True))
        versions, accounts, key_ids, received_at, request_ids, claims, blocks, rejected = columns
        if _kinds(contents) != _TUPLE or set(versions) != {envelope.VERSION} or set(rejected) != {()}:
            return None
        if _kinds(blocks) != _TUPLE or not 0 < min(map(len, blocks)) <= max(map(len, blocks)) <= MAX_BLOCKS:
            return None
        tables, counts, payloads = zip(*chain.from_iterable(blocks), strict=True)
        owners = chain.from_iterable(map(repeat, accounts, map(len, blocks)))
        named = set(zip(owners, tables, strict=True))
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
    if not all(one in _known_names or _learn(*one) for one in named):
        return None
    if _kinds(payloads) != _BYTES or not all(payloads) or _kinds(counts) != _INT or min(counts) < 1:
        return None
    if _kinds(key_ids) | _kinds(request_ids) != _STR or _kinds(received_at) | _kinds(claims) != _INT:
        return None
    if not all(map(envelope.are_ids, set(key_ids), repeat(max(request_ids, key=len)))):
        return None
    if not envelope.has_only_id_characters("".join(request_ids)):
        return None
    fields = (numbers, arrivals, *columns[1:-1], repeat(()), repeat(()))
    return list(map(_new, repeat(Record), zip(*fields, strict=False)))


def _kinds(column: Iterable[object]) -> set[type]:
    return set(map(type, column))


def from_stream(records: Iterable[Mapping[str, Any]], shard: str) -> list[Record]:
    """Return the records of a GetRecords response."""
    result: list[Record] = []
    for item in records:
        stamp: datetime = item["ApproximateArrivalTimestamp"]
        this = number(item["SequenceNumber"])
        result.append(decode(item["Data"], shard, this, stamp.timestamp()))
    return result


def decode(data: bytes, shard: str, this: Number, arrived_at: float) -> Record:
    """Return the record, whatever its bytes are. The same bytes with the same shard, number and arrival always give the same record."""
    if data[:1] == _ENVELOPE:
        try:
            content = unpackb(data, use_list=False)
        except (ValueError, TypeError, msgpack.UnpackException):
            pass
        else:
            if _is_envelope(content):
                events = content[-1] and _events(content[-1])
                return _new(Record, (this, arrived_at, *content[1:-1], (), events))
    record = Record(this, arrived_at, NOBODY, "", round(arrived_at * 1000), "", 0, ())
    found = _from_json(data, shard, record) if data[:1] == b"{" else None
    return found or record._replace(refused=((UNDECODABLE, 1, packed(data)),))


def packed(data: bytes) -> bytes:
    """Return original bytes as one MessagePack value, so that several can be joined."""
    value: bytes = msgpack.packb(data)
    return value


def _ordered(records: list[Record]) -> list[Record]:
    """Sort the records of a hand-made event and drop duplicates."""
    once = {record.number: record for record in records}
    return [once[key] for key in sorted(once)]


_known_names: set[tuple[str, str]] = set()
_KNOWN_NAMES = 10_000


def _is_envelope(content: Any) -> bool:
    """Return whether these are an envelope's members. This is the check of `envelope.decode`, which is too slow here."""
    try:
        version, account, key_id, received_at, request_id, claim, blocks, rejected = content
        if version != envelope.VERSION or blocks.__class__ is not tuple or len(blocks) > MAX_BLOCKS:
            return False
        if rejected != ():
            if rejected.__class__ is not tuple or not names.is_account(account):
                return False
            _events(rejected)
        elif not blocks and account != NOBODY:
            return False
        for table, count, data in blocks:
            if (account, table) not in _known_names and not _learn(account, table):
                return False
            if data.__class__ is not bytes or not data or count.__class__ is not int or count < 1:
                return False
    except (TypeError, ValueError):  # EnvelopeError is one
        return False
    return (
        key_id.__class__ is str
        and request_id.__class__ is str
        and envelope.are_ids(key_id, request_id)
        and received_at.__class__ is int
        and claim.__class__ is int
    )


def _events(items: Iterable[object]) -> tuple[envelope.RejectedEvent, ...]:
    """Return the rejected events of an envelope."""
    return tuple([envelope.rejected_event(item) for item in items])


def _learn(account: object, table: object) -> bool:
    if not isinstance(account, str) or not isinstance(table, str):
        return False
    if not names.is_account(account) or not names.is_table(table):
        return False
    if len(_known_names) >= _KNOWN_NAMES:
        _known_names.clear()
    _known_names.add((account, table))
    return True


def _from_json(data: bytes, shard: str, empty: Record) -> Record | None:
    """Return a record with the rows of its JSON form, `{"account", "events": […]}`; None if it does not have that form."""
    try:
        body = json_codec.parse(data)
    except InvalidJsonError:
        return None
    account, events = body.get("account"), body.get("events")
    if not isinstance(account, str) or not names.is_account(account):
        return None
    if not isinstance(events, list) or not events:
        return None
    arrival = rows.Arrival(empty.received_at)
    blocks: dict[str, list[bytes]] = {}
    refused: dict[str, list[bytes]] = {}
    originals: list[bytes] = []
    for index, event in enumerate(events):
        place = (shard, sequence_number(empty.number), index)
        try:
            table = rows.table_of(event, body.get("table"))
            row = rows.encode(event, arrival, partial(event_id.derived_event_id, *place))
            blocks.setdefault(table, []).append(row)
        except rows.Rejected as rejected:
            originals = originals or json_codec.items(data, "events")
            refused.setdefault(rejected.code, []).append(packed(originals[index]))
    if len(blocks) > MAX_BLOCKS:
        return None
    return empty._replace(
        account=account,
        blocks=tuple((table, len(parts), b"".join(parts)) for table, parts in blocks.items()),
        refused=tuple((code, len(parts), b"".join(parts)) for code, parts in refused.items()),
    )
