"""Plans: where a span ends, where its rows go, and which blocks belong together."""

import gzip

from hypothesis import given
from hypothesis import strategies as st
from worker.chunk import compress, planned_chunks

from shared.accounts import Account
from tests.support.delivery import envelope, row
from tests.support.spans import UNCUT, span
from worker.plan import count, group, owners_of, plan
from worker.record import Record, decode, number
from worker.span import MAX_PLAN_BYTES, Cut, Database, Group, NotDeliverable, Owner, plan_bytes

SHOP, BLOG, NOBODY = Owner("shop"), Owner("blog"), Owner("-")
STAMP = 1_700_000_000.0


def records(*data: bytes) -> list[Record]:
    """Return records with these bytes, one second apart."""
    return [decode(one, "s", number(str(n)), STAMP + n) for n, one in enumerate(data, 1)]


def answers(**accounts: Account | str) -> dict[str, Account | str]:
    """Return Redis's answers about accounts."""
    return accounts


@given(st.lists(st.sampled_from(["a1", "b1", "a2", "c1"]), min_size=1), st.integers(1, 5))
def test_chunks_and_ids_depend_only_on_the_records(order: list[str], limit: int) -> None:
    """The same records under the same plan give the same chunks, ids and bytes."""
    data = [
        envelope({"a": "shop", "b": "blog", "c": "none"}[one[0]], {f"table_{one[1]}": [row(str(n))]})
        for n, one in enumerate(order)
    ]
    known = answers(shop=Account("s_db"), blog=Account("b_db"), none="unknown_account")

    def built() -> list[tuple[str, str, bytes]]:
        cut = Cut(limit, 1 << 20)
        planned = plan(records(*data), known, cut)
        one = span(destinations=planned.destinations, cut=cut)
        return [
            (chunk.key.name, one.unique_id(chunk.key, "some_db", 0), compress(chunk.payload()))
            for chunk in planned_chunks(planned.groups, one.cut)
        ]

    first = built()
    assert first == built()
    assert len(first) == len({unique_id for _, unique_id, _ in first})
    assert len(order) == sum(gzip.decompress(body).count(b"event_id") for _, _, body in first)


def test_each_account_has_one_destination() -> None:
    """Rows of a revoked key have their own destination, and records without an account have none."""
    revoked = Account("s_db", "active", frozenset({"k2"}))
    data = records(
        envelope("shop", {"views": [row("1")]}, key_id="k1"),
        envelope("shop", {"views": [row("2"), row("3")]}, key_id="k2"),
        envelope("blog", {"views": [row("4")]}),
        envelope("gone", {"views": [row("5")]}),
        b"junk",
    )
    planned = plan(
        data, answers(shop=revoked, blog=Account("b_db", "disabled"), gone="unknown_account"), UNCUT
    )

    assert {
        SHOP: Database("s_db"),
        Owner("shop", "k2"): NotDeliverable("revoked_key"),
        BLOG: NotDeliverable("disabled_account"),
        Owner("gone"): NotDeliverable("unknown_account"),
    } == planned.destinations
    assert {
        Group(SHOP, "views"): 1,
        Group(Owner("shop", "k2"), "views"): 2,
        Group(BLOG, "views"): 1,
        Group(Owner("gone"), "views"): 1,
        Group(NOBODY, "", "undecodable"): 1,
    } == planned.counts


def test_a_stretch_ends_before_an_account_without_an_answer() -> None:
    """Records before it are planned. If it is the first, nothing is."""
    data = records(*(envelope(name, {"views": [row(name)]}) for name in ("shop", "blog", "shop")))

    assert data[:1] == list(plan(data, answers(shop=Account("s_db")), UNCUT).records)
    assert [] == list(plan(data[1:], {}, UNCUT).records)


def test_a_stretch_ends_before_its_limit() -> None:
    """A hole ends before the first record of the span behind it."""
    data = records(*(envelope("shop", {"views": [row(str(n))]}) for n in range(3)))

    assert data[:2] == list(plan(data, answers(shop=Account("s_db")), UNCUT, limit=data[2].number).records)


def test_records_that_are_too_old_wait_for_no_answer() -> None:
    """Records that arrived before the limit are planned without a destination; one exactly at the limit waits."""
    data = records(*(envelope(name, {"views": [row(name)]}) for name in ("shop", "blog", "blog")))
    known = answers(shop=Account("s_db"))
    planned = plan(data, known, UNCUT, is_too_old=lambda at: at < STAMP + 3)

    assert data[:2] == list(planned.records)
    assert NotDeliverable("unresolved") == planned.destinations[BLOG]
    assert data == list(plan(data, known, UNCUT, is_too_old=lambda at: at < STAMP + 3.001).records)


def test_ignored_records_have_no_rows() -> None:
    """The plan lists their positions, but counts none of their rows."""
    data = records(*(envelope("shop", {"views": [row(str(n))]}) for n in range(4)))
    planned = plan(
        data, answers(shop=Account("s_db")), UNCUT, ignored=frozenset((data[1].number, data[3].number))
    )

    assert frozenset((1, 3)) == planned.ignored
    assert {Group(SHOP, "views"): 2} == planned.counts
    assert [data[0].blocks[0], data[2].blocks[0]] == list(planned.groups[Group(SHOP, "views")])


def test_a_plan_fits_its_item() -> None:
    """A stretch is shortened until its plan fits into a ledger item, but never to nothing."""
    data = records(*(envelope(f"acct_{n}", {"views": [row("1")]}) for n in range(2_000)))
    known: dict[str, Account | str] = {one.account: Account("some_db") for one in data}
    planned = plan(data, known, UNCUT)
    wide = envelope("shop", {f"{n:0>128}": [row("1")] for n in range(500)})

    assert plan_bytes(planned.counts, planned.destinations, UNCUT) <= MAX_PLAN_BYTES
    assert data[: len(planned.records)] == list(planned.records)
    assert len(data) > len(planned.records) >= len(data) // 4
    assert 1 == len(plan(records(wide, wide), answers(shop=Account("s_db")), UNCUT).records)


def test_one_record_s_plan_fits_its_item() -> None:
    """A record with the most tables and the longest names can be planned alone."""
    wide = envelope("s" * 64, {f"{n:0>128}": [row("1")] for n in range(500)}, key_id="k2")
    revoked = Account("d" * 128, "active", frozenset({"k2"}))
    planned = plan(records(wide), {"s" * 64: revoked}, UNCUT)

    assert plan_bytes(planned.counts, planned.destinations, UNCUT) < 370_000


def test_rows_of_unplanned_owners_are_not_lost() -> None:
    """Only a code change can produce an owner that the plan lacks; such rows get a group of their own."""
    data = records(envelope("shop", {"views": [row("1")]}), envelope("new", {"views": [row("2")]}))
    groups = group(data, owners_of(data, {SHOP: Database("shop_db")}))

    assert {Group(SHOP, "views"): 1, Group(NOBODY, "", "unplanned"): 1} == count(groups)


def test_owners_are_those_of_the_plan() -> None:
    """Revoking a key, or restoring it, after the plan was made changes nothing."""
    data = records(
        envelope("shop", {"views": [row("1")]}, key_id="k1"),
        envelope("shop", {"views": [row("2")]}, key_id="k2"),
    )
    planned = {SHOP: Database("shop_db"), Owner("shop", "k2"): NotDeliverable("revoked_key")}

    assert {("shop", "k1"): SHOP, ("shop", "k2"): Owner("shop", "k2")} == owners_of(data, planned)
    assert {("shop", "k1"): SHOP, ("shop", "k2"): SHOP} == owners_of(data, {SHOP: Database("shop_db")})
