"""Checks the events of one request against their account's tracking plan, while they become rows."""

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
        plan: the account's; None lets everything pass.
        privacy: returns what removes personal data from rows, given what a plan says of columns.

    Attributes:
        violations: how many there were, by table and code.
    """

    def __init__(
        self, plan: TrackingPlan | None, privacy: Callable[[Mapping[str, Personal]], Screen | None]
    ) -> None:
        self._plan = plan
        self._privacy = privacy
        self.violations: defaultdict[tuple[str, PlanCode], int] = defaultdict(int)

    def screen(self, table: str) -> Screen | None:
        """Return what checks and screens a table's rows; it raises `rows.Rejected` in quarantine."""
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
        """Return what only removes personal data from a table's rows."""
        planned = self._plan.tables.get(table) if self._plan is not None else None
        return self._privacy(planned.personal if planned is not None else {})
