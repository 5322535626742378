"""Decoding of records."""

import json
from datetime import UTC, datetime
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ops.stream.readable_shards import from_stream
from shared import envelope as envelopes
from shared.event_id import derived_event_id
from tests.support import json_values
from tests.support.delivery import envelope, member, row
from worker.record import MAX_BLOCKS, NOBODY, Record, decode, from_event, number, packed, sequence_number

SHARD = "shardId-000000000003"
ONE = {"views": [row("e")]}
PLACE = (SHARD, number("77"), 1_700_000_000.5)


def answered(*records: tuple[str, bytes]) -> list[dict[str, Any]]:
    """Return records given by sequence number and data, as GetRecords does."""
    stamp = datetime.fromtimestamp(1_700_000_000.123, UTC)
    common = {"PartitionKey": "k", "ApproximateArrivalTimestamp": stamp}
    return [common | {"SequenceNumber": digits, "Data": data} for digits, data in records]


def kinesis_event(*records: tuple[str, bytes], shard: str = SHARD) -> dict[str, Any]:
    """Return a Lambda event with these records."""
    return {"Records": [member(one, shard) for one in answered(*records)]}


@given(st.lists(st.integers(0, 10**60), min_size=2, unique=True))
def test_sequence_numbers_sort_numerically(numbers: list[int]) -> None:
    """Their text form sorts like the numbers, however many digits they have."""
    assert sorted(numbers) == [int(sequence_number(one)) for one in sorted(number(str(n)) for n in numbers)]


def test_an_envelope_s_blocks_stay_encoded() -> None:
    """The worker passes rows on without decoding them."""
    tables = {"views": [row("e1"), row("e2")], "clicks": [row("e3")]}
    data = envelope("shop", tables, key_id="k7", request_id="q")
    blocks = tuple((name, len(rows), b"".join(map(msgpack.packb, rows))) for name, rows in tables.items())

    assert Record(*PLACE[1:], "shop", "k7", 1_700_000_000_000, "q", 0, blocks) == decode(data, *PLACE)


def test_event_and_stream_give_the_same_records() -> None:
    """Records from Lambda's event equal those from GetRecords, one by one, and any part of them, however many there are."""
    some = [envelope("shop", {"views": [row("a")], "clicks": [row("b"), row("c")]}), envelope("shop", ONE)]
    some += [envelope(NOBODY, {}), b"junk", b'{"account":"shop","events":[{"table":"views"}]}']
    data = [(str(n), some[n % 2] if n < 1300 else some[n % 5]) for n in range(1000, 1500)]
    records = from_stream(answered(*data), SHARD)
    found = from_event(kinesis_event(*data))[SHARD]

    assert [records, records[:301], records[7:]] == [list(found), list(found[:301]), list(found[7:])]


def test_records_come_by_shard_and_in_its_order_each_once() -> None:
    """One event may hold records of several shards."""
    event = kinesis_event(("10", b"b"), ("9", b"a"), ("10", b"b"))
    event["Records"] += kinesis_event(("2", b"b"), shard="shardId-000000000009")["Records"]

    assert {SHARD: [number("9"), number("10")], "shardId-000000000009": [number("2")]} == {
        shard: [one.number for one in records] for shard, records in from_event(event).items()
    }


@pytest.mark.parametrize(
    "data",
    [
        *(b"{", b"{}", b'{"a":' * 100_000, b"\xff\xfe", b"", b"garbage", b"\x98\x01"),
        *(b'{"account":"shop","events":%b}' % events for events in (b"[]", b'{"a":1}')),
        b'{"account":"No!","events":[{}]}',
        *(envelope("shop", ONE)[:-1], envelope("shop", ONE) + b"\x00"),
        # ids that do not fit the ledger: only who writes to the stream directly can send them
        *(envelope("shop", ONE, request_id=one) for one in ("r" * 3000, "~" * 128, "\U0001f600" * 99)),
        *(envelope("shop", ONE, key_id=one) for one in ("k" * 400_000, "k/~1")),
        msgpack.packb([1, "shop", "k", 1, "r", 0, [["views", True, b"\x80"]], []]),
        msgpack.packb([1, "shop", "k", 1, "r", 0, [[f"table_{n}", 1, b"\x80"] for n in range(301)], []]),
        b'{"account":"shop","events":[' + b",".join(b'{"table":"t%04d"}' % n for n in range(501)) + b"]}",
    ],
)
def test_an_undecodable_record_keeps_its_bytes(data: bytes) -> None:
    """A record that is neither an envelope nor JSON of our form becomes one `undecodable` original."""
    record = decode(data, *PLACE)

    assert (NOBODY, (("-undecodable", 1, packed(data)),)) == (record.account, record.blocks)
    assert data == msgpack.unpackb(record.blocks[0][2])
    assert [record.blocks] == [one.blocks for one in from_event(kinesis_event(("77", data)))[SHARD]]


