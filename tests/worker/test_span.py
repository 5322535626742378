"""Spans: names of chunks, default states, halves, entries, and the room that an item leaves."""

from copy import replace
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles.dynamodb.table import MAX_ITEM_BYTES, item_size
from tests.support.delivery import SHARD, envelope, row
from tests.support.spans import CHAIN, KEY, REF, VIEWS, key, keys, span
from worker.chain import ChainId, Owner
from worker.claims import MOST_LOOKUPS, Decided
from worker.ledger import Gap, _item
from worker.plan import Cut, plan
from worker.record import MAX_BLOCKS, START, Records, decode, number
from worker.rows import compress
from worker.span import (
    LATER,
    MAX_PLAN_BYTES,
    NO_SENDER,
    SECONDS_KEPT,
    TOO_MANY_TABLES,
    ChunkKey,
    Destination,
    Group,
    Place,
    RowSender,
    Span,
    digest_of_numbers,
    milliseconds,
    plan_bytes,
)
from worker.states import FINAL, Entry, State
from worker.treasure_data.explanation import kept

HALVES, CLICKS, AGAIN = KEY.halves, key("shop/clicks/0"), key("shop/views~r/0")
WAITING, DELIVERED, SPLIT = Entry(), Entry(State.DELIVERED), Entry(State.SPLIT)
PLANNED_AT = 1_700_000_000_000


@given(keys)
def test_chunk_keys_round_trip_through_their_names(one: ChunkKey) -> None:
    """A key is that of a planned chunk, or of a half at any depth."""
    assert one == ChunkKey.parse(one.name)


@pytest.mark.parametrize(
    ("one", "name"),
    [
        (KEY, "shop/views/0"),
        (KEY._replace(part=3, path="01"), "shop/views/3.0.1"),
        (ChunkKey(Group(RowSender("shop", "k2-7"), "views"), 0), "shop:k2-7/views/0"),
        (ChunkKey(Group(NO_SENDER, "", "undecodable"), 0), "-/-undecodable/0"),
        (
            ChunkKey(Group(RowSender("shop"), "views", "too_deep", is_rejected=True), 0),
            "shop/views!too_deep/0",
        ),
        (ChunkKey(VIEWS._replace(request_id="r#1.0"), 0), "shop/views~r#1.0/0"),
    ],
)
def test_chunk_names_are_stable(one: ChunkKey, name: str) -> None:
    """Names are in the ledger and in indexes, and part of the unique ids that rows are sent under."""
    assert name == one.name


@pytest.mark.parametrize(
    "name", ["", "0", "shop/views", "/0", "shop/views/", "shop/views/0.2", "shop/views/0.01", "shop/views/x"]
)
def test_texts_that_do_not_name_a_chunk_are_rejected(name: str) -> None:
    """Each part of a name is required, and its numbers must be numbers."""
    with pytest.raises(ValueError, match=r"does not name a chunk|invalid literal"):
        ChunkKey.parse(name)


def test_ids_differ_with_everything_that_matters() -> None:
    """Another chain, place, plan, chunk, half, database or generation gives another id. One with a doubt is the same after a deploy."""
    base = span()
    ids = [
        base.unique_id(KEY, "shop_db"),
        base.unique_id(KEY._replace(part=1), "shop_db"),
        base.unique_id(key("shop/clicks/0"), "shop_db"),
        base.unique_id(key("shop:k1/views/0"), "shop_db"),
        base.unique_id(key("shop/views~r/0"), "shop_db"),
        *(base.unique_id(half, "shop_db") for half in HALVES),
        base.unique_id(KEY, "other_db"),
        span(entries={KEY: Entry(generation=1)}).unique_id(KEY, "shop_db"),
        span(chain=CHAIN.before(number("9"))).unique_id(KEY, "shop_db"),
        span(chain=CHAIN.within(number("9"))).unique_id(KEY, "shop_db"),
        span(after=number("17")).unique_id(KEY, "shop_db"),
        span(planned_at=PLANNED_AT + 1).unique_id(KEY, "shop_db"),
    ]

    assert len(ids) == len(set(ids))
    assert {32} == {len(one) for one in ids}
    assert "536b2297380dfe38e180b405d511b70b" == ids[0]
    assert Place(ChainId.edit("9b9c6114f7a471d6cb174acb13ccc407"), START) == base.place.replacement_of(KEY)


