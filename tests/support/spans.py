"""Spans and their parts for tests, as values and as Hypothesis strategies."""

from typing import Any

from hypothesis import strategies as st
from worker.delivery import Entry, State

from shared import rows
from tests.support.delivery import SHARD, STREAM
from worker.chain import ChainId
from worker.record import NOBODY, START, Number, number
from worker.span import ChunkKey, Cut, Database, Group, NotDeliverable, Owner, Span

CHAIN = ChainId(STREAM, "1700000000", SHARD)
UNCUT = Cut(1_000_000, 1 << 30)
VIEWS = Group(Owner("shop"), "views")
KEY = ChunkKey(VIEWS, 0)


def span(**changes: Any) -> Span:
    """Return a span with two rows of one group, with some members changed."""
    members: dict[str, Any] = {
        "chain": CHAIN,
        "after": START,
        "first": number("1"),
        "last": number("9"),
        "planned_at": 1_700_000_000_000,
        "destinations": {Owner("shop"): Database("shop_db")},
        "cut": UNCUT,
        "counts": {VIEWS: 2},
        "records": 2,
    }
    return Span(**(members | changes))


def key(name: str) -> ChunkKey:
    """Parse the name of a chunk into its key."""
    return ChunkKey.parse(name)


accounts = st.from_regex(r"[a-z0-9_]{3,64}", fullmatch=True)
databases = tables = st.from_regex(r"[a-z0-9_]{3,128}", fullmatch=True)
key_ids = st.just("") | st.from_regex(r"[a-z0-9]{1,16}(-[0-9]{1,4})?", fullmatch=True)
codes = st.sampled_from(sorted(rows.Code.__args__)) | st.sampled_from(["undecodable", "no_partition_key"])
owners = st.builds(Owner, accounts, key_ids) | st.just(Owner(NOBODY))
groups = st.builds(Group, owners, tables, st.just("")) | st.builds(Group, owners, st.just(""), codes)
keys = st.builds(ChunkKey, groups, st.integers(0, 99), st.text("01", max_size=6))
numbers: st.SearchStrategy[Number] = st.integers(0, 10**56).map(lambda one: number(str(one)))
streams = st.from_regex(r"[a-zA-Z0-9_.-]{1,128}", fullmatch=True)
tags = st.from_regex(r"[a-z0-9_.:-]{1,64}", fullmatch=True)
replays = st.just("") | st.builds(
    lambda tag, account, table: f"{tag}/{account}/{table}",
    tags,
    accounts | st.just("*"),
    tables | st.just("*"),
)
chains = st.builds(
    ChainId,
    streams,
    st.integers(0, 10**56).map(str),
    st.from_regex(r"shardId-[0-9]{12}", fullmatch=True),
    replays,
    st.lists(numbers, max_size=2).map(tuple),
) | st.builds(ChainId.overflow, st.text(max_size=80))
entries = st.builds(
    Entry,
    state=st.sampled_from(State),
    rows=st.integers(0, 10**9),
    since=st.none() | st.integers(0, 2**45),
    reason=st.sampled_from(["", "http_500"]),
    aside_at=st.integers(0, 2**45),
    database=st.sampled_from(["", "db_x"]),
    generation=st.integers(0, 3),
    edit=st.integers(0, 3),
    digest=st.sampled_from(["", "0" * 32]),
)
destinations = st.builds(Database, databases) | st.builds(NotDeliverable, codes)
spans = st.builds(
    Span,
    chain=chains,
    after=numbers | st.just(START),
    first=numbers,
    last=numbers,
    planned_at=st.integers(0, 2**45),
    destinations=st.dictionaries(owners, destinations, max_size=4),
    cut=st.builds(Cut, st.integers(1, 10**9), st.integers(1, 10**9)),
    counts=st.dictionaries(groups, st.integers(0, 10**9), max_size=4),
    records=st.integers(0, 10_000),
    digest=st.binary(max_size=8),
    ignored=st.frozensets(st.integers(0, 300), max_size=9),
    version=st.integers(1, 1000),
    writer=st.text("0123456789abcdef", min_size=16, max_size=16),
    done=st.booleans(),
    entries=st.dictionaries(keys, entries, max_size=4),
)