def test_json_rows_get_a_derived_id_and_time() -> None:
    """They come from shard, sequence number and arrival, never from a clock or from chance."""
    events = [{"table": "views", "a": 1}, {"table": "views", "event_id": "x"}]
    data = orjson.dumps({"account": "shop", "events": events})
    unpacker = msgpack.Unpacker()
    unpacker.feed(decode(data, *PLACE).blocks[0][2])
    ids = (derived_event_id(SHARD, "77", 0), "x")
    first, second = (row(one, 1_700_000_000, received_at=1_700_000_000_500) for one in ids)

    assert [first | {"a": 1}, second] == list(unpacker)


def test_a_bad_json_event_does_not_affect_its_neighbours() -> None:
    """It is kept byte for byte under its code, and the others become rows."""
    data = b'{"account":"shop","events":[{"table":"views"},{"table": "No!", "n":1.50},[1],{"table":"views"}]}'
    record = decode(data, *PLACE)

    counts = [block[:2] for block in record.blocks]
    assert [("views", 2), ("-invalid_table", 1), ("-not_an_object", 1)] == counts
    assert b'{"table": "No!", "n":1.50}' == msgpack.unpackb(record.blocks[1][2])

    most: list[Any] = [{"table": f"t_{number}"} for number in range(MAX_BLOCKS)]
    assert "shop" == decode(json.dumps({"account": "shop", "events": [*most, 1]}).encode(), *PLACE).account


@given(st.binary(max_size=200))
@example(b"\x98\x01\xa4shop\xa0\x01\xa0\x00\x90" + bytes([0x91]) * 100_000)
def test_any_bytes_decode_without_loss(data: bytes) -> None:
    """The result is the same each time. What is nested too deeply is not read."""
    first = decode(data, *PLACE)

    assert first == decode(data, *PLACE)
    assert first.blocks


@given(json_values.values)
def test_any_json_event_becomes_a_row_or_an_original(event: Any) -> None:
    """No JSON value is lost."""
    record = decode(json.dumps({"account": "shop", "events": [event]}).encode(), *PLACE)

    assert 1 == sum(block[1] for block in record.blocks)


LEGAL = (1, "shop", "k1", 1, "request", 0, [["views", 1, b"\x80"]], [])
MARKER = (1, NOBODY, "", 1, "", 0, [], [])
REJECTED = [0, "too_deep", "views", b"{}", "why"]
ODD = (None, -1, 0, 2, "", "-", "Views!", "r" * 129, "r/1", b"", [], [REJECTED])
PLACES = [*((n,) for n in range(8)), (6, 0), *((6, 0, n) for n in range(3))]


def with_member(content: Any, path: tuple[int, ...], value: Any) -> Any:
    """Return an envelope's members with another one in a place."""
    if not path:
        return value
    return [with_member(one, path[1:], value) if n == path[0] else one for n, one in enumerate(content)]


bases = st.sampled_from((LEGAL, MARKER))
contents = bases | st.builds(with_member, bases, st.sampled_from(PLACES), st.sampled_from(ODD))


@settings(max_examples=400)
@given(st.lists(contents, min_size=1, max_size=2))
@example([LEGAL, with_member(LEGAL, (4,), "r/1")])
@example([with_member(LEGAL, (7,), [REJECTED, [0, "x/y", "views", b"", ""]])])
def test_the_fast_checks_agree_with_the_contract(values: list[Any]) -> None:
    """The worker accepts exactly the envelopes that the contract's own decoder accepts, alone and beside others."""
    data = list(map(msgpack.packb, values))
    expected = []
    for one in data:
        try:
            found = envelopes.decode(one)
            expected.append((found.account, *found[1:5], tuple(map(tuple, found.tables)), found.rejected))
        except envelopes.EnvelopeError:
            expected.append(None)
    alone = [decode(one, SHARD, number(str(n)), 1_700_000_000.123) for n, one in enumerate(data, 100)]
    together = from_event(kinesis_event(*((str(n), one) for n, one in enumerate(data, 100))))[SHARD]

    assert list(together) == alone
    found = [None if one.account == NOBODY and one.blocks else (*one[2:8], one.rejected) for one in alone]
    assert expected == found
