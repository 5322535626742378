"""Tracking plans: inferred from rows, and compared with rows."""

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ops import accounts_file
from ops.failure import Failure
from ops.plans.plan_profile import MAX_DISTINCT, Drift, Drifts, Profile, changed_columns, is_personal
from ops.plans.plan_text import inferred
from shared.tracking_plan import PlannedColumn, TrackingPlan
from tests.support import delivery
from tests.support.faulty_stack import FaultyStack
from tests.support.sluice import Sluice

NOW = 1_764_000_000.0
names = st.from_regex(r"[a-z_][a-z0-9_]{2,12}", fullmatch=True) | st.sampled_from(["on", "null", "y"])
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)
scalars = st.none() | st.text(max_size=8) | numbers | st.booleans()
tables = st.sampled_from(["pageviews", "off", "123", "null"])
rows = st.lists(st.tuples(tables, st.dictionaries(names, scalars, max_size=5)), min_size=1)


def profile(*found: dict[str, Any], table: str = "orders") -> Profile:
    """Return a profile of rows."""
    made = Profile()
    for row in found:
        made.add(table, row)
    return made


@given(rows)
def test_rows_fit_the_plan_that_is_inferred_from_them(found: list[tuple[str, dict[str, Any]]]) -> None:
    """The plan's YAML text parses to the same plan."""
    made = Profile()
    for table, row in found:
        made.add(table, row)
    plan = made.plan()

    assert plan == TrackingPlan.parse(yaml.safe_load(inferred(made)))
    assert [] == [one for table, row in found for one in plan.violations(table, row)]


def test_a_plan_has_types_values_and_required_columns() -> None:
    """Each is inferred from enough events only. Comments show examples and frequencies."""
    found: list[dict[str, Any]] = [
        {"order": f"A-{n}", "amount": n / 2, "currency": "JPY" if n % 3 else "USD", "td_url": "x"}
        | {"size": f"{n % 8} cm"}  # each too rarely to be a list
        for n in range(24)
    ]
    made = profile(*found, {"order": "A", "amount": 1, "currency": "JPY", "gift": True})
    lines = inferred(made).splitlines()

    assert {
        "order": PlannedColumn("string", required=True),
        "amount": PlannedColumn("number", required=True),
        "currency": PlannedColumn("string", required=True, values=("JPY", "USD")),
        "gift": PlannedColumn("boolean"),
        "size": PlannedColumn("string"),
    } == made.plan().tables["orders"].columns
    assert PlannedColumn("string") == profile({"currency": "JPY"}).plan().tables["orders"].columns["currency"]
    assert "  orders:  # 25 events" in lines
    assert "      gift: boolean  # 4 %; such as true" in lines
    currency = 'currency: {type: string, required: true, values: [JPY, USD]}  # always; such as "JPY", "USD"'
    assert f"      {currency}" in lines


def test_a_profile_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile sender cannot fill the operator's memory: it collects so many values of a column, and counts other drifts."""
    monkeypatch.setattr("ops.plans.plan_profile.MAX_DRIFTS", 2)
    made = profile(*[{"sku": f"s{number}"} for number in range(MAX_DISTINCT + 1)])
    drifts = Drifts(TrackingPlan())
    for number in range(5):
        drifts.add(f"table_{number}", {}, NOW)

    assert made.tables["orders"].columns["sku"].values is None
    assert (2, 3) == (len(drifts.found), drifts.missing)
    assert Drift("unplanned_table", "table_0", "", "") in drifts.found


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("email", "x"),
        ("customer_name", "x"),
        ("user_id", "7"),
        ("td_ip", "x"),
        ("note", "write to a@example.com"),
        ("contact", "090-1234-5678"),
    ],
)
def test_personal_data_is_not_shown(column: str, value: str) -> None:
    """Neither an inferred plan nor a drift contains the value."""
    made = profile(*[{column: value}] * 30)
    drifts = Drifts(TrackingPlan.parse({"tables": {"orders": {"columns": {column: {"values": ["none"]}}}}}))
    drifts.add("orders", {column: value}, NOW)

    assert is_personal(column, value)
    assert value not in inferred(made).replace(column, "")
    assert [""] == [drift.found for drift in drifts.found]


COLUMNS = {
    "amount": {"type": "number", "required": True},
    "currency": {"values": ["JPY"]},
    "email": {"required": True, "personal": "drop"},
    "phone": {"type": "integer", "personal": "hash"},
    "user": {"required": True},
    "_v": {"required": True},
    "card": "integer",
}


