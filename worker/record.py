"""Decodes Kinesis records into rows.

The members of an envelope are kept as they are. A record in JSON form is turned into rows here. Originals that cannot become rows
are kept unchanged, under a code that says why.

Sequence numbers are kept as text that sorts like the numbers: three digits for the number of digits, then the number as Kinesis
writes it. The ledger's sort keys are the same text.
"""

from binascii import Error as Base64Error
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import batched, chain, compress, islice, repeat
from operator import add, itemgetter, lt, not_
from typing import Annotated, Any, Literal, NamedTuple, Self

import msgpack
import msgspec
from msgspec import Meta
from pybase64 import b64decode

from shared import envelope, event_id, json_codec, names, rows
from shared.errors import EnvelopeError, InvalidJsonError

Number = str
"""A sequence number as text that sorts, for example `056` and 56 digits."""
Block = tuple[str, int, bytes]
"""Table, number of rows, and their MessagePack maps back to back. For originals that could not become rows, `-` and the code that says why,
their number, and the originals as MessagePack byte strings back to back."""


class Record(NamedTuple):
    """A record of the stream.

    Attributes:
        arrived_at: UNIX seconds, approximately.
        account: the account that owns its rows; NOBODY if none could be read.
        key_id: of the write key that the rows came by; empty if there was none.
        received_at: UNIX milliseconds at which the ingest received them.
        request_id: the envelope's id; empty for records in JSON form.
        claim: CLAIMED if the rows count only for the record that owns the claim of `request_id`; if the envelope was put again, the
            UNIX milliseconds at which it was sent to the overflow queue instead; else 0.
        blocks: the rows by table, and the originals that could not become rows by code.
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
    rejected: tuple[envelope.RejectedEvent, ...] = ()


START: Number = "000"
"""Sorts before every sequence number."""
NOBODY = envelope.NOBODY
UNDECODABLE = "undecodable"
CLAIMED = 1
"""The claim of an envelope whose rows count only for the record that owns it, and that was not put again. A larger one is of an envelope that
was put again, because an earlier put of it may have landed."""
MAX_BLOCKS = 300
"""The most tables in one record, so that its span fits the ledger's item. An envelope of the ingest has far fewer."""

_Block = tuple[str, Annotated[int, Meta(ge=1)], Annotated[bytes, Meta(min_length=1)]]
_Blocks = Annotated[tuple[_Block, ...], Meta(max_length=MAX_BLOCKS)]
_RequestId = Annotated[str, Meta(max_length=envelope.MAX_REQUEST_ID)]
_Envelope = tuple[Literal[1], str, str, int, _RequestId, int, _Blocks, tuple[Any, ...]]
unpack = msgspec.msgpack.Decoder(_Envelope).decode
"""Returns an envelope's members, if their types are legal."""

_AT_ONCE = 250  # records: their objects stay in the processor's caches, and one that is not an envelope slows down only these
_MEMBERS = [itemgetter(name) for name in ("sequenceNumber", "approximateArrivalTimestamp", "data")]
_LENGTHS = [f"{length:03d}" for length in range(1000)]


def number(sequence_number: str) -> Number:
    """Return the sequence number as text that sorts."""
    return _LENGTHS[len(sequence_number)] + sequence_number


def sequence_number(number: Number) -> str:
    """Return the sequence number as Kinesis writes it."""
    return number[3:]


class Records:
    """Records of one shard, in its order, in columns: what is done for each record takes most of a batch's time.

    Attributes:
        fields: the columns of what Record says of each, but for the blocks: numbers, arrivals, accounts, key_ids, receipts, request_ids,
            claims and rejected.
        blocks: those of the blocks: positions (of each one's record; ordered), tables, counts and payloads.
    """

    def __init__(self, fields: Sequence[Sequence[Any]], blocks: Sequence[Sequence[Any]]) -> None:
        self.fields = fields
        self.blocks = blocks
        self.numbers: Sequence[Number] = fields[0]
        self.arrivals: Sequence[float] = fields[1]
        self.accounts: Sequence[str] = fields[2]
        self.key_ids: Sequence[str] = fields[3]
        self.receipts: Sequence[int] = fields[4]
        self.request_ids: Sequence[str] = fields[5]
        self.claims: Sequence[int] = fields[6]
        self.rejected: Sequence[tuple[envelope.RejectedEvent, ...]] = fields[7]
        self.positions: Sequence[int] = blocks[0]
        self.tables: Sequence[str] = blocks[1]

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """Return these records, at least one, which are in the shard's order."""
        *fields, blocks, rejected = zip(*records, strict=True)
        return cls([*fields, rejected], _flat(blocks))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the records of all parts, at least one."""
        fields: list[list[Any]] = [[] for _ in parts[0].fields]
        blocks: list[list[Any]] = [[] for _ in parts[0].blocks]
        for part in parts:
            positions = map(len(fields[0]).__add__, part.positions)
            found = (*part.fields, positions, *part.blocks[1:])
            for column, more in zip((*fields, *blocks), found, strict=True):
                column.extend(more)
        return cls(fields, blocks)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Record]:
        sizes, blocks = Counter(self.positions), zip(*self.blocks[1:], strict=True)
        for position, (*fields, rejected) in enumerate(zip(*self.fields, strict=True)):
            yield Record._make((*fields, tuple(islice(blocks, sizes[position])), rejected))

    def __getitem__(self, places: slice) -> "Records":
        """Return those in these places, which follow one another."""
        begin, end, _ = places.indices(len(self))
        if end - begin == len(self):
            return self
        own = slice(bisect_left(self.positions, begin), bisect_left(self.positions, end))
        positions = [position - begin for position in self.positions[own]]
        others = [column[own] for column in self.blocks[1:]]
        return Records([column[places] for column in self.fields], [positions, *others])

    def claimed(self, numbers: Container[Number]) -> "Records":
        """Return them, with a claim for those with these numbers."""
        pairs = zip(self.numbers, self.claims, strict=True)
        claims = [claim or int(number in numbers) for number, claim in pairs]
        return Records([*self.fields[:6], claims, *self.fields[7:]], self.blocks)


def _flat(blocks: Iterable[Iterable[Block]]) -> list[Sequence[Any]]:
    """Return records' blocks in columns: the positions of their records, their tables, counts and payloads."""
    positions = [position for position, some in enumerate(blocks) for _ in some]
    return [positions, *(zip(*chain.from_iterable(blocks), strict=True) if positions else ((), (), ()))]


