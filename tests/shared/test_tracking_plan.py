"""The rules of a tracking plan."""

import json
import re
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import tracking_plan
from shared.tracking_plan import MAX_MATCHED, PlannedColumn, PlannedTable, TrackingPlan, Violation, type_of

names = st.from_regex(r"[a-z_][a-z0-9_]{2,20}", fullmatch=True).filter(
    lambda name: name not in ("event_id", "received_at")
)
texts = st.text(max_size=10)
scalars = texts | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans()
columns = st.builds(
    PlannedColumn,
    type=st.none() | st.sampled_from(tracking_plan.TYPES),
    required=st.booleans(),
    pattern=st.sampled_from(["", "[a-z]+", "A-[0-9]{2}"]),
    values=st.lists(scalars, max_size=3).map(tuple),
    personal=st.none() | st.sampled_from(tracking_plan.PERSONAL),
    description=texts,
)
modes = st.sampled_from(tracking_plan.MODES)
tables = st.builds(PlannedTable, st.dictionaries(names, columns, max_size=4), st.none() | modes, texts)
plans = st.builds(TrackingPlan, st.dictionaries(names, tables, max_size=3), modes)
COLUMNS = {
    "order_id": {"type": "string", "required": True, "pattern": "[A-Z]{2}-[0-9]+"},
    "amount": "number",
    "count": "integer",
    "gift": "boolean",
    "items": "json",
    "currency": {"values": ["JPY", "USD", 1, False]},
    "anything": None,
}
PURCHASES = TrackingPlan.parse({"mode": "quarantine", "tables": {"purchases": {"columns": COLUMNS}}})
RIGHT = {"time": 1, "event_id": "e", "received_at": 2, "td_url": "x", "order_id": "JP-1"}


@given(plans)
def test_plans_round_trip(wanted: TrackingPlan) -> None:
    """A written plan keeps everything; a published one loses only its descriptions."""
    value = wanted.to_value()
    published = TrackingPlan.of_known(json.loads(json.dumps(wanted.to_value(describes=False))))

    assert wanted == TrackingPlan.of_known(value) == TrackingPlan.parse(json.loads(json.dumps(value)))
    assert published is not None
    assert wanted.to_value(describes=False) == published.to_value()


@given(st.dictionaries(names, scalars, max_size=6))
def test_a_plan_derived_from_a_row_fits_it(row: dict[str, Any]) -> None:
    """Each value has the type that `type_of` returns for it."""
    made = {name: PlannedColumn(type_of(one), required=True, values=(one,)) for name, one in row.items()}

    assert [] == list(PlannedTable(made).violations(row))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"amount": 1, "count": 2, "gift": True, "items": "[1]", "currency": "JPY", "anything": "x"},
        {"amount": 1.5, "count": 2.0, "gift": None, "items": "{}", "currency": 1.0},
        {"time_raw": "x", "time_rule": "text", "time_drift": 7, "bot": "b", "uuid": "u", "td_title": 5},
        {"event_id_2": "", "sluice_dropped": 1, "utm_source": "news"},
    ],
)
def test_rows_that_fit_have_no_violations(more: dict[str, Any]) -> None:
    """Columns of Sluice and of Treasure Data's SDKs need not be planned, and null counts as no value."""
    assert [] == list(PURCHASES.violations("purchases", RIGHT | more))


NO_PATTERN = "the value of column order_id does not match the pattern in the tracking plan"
NO_VALUE = "the tracking plan requires a value for column order_id"
NOT_LISTED = "the value of column currency is not one of the 4 in the tracking plan"


def has_type(column: str, found: str, planned: str) -> str:
    """Return the message for a column of another type."""
    return f"column {column} has the type {found}, but the tracking plan requires {planned}"


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ({"order_id": None}, "missing_column", NO_VALUE),
        ({"order_id": 7}, "wrong_type", has_type("order_id", "integer", "string")),
        ({"order_id": "xJP-1"}, "wrong_value", NO_PATTERN),
        ({"order_id": "JP-1\n"}, "wrong_value", NO_PATTERN),
        ({"order_id": "JP-" + "1" * MAX_MATCHED}, "wrong_value", NO_PATTERN),
        ({"amount": "1"}, "wrong_type", has_type("amount", "string", "number")),
        ({"amount": True}, "wrong_type", has_type("amount", "boolean", "number")),
        ({"count": 1.5}, "wrong_type", has_type("count", "number", "integer")),
        ({"gift": 1}, "wrong_type", has_type("gift", "integer", "boolean")),
        ({"items": "x"}, "wrong_type", has_type("items", "string", "json")),
        ({"currency": "EUR"}, "wrong_value", NOT_LISTED),
        ({"currency": True}, "wrong_value", NOT_LISTED),
        ({"td_new": 1}, "unplanned_column", "the tracking plan has no column td_new for this table"),
    ],
)
def test_every_violation_of_a_row_is_reported(more: dict[str, Any], code: str, message: str) -> None:
    """Senders read the message, so it shows none of their values and none that the plan allows."""
    found = PURCHASES.violations("purchases", RIGHT | more)

    assert [(code, *more, message)] == [(one.code, one.column, one.message) for one in found]


