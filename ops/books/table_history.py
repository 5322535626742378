"""When tables had rows: first, last, and how many recently, from the spans in the ledger."""

from collections import Counter
from dataclasses import dataclass, field

from worker.span import Span

RECENT_SECONDS = 300
HOURS = 24


@dataclass(slots=True)
class TableHistory:
    """Rows of one account's table, by when the worker planned them: first and last, in UNIX seconds, and numbers.

    `recent` is about the last RECENT_SECONDS, `hours` about each of the last HOURS hours, oldest first.
    """

    first: float
    last: float
    recent: int = 0
    hours: list[int] = field(default_factory=lambda: [0] * HOURS)

    def add(self, at: float, rows: int, now: float) -> None:
        """Count rows planned at `at`, UNIX seconds."""
        self.first, self.last = min(self.first, at), max(self.last, at)
        age = max(0.0, now - at)
        if age < RECENT_SECONDS:
            self.recent += rows
        if age < HOURS * 3600:
            self.hours[-1 - int(age // 3600)] += rows


@dataclass(slots=True)
class History:
    """The history of a stack's tables until now, UNIX seconds, by account and table."""

    now: float
    tables: dict[tuple[str, str], TableHistory] = field(default_factory=dict)

    def add(self, span: Span) -> None:
        """Count a span, unless it belongs to a forced replay."""
        if span.is_forced:
            return
        at = span.planned_at / 1000
        counts: Counter[tuple[str, str]] = Counter()
        for key, rows in span.chunks.items():
            if not key.group.is_rejected:
                counts[key.group.table_of] += rows
        for place, rows in counts.items():
            self.tables.setdefault(place, TableHistory(at, at)).add(at, rows, self.now)
