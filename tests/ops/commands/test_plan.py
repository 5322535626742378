"""Tracking plans: inferred from rows, and compared with rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ops import accounts_file
from ops.failure import Failure
from ops.plans.plan_profile import MAX_DISTINCT, Drift, Drifts, Profile, is_personal
from ops.plans.plan_text import inferred
from shared.tracking_plan import PlannedColumn, TrackingPlan
from tests.support.sluice import Sluice

NOW = 1_764_000_000.0
names = st.from_regex(r"[a-z_][a-z0-9_]{2,12}", fullmatch=True) | st.sampled_from(["on", "null", "y"])
scalars = (
    st.none()
    | st.text(max_size=8)
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.booleans()
)
rows = st.lists(
    st.tuples(
        st.sampled_from(["pageviews", "off", "123", "null"]), st.dictionaries(names, scalars, max_size=5)
    ),
    min_size=1,
)


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
    found = [
        {
            "order": f"A-{number}",
            "amount": number / 2,
            "currency": "JPY" if number % 3 else "USD",
            "td_url": "x",
        }
        for number in range(24)
    ]
    made = profile(*found, {"order": "A", "amount": 1, "currency": "JPY", "gift": True})

    columns = made.plan().tables["orders"].columns
    assert PlannedColumn("string", required=True) == columns["order"]
    assert PlannedColumn("number", required=True) == columns["amount"]
    assert PlannedColumn("string", required=True, values=("JPY", "USD")) == columns["currency"]
    assert PlannedColumn("boolean") == columns["gift"]
    assert "td_url" not in columns
    lines = inferred(made).splitlines()
    assert "  orders:  # 25 events" in lines
    assert "      gift: boolean  # 4 %; such as true" in lines
    assert (
        '      currency: {type: string, required: true, values: [JPY, USD]}  # always; such as "JPY", "USD"'
        in lines
    )


def test_one_event_is_too_few_to_infer_required_columns_or_values() -> None:
    """The plan states the column's type alone."""
    assert PlannedColumn("string") == profile({"currency": "JPY"}).plan().tables["orders"].columns["currency"]


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


def test_a_column_with_many_values_has_no_list_of_values() -> None:
    """The profile stops collecting them, so its memory is bounded."""
    made = profile(*[{"sku": f"s{number}"} for number in range(MAX_DISTINCT + 1)])

    assert made.tables["orders"].columns["sku"].values is None


PLAN = TrackingPlan.parse(
    {
        "tables": {
            "orders": {
                "columns": {"amount": {"type": "number", "required": True}, "currency": {"values": ["JPY"]}}
            }
        }
    }
)


def test_a_drift_has_its_cause_start_count_and_pages() -> None:
    """There is one drift per unexpected value or type. Pages are listed without their query strings."""
    drifts = Drifts(PLAN)
    url = "https://shop.example/cart?visitor=1"
    drifts.add("orders", {"amount": 1, "currency": "JPY"}, NOW)
    drifts.add("orders", {"amount": "1", "currency": "EUR", "td_url": url}, NOW + 2)
    drifts.add("orders", {"amount": "2", "coupon": "x", "td_url": url}, NOW + 1)
    drifts.add("carts", {}, NOW + 3)

    found = {
        tuple(drift): (extent.events, extent.since - NOW, dict(extent.pages))
        for drift, extent in drifts.sorted()
    }
    page = "shop.example/cart"
    assert found == {
        ("unplanned_table", "carts", "", ""): (1, 3, {}),
        ("wrong_type", "orders", "amount", "string"): (2, 1, {page: 2}),
        ("wrong_value", "orders", "currency", "EUR"): (1, 2, {page: 1}),
        ("unplanned_column", "orders", "coupon", "string"): (1, 1, {page: 1}),
    }
    assert "3 of 4 events differ from the plan (75 %)." == drifts.summary()


def test_columns_with_personal_data_are_not_checked() -> None:
    """The ingest has already dropped or hashed their values."""
    columns = {
        "email": {"required": True, "personal": "drop"},
        "phone": {"type": "integer", "personal": "hash"},
    }
    drifts = Drifts(TrackingPlan.parse({"tables": {"orders": {"columns": columns}}}))
    drifts.add("orders", {"phone": "0f" * 16}, NOW)

    assert (1, {}) == (drifts.fitting, drifts.found)


def test_drifts_beyond_the_limit_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile sender cannot fill the operator's memory."""
    monkeypatch.setattr("ops.plans.plan_profile.MAX_DRIFTS", 2)
    drifts = Drifts(TrackingPlan())
    for number in range(5):
        drifts.add(f"table_{number}", {}, NOW)

    assert (2, 3) == (len(drifts.found), drifts.missing)
    assert Drift("unplanned_table", "table_0", "", "") in drifts.found


def test_a_plan_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    """Its path is relative to accounts.yaml. An error names the file and the place in it."""
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans/shop.yaml").write_text("tables: {orders: {columns: {amount: number}}}")
    file = tmp_path / "accounts.yaml"
    file.write_text(
        "shop: {database: shop, plan: plans/shop.yaml}\nnews: {database: news, plan: {mode: off}}"
    )
    read = accounts_file.read(file)
    (tmp_path / "plans/shop.yaml").write_text("tables: {orders: {columns: {amount: money}}}")
    with pytest.raises(Failure) as raised:
        accounts_file.read(file)

    assert TrackingPlan.parse({"tables": {"orders": {"columns": {"amount": "number"}}}}) == read["shop"].plan
    assert TrackingPlan(mode="off") == read["news"].plan
    assert "plans/shop.yaml: orders.amount: type must be one of string, integer" in str(raised.value)


@pytest.mark.xdist_group("ops")
def test_a_plan_is_inferred_applied_and_compared(sluice: Sluice, tmp_path: Path) -> None:
    """The commands read the events of the last day from S3."""
    sluice.produce("planned", "first_rows", "a", "b")
    sluice.settled()
    plan = tmp_path / "planned.yaml"
    assert "1 table of planned" in sluice.run(f"plan infer planned --local -o {plan}").stdout
    fitting = sluice.run(f"plan diff planned --plan {plan} --local")
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
    assert (1, True) == (without.exit_code, "app has no tracking plan" in without.stderr)
