"""Plans: where a span ends, where its rows go, and the chunks that they are sent in."""

from itertools import pairwise

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from shared.accounts import Account
from tests.support.delivery import envelope, row
from tests.support.spans import CHAIN
from worker.claims import Decided
from worker.ledger import Gap
from worker.plan import Cut, Plan, plan
from worker.record import START, Record, Records, decode, number
from worker.span import MAX_PLAN_BYTES, TOO_MANY_TABLES, Destination, RowSender, digest_of_numbers, plan_bytes

STAMP = 1_700_000_000.0
UNCUT = Cut(1_000_000, 1 << 30)
SHOP_DB = {"shop": Account("shop_db")}
END = Gap(CHAIN, START)


def records(*data: bytes) -> Records:
    """Return records with these bytes, one second apart."""
    return Records.of([decode(one, "s", number(str(n)), STAMP + n) for n, one in enumerate(data, 1)])


def counts(planned: Plan) -> dict[str, int]:
    """Return the numbers of rows by the names of chunks."""
    return {key.name: rows for key, rows in planned.span.chunks.items()}


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12),
    st.integers(1, 20),
    st.integers(1, 40),
)
def test_cutting_keeps_to_the_limits(sizes: list[tuple[int, int]], most_rows: int, most_bytes: int) -> None:
    """Chunks keep the blocks in order and are as full as whole blocks allow; only a single block may exceed a limit."""
    blocks = [("views", count, bytes([n]) * size) for n, (count, size) in enumerate(sizes)]
    data = [Record(number(str(n)), STAMP, "shop", "k", 1, "r", 0, (one,)) for n, one in enumerate(blocks, 1)]
    chunks = plan(Decided(Records.of(data)), END, SHOP_DB, Cut(most_rows, most_bytes), STAMP).chunks

    assert [block[2] for block in blocks] == [part for chunk in chunks for part in chunk.blocks]
    assert [f"shop/views/{n}" for n in range(len(chunks))] == [chunk.key.name for chunk in chunks]
    assert list(range(len(blocks))) == [place for chunk in chunks for place in chunk.positions]
    for chunk in chunks:
        assert sum(chunk.row_counts) == chunk.rows
        fits = chunk.rows <= most_rows and len(b"".join(chunk.blocks)) <= most_bytes
        assert fits or len(chunk.blocks) == 1
    for chunk, following in pairwise(chunks):
        more = len(b"".join(chunk.blocks)) + len(following.blocks[0])
        assert chunk.rows + following.row_counts[0] > most_rows or more > most_bytes


def test_each_sender_has_one_destination() -> None:
    """Rows that may have another one are apart. A database that has just failed is left to the sender: its rows get no doubt."""
    revoked = Account("s_db", "active", frozenset({"k2"}))
    data = records(
        envelope("shop", {"views": [row("1")]}, key_id="k1"),
        envelope("shop", {"views": [row("2"), row("3")]}, key_id="k2"),
        envelope("blog", {"views": [row("4")]}),
        envelope("gone", {"views": [row("5")]}),
        envelope("later", {"views": [row("6")]}, key_id="k7"),
        b"junk",
        envelope("sick", {"views": [row("7")]}),
    )
    answers = {"shop": revoked, "blog": Account("b_db", "disabled"), "gone": "unknown_account"}
    answers |= {"sick": Account("sick_db")}
    failing = {"s_db": "", "sick_db": "http_503"}.__getitem__
    planned = plan(Decided(data), END, answers, UNCUT, STAMP, failing=failing)

    assert {
        RowSender("shop"): Destination("s_db"),
        RowSender("shop", "k2"): Destination(reason="revoked_key", is_final=True),
        RowSender("blog"): Destination(reason="disabled_account", is_final=True),
        RowSender("gone"): Destination(reason="unknown_account", is_final=True),
        RowSender("later", "k7"): Destination(reason="account_unavailable"),
        RowSender("sick"): Destination(reason="http_503"),
    } == planned.span.destinations
    once = [f"{sender}/views/0" for sender in ("shop", "blog", "gone", "later:k7", "sick")]
    assert {"shop:k2/views/0": 2, **dict.fromkeys([*once, "-/-undecodable/0"], 1)} == counts(planned)


