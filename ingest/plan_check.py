"""Checks the events of one request against their account's tracking plan as they become rows."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from ingest.privacy import Screen
from shared import rows
from shared.rows import PlanCode
from shared.tracking_plan import Personal, TrackingPlan


class PlanCheck:
    """The check of one request.

    Args:
        plan: the account's plan; None lets everything pass.
        privacy: returns the screen that removes personal data from rows, given the plan's rules for columns.

    Attributes:
        violations: the number of violations by table and code.
    """

    def __init__(
        self, plan: TrackingPlan | None, privacy: Callable[[Mapping[str, Personal]], Screen | None]
    ) -> None:
        self._plan = plan
        self._privacy = privacy
        self.violations: defaultdict[tuple[str, PlanCode], int] = defaultdict(int)

    def screen(self, table: str) -> Screen | None:
        """Return a function that checks and screens a table's rows. In quarantine it raises `rows.Rejected`."""
        plan, screen, violations = self._plan, self.privacy(table), self.violations
        mode = plan.mode_of(table) if plan is not None else "off"
        if plan is None or mode == "off":
            return screen

        def check(row: dict[str, Any]) -> None:
            if found := plan.violations(table, row):
                for violation in found:
                    violations[table, violation.code] += 1
                if mode == "quarantine":
                    raise rows.Rejected(found[0].code, found[0].message)
            if screen is not None:
                screen(row)

        return check

    def privacy(self, table: str) -> Screen | None:
        """Return the screen that removes personal data from a table's rows, without a check.

        If the plan does not have the table, its name may be a mistake for any that it has.
        """
        if self._plan is None:
            return self._privacy({})
        if table in self._plan.tables:
            return self._privacy(self._plan.tables[table].personal)
        personal: dict[str, Personal] = {}
        for planned in self._plan.tables.values():
            personal |= {name: how for name, how in planned.personal.items() if personal.get(name) != "drop"}
        return self._privacy(personal)