def test_violations_are_in_the_order_of_the_row() -> None:
    """A column that is missing is the last."""
    found = list(PURCHASES.violations("purchases", {"coupon": None, "amount": "x"}))

    assert ["coupon", "amount", "order_id"] == [one.column for one in found]


def test_a_table_has_its_own_mode_or_the_plans() -> None:
    """Tables that are not planned have the plan's mode. YAML parses `off` without quotes as false."""
    assert "off" == TrackingPlan.parse({"mode": False}).mode
    wanted = TrackingPlan({"one": PlannedTable({}, "off"), "two": PlannedTable({})}, "quarantine")

    assert ["off", "quarantine", "quarantine"] == [wanted.mode_of(name) for name in ("one", "two", "three")]
    assert [Violation("unplanned_table", "")] == list(wanted.violations("three", {}))


def _of(column: object) -> dict[str, Any]:
    return {"tables": {"purchases": {"columns": {"amount": column}}}}


SLOW = ["(a+)+", r"(a)\1", "a*b*c*d*", "a{0,80}" * 4, "a?" * 21 + "a" * 21]
TYPES = "string, integer, number, boolean, json"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["purchases"], "a plan must be a mapping with mode, tables, not ['purchases']"),
        ({"table": {}}, "a plan has no member 'table': use mode, tables"),
        ({"mode": "strict"}, "mode must be one of observe, quarantine, off, not 'strict'"),
        ({"tables": ["a"]}, "`tables` must be a mapping"),
        ({"tables": {"A b": {}}}, "'A b' is not a legal table name"),
        ({"tables": {"one": {"mode": 1}}}, "table one: mode must be one of observe, quarantine, off"),
        ({"tables": {"one": {"columns": []}}}, "table one: `columns` must be a mapping"),
        ({"tables": {"one": {"columns": {"orderId": None}}}}, "write it as orderid"),
        ({"tables": {"one": {"columns": {"event_id": {"personal": "hash"}}}}}, "every row needs this column"),
        ({"tables": {f"table_{number}": {} for number in range(201)}}, "at most 200 tables, not 201"),
        (_of("text"), f"purchases.amount: type must be one of {TYPES}, not 'text'"),
        (_of({"kind": "string"}), "purchases.amount has no member 'kind': use type, required"),
        (_of({"required": "yes"}), "purchases.amount: required must be true or false"),
        (_of({"values": "JPY"}), "purchases.amount: values must be a list"),
        (_of({"values": list(range(201))}), "at most 200 values, not 201: use a pattern"),
        (_of({"personal": "keep"}), "purchases.amount: personal must be one of drop, hash"),
        (_of({"description": 1}), "purchases.amount: description must be a string"),
        (_of({"pattern": "("}), "purchases.amount: '(' is not a regular expression"),
        *[(_of({"pattern": pattern}), "could take too long") for pattern in SLOW],
    ],
)
def test_a_mistake_in_a_plan_is_explained(value: object, message: str) -> None:
    """The message says where the mistake is and what to write instead."""
    with pytest.raises(ValueError, match=re.escape(message)):
        TrackingPlan.parse(value)


def _plan_of(column: PlannedColumn) -> TrackingPlan:
    return TrackingPlan({"purchases": PlannedTable({"amount": column})})


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ({"mode": "sample", "tables": {}, "owner": "x"}, TrackingPlan()),
        (_of({"type": "money", "personal": "drop"}), _plan_of(PlannedColumn(personal="drop"))),
        (_of({"type": "number", "unit": "JPY"}), _plan_of(PlannedColumn("number"))),
        ({"tables": {"A": {}, "purchases": 5}}, TrackingPlan()),
        ({"tables": []}, None),
        ("plan", None),
    ],
)
def test_unknown_rules_of_a_published_plan_are_ignored(value: object, known: TrackingPlan | None) -> None:
    """The plan then allows more, but rules for personal data still apply."""
    assert known == TrackingPlan.of_known(value)


@pytest.mark.parametrize(
    "pattern",
    [
        "[a-z]*[a-z0-9]*[a-z]*x",
        ".*.*.*x",
        "https?://[^/]+/[^?*]*\\??.*",
        "a{0,80}" * 3 + "x",
        "a?" * 19 + "a" * 19 + "x",
        "a(?:b|c)?d{2,}\\*\\+",
    ],
)
def test_no_text_makes_a_pattern_slow(pattern: str) -> None:
    """Senders choose the text that a pattern is matched against."""
    wanted = TrackingPlan.parse(_of({"pattern": pattern})).tables["purchases"]
    began = process_time()
    list(wanted.violations({"amount": "a" * MAX_MATCHED}))

    assert process_time() - began < 0.25
