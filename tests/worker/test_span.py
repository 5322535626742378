"""Spans as items, chunks as rows: grouping, cutting, ids, compression."""

import gzip
from itertools import pairwise
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.accounts import Account
from shared.rows import Code
from tests.support.delivery import envelope, row
from worker.aside import SetAside
from worker.aside import decode as decode_aside
from worker.chunk import Chunk, Groups, chunks, compress, first_row, group, origin
from worker.plan import MAX_GROUPS, accounts_of, owners_of, plan
from worker.record import Record, decode, number
from worker.span import Cut, Entry, Kind, Span, State

BIG = Cut(1_000_000, 1 << 30)


def records(*data: bytes) -> list[Record]:
    """Return records with these bytes."""
    return [
        (number(str(n)), 1_700_000_000.0 + n, decode(one, "s", number(str(n)), 1_700_000_000.0 + n))
        for n, one in enumerate(data, 1)
    ]


def span(**changes: Any) -> Span:
    """Return a span."""
    members = {
        "chain": "c",
        "after": "000",
        "first": "0011",
        "last": "0019",
        "planned_at": 5,
        "databases": {"shop": "shop_db"},
        "cut": BIG,
        "counts": {},
    }
    return Span(**{**members, **changes})


text = st.text("abc_:-", min_size=1, max_size=5)
entries = st.builds(
    Entry,
    state=st.sampled_from(State),
    rows=st.integers(0, 10**9),
    since=st.none() | st.integers(0, 2**45),
    kind=st.sampled_from(["", *Kind]),
    reason=st.sampled_from(["", "http_500"]),
    database=st.sampled_from(["", "db_x"]),
    generation=st.integers(0, 3),
    split=st.booleans(),
)
spans = st.builds(
    Span,
    chain=text,
    after=text,
    first=text,
    last=text,
    planned_at=st.integers(0, 2**45),
    databases=st.dictionaries(text, text),
    cut=st.builds(Cut, st.integers(1, 10**9), st.integers(1, 10**9)),
    counts=st.dictionaries(text, st.integers(0, 10**9)),
    version=st.integers(1, 1000),
    writer=text,
    done=st.booleans(),
    chunks=st.dictionaries(text, entries),
)


@given(spans)
def test_item_and_back(one: Span) -> None:
    """A span comes back from its item unchanged."""
    assert Span.from_item(one.to_item()) == one


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1),
    st.integers(1, 20),
    st.integers(1, 40),
)
def test_cut_keeps_rows_and_limits(sizes: list[tuple[int, int]], most_rows: int, most_bytes: int) -> None:
    """Parts keep every block in order, are as full as whole blocks allow, and exceed no limit unless by one block."""
    blocks = [("views", count, b"x" * size) for count, size in sizes]
    groups: Groups = {("shop", "views"): blocks}
    parts = list(chunks(groups, span(cut=Cut(most_rows, most_bytes))))
    assert [block for part in parts for block in part.blocks] == blocks
    assert [part.key for part in parts] == [f"shop/views/{n}" for n in range(len(parts))]
    for part in parts:
        fits = part.count <= most_rows and len(part.payload()) <= most_bytes
        assert fits or len(part.blocks) == 1
    for part, following in pairwise(parts):
        block = following.blocks[0]
        assert part.count + block[1] > most_rows or len(part.payload()) + len(block[2]) > most_bytes


@given(st.lists(st.sampled_from(["a1", "b1", "a2", "c1"]), min_size=1), st.integers(1, 5))
def test_groups_and_ids_depend_on_the_records_alone(order: list[str], limit: int) -> None:
    """The same records under the same plan give the same chunks, ids and bytes."""
    data = [
        envelope({"a": "shop", "b": "blog", "c": "none"}[one[0]], {f"table_{one[1]}": [row(str(n))]})
        for n, one in enumerate(order)
    ]
    answers: dict[str, Account | str] = {
        "shop": Account("s_db"),
        "blog": Account("b_db"),
        "none": "unknown_account",
    }

    def built() -> list[tuple[str, str, bytes]]:
        planned = plan(records(*data), answers)
        one = span(databases=planned.databases, cut=Cut(limit, 1 << 20))
        return [
            (chunk.key, one.unique_id(chunk.key, one.destination(chunk.key), 0), compress(chunk.payload()))
            for chunk in chunks(planned.groups, one)
        ]

    first = built()
    assert built() == first
    ids = [unique_id for _, unique_id, _ in first]
    assert len(set(ids)) == len(ids)
    assert all(len(one) == 32 and set(one) <= set("0123456789abcdef") for one in ids)
    total = sum(gzip.decompress(body).count(b"event_id") for _, _, body in first)
    assert total == len(order)


def test_ids_differ_with_everything_that_matters() -> None:
    """Another chain, place, chunk, cut, database or generation gives another id."""
    base = span()
    ids = [
        base.unique_id("shop/views/0", "shop_db", 0),
        base.unique_id("shop/views/1", "shop_db", 0),
        base.unique_id("shop/clicks/0", "shop_db", 0),
        base.unique_id("shop/views/0.1", "shop_db", 0),
        base.unique_id("shop/views/0", "other_db", 0),
        base.unique_id("shop/views/0", "shop_db", 1),
        span(chain="d").unique_id("shop/views/0", "shop_db", 0),
        span(after="0017").unique_id("shop/views/0", "shop_db", 0),
        span(cut=Cut(1, 1)).unique_id("shop/views/0", "shop_db", 0),
        base.object_id("shop/views/0"),
    ]
    assert len(set(ids)) == len(ids)