def test_a_drift_has_its_cause_start_count_and_pages() -> None:
    """One per unexpected value or type, with pages without their queries. What the ingest dropped or hashed is not checked."""
    drifts = Drifts(
        TrackingPlan.parse({"tables": {"orders": {"columns": COLUMNS}}}),
        changed_columns({"DroppedColumns": "user, v", "HashedColumns": "card,coupon"}),
    )
    url, page = "https://shop.example/cart?visitor=1", "shop.example/cart"
    drifts.add("orders", {"amount": 1, "currency": "JPY", "phone": "0f" * 16, "card": "0f" * 16}, NOW)
    drifts.add("orders", {"amount": "1", "currency": "EUR", "td_url": url}, NOW + 2)
    drifts.add("orders", {"amount": "2", "coupon": "x", "td_url": url}, NOW + 1)
    drifts.add("carts", {}, NOW + 3)

    assert {
        ("unplanned_table", "carts", "", ""): (1, 3, {}),
        ("wrong_type", "orders", "amount", "string"): (2, 1, {page: 2}),
        ("wrong_value", "orders", "currency", "EUR"): (1, 2, {page: 1}),
        ("unplanned_column", "orders", "coupon", "string"): (1, 1, {page: 1}),
    } == {
        tuple(drift): (extent.events, extent.since - NOW, dict(extent.pages))
        for drift, extent in drifts.sorted()
    }
    assert "3 of 4 events differ from the plan (75 %)." == drifts.summary()


def test_a_plan_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    """Its path is relative to accounts.yaml. An error names the file and the place in it."""
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans/shop.yaml").write_text("tables: {orders: {columns: {amount: number}}}")
    file = tmp_path / "accounts.yaml"
    file.write_text("shop: {database: shop, plan: plans/shop.yaml}\nnews: {database: new, plan: {mode: off}}")
    read = accounts_file.read(file)
    (tmp_path / "plans/shop.yaml").write_text("tables: {orders: {columns: {amount: money}}}")
    with pytest.raises(Failure) as raised:
        accounts_file.read(file)

    assert TrackingPlan.parse({"tables": {"orders": {"columns": {"amount": "number"}}}}) == read["shop"].plan
    assert TrackingPlan(mode="off") == read["news"].plan
    assert "plans/shop.yaml: orders.amount: type must be one of string, integer" in str(raised.value)


def test_a_plan_is_inferred_from_edited_rows_as_they_are_now() -> None:
    """What they were before the edit counts no more."""
    stack = FaultyStack()
    made = stack.made.map(shop="shop_db")
    made.fail(415)
    made.deliver_each(delivery.envelope("shop", {"views": [delivery.row("a", n="seven")]}))
    ((span, key),) = [(span, key) for span in made.spans() for key in span.chunks]
    made.sender_wiring.replacements.edit(span.place, key, msgpack.packb(delivery.row("a", n=7)))
    plan = stack.run("plan infer shop --since 2020-01-01").stdout

    assert ("# 1 event\n" in plan, "n: integer" in plan) == (True, True), plan


@pytest.mark.xdist_group("ops")
def test_a_plan_is_inferred_applied_and_compared(
    sluice: Sluice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands read the events of the last day from S3."""
    sluice.produce("planned", "first_rows", "a", "b")
    sluice.settled()
    plan = tmp_path / "planned.yaml"
    assert "1 table of planned" in sluice.run(f"plan infer planned --local -o {plan}").stdout
    with monkeypatch.context() as fewer:
        fewer.setattr("shared.tracking_plan.MAX_TABLES", 0)
        long = sluice.run("plan infer planned --local")
    assert (0, True) == (long.exit_code, "until you shorten it: a plan has at most 0 tables" in long.stderr)
    fitting = sluice.run(f"plan diff planned --plan {plan} --local")
    again = sluice.run(f"plan infer planned --local -o {plan}")
    assert (1, True) == (again.exit_code, "exists, and may have been edited: use another" in again.stderr)
    assert (0, "All 2 events fit the plan.\n") == (fitting.exit_code, fitting.stdout)
    file = tmp_path / "accounts.yaml"
    accounts = sluice.json("accounts list --local")["accounts"]
    fields = {name: {"database": account["database"]} for name, account in accounts.items()}
    file.write_text(json.dumps({**fields, "planned": {"database": "planned_db", "plan": "planned.yaml"}}))
    assert "+ planned" in sluice.run(f"accounts apply --local --yes {file}").stdout
    sluice.produce("planned", "second_rows", "c")
    sluice.settled()

    differing = sluice.run("plan diff planned --local")
    assert 3 == differing.exit_code
    assert "unplanned_table" in differing.stdout
    assert "1 of 3 events differ from the plan (33.3 %)." in differing.stdout
    [drift] = sluice.json("plan diff planned --local")["drifts"]
    assert ("second_rows", "unplanned_table", 1) == (drift["table"], drift["code"], drift["events"])
    assert "first_rows" in sluice.run("accounts export --local").stdout
    assert 0 == sluice.json("plan diff planned --local --since 0s")["events"]
    without = sluice.run("plan diff app --local")
    assert (1, True) == (without.exit_code, "sluice plan infer app --local" in without.stderr)