def from_event(event: Mapping[str, Any]) -> dict[str, Records]:
    """Return the records of a Lambda event by shard, in the shard's order, without duplicates."""
    shards: dict[str, list[Any]] = defaultdict(list)  # Lambda's events are of one
    for item in event["Records"]:
        shards[item["eventID"].partition(":")[0]].append(item["kinesis"])
    return {shard: _from_kinesis(items, shard) for shard, items in shards.items()}


def _from_kinesis(items: list[Any], shard: str) -> Records:
    parts = []
    for some in batched(items, _AT_ONCE, strict=False):
        digits, arrivals, texts = (list(map(member, some)) for member in _MEMBERS)
        numbers = list(map(add, map(_LENGTHS.__getitem__, map(len, digits)), digits))
        parts.append(_records(numbers, arrivals, _bytes(texts), shard))
    return _ordered(Records.joined(parts))


def _bytes(texts: Iterable[str]) -> list[bytes]:
    validate = repeat(True)  # noqa: FBT003 -- by keyword, it takes half as long again
    try:
        return list(map(b64decode, texts, repeat(None), validate))
    except Base64Error:  # only hand-made events get here
        return [text.encode() for text in texts]


def _ordered(records: Records) -> Records:
    """Return the records in order, each once. Those of a hand-made event may be in another one."""
    if all(map(lt, records.numbers, records.numbers[1:])):
        return records
    once = dict(zip(records.numbers, records, strict=True))
    return Records.of([once[key] for key in sorted(once)])


def decode(data: bytes, shard: str, this: Number, arrived_at: float) -> Record:
    """Return the record, whatever its bytes are. The same bytes with the same shard, number and arrival always give the same record."""
    if (records := _envelopes([this], [arrived_at], [data])) is not None:
        (record,) = records
        return record
    record = Record(this, arrived_at, NOBODY, "", round(arrived_at * 1000), "", 0, ())
    found = _from_json(data, shard, record) if data[:1] == b"{" else None
    return found or record._replace(blocks=((f"-{UNDECODABLE}", 1, packed(data)),))


def _records(numbers: list[Number], arrivals: list[float], data: list[bytes], shard: str) -> Records:
    records = _envelopes(numbers, arrivals, data)
    return records or Records.of(map(decode, data, repeat(shard), numbers, arrivals))


def _envelopes(numbers: list[Number], arrivals: list[float], data: list[bytes]) -> Records | None:
    """Return the records; None if one is not an envelope.

    This is the check of `envelope.decode`, by column, which takes a fraction of the time.
    """
    try:
        columns: Any = zip(*map(unpack, data), strict=True)
        _, accounts, key_ids, receipts, request_ids, claims, blocks, rejected = columns
        if any(rejected):
            rejected = tuple([tuple(map(envelope.rejected_event, events)) for events in rejected])
    except (msgspec.MsgspecError, RecursionError, EnvelopeError):
        return None
    positions, tables, counts, payloads = _flat(blocks)
    known: dict[str, str] = {}  # equal names become one object, which stays in the caches
    accounts, key_ids, tables = (
        list(map(known.setdefault, column, column)) for column in (accounts, key_ids, tables)
    )
    without_rows = () if all(blocks) else compress(zip(accounts, rejected, strict=True), map(not_, blocks))
    is_legal = (
        all(map(names.is_account, set(compress(accounts, blocks))))
        and all(names.is_account(one) if events else one == NOBODY for one, events in without_rows)
        and all(map(names.is_table, set(tables)))
        and all(map(envelope.are_ids, set(key_ids), repeat("")))
        and envelope.has_only_id_characters("".join(request_ids))
    )
    fields = [numbers, arrivals, accounts, key_ids, receipts, request_ids, claims, rejected]
    return Records(fields, [positions, tables, counts, payloads]) if is_legal else None


def packed(data: bytes) -> bytes:
    """Return original bytes as one MessagePack value, so that several can be joined."""
    value: bytes = msgpack.packb(data)
    return value


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
    originals: list[bytes] = []
    for index, event in enumerate(events):
        place = (shard, sequence_number(empty.number), index)
        try:
            table = rows.table_of(event, body.get("table"))
            row = rows.encode(event, arrival, partial(event_id.derived_event_id, *place))
            blocks.setdefault(table, []).append(row)
        except rows.Rejected as rejected:
            originals = originals or json_codec.items(data, "events")
            blocks.setdefault(f"-{rejected.code}", []).append(packed(originals[index]))
    if sum(not label.startswith("-") for label in blocks) > MAX_BLOCKS:
        return None
    return empty._replace(
        account=account, blocks=tuple((label, len(parts), b"".join(parts)) for label, parts in blocks.items())
    )
