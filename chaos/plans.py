"""Accounts under a tracking plan: what their clients send, what of it strays from the plan, and how an operator repairs that."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.rows import PlanCode
from shared.tracking_plan import Mode, TrackingPlan

SURPRISE = "surprise"
"""A table that no plan has."""
STRAYS = 4
"""One event in so many strays."""
_COLUMNS: Mapping[str, Any] = {
    "n": {"required": True},
    "page": {"type": "string", "required": True},
    "currency": {"values": ["JPY", "USD"]},
    "items": "json",
    "filling": "string",
}
_FITTING: Mapping[str, Any] = {"page": "home", "currency": "JPY", "items": [1]}


class Copy(NamedTuple):
    """A copy of a rejected event that is set aside.

    Attributes:
        account: whose it is.
        table: its table; empty if it named none.
        code: why it was rejected.
        event: as its sender wrote it.
        message: what its sender was told.
    """

    account: str
    table: str
    code: str
    event: Mapping[str, Any]
    message: str

    @property
    def number(self) -> int:
        """The event's number, or that of the first in the request of one that names no table."""
        return int(self.event.get("n", self.event.get("rejected", -1)))


def plan(mode: Mode, tables: tuple[str, ...]) -> TrackingPlan:
    """Return the plan."""
    return TrackingPlan.parse({"mode": mode, "tables": {table: {"columns": _COLUMNS} for table in tables}})


def columns(number: int, every: int) -> dict[str, Any]:
    """Return what an event has beside its number: what fits, or what strays."""
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


def repaired(copy: Copy, table: str) -> str:
    """Return an event as an operator mends it, for a table."""
    event = {name: value for name, value in copy.event.items() if name not in ("coupon", "table")}
    return json.dumps({**event, **_FITTING, "table": table})
