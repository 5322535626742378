"""Spans: names of chunks, halves, entries, and the room that an item leaves."""

from dataclasses import replace
from itertools import count, pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker.delivery import FINAL, Entry, State

from doubles.dynamodb.table import MAX_ITEM_BYTES, item_size
from shared.rows import Code
from tests.support.delivery import Delivery
from tests.support.spans import CHAIN, KEY, UNCUT, VIEWS, groups, key, keys, owners, span
from worker.chain import ChainId
from worker.ledger import _item
from worker.record import Record, number
from worker.span import (
    EXPIRED_PART,
    MAX_PLAN_BYTES,
    NO_OWNER,
    SECONDS_KEPT,
    Archived,
    ChunkKey,
    Cut,
    Database,
    Destination,
    Group,
    NotDeliverable,
    Owner,
    Span,
    plan_bytes,
)

HALVES = KEY.halves
DELIVERED, DROPPED = Entry(State.DELIVERED, 1), Entry(State.DROPPED, 1)
PENDING, SPLIT = Entry(State.PENDING, 1), Entry(State.SPLIT, 2)


# Names


@given(owners)
def test_owners_round_trip_through_their_names(owner: Owner) -> None:
    """An owner is an account, with a key id if its rows came by a revoked key."""
    assert owner == Owner.parse(owner.name)


@given(groups)
def test_groups_round_trip_through_their_names(group: Group) -> None:
    """A group is a table's rows, or originals that could not become rows."""
    assert group == Group.parse(group.name)


@given(keys)
def test_chunk_keys_round_trip_through_their_names(one: ChunkKey) -> None:
    """A key is that of a planned chunk, or of a half at any depth."""
    assert one == ChunkKey.parse(one.name)


@pytest.mark.parametrize(
    ("one", "name"),
    [
        (KEY, "shop/views/0"),
        (KEY._replace(part=3, path="01"), "shop/views/3.0.1"),
        (ChunkKey(Group(Owner("shop", "k2-7"), "views"), 0), "shop:k2-7/views/0"),
        (ChunkKey(Group(NO_OWNER, "", "undecodable"), 0), "-/-undecodable/0"),
        (KEY._replace(part=EXPIRED_PART), "shop/views/-1"),
    ],
)
def test_chunk_names_are_stable(one: ChunkKey, name: str) -> None:
    """Names are in the ledger and in objects, and part of the unique ids that rows are sent under."""
    assert name == one.name


@pytest.mark.parametrize(
    "name", ["", "0", "shop/views", "/0", "shop/views/", "shop/views/0.2", "shop/views/0.01", "shop/views/x"]
)
def test_texts_that_do_not_name_a_chunk_are_rejected(name: str) -> None:
    """Each part of a name is required, and its numbers must be numbers."""
    with pytest.raises(ValueError, match=r"does not name a chunk|invalid literal"):
        ChunkKey.parse(name)


@pytest.mark.parametrize("code", get_args(Code))
def test_originals_that_are_not_rows_are_never_deliverable(code: str) -> None:
    """Their code is the reason."""
    assert NotDeliverable(code) == span().destination(ChunkKey(Group(Owner("shop"), "", code), 0))


def test_an_entry_s_database_replaces_the_plan_s() -> None:
    """A chunk that was redriven to another database stays there."""
    moved = span(entries={KEY: Entry(State.IN_DOUBT, 2, database="new_db")})

    assert Database("shop_db") == span().destination(KEY)
    assert Database("new_db") == moved.destination(KEY)


def test_ids_differ_with_everything_that_matters() -> None:
    """Another chain, place, chunk, cut, database or generation gives another id."""
    base = span()
    ids = [
        base.unique_id(KEY, "shop_db", 0),
        base.unique_id(KEY._replace(part=1), "shop_db", 0),
        base.unique_id(key("shop/clicks/0"), "shop_db", 0),
        base.unique_id(key("shop:k1/views/0"), "shop_db", 0),
        base.unique_id(HALVES[0], "shop_db", 0),
        base.unique_id(HALVES[1], "shop_db", 0),
        base.unique_id(KEY, "other_db", 0),
        base.unique_id(KEY, "shop_db", 1),
        span(chain=CHAIN.hole(number("9"))).unique_id(KEY, "shop_db", 0),
        span(after=number("17")).unique_id(KEY, "shop_db", 0),
        span(cut=Cut(1, UNCUT.bytes)).unique_id(KEY, "shop_db", 0),
        span(cut=Cut(UNCUT.rows, 1)).unique_id(KEY, "shop_db", 0),
        base.object_id(KEY),
    ]

    assert len(ids) == len(set(ids))
    assert {32} == {len(one) for one in ids}
    assert base.object_id(KEY) == base.object_id(HALVES[1])


