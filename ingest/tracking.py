"""Checks the events of one request against their account's tracking plan, while they become rows."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from shared import rows
from shared.plan import Personal, TrackingPlan
from shared.rows import Arrival, PlanCode

Screen = Callable[[dict[str, Any]], None]


class Tracking:
    """One request under a plan.

    Args:
        plan: the account's; None lets everything pass.
        arrival: what is known of all events of the request.
        screen: returns what screens rows, given how columns with personal data are handled.

    Attributes:
        violations: how many there were, by table and code.
    """

    def __init__(
        self,
        plan: TrackingPlan | None,
        arrival: Arrival,
        screen: Callable[[Mapping[str, Personal]], Screen | None],
    ) -> None:
        self._plan = plan
        self._arrival = arrival
        self._screen = screen
        self._arrivals: dict[str, Arrival] = {}
        self.violations: Counter[tuple[str, PlanCode]] = Counter()

    def arrival(self, table: str) -> Arrival:
        """Return the arrival of a table's events: encoding one checks it, and raises `rows.Rejected` in quarantine."""
        if self._plan is None:
            return self._arrival
        found = self._arrivals.get(table)
        if found is None:
            found = self._arrivals[table] = replace(self._arrival, screen=self._checked(self._plan, table))
        return found

    def screen(self, table: str) -> Screen | None:
        """Return what removes personal data from a table's rows."""
        planned = self._plan.tables.get(table) if self._plan else None
        if planned is None or not planned.personal:
            return self._arrival.screen
        return self._screen(planned.personal)

    def _checked(self, plan: TrackingPlan, table: str) -> Screen | None:
        mode, screen = plan.mode_of(table), self.screen(table)
        if mode == "off":
            return screen

        def check(row: dict[str, Any]) -> None:
            first = None
            for violation in plan.violations(table, row):
                first = first or violation
                self.violations[table, violation.code] += 1
            if first is not None and mode == "quarantine":
                raise rows.Rejected(first.code, first.message)
            if screen is not None:
                screen(row)

        return check
