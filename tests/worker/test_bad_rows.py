"""Rows that Treasure Data rejects, and the fate of the rows sent with them."""

from collections.abc import Collection
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.treasure_data import Action, Fault, Kind
from tests.support.delivery import Delivery, envelope, row, shops
from worker.sender import Report


def delivery(count: int, bad: Collection[int]) -> Delivery:
    """Return a delivery of one chunk that has some rows Treasure Data rejects."""
    made = shops(envelope("shop", {"views": [row(f"e{n}", n=n) for n in range(count)]}))
    made.td.settings = replace(made.td.settings, rejects=lambda one: one.get("n") in bad)
    return made


def settle(made: Delivery) -> None:
    """Deliver the batch, and send what waits, halves and all."""
    assert made.deliver() is None
    for _ in range(4):
        made.send()


@given(
    st.integers(1, 40).flatmap(
        lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1), max_size=3))
    )
)
@settings(max_examples=60, deadline=None)
def test_a_bad_row_affects_only_itself(rows: tuple[int, set[int]]) -> None:
    """The other rows are delivered once, and each bad row becomes a dead letter of its own."""
    count, bad = rows
    made = delivery(count, bad)

    settle(made)
    assert [f"e{n}" for n in range(count) if n not in bad] == sorted(
        made.ids("shop_db", "views"), key=lambda name: int(name[1:])
    )
    assert [("dead", "http_422", 1)] * len(bad) == list(made.chunks().values())
    assert len(bad) == made.telemetry.counts["RowsDead"]


def test_one_bad_row_costs_two_imports_per_halving() -> None:
    """Of 4096 rows the bad one is found after 12 halvings."""
    made = delivery(4096, {1234})
    tried: list[str] = []
    handle = made.td.handle
    made.td.handle = lambda request: (tried.append(request.target), handle(request))[1]  # type: ignore[method-assign]  # observed
    settle(made.start())
    imports = [one for one in tried if "/import_with_id/shop_db/views/" in one]

    assert [("dead", "http_422", 1)] == list(made.chunks().values())
    assert 4095 == made.td.counts()["shop_db"]["views"]
    assert 1 + 2 * 12 == len(imports) == len(set(imports))


def test_a_413_from_a_proxy_makes_no_single_row_a_dead_letter() -> None:
    """The row is sent again once Treasure Data shows that it lacks it."""
    made = delivery(1, ())
    made.fail(413, body="<html>")
    assert made.deliver() is None
    made.clock.sleep(2 * 3600)

    assert Report(kept=1, complete=False) == made.send()
    assert {"shop/views/0": ("waiting", "row_too_large", 1)} == made.chunks()
    made.td.faults.clear()
    assert Report(delivered=1) == made.send()


def test_a_404_from_the_wrong_host_does_not_prove_a_database_gone() -> None:
    """While the listing still names the database, rows of a remapped account wait for it."""
    made = delivery(1, ())
    made.fail(500)
    assert made.deliver() is None
    made.td.faults.clear()
    made.map(shop="other_db")
    made.start()
    for action in (Action.IMPORT, Action.CREATE):
        made.td.faults.add(Fault(kind=Kind.STATUS, action=action, status=404))
    made.send()
    assert {"shop/views/0": ("waiting", "create_http_404", 1)} == made.chunks()
    made.td.faults.clear()
    made.send()

    assert ["e0"] == made.ids("shop_db", "views")


def test_halves_that_were_halved_unevenly_are_counted_once() -> None:
    """One half is halved further, while the halves of the other are already merged in the ledger."""
    sizes = [100] * 4 + [300] * 4
    made = shops(envelope("shop", {"views": [row(f"e{n}", text="x" * size) for n, size in enumerate(sizes)]}))
    made.td.settings = replace(made.td.settings, largest_import=500)

    assert made.deliver() is None
    assert 8 == made.send().delivered
    assert [2, 2, 1, 1, 1, 1] == sorted(
        (len(one.rows) for one in made.td.imports() if one.rows), reverse=True
    )