def test_a_span_that_is_given_no_more_than_its_place_has_nothing() -> None:
    """Its first write is version 1, and it is not settled."""
    bare = Span(CHAIN, START, number("1"), number("9"), PLANNED_AT)

    assert ({}, {}, {}, {}) == (bare.chunks, bare.destinations, bare.copies, bare.entries)
    assert (0, 0, 0, 0) == (bare.records, bare.earliest, bare.latest, bare.received_at)
    assert (b"", "", "", None, None) == (bare.digest, bare.origin, bare.writer, bare.object, bare.final_at)
    assert (1, False) == (bare.version, bare.settled)
    assert "too_many_tables" == TOO_MANY_TABLES  # stands in the ledger
    assert 1_500 == milliseconds(1.5)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(
    ("group", "destination", "open_", "then"),
    [
        (VIEWS, Destination("shop_db"), Entry(since=PLANNED_AT), DELIVERED),
        (VIEWS, Destination(reason="slow"), Entry(reason="slow"), DELIVERED),
        (VIEWS, Destination(reason="gone", is_final=True), Entry(State.DEAD, reason="gone"), None),
        (VIEWS._replace(request_id="r"), Destination("shop_db"), Entry(State.AGAIN), None),
        (VIEWS._replace(request_id="r"), Destination(reason="gone", is_final=True), Entry(State.AGAIN), None),
        (VIEWS._replace(code="c", is_rejected=True), Destination("shop_db"), Entry(State.REJECTED), None),
        (AGAIN.group._replace(code="c", is_rejected=True), LATER, Entry(State.AGAIN), None),
        (VIEWS._replace(code="too_deep"), Destination("shop_db"), Entry(State.DEAD, reason="too_deep"), None),
        (Group(NO_SENDER, "", "undecodable"), LATER, Entry(State.DEAD, reason="undecodable"), None),
    ],
)
def test_default_states_follow_from_the_plan(
    group: Group, destination: Destination, open_: Entry, then: Entry | None, settled: bool
) -> None:
    """Only chunks with a database have a doubt, from the plan on. Originals that are not rows are dead; their code is the reason."""
    one = span(destinations={RowSender("shop"): destination}, settled=settled)

    assert (open_ if not settled or then is None else then) == one.entry(ChunkKey(group, 0))


@pytest.mark.parametrize(
    ("chain", "origin", "is_forced"),
    [
        (CHAIN, "", False),
        (ChainId.forced("t", CHAIN, "000"), f"{CHAIN.name}/000", True),
        (ChainId.edit("a"), f"{CHAIN.name}/000/shop/views/0", False),
        (ChainId.edit("a"), f"{ChainId.forced('t', CHAIN, '000').name}/000/shop/views/0", True),
    ],
)
def test_an_edit_of_a_forced_replay_counts_apart_too(chain: ChainId, origin: str, is_forced: bool) -> None:
    """Otherwise the books would have received these rows twice."""
    assert is_forced == span(chain=chain, origin=origin).is_forced


def test_an_entry_s_database_replaces_the_plan_s() -> None:
    """A chunk that was sent to another database has its doubt there. The sender decides where one goes whose account the plan lacks."""
    moved, new = span(entries={KEY: Entry(since=1, database="new_db")}), key("new/views/0")

    assert ("shop_db", "new_db", "") == (span().database(KEY), moved.database(KEY), span().database(new))
    assert LATER == Destination(reason="") == span().destination(new)


