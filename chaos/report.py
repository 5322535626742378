"""Reports the results of many schedules, as a table by kind of trouble and as one line of JSON."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta

from rich.console import Console
from rich.table import Table

from chaos.run import Ran
from chaos.trouble import Kind

NO_TROUBLE = "none"
_COUNTED = (
    *("accepted", "delivered", "dead", "lost", "duplicated", "misrouted", "both", "misjudged", "miscounted"),
    *("watermarks", "overlooked", "stuck", "ambiguous", "unasked"),
)
"""What is added up of each schedule's verdict: numbers, or the lengths of lists."""
_COLUMNS = ("occurred", "schedules", "events", "lost", "duplicated", "misrouted")


@dataclass(slots=True)
class Report:
    """Totals over schedules."""

    totals: Counter[str] = field(default_factory=Counter)
    failures: list[Ran] = field(default_factory=list)  # schedules that broke a promise
    seconds: float = 0.0
    delays: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _lines: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, ran: Ran) -> None:
        """Add a schedule's result to each kind of trouble that occurred in it."""
        verdict = ran.verdict
        found = Counter(schedules=1, events=verdict.events)
        for name in _COUNTED:
            value = getattr(verdict, name)
            found[name] = value if isinstance(value, int) else len(value)
        self.totals.update(found)
        self.seconds += ran.seconds
        self.failures += [ran] if verdict.violations else []
        for kind, strikes in [("", 0), *(verdict.strikes.items() or [(NO_TROUBLE, 0)])]:
            self.delays[kind] = max(self.delays[kind], verdict.largest_delay)
            if kind:
                self._lines[kind].update(found + Counter(occurred=strikes))

    def missing(self) -> list[str]:
        """Return the kinds of trouble that never occurred."""
        return [str(kind) for kind in Kind if kind not in self._lines]

    def print(self, console: Console) -> None:
        """Print the table."""
        table = Table(title="Results by kind of trouble, over the schedules in which it occurred")
        for name in ("trouble", *_COLUMNS, "largest delay"):
            table.add_column(name, justify="left" if name == "trouble" else "right")
        for kind in sorted(self._lines, key=[NO_TROUBLE, *Kind].index):
            counts = [f"{self._lines[kind][name]:,}" for name in _COLUMNS]
            table.add_row(kind, *counts, str(timedelta(seconds=round(self.delays[kind]))))
        console.print(table)

    def json(self) -> str:
        """Return the totals as one line."""
        counted = {name: self.totals[name] for name in ("events", "schedules", *_COUNTED)}
        more = {"failed": len(self.failures), "largest_delay_seconds": round(self.delays[""])}
        return json.dumps(counted | more | {"processor_seconds": round(self.seconds)})
