"""Chunks: cutting, halving, compressing and sampling."""

import gzip
import hashlib
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.spans import KEY, VIEWS, span
from worker.chunk import Chunk, compress, offsets, pending_leaves, planned_chunks, sample
from worker.delivery import Entry, State
from worker.plan import as_planned, group, owners_of
from worker.record import Record, decode, number
from worker.span import NO_OWNER, TOO_MANY_TABLES, Cut, Database, Group, NotDeliverable, Owner

rows = st.lists(
    st.dictionaries(st.text(max_size=5), st.integers(-(2**63), 2**63 - 1) | st.text(max_size=9)), max_size=30
)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1),
    st.integers(1, 20),
    st.integers(1, 40),
)
def test_cutting_keeps_all_rows_within_the_limits(
    sizes: list[tuple[int, int]], most_rows: int, most_bytes: int
) -> None:
    """Parts keep the blocks in order and are as full as whole blocks allow.

    Only a single block may exceed a limit.
    """
    blocks = [("views", count, b"x" * size) for count, size in sizes]
    parts = list(planned_chunks({VIEWS: blocks}, Cut(most_rows, most_bytes)))

    assert blocks == [block for part in parts for block in part.blocks]
    assert [f"shop/views/{n}" for n in range(len(parts))] == [part.key.name for part in parts]
    for part in parts:
        assert sum(block[1] for block in part.blocks) == part.count
        fits = part.count <= most_rows and len(part.payload()) <= most_bytes
        assert fits or len(part.blocks) == 1
    for part, following in pairwise(parts):
        block = following.blocks[0]
        assert part.count + block[1] > most_rows or len(part.payload()) + len(block[2]) > most_bytes


def row(event_id: str) -> bytes:
    """Return a row's MessagePack map."""
    packed: bytes = msgpack.packb({"time": 1_700_000_000, "event_id": event_id})
    return packed


def record(digits: str, data: object) -> Record:
    """Return a record with an envelope of these members, or with these bytes."""
    body = data if isinstance(data, bytes) else msgpack.packb(data)
    return decode(body, "shardId-000000000007", number(digits), 1_700_000_000.0 + int(digits))


SHOP, REVOKED = Owner("shop"), Owner("shop", "k2")
RECORDS = [
    record(
        "1", [1, "shop", "k1", 7, "a", 0, [["views", 2, row("a1") + row("a2")], ["extra", 1, row("a3")]], []]
    ),
    record(
        "2",
        [1, "blog", "k1", 8, "b", 0, [["views", 1, row("b1")]], [[1, "invalid_time", "views", b"{}", "why"]]],
    ),
    record("3", [1, "shop", "k2", 9, "c", 0, [["views", 1, row("c1")]], []]),
    record("4", [1, "shop", "k1", 9, "d", 1, [["views", 1, row("d1")]], []]),
    record("5", b"neither an envelope nor JSON"),
    record("6", b'{"account": "shop", "table": "views", "events": [{"n": 1}, 7, {"n": 2}]}'),
    record("7", [1, "shop", "k1", 9, "f", 0, [["views", 2, row("f1") + row("f2")]], []]),
]
DESTINATIONS = {
    SHOP: Database("shop_db"),
    REVOKED: NotDeliverable("revoked_key"),
    Owner("blog"): Database("blog_db"),
}
COUNTS = {
    Group(SHOP, "views"): 6,
    Group(SHOP, "", TOO_MANY_TABLES): 1,
    Group(SHOP, "", "not_an_object"): 1,
    Group(REVOKED, "views"): 1,
    Group(Owner("blog"), "views"): 1,
    Group(Owner("blog"), "views", "invalid_time", is_rejected=True): 1,
    Group(NO_OWNER, "", "undecodable"): 1,
}


def test_chunks_of_fixed_records_and_a_fixed_plan_are_stable() -> None:
    """The ledger stores the plan but not the chunks, so every version of the code must derive the same ones from the records.

    If this fails, rows of open spans would be sent twice after a deploy, under different ids. Never change the expected values.
    """
    cut = Cut(4, 1000)
    plan = span(destinations=DESTINATIONS, cut=cut, counts=COUNTS)
    owners = owners_of(RECORDS, DESTINATIONS)
    chunks = list(planned_chunks(as_planned(group(RECORDS, owners, frozenset({number("4")})), COUNTS), cut))
    halves = [chunk.leaf(half) for chunk in chunks if chunk.count == 4 for half in chunk.key.halves]

    assert {
        "shop/views/0": ("8f9d2ebe5e58ab107acbaf70bcdf1347", 4, "065b8636ca282f48"),
        "shop/views/1": ("b5f7c22820676a5068120c8f5a7aec03", 2, "246912f2a9bace0e"),
        "blog/views/0": ("2a8e1da3a6ab141f6e755995ae56bbc7", 1, "79d3796f76665215"),
        "shop:k2/views/0": ("8bc01d422c8e4c53b52275d96f83a508", 1, "b619651148ea12ca"),
        "-/-undecodable/0": ("e70c00cd36785a0e49700be9c45a89c9", 1, "5a565d36409794a0"),
        "shop/-not_an_object/0": ("fc845f30fbfa12757905b5dfe86f1159", 1, "3c3b4edf4d605634"),
        "blog/views!invalid_time/0": ("950ae9b03760172378d766f2c5af062a", 1, "60d76e9fb8e3e34a"),
        "shop/-too_many_tables/0": ("c5cffadadb0022d361e2041511b9a2b1", 1, "44f4ce74e39afb6d"),
        "shop/views/0.0": ("d960dc18b36f3221da10f0dd89094b27", 2, "43deb0400376774e"),
        "shop/views/0.1": ("452573cde0d4dc896c233e2862f41e55", 2, "0efec95be82108a4"),
    } == {
        one.key.name: (
            plan.unique_id(one.key, "db"),
            one.count,
            hashlib.sha256(one.payload()).hexdigest()[:16],
        )
        for one in (*chunks, *halves)
    }


