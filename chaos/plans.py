"""Accounts with a tracking plan: which of their events stray from it."""

from collections.abc import Mapping
from typing import Any

from shared.rows import PlanCode
from shared.tracking_plan import Mode, TrackingPlan

SURPRISE = "surprise"
"""A table that is in no plan."""
STRAYS = 4
"""One event in this many strays."""
_COLUMNS: Mapping[str, Any] = {
    "n": {"required": True},
    "page": {"type": "string", "required": True},
    "currency": {"values": ["JPY", "USD"]},
    "items": "json",
    "filling": "string",
}
_FITTING: Mapping[str, Any] = {"page": "home", "currency": "JPY", "items": [1]}


def plan(mode: Mode, tables: tuple[str, ...]) -> TrackingPlan:
    """Return a plan for these tables."""
    return TrackingPlan.parse({"mode": mode, "tables": {table: {"columns": _COLUMNS} for table in tables}})


def columns(number: int, every: int) -> dict[str, Any]:
    """Return an event's columns beside its number. One event in `every` strays."""
    match code_of(number, every):
        case "unplanned_column":
            return {**_FITTING, "coupon": "spring"}
        case "missing_column":
            return {name: value for name, value in _FITTING.items() if name != "page"}
        case "wrong_type":
            return {**_FITTING, "items": "one"}
        case "wrong_value":
            return {**_FITTING, "currency": "EUR"}
    return dict(_FITTING)


def code_of(number: int, every: int) -> PlanCode | None:
    """Return how an event strays; None if it does not."""
    codes: tuple[PlanCode, ...] = (
        *("unplanned_column", "missing_column", "wrong_type", "wrong_value"),
        "unplanned_table",
    )
    return None if number % every else codes[number // every % len(codes)]