def test_an_id_defaults_to_the_entry_s_generation() -> None:
    """Another generation can be given."""
    again = span(entries={KEY: Entry(State.IN_DOUBT, 2, generation=3)})

    assert again.unique_id(KEY, "shop_db", 3) == again.unique_id(KEY, "shop_db")
    assert span().unique_id(KEY, "shop_db", 0) == span().unique_id(KEY, "shop_db")


def test_ids_are_stable() -> None:
    """A chunk in doubt must be sent under the same id after a deploy."""
    assert "812cf8eb28f5121756c68464233b7909" == span().unique_id(KEY, "shop_db", 0)
    assert "cf76f78000dc733978b5b5a1ce107b7c" == span().object_id(KEY)


# Halves


@given(st.integers(0, 300), st.integers(0, 9))
def test_halves_hold_the_positions_of_the_whole_in_order(rows: int, depth: int) -> None:
    """At any depth, each position is in one leaf, and no leaf exceeds its share."""
    leaves = [KEY]
    for _ in range(depth):
        leaves = [half for leaf in leaves for half in leaf.halves]
    positions = [leaf.within(rows) for leaf in leaves]

    assert list(range(rows)) == [position for part in positions for position in part]
    assert max(map(len, positions)) <= -(-rows // 2**depth)


@pytest.mark.parametrize(
    ("path", "rows", "positions"),
    [
        ("", 5, range(5)),
        ("0", 5, range(2)),
        ("1", 5, range(2, 5)),
        ("10", 5, range(2, 3)),
        ("11", 5, range(3, 5)),
        ("0", 1, range(0)),
        ("1", 1, range(1)),
    ],
)
def test_the_rows_of_a_half_are_stable(path: str, rows: int, positions: range) -> None:
    """A half in doubt must hold the same rows after a deploy."""
    assert list(positions) == list(KEY._replace(path=path).within(rows))


@given(keys, st.integers(0, 300))
def test_a_part_has_the_same_rows_within_every_chunk_of_its_lineage(one: ChunkKey, rows: int) -> None:
    """Positions within a chunk lead to the same rows as those within its planned chunk."""
    for whole in one.lineage():
        all_rows = whole.within(rows)
        assert list(one.within(rows)) == [all_rows[n] for n in one.within(len(all_rows), whole)]


@pytest.mark.parametrize(
    ("whole", "positions"),
    [
        (None, range(4, 6)),
        (KEY, range(4, 6)),
        (HALVES[1], range(4)),
        (HALVES[1].halves[0], range(8)),
    ],
)
def test_the_rows_of_a_part_are_counted_within_any_chunk_that_it_is_a_part_of(
    whole: ChunkKey | None, positions: range
) -> None:
    """By default that is the planned chunk. Here the chunk has eight rows."""
    assert positions == HALVES[1].halves[0].within(8, whole)


@pytest.mark.parametrize("path", ["", "0", "1", "10", "1101"])
def test_a_lineage_leads_from_a_part_to_its_planned_chunk(path: str) -> None:
    """Each chunk in it is a half of the next one."""
    lineage = list(KEY._replace(path=path).lineage())

    assert [path[:length] for length in reversed(range(len(path) + 1))] == [one.path for one in lineage]
    assert {KEY} == {one.planned for one in lineage}
    assert all(one in above.halves for one, above in pairwise(lineage))


@given(keys)
def test_halves_belong_to_their_planned_chunk(one: ChunkKey) -> None:
    """Halving keeps group and part, and a planned chunk is its own planned chunk."""
    assert one.planned == one.halves[0].planned == one.halves[1].planned == one.planned.planned
    assert "" == one.planned.path
    assert one.halves[0] != one.halves[1]


def tree(*states: tuple[str, State], digest: str = "", done: bool = False) -> Span:
    """Return a span with the shop's views split into leaves with these paths and states."""
    entries = {KEY._replace(path=path): Entry(state, 1, digest=digest) for path, state in states}
    for path, _ in states:
        for length in range(len(path)):
            entries[KEY._replace(path=path[:length])] = Entry(State.SPLIT, 0, digest=digest)
    return span(entries=entries, done=done)


def test_leaves_replace_a_split_chunk() -> None:
    """A chunk that is not split is its own leaf."""
    split = tree(("0", State.PARKED), ("10", State.DELIVERED), ("11", State.DEAD_LETTER))

    assert [KEY] == list(span().leaves(KEY))
    assert ["0", "10", "11"] == [leaf.path for leaf in split.leaves(KEY)]
    assert ["10", "11"] == [leaf.path for leaf in split.leaves(HALVES[1])]


@pytest.mark.parametrize("state", sorted(FINAL))
def test_halves_with_the_same_final_state_are_joined(state: State) -> None:
    """Whole subtrees become one entry with all their rows, so that splits do not fill the item for good."""
    split = tree(("0", state), ("10", state), ("11", State.PARKED))
    joined = split.with_entries({KEY._replace(path="11"): Entry(state, 1)})

    assert {KEY: Entry(state, 3)} == joined.entries


def test_halves_with_different_final_states_stay() -> None:
    """Delivered rows do not count as dropped."""
    split = tree(("0", State.DELIVERED), ("10", State.DELIVERED), ("11", State.DEAD_LETTER))
    ended = split.with_entries({KEY._replace(path="11"): DROPPED})

    assert {
        "": State.SPLIT,
        "0": State.DELIVERED,
        "1": State.SPLIT,
        "10": State.DELIVERED,
        "11": State.DROPPED,
    } == {one.path: entry.state for one, entry in ended.entries.items()}
    assert ended.is_final(KEY)


def test_joined_halves_keep_their_object() -> None:
    """The joined entry still names the object that the chunk was set aside in."""
    split = tree(("0", State.DEAD_LETTER), ("1", State.DEAD_LETTER), digest="d1", done=True)
    joined = split.with_entries({half: Entry(State.DROPPED, 1, digest="d1") for half in HALVES})

    assert {KEY: Entry(State.DROPPED, 2, digest="d1")} == joined.entries
    assert joined.is_final(KEY)


def test_delivered_halves_leave_no_entry_in_a_done_span() -> None:
    """Not even the split is kept."""
    split = tree(("0", State.PARKED), ("10", State.PARKED), ("11", State.PARKED), done=True)
    first = split.with_entries(dict.fromkeys((HALVES[0], HALVES[1]._replace(path="10")), DELIVERED))
    second = first.with_entries({HALVES[1]._replace(path="11"): DELIVERED})

    assert {"": State.SPLIT, "1": State.SPLIT, "11": State.PARKED} == {
        one.path: entry.state for one, entry in first.entries.items()
    }
    assert {} == second.entries
    assert second.is_final(KEY)


def test_a_done_span_keeps_no_entries_of_delivered_chunks() -> None:
    """Open spans and chains of the overflow queue keep them, since they show what was sent."""
    entries = {
        KEY: DELIVERED,
        key("shop/views/1"): Entry(State.DELIVERED, 1, digest="d1"),
        key("shop/views/2"): SPLIT,
        key("shop/views/2.0"): DELIVERED,
        key("shop/views/2.1"): Entry(State.PARKED, 1),
        key("shop/views/3"): DROPPED,
    }
    done = span().with_entries(entries, done=True)

    assert ["shop/views/2", "shop/views/2.1", "shop/views/3"] == [one.name for one in done.entries]
    assert done.with_entries({}).done
    assert entries == span().with_entries(entries).entries
    overflow = replace(span(), chain=ChainId.overflow("r1"))
    assert entries == overflow.with_entries(entries, done=True).entries


@pytest.mark.parametrize(
    ("states", "final"),
    [
        ([("", State.DELIVERED)], True),
        ([("", State.DROPPED)], True),
        ([("", State.MISSING)], True),
        ([("", State.PENDING)], False),
        ([("", State.PARKED)], False),
        ([("", State.IN_DOUBT)], False),
        ([("", State.DEAD_LETTER)], False),
        ([("0", State.DELIVERED), ("1", State.DROPPED)], True),
        ([("0", State.DELIVERED), ("1", State.PARKED)], False),
        ([("0", State.DELIVERED), ("10", State.DROPPED), ("11", State.DEAD_LETTER)], False),
    ],
)
@pytest.mark.parametrize("done", [False, True])
def test_a_chunk_is_final_when_all_its_leaves_are(
    states: list[tuple[str, State]], final: bool, done: bool
) -> None:
    """Only then may its object be deleted. For a half, the answer is its planned chunk's."""
    one = tree(*states, done=done)

    assert final == one.is_final(KEY)
    assert final == one.is_final(KEY._replace(path=states[0][0]))


@pytest.mark.parametrize("done", [False, True])
def test_a_chunk_without_an_entry_is_final_once_the_span_is_done(done: bool) -> None:
    """It is then delivered, and before that pending."""
    assert done == span(done=done).is_final(KEY)
    assert (State.DELIVERED if done else State.PENDING) is span(done=done).entry(KEY).state


def test_a_pending_chunk_may_have_been_sent_since_its_plan() -> None:
    """The invocation that planned it may have sent it before it died."""
    assert 1_700_000_000_000 == span().entry(KEY).since


@pytest.mark.parametrize(
    ("states", "done", "settled"),
    [
        ([], False, False),
        ([], True, True),
        ([("", State.DROPPED)], True, True),
        ([("", State.MISSING)], True, True),
        ([("0", State.DELIVERED), ("1", State.DROPPED)], True, True),
        ([("0", State.DELIVERED), ("1", State.PARKED)], True, False),
        ([("", State.DEAD_LETTER)], True, False),
        ([("", State.IN_DOUBT)], True, False),
        ([("", State.DELIVERED)], False, False),
    ],
)
def test_a_span_is_settled_when_nothing_is_left_to_do(
    states: list[tuple[str, State]], done: bool, settled: bool
) -> None:
    """Only then may the ledger let it expire."""
    made = Delivery()
    _, open_span = made.ledger.append(tree(*states, done=done))
    made.ledger.update(open_span)

    assert settled == (made.spans()[0].final_at is not None)


# The room that an item leaves

LONGEST_OWNER = "o" * 64
LONGEST_NAME = "n" * 128
KEY_ID = "k" * 16 + "-1234"
LONGEST_REASON = "r" * 32
STATES = [State.PARKED, State.IN_DOUBT, State.DEAD_LETTER]


def longest(rows: int = 10**7) -> Entry:
    """Return an entry that takes the most room."""
    return Entry(
        State.DEAD_LETTER,
        rows,
        since=1_999_999_999_999,
        reason=LONGEST_REASON,
        aside_at=1_999_999_999_999,
        database=LONGEST_NAME,
        generation=9_999,
        edit=9_999,
        digest="d" * 32,
    )


def largest_plan(cut: Cut, rows: int) -> Span:
    """Return the largest span that may be planned, with this many rows in each group."""
    counts: dict[Group, int] = {}
    destinations: dict[Owner, Database] = {}
    for serial in count():
        owner = Owner(f"{serial:05d}{LONGEST_OWNER[5:]}", KEY_ID)
        more = counts | {Group(owner, LONGEST_NAME): rows}
        goes = destinations | {owner: Database(LONGEST_NAME)}
        if plan_bytes(more, goes, cut) > MAX_PLAN_BYTES:
            break
        counts, destinations = more, goes
    return span(
        destinations=destinations,
        cut=cut,
        counts=counts,
        records=10_000,
        ignored=frozenset(range(10_000)),
        writer="f" * 16,
    )


@pytest.mark.parametrize(("cut", "rows"), [(UNCUT, 10**4), (Cut(10, 1 << 20), 95), (Cut(2, 1 << 20), 501)])
def test_a_span_fits_its_item_whatever_happens_to_its_chunks(cut: Cut, rows: int) -> None:
    """Even if planned to the limit, with every chunk set aside at its longest and split as far as allowed."""
    planned = largest_plan(cut, rows)
    parts = range(1 + 2 * rows // cut.rows)
    aside = planned.with_entries(
        {ChunkKey(group, part): longest() for group in planned.counts for part in parts}
    )

    assert item_size(_item(aside)) < MAX_ITEM_BYTES

    waiting = [ChunkKey(group, part) for group in planned.counts for part in parts]
    while waiting and aside.can_split(one := waiting.pop()):
        entries = {one: longest()} | dict.fromkeys(one.halves, longest())
        aside = Span.with_entries(aside, entries)
        waiting += one.halves  # the longest names
    assert waiting
    assert item_size(_item(aside)) < MAX_ITEM_BYTES


def test_an_item_has_room_for_splits() -> None:
    """An ordinary chunk can be halved down to its rows. A full item allows no further split."""
    one, depth = span(), KEY
    for _ in range(20):
        assert one.can_split(depth)
        one = one.with_entries({depth: SPLIT, **dict.fromkeys(depth.halves, PENDING)})
        depth = depth.halves[1]
    planned = largest_plan(UNCUT, 10)
    full = planned.with_entries({KEY._replace(path=f"{number:010b}"): PENDING for number in range(300)})

    assert not full.can_split(next(ChunkKey(group, 0) for group in planned.counts))


@pytest.mark.parametrize(
    ("counts", "destinations", "size"),
    [
        ({}, {}, 0),
        ({VIEWS: 1}, {}, 10 + 16 + 340),
        ({VIEWS: 10}, {}, 10 + 16 + 5 * 340),  # the most possible parts, and one more
        ({VIEWS: 10, Group(Owner("shop"), "", "x"): 1}, {}, 1726 + 7 + 16 + 337),
        ({}, {Owner("shop"): Database("shop_db"), Owner("a"): NotDeliverable("gone")}, 11 + 16 + 6 + 16),
    ],
)
def test_a_plan_s_size_has_one_entry_per_part(
    counts: dict[Group, int], destinations: dict[Owner, Destination], size: int
) -> None:
    """Names count with their length, and each entry with the maximum."""
    assert size == plan_bytes(counts, destinations, Cut(5, 1))


@pytest.mark.parametrize("half", [False, True])
def test_a_chunk_is_split_only_if_the_item_has_room_for_both_halves(half: bool) -> None:
    """The limit is exact to the byte. Existing halves count with their names; others are part of the plan."""
    other = key("shop/clicks/0")
    entries = {other: PENDING, **({other.halves[0]: PENDING} if half else {})}
    taken = half * (330 + len("shop/clicks/0.0")) + 2 * (330 + len("shop/views/0.0"))
    room = 370_000 - taken - plan_bytes({VIEWS: 1}, {Owner("shop"): Database("")}, UNCUT)
    fits, too_long = (
        span(counts={VIEWS: 1}, destinations={Owner("shop"): Database("x" * length)}, entries=entries)
        for length in (room, room + 1)
    )

    assert fits.can_split(KEY)
    assert not too_long.can_split(KEY)


def test_settled_spans_outlive_the_longest_retention() -> None:
    """Kinesis keeps records for at most 365 days."""
    assert 366 * 86_400 == SECONDS_KEPT


def test_a_new_span_has_nothing_but_its_plan() -> None:
    """It is open, at its first version, and without a writer."""
    made = Span(CHAIN, number("1"), number("2"), number("3"), 0, {}, UNCUT, {})

    assert (0, frozenset(), 1, "") == (made.records, made.ignored, made.version, made.writer)
    assert (False, {}) == (made.done, made.entries)
    assert (b"", None, False) == (made.digest, made.archived, made.in_order)


def test_spans_are_equal_whenever_they_were_settled() -> None:
    """The ledger notes that time itself, so a difference needs no write."""
    assert span() == replace(span(), final_at=1)


@pytest.mark.parametrize(("place", "expected"), [("0", False), ("1", True), ("9", True), ("10", False)])
def test_a_span_has_the_records_from_its_first_to_its_last(place: str, expected: bool) -> None:
    """Both are included."""
    assert expected is span().has(number(place))


def test_a_span_is_whole_with_exactly_its_records() -> None:
    """Their number must match, and their digest if the plan has one."""
    numbers = [number("1"), number("9")]
    unnamed = span()
    named = span(digest=bytes.fromhex("3f942e535dcca6cc"))

    assert [True, True] == [unnamed.is_whole(numbers), unnamed.is_whole([number("1"), number("8")])]
    assert [True, False] == [named.is_whole(numbers), named.is_whole([number("1"), number("8")])]
    assert [False, False] == [one.is_whole(numbers[:1]) for one in (unnamed, named)]


def test_the_archive_has_the_earliest_and_the_latest_arrival() -> None:
    """Kinesis' arrival times need not be in order. With 0 days, nothing is archived."""
    records = [Record(number(str(at)), at, "shop", "", 0, "r", 0, ()) for at in (2.5, 1.25, 3.0625, 2.0)]

    assert Archived(1250, 3062, 30) == Archived.of(records, 30)
    assert Archived.of(records, 0) is None


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (VIEWS, False),
        (Group(Owner("shop"), "", "undecodable"), False),
        (Group(Owner("shop"), "", "too_many_tables"), True),
        (Group(Owner("shop"), "views", "wrong_type", is_rejected=True), True),
    ],
)
def test_groups_of_several_tables_and_of_rejected_events_are_gathered(group: Group, expected: bool) -> None:
    """They join blocks of several records, so none of those is the only source."""
    assert expected is group.is_gathered


def test_joined_halves_make_room_for_new_splits() -> None:
    """Otherwise finished splits would keep other chunks from being split."""
    one = tree(("0", State.PENDING), ("1", State.PENDING))
    joined = one.with_entries(dict.fromkeys(HALVES, DELIVERED))

    assert {KEY: Entry(State.DELIVERED, 2)} == joined.entries
    assert VIEWS in joined.counts