@given(rows)
def test_leaves_hold_the_rows_in_order(values: list[dict[str, Any]]) -> None:
    """However often a chunk is halved, its leaves together hold its rows."""
    packed = list(map(msgpack.packb, values))
    chunk, keys = Chunk.of_payload(KEY, len(packed), b"".join(packed)), [KEY]
    for _ in range(5):
        keys = [half for key in keys for half in key.halves]
    leaves = [chunk.leaf(key) for key in keys]

    assert packed == [leaf.payload() for leaf in leaves if leaf.count]
    assert keys == [leaf.key for leaf in leaves]
    assert chunk is chunk.leaf(KEY)


def test_halves_are_cut_between_rows() -> None:
    """A chunk of several envelopes' blocks is halved by rows, not by blocks."""
    one, two, three = (msgpack.packb({"n": n}) for n in range(3))
    chunk = Chunk(KEY, [("views", 2, one + two), ("views", 1, three)], 3)

    assert [one, two + three] == [chunk.leaf(half).payload() for half in KEY.halves]


def test_a_chunk_with_fewer_rows_than_planned_has_no_halves() -> None:
    """Bytes that hold something else are detected before anything is sent."""
    with pytest.raises(ValueError, match="fewer rows than planned"):
        Chunk.of_payload(KEY, 3, msgpack.packb({"n": 1})).leaf(KEY.halves[1])


def test_only_pending_leaves_are_sent() -> None:
    """Only the pending half of a split chunk is sent, and nothing of a settled span."""
    chunk = Chunk.of_payload(KEY, 2, msgpack.packb({"n": 1}) + msgpack.packb({"n": 2}))
    first, second = KEY.halves
    halved = span(entries={KEY: Entry(State.SPLIT, 2), first: Entry(State.DELIVERED, 1), second: Entry()})

    assert [KEY] == [leaf.key for leaf in pending_leaves(chunk, span())]
    assert [second] == [leaf.key for leaf in pending_leaves(chunk, halved)]
    assert [] == list(pending_leaves(chunk, span(done=True)))


@given(rows)
def test_offsets_fall_between_rows(values: list[dict[str, Any]]) -> None:
    """They delimit a range of rows in the packed bytes, whatever the rows hold."""
    packed = list(map(msgpack.packb, values))
    payload = b"".join(packed)
    for stop in range(len(packed) + 1):
        for start in range(stop):
            begin, end = offsets(payload, range(start, stop))
            assert b"".join(packed[start:stop]) == payload[begin:end]


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ([7], [0]),
        ([7, 8], [0, 1]),
        ([7, 8, 9], [0, 2]),
        ([0, 3599, 3600, 1, 7200, 7201, 0], [0, 2, 4, 6]),
        ([0, 3600], [0, 1]),
        ([None, 0, 7], [0, 1, 2]),
        ([3600 * hour for hour in range(50)], [*range(24), 49]),
    ],
)
def test_a_sample_has_the_first_and_last_row_and_one_per_hour(
    times: list[int | None], found: list[int]
) -> None:
    """Treasure Data writes a file for each hour, so any of them may be missing on its own."""
    payload = b"".join(msgpack.packb({"time": time, "n": n}) for n, time in enumerate(times))

    assert found == [row["n"] for row in sample(payload)]


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b"", []),
        (b"\xc1", []),
        (msgpack.packb({1: 2}), [{1: 2}]),
        (msgpack.packb([1]) + msgpack.packb(7), [[1], 7]),
        (msgpack.packb({"a": 1}) + b"\xc1", [{"a": 1}]),
    ],
)
def test_sampling_tolerates_bytes_that_are_not_rows(payload: bytes, found: list[Any]) -> None:
    """Values that can be read are returned as they are."""
    assert found == sample(payload)


def test_gzip_is_reproducible() -> None:
    """The same rows give the same bytes: the header has no time and no file name."""
    body = compress(b"rows")

    assert b"rows" == gzip.decompress(body)
    assert b"\x1f\x8b\x08\x00\x00\x00\x00\x00" == body[:8]
    assert body == compress(b"rows")