@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9)), min_size=2, max_size=30
    )
)
def test_halves_hold_the_rows(rows: list[dict[str, Any]]) -> None:
    """Two halves hold the rows of the whole in order, and halving again comes down to single rows."""
    packed = [
        msgpack.packb({k: v for k, v in one.items() if not isinstance(v, int) or abs(v) < 2**63})
        for one in rows
    ]
    waiting, leaves = [Chunk.of_payload("shop/views/0", len(packed), b"".join(packed))], []
    while waiting:
        chunk = waiting.pop(0)
        halves = chunk.halves()
        if halves is None:
            leaves.append(chunk)
        else:
            waiting[:0] = halves
    assert [leaf.payload() for leaf in leaves] == packed
    assert all(leaf.count == 1 for leaf in leaves)


def test_gzip_is_reproducible_and_says_nothing_else() -> None:
    """The same rows give the same bytes: no time, no file name."""
    body = compress(b"rows")
    assert gzip.decompress(body) == b"rows"
    assert body[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
    assert compress(b"rows") == body


def test_origin_names_the_records_of_a_chunk() -> None:
    """A chunk's origin is the records that its rows came in, and no others."""
    given_records = records(
        envelope("shop", {"views": [row("1")]}),
        envelope("shop", {"clicks": [row("2")]}),
        envelope("shop", {"views": [row("3")], "clicks": [row("4")]}),
    )
    groups = group(given_records, {("shop", "k1"): "shop"})
    found = {chunk.key: origin(chunk, given_records) for chunk in chunks(groups, span())}
    assert found == {
        "shop/views/0": [(number("1"), 1_700_000_001.0), (number("3"), 1_700_000_003.0)],
        "shop/clicks/0": [(number("2"), 1_700_000_002.0), (number("3"), 1_700_000_003.0)],
    }


def test_rows_that_no_plan_knows_are_not_lost() -> None:
    """Rows of an owner that the plan does not name, which only a change of code can bring about, stand apart."""
    given_records = records(envelope("shop", {"views": [row("1")]}), envelope("new", {"views": [row("2")]}))
    groups = group(given_records, owners_of(given_records, {"shop": "shop_db"}))
    assert list(groups) == [("shop", "views"), ("-", "-unplanned")]
    assert span().destination("-/-unplanned/0") == "!unplanned"


def test_first_row() -> None:
    """The first row is read without the others, and what begins with no row has none."""
    assert first_row(msgpack.packb({"a": 1}) + b"\xc1") == {"a": 1}
    assert first_row(b"\xc1") is None
    assert first_row(b"") is None
    assert first_row(msgpack.packb(7)) is None


def test_a_stretch_ends_where_it_must() -> None:
    """A plan ends before an account without an answer, before its limit, and never for records that are too old."""
    given_records = records(*(envelope(name, {"views": [row(name)]}) for name in ("shop", "blog", "shop")))
    answers: dict[str, Account | str] = {"shop": Account("s_db")}
    assert len(plan(given_records, answers).records) == 1
    assert len(plan(given_records, answers, too_old=1_700_000_002.5).records) == 3
    assert plan(given_records, answers, too_old=1_700_000_002.5).databases["blog"] == "!unresolved"
    answers["blog"] = Account("b_db")
    assert len(plan(given_records, answers, limit=number("3")).records) == 2
    assert plan(given_records[1:], {}).records == []
    assert accounts_of(given_records) == ["shop", "blog"]


def test_a_plan_has_a_bounded_size() -> None:
    """A plan holds at most as many groups as an item can carry."""
    given_records = records(*(envelope(f"acct_{n}", {"views": [row("1")]}) for n in range(MAX_GROUPS + 10)))
    answers: dict[str, Account | str] = {name: Account("some_db") for name in accounts_of(given_records)}
    planned = plan(given_records, answers)
    assert 0 < len(planned.groups) <= MAX_GROUPS
    assert list(planned.records) == given_records[: len(planned.records)]


@pytest.mark.parametrize("reason", get_args(Code))
def test_reasons_are_no_tables(reason: str) -> None:
    """What could not become rows can never be taken for rows of a table."""
    assert span().destination(f"shop/-{reason}/0") == f"!{reason}"


@given(st.binary(max_size=100), st.lists(st.text("0123456789", min_size=1), max_size=5).map(tuple))
def test_set_aside_and_back(payload: bytes, numbers: tuple[str, ...]) -> None:
    """A set-aside chunk comes back from its object unchanged, whatever bytes it holds."""
    chunk = SetAside(
        kind=Kind.PARKED,
        reason="http_500",
        account="shop",
        table="views",
        database="shop_db",
        rows=3,
        payload_form="rows",
        shard="shardId-000000000000",
        sequence_numbers=numbers,
        first_seen=1,
        last_seen=2,
        set_aside_at=3,
        unique_id="0" * 32,
        object_id="1" * 32,
        chain="c#d",
        after="000",
        chunk="shop/views/0",
        payload=payload,
    )
    assert decode_aside(chunk.encode()) == chunk
    assert chunk.name == f"aside/parked/shop/views/3-{'1' * 32}.gz"