def test_envelopes_that_were_put_again_have_chunks_of_their_own() -> None:
    """One for each envelope and table, by their key: the sender decides each of them later."""
    again = 1_700_000_000_000
    data = records(
        envelope("shop", {"views": [row("1")]}, request_id="a", claim=again),
        envelope("shop", {"views": [row("2")], "clicks": [row("3")]}, request_id="b", claim=again),
        envelope("shop", {"views": [row("4")]}, request_id="c", claim=1),
        envelope("shop", {"views": [row("5")]}, request_id="d"),
    )
    apart = dict.fromkeys((f"shop:k1/{one}/0" for one in ("views~a", "views~b", "clicks~b")), 1)

    assert {"shop/views/0": 2, **apart} == counts(plan(Decided(data), END, SHOP_DB, UNCUT, STAMP))


def test_records_that_do_not_count_have_no_rows() -> None:
    """They are in the index all the same, which says so."""
    data = records(*(envelope("shop", {"views": [row(str(n))]}) for n in range(4)))
    planned = plan(Decided(data, frozenset((1, 3))), END, SHOP_DB, UNCUT, STAMP)

    assert (frozenset((1, 3)), {"shop/views/0": 2}) == (planned.index.uncounted, counts(planned))
    assert list(data.blocks[3][::2]) == planned.chunks[0].blocks
    assert [0, 2] == list(planned.chunks[0].positions)
    assert digest_of_numbers(data.numbers) == planned.span.digest


def test_a_plan_knows_its_times_and_its_index_names_every_record() -> None:
    """With its arrival, which may run back, receipt, request id and claim; one that had to be claimed counts as claimed."""
    first, last, junk = records(envelope("shop", {"views": [row("1")]}, request_id="a"), b"b", b"junk")
    data = [first._replace(received_at=5), last._replace(arrived_at=1.5, received_at=7), junk]
    decided = Decided(Records.of(data).claimed({junk.number}))
    planned = plan(decided, END, SHOP_DB, UNCUT, STAMP)
    span, index = planned.span, planned.index

    assert "0011 0012 0013" == index.joined
    assert [1_700_000_001_000, 1500, 1_700_000_003_000] == list(index.arrivals)
    assert [5, 7, 1_700_000_003_000] == list(index.receipts)
    assert ["a", "", ""] == list(index.request_ids)
    assert [0, 0, 1] == list(index.claims)
    assert (1500, 1_700_000_003_000, 5) == (span.earliest, span.latest, span.received_at)


def test_a_plan_fits_its_item() -> None:
    """It is shortened until it does, but never to nothing."""
    data = records(*(envelope(f"acct_{n}", {"views": [row("1")]}) for n in range(2_000)))
    span = plan(Decided(data), END, {}, UNCUT, STAMP).span

    assert plan_bytes(span.chunks, span.destinations) <= MAX_PLAN_BYTES
    assert digest_of_numbers(data.numbers[: span.records]) == span.digest
    assert len(data) > span.records >= len(data) // 8


def test_rows_of_tables_that_are_too_many_share_a_chunk() -> None:
    """It holds the table and the number of each block's rows. Envelopes that were put again stay apart."""
    tables = {name: [row(name)] for name in ("views", "clicks", "orders")}
    again = envelope("shop", {"clicks": [row("x")]}, request_id="a", claim=2)
    data = records(envelope("shop", tables), again)
    excess = {"clicks", "orders"}
    planned = plan(Decided(data), END, SHOP_DB, UNCUT, STAMP, excess=lambda *_: excess)
    mixed = next(chunk for chunk in planned.chunks if chunk.key.group.code == TOO_MANY_TABLES)

    expected = {"shop/views/0": 1, "shop:k1/clicks~a/0": 1, "shop/-too_many_tables/0": 2}
    assert expected == counts(planned)
    blocks = [[table, 1, msgpack.packb(row(table))] for table in ("clicks", "orders")]
    assert blocks == [msgpack.unpackb(block) for block in mixed.blocks]