@given(st.integers(0, 300), st.integers(0, 9))
def test_halves_hold_the_positions_of_the_whole_in_order(rows: int, depth: int) -> None:
    """At any depth, each position is in one leaf, and no leaf exceeds its share."""
    leaves = [KEY]
    for _ in range(depth):
        leaves = [half for leaf in leaves for half in leaf.halves]
    positions = [leaf.within(rows) for leaf in leaves]

    assert list(range(rows)) == [position for part in positions for position in part]
    assert max(map(len, positions)) <= -(-rows // 2**depth)
    assert [len(part) for part in positions] == [span(chunks={KEY: rows}).rows(leaf) for leaf in leaves]


@pytest.mark.parametrize(
    ("path", "rows", "positions"),
    [
        ("", 5, range(5)),
        ("0", 5, range(2)),
        ("1", 5, range(2, 5)),
        ("10", 5, range(2, 3)),
        ("0", 1, range(0)),
    ],
)
def test_the_rows_of_a_half_are_stable(path: str, rows: int, positions: range) -> None:
    """A half with a doubt must hold the same rows after a deploy."""
    assert list(positions) == list(KEY._replace(path=path).within(rows))


@pytest.mark.parametrize("path", ["", "0", "1", "10", "1101"])
def test_a_lineage_leads_from_a_part_to_its_planned_chunk(path: str) -> None:
    """Each chunk in it is a half of the next one."""
    lineage = list(KEY._replace(path=path).lineage())

    assert [path[:length] for length in reversed(range(len(path) + 1))] == [one.path for one in lineage]
    assert {KEY} == {one.planned for one in lineage}
    assert all(one in above.halves for one, above in pairwise(lineage))


def tree(*states: tuple[str, State]) -> Span:
    """Return a span with the shop's views split into leaves with these paths and states."""
    entries = {KEY._replace(path=path): Entry(state) for path, state in states}
    for path, _ in states:
        for length in range(len(path)):
            entries[KEY._replace(path=path[:length])] = SPLIT
    return span(chunks={KEY: 8}, entries=entries, settled=True)


def test_the_first_settlement_names_what_is_not_delivered() -> None:
    """Otherwise settling would make it delivered. Chunks that were put again wait whether settled or not, and are decided once."""
    both = span(chunks={KEY: 2, CLICKS: 1, AGAIN: 1})

    assert {CLICKS: Entry(since=PLANNED_AT)} == both.with_entries({KEY: DELIVERED}, settled=True).entries
    assert {KEY: DELIVERED} == both.with_entries({KEY: DELIVERED}).entries
    assert {} == both.with_entries({KEY: DELIVERED, CLICKS: DELIVERED}, settled=True).entries
    assert both.with_entries({}, settled=True).with_entries({}).settled
    decided = span(chunks={AGAIN: 1}, settled=True).with_entries({AGAIN: DELIVERED})
    assert {AGAIN: DELIVERED} == decided.entries
    assert {KEY: SPLIT, HALVES[0]: DELIVERED} == both.with_entries({KEY: SPLIT, HALVES[0]: DELIVERED}).entries


@given(
    st.dictionaries(st.sampled_from([KEY, CLICKS, AGAIN]), st.sampled_from(list(State)), max_size=3),
    st.booleans(),
)
def test_settling_changes_no_state(states: dict[ChunkKey, State], named: bool) -> None:
    """Whatever is known of a span's chunks before, the same is known after."""
    before = span(chunks={KEY: 2, CLICKS: 1, AGAIN: 1})
    if named:
        known = {one: Entry(state) for one, state in states.items() if state is not SPLIT.state}
        before = before.with_entries(known)
    after = before.with_entries({}, settled=True)

    was, now = ({key: entry.state for key, entry in one.all_leaves()} for one in (before, after))
    assert was == now


@pytest.mark.parametrize(
    ("states", "final"),
    [
        *(([("", state)], state in FINAL) for state in State if state is not State.SPLIT),
        ([("0", State.DELIVERED), ("1", State.DROPPED)], True),
        ([("0", State.DELIVERED), ("1", State.WAITING)], False),
        ([("0", State.DELIVERED), ("10", State.DROPPED), ("11", State.DEAD)], False),
        ([("0", State.DELIVERED), ("10", State.DROPPED), ("11", State.DELIVERED)], True),
    ],
)
def test_a_chunk_is_final_when_all_its_leaves_are(states: list[tuple[str, State]], final: bool) -> None:
    """Only then may its rows be deleted. Rejected events do not keep a span: they have objects of their own."""
    assert final == tree(*states).is_final_chunk(KEY)
    assert (final or states == [("", State.REJECTED)]) == tree(*states).is_final
    rejected = ChunkKey(VIEWS._replace(code="too_deep", is_rejected=True), 0)
    assert [False, True] == [span(chunks={rejected: 1} | more).has_rows for more in ({}, {KEY: 1})]
    every = {key(f"shop/views/{part}"): Entry(state) for part, state in enumerate(FINAL)}
    assert span(chunks=dict.fromkeys((rejected, *every), 1), entries=every).is_final


def test_final_spans_outlive_the_longest_retention() -> None:
    """Kinesis keeps records for at most 365 days. The ledger notes that time itself, so a difference needs no write."""
    assert 366 * 86_400 == SECONDS_KEPT
    assert span() == replace(span(), final_at=1)


# The room that an item leaves

LONGEST = "n" * 128
LONGEST_ENTRY = Entry(
    State.DELIVERED,
    since=1_999_999_999_999,
    database=LONGEST,
    generation=9_999,
    reason="r" * 32,
    at=1_999_999_999_999,
    words=kept("茶" * 900, compress(b"")),
)


def largest_plan() -> Span:
    """Return the largest span that may be planned."""
    chunks: dict[ChunkKey, int] = {}
    destinations: dict[RowSender, Destination] = {}
    for serial in count():
        sender = RowSender(f"{serial:064d}", "k" * 16 + "-1234")
        more = {ChunkKey(Group(sender, LONGEST, request_id="f" * 32), 0): 10**7, **chunks}
        goes = {sender: Destination(LONGEST), **destinations}
        if plan_bytes(more, goes) > MAX_PLAN_BYTES:
            break
        chunks, destinations = more, goes
    owner = Owner(ChainId(LONGEST, "4" * 56, SHARD), number("4" * 56))
    copies = {f"{serial:032d}": owner for serial in range(MOST_LOOKUPS)}
    plan = {"chunks": chunks, "destinations": destinations, "copies": copies}
    return span(**plan, records=10_000, writer="f" * 16, object=REF)


def test_a_span_fits_its_item_whatever_happens_to_its_chunks() -> None:
    """Even if planned to the limit, with every chunk in the longest state and split as far as allowed."""
    planned = largest_plan()
    full = planned.with_entries(dict.fromkeys(planned.chunks, LONGEST_ENTRY))
    assert item_size(_item(full)) < MAX_ITEM_BYTES

    waiting = list(planned.chunks)
    while waiting and full.can_split(one := waiting.pop()):
        dead = replace(LONGEST_ENTRY, state=State.DEAD)
        full = full.with_entries({one: replace(dead, state=State.SPLIT), **dict.fromkeys(one.halves, dead)})
        waiting += one.halves  # the longest names
    assert waiting
    assert item_size(_item(full)) < MAX_ITEM_BYTES


def test_a_span_keeps_treasure_data_s_words_for_some_of_its_chunks() -> None:
    """So that its other chunks need no room for them."""
    chunks = {KEY._replace(part=part): 1 for part in range(101)}
    refused = span(chunks=chunks).with_entries(dict.fromkeys(chunks, Entry(State.DEAD, words="no")))

    assert set(chunks) == set(refused.entries)
    assert ["no"] * 100 + [""] == [entry.words for entry in refused.entries.values()]


def test_the_digest_of_sequence_numbers_is_stable() -> None:
    """Spans in the ledger have it."""
    assert "73418d02f444140b" == digest_of_numbers((number("1"), number("2"))).hex()


def test_one_record_fits_an_item() -> None:
    """A record with the most tables and the longest names is planned alone."""
    wide = envelope("s" * 64, {f"{n:0>128}": [row("1")] for n in range(MAX_BLOCKS)}, key_id="k2")
    record = decode(wide, "s", number("1"), 1_700_000_000.0)
    planned = plan(Decided(Records.of([record])), Gap(CHAIN, START), {}, Cut(1000, 1 << 20), 0.0)

    assert MAX_BLOCKS == len(planned.chunks)
    assert plan_bytes(planned.span.chunks, planned.span.destinations) <= MAX_PLAN_BYTES


def test_an_item_has_room_for_splits() -> None:
    """An ordinary chunk can be halved down to its rows. Whatever the item holds, and two more entries, may have 360,000 bytes."""
    one, depth = span(chunks={KEY: 1 << 20}), KEY
    for _ in range(20):
        assert one.can_split(depth)
        one = one.with_entries({depth: SPLIT, **dict.fromkeys(depth.halves, WAITING)})
        depth = depth.halves[1]
    half, owner = HALVES[0], Owner(CHAIN, number("9"))
    used = plan_bytes({KEY: 2}, span().destinations) + 280 + 14 + len(owner.name) + 48 + 2 * (280 + 12 + 2)
    halved = {KEY: SPLIT, half: WAITING}
    full = [span(entries=halved, copies={"c" * (360_000 - used + more): owner}) for more in (0, 1)]
    assert [True, False] == [one.can_split(KEY) for one in full]


@pytest.mark.parametrize(
    ("chunks", "destinations", "size"),
    [
        ({}, {}, 0),
        ({KEY: 1}, {}, 16 + 2 * 12 + 280),
        ({ChunkKey(VIEWS._replace(code="x", is_rejected=True), 0): 1}, {}, 16 + 2 * 14 + 16),
        (
            {},
            {
                RowSender("shop"): Destination("shop_db"),
                RowSender("a"): Destination(reason="gone", is_final=True),
            },
            11 + 16 + 5 + 16,
        ),
    ],
)
def test_a_plan_s_size_has_an_entry_for_each_chunk(
    chunks: dict[ChunkKey, int], destinations: dict[RowSender, Any], size: int
) -> None:
    """Names count with their length, and each entry with the maximum. Rejected events never get a long one."""
    assert size == plan_bytes(chunks, destinations)
