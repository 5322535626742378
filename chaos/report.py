"""Reports the results of many schedules, as a table by kind of trouble and as one line of JSON."""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from rich.console import Console
from rich.table import Table

from chaos.run import Ran
from chaos.trouble import Kind

NO_TROUBLE = "none"


@dataclass(slots=True)
class _Line:
    schedules: int = 0
    strikes: int = 0
    events: int = 0
    lost: int = 0
    duplicated: int = 0
    misrouted: int = 0
    largest_delay: float = 0.0


@dataclass(slots=True)
class Report:
    """Totals over schedules.

    Attributes:
        failures: schedules that broke a promise.
    """

    schedules: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    failures: list[Ran] = field(default_factory=list)
    seconds: float = 0.0
    largest_delay: float = 0.0
    _lines: dict[str, _Line] = field(default_factory=dict)

    def add(self, ran: Ran) -> None:
        """Add a schedule's result to each kind of trouble that occurred in it."""
        verdict = ran.verdict
        self.schedules += 1
        self.seconds += ran.seconds
        self.largest_delay = max(self.largest_delay, verdict.largest_delay)
        self.totals.update(
            events=verdict.events,
            accepted=verdict.accepted,
            delivered=verdict.delivered,
            dead=verdict.dead,
            lost=len(verdict.lost),
            duplicated=len(verdict.duplicated),
            misrouted=len(verdict.misrouted),
            both=len(verdict.both),
            misjudged=len(verdict.misjudged),
            miscounted=len(verdict.miscounted),
            overlooked=len(verdict.overlooked),
            watermarks=verdict.watermarks,
            stuck=len(verdict.stuck),
            ambiguous=verdict.ambiguous,
            unasked=verdict.unasked,
        )
        if verdict.violations:
            self.failures.append(ran)
        for kind, strikes in verdict.strikes.items() or [(NO_TROUBLE, 0)]:
            line = self._lines.setdefault(str(kind), _Line())
            line.schedules += 1
            line.strikes += strikes
            line.events += verdict.events
            line.lost += len(verdict.lost)
            line.duplicated += len(verdict.duplicated)
            line.misrouted += len(verdict.misrouted)
            line.largest_delay = max(line.largest_delay, verdict.largest_delay)

    def missing(self) -> list[str]:
        """Return the kinds of trouble that never occurred."""
        return [str(kind) for kind in Kind if str(kind) not in self._lines]

    def print(self, console: Console) -> None:
        """Print the table."""
        table = Table(title="Results by kind of trouble, over the schedules in which it occurred")
        for name, side in (
            ("trouble", "left"),
            ("occurred", "right"),
            ("schedules", "right"),
            ("events", "right"),
            ("lost", "right"),
            ("duplicated", "right"),
            ("wrong database", "right"),
            ("largest delay", "right"),
        ):
            table.add_column(name, justify="left" if side == "left" else "right")
        order = [NO_TROUBLE, *map(str, Kind)]
        for name in sorted(self._lines, key=order.index):
            line = self._lines[name]
            table.add_row(
                name,
                f"{line.strikes:,}",
                f"{line.schedules:,}",
                f"{line.events:,}",
                f"{line.lost:,}",
                f"{line.duplicated:,}",
                f"{line.misrouted:,}",
                str(timedelta(seconds=round(line.largest_delay))),
            )
        console.print(table)

    def json(self) -> str:
        """Return the totals as one line."""
        return json.dumps(
            {
                "events": self.totals["events"],
                "schedules": self.schedules,
                **{
                    name: self.totals[name]
                    for name in ("accepted", "delivered", "dead", "lost", "duplicated", "misrouted")
                },
                **{
                    name: self.totals[name]
                    for name in (
                        "both",
                        "misjudged",
                        "miscounted",
                        "watermarks",
                        "overlooked",
                        "stuck",
                        "ambiguous",
                    )
                },
                "unasked": self.totals["unasked"],
                "failed": len(self.failures),
                "largest_delay_seconds": round(self.largest_delay),
                "processor_seconds": round(self.seconds),
            }
        )
