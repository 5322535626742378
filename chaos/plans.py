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


_STRAYING: Mapping[PlanCode, Mapping[str, Any]] = {
    "unplanned_column": {**_FITTING, "coupon": "spring"},
    "missing_column": {name: value for name, value in _FITTING.items() if name != "page"},
    "wrong_type": {**_FITTING, "items": "one"},
    "wrong_value": {**_FITTING, "currency": "EUR"},
    "unplanned_table": _FITTING,
}
"""An event's columns beside its number, by how it strays."""


def plan(mode: Mode, tables: tuple[str, ...]) -> TrackingPlan:
    """Return a plan for these tables."""
    return TrackingPlan.parse({"mode": mode, "tables": {table: {"columns": _COLUMNS} for table in tables}})


def columns(number: int, every: int) -> dict[str, Any]:
    """Return an event's columns beside its number. One event in `every` strays."""
    code = code_of(number, every)
    return dict(_STRAYING[code] if code else _FITTING)


def code_of(number: int, every: int) -> PlanCode | None:
    """Return how an event strays; None if it does not."""
    return None if number % every else [*_STRAYING][number // every % len(_STRAYING)]
