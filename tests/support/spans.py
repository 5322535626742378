"""Spans and their parts for tests, as values and as Hypothesis strategies."""

from typing import Any

from hypothesis import strategies as st

from shared import rows
from tests.support.delivery import SHARD, STREAM
from worker.chain import ChainId, Owner
from worker.record import NOBODY, START, Number, number
from worker.span import LATER, ChunkKey, Destination, Group, ObjectRef, RowSender, Span
from worker.span_object import hour_of
from worker.states import Entry, State

CHAIN = ChainId(STREAM, "1700000000", SHARD)
VIEWS = Group(RowSender("shop"), "views")
KEY = ChunkKey(VIEWS, 0)
REF = ObjectRef("2026-11-24T03", b"0123456789abcdef", 100, 20)


def span(**changes: Any) -> Span:
    """Return a span with two rows of one group, with some members changed."""
    members: dict[str, Any] = {
        "chain": CHAIN,
        "after": START,
        "first": number("1"),
        "last": number("9"),
        "planned_at": 1_700_000_000_000,
        "chunks": {KEY: 2},
        "destinations": {RowSender("shop"): Destination("shop_db")},
        "records": 2,
        "object": REF,
    }
    return Span(**(members | changes))


def key(name: str) -> ChunkKey:
    """Parse the name of a chunk into its key."""
    return ChunkKey.parse(name)


accounts = st.from_regex(r"[a-z0-9_]{3,64}", fullmatch=True)
databases = tables = st.from_regex(r"[a-z0-9_]{3,128}", fullmatch=True)
key_ids = st.just("") | st.from_regex(r"[a-z0-9]{1,16}(-[0-9]{1,4})?", fullmatch=True)
codes = st.sampled_from(sorted(rows.Code.__args__)) | st.sampled_from(["undecodable", "no_partition_key"])
senders = st.builds(RowSender, accounts, key_ids) | st.just(RowSender(NOBODY))
request_ids = st.from_regex(r"[A-Za-z0-9#_.:-]{0,40}", fullmatch=True)
groups = (
    st.builds(Group, senders, tables, st.just(""), st.sampled_from([False]), request_ids)
    | st.builds(Group, senders, st.just(""), codes, st.sampled_from([False]), request_ids)
    | st.builds(Group, senders, tables | st.just(""), codes, st.sampled_from([True]), request_ids)
)
keys = st.builds(ChunkKey, groups, st.integers(0, 99), st.text("01", max_size=6))
numbers: st.SearchStrategy[Number] = st.integers(0, 10**56).map(lambda one: number(str(one)))
tags = st.from_regex(r"[a-z0-9_.:-]{1,64}", fullmatch=True)
gaps = st.builds(lambda after, mark: after + mark, numbers, st.sampled_from(["", "!"]))
shard_chains = st.builds(
    ChainId,
    st.from_regex(r"[a-zA-Z0-9_.-]{1,128}", fullmatch=True),
    st.integers(0, 10**56).map(str),
    st.from_regex(r"shardId-[0-9]{12}", fullmatch=True),
    st.lists(gaps, max_size=2).map(tuple),
)
names = st.text(min_size=1, max_size=80).filter(lambda text: text.isprintable())
chains = (
    shard_chains
    | st.builds(ChainId.overflow, names)
    | st.builds(ChainId.edit, names)
    | st.builds(ChainId.forced, tags, shard_chains, numbers)
)
entries = st.builds(
    Entry,
    state=st.sampled_from(State),
    since=st.none() | st.integers(0, 2**45),
    database=st.sampled_from(["", "db_x"]),
    generation=st.integers(0, 3),
    reason=st.sampled_from(["", "http_500"]),
    at=st.integers(0, 2**45),
    words=st.sampled_from(["", "time is missing"]),
)
destinations = (
    st.builds(Destination, databases)
    | st.builds(Destination, st.just(""), codes, st.booleans())
    | st.just(LATER)
)
refs = st.builds(
    ObjectRef,
    st.integers(0, 1 << 32).map(hour_of),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
)
spans = st.builds(
    Span,
    chain=chains,
    after=numbers | st.just(START),
    first=numbers,
    last=numbers,
    planned_at=st.integers(0, 2**45),
    chunks=st.dictionaries(keys.map(lambda one: one.planned), st.integers(0, 10**9), max_size=4),
    destinations=st.dictionaries(senders, destinations, max_size=4),
    records=st.integers(0, 10_000),
    digest=st.binary(max_size=8),
    earliest=st.integers(0, 2**45),
    latest=st.integers(0, 2**45),
    received_at=st.integers(0, 2**45),
    object=st.none() | refs,
    origin=st.just("") | names,
    copies=st.dictionaries(
        names, st.builds(Owner, shard_chains.map(lambda one: one.root), numbers), max_size=2
    ),
    version=st.integers(1, 1000),
    writer=st.text("0123456789abcdef", min_size=16, max_size=16),
    settled=st.booleans(),
    entries=st.dictionaries(keys, entries, max_size=4),
)
