"""What really arrived: tables, columns, types and values, from which tracking plans are made and against which they are checked."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ops import personal_data, screen
from shared.rows import PlanCode
from shared.tracking_plan import (
    STANDARD_COLUMNS,
    PlannedColumn,
    PlannedTable,
    TrackingPlan,
    Type,
    Violation,
    type_of,
)

MAX_DISTINCT = 50
"""Values that are remembered of a column; with more than that they are no list."""
MAX_LISTED = 12
"""Values of a column that a plan lists."""
MIN_LISTED = 20
"""Events that a table needs before a plan calls a column required, or lists its values."""
MAX_EXAMPLE = 40
MAX_DRIFTS = 10_000

_PERSONAL_NAMES = (
    "mail",
    "phone",
    "tel",
    "name",
    "address",
    "birth",
    "password",
    "token",
    "card",
    "user_id",
    "ip",
)


def page_of(row: Mapping[str, Any]) -> str:
    """Return the page that an event came from, without query; empty if it names none."""
    url = row.get("td_url")
    if not isinstance(url, str):
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.hostname or ''}{parts.path}"


def is_personal(column: str, value: object = None) -> bool:
    """Tell whether a column, or this value of it, may be personal data: then no value of it is shown."""
    words = column.split("_")
    named = any(hint in words or (len(hint) > 3 and hint in column) for hint in _PERSONAL_NAMES)
    if named or column in personal_data.COLUMNS or column.startswith("td_"):
        return True
    return isinstance(value, str) and (
        personal_data.stand_in(column, value) != value or sum(letter.isdigit() for letter in value) >= 7
    )


@dataclass(slots=True)
class ColumnProfile:
    """What arrived in one column.

    Attributes:
        present: rows with a value that is not null.
        types: how often each type.
        values: how often each value; None if there are more than MAX_DISTINCT or they may be personal.
    """

    present: int = 0
    types: Counter[Type] = field(default_factory=Counter)
    values: Counter[Any] | None = field(default_factory=Counter)

    def add(self, column: str, value: Any) -> None:
        """Count a value."""
        kind = type_of(value)
        if kind is None:
            return
        self.present += 1
        self.types[kind] += 1
        if self.values is None:
            return
        if (
            kind == "json"
            or is_personal(column, value)
            or (isinstance(value, str) and len(value) > MAX_EXAMPLE)
        ):
            self.values = None
            return
        self.values[value] += 1
        if len(self.values) > MAX_DISTINCT:
            self.values = None

    @property
    def type(self) -> Type | None:
        """The type that holds all values; None if none does."""
        found = set(self.types)
        if found == {"integer", "number"}:
            return "number"
        if found == {"string", "json"}:
            return "string"
        return found.pop() if len(found) == 1 else None


@dataclass(slots=True)
class TableProfile:
    """What arrived in one table.

    Attributes:
        events: how many.
        columns: by name, in the order of their first arrival.
    """

    events: int = 0
    columns: dict[str, ColumnProfile] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row."""
        self.events += 1
        for name, value in row.items():
            if name not in STANDARD_COLUMNS:
                self.columns.setdefault(name, ColumnProfile()).add(name, value)

    def plan(self) -> PlannedTable:
        """Return what a plan would say of the table."""
        return PlannedTable({name: self._column(column) for name, column in self.columns.items()})

    def _column(self, column: ColumnProfile) -> PlannedColumn:
        enough = self.events >= MIN_LISTED
        values: tuple[Any, ...] = ()
        if enough and column.values and column.type == "string" and len(column.values) <= MAX_LISTED:
            repeated = column.present >= 4 * len(column.values)
            values = tuple(sorted(column.values)) if repeated else ()
        return PlannedColumn(column.type, required=enough and column.present == self.events, values=values)


class Profile:
    """What arrived for one account."""

    def __init__(self) -> None:
        self.tables: defaultdict[str, TableProfile] = defaultdict(TableProfile)

    def add(self, table: str, row: Mapping[str, Any]) -> None:
        """Count a row of a table."""
        self.tables[table].add(row)

    def plan(self) -> TrackingPlan:
        """Return the plan that everything fits that arrived."""
        return TrackingPlan({name: table.plan() for name, table in sorted(self.tables.items())})


class Drift(NamedTuple):
    """One way in which events differ from the plan.

    Attributes:
        code: how.
        table: their table.
        column: empty for a table.
        found: the type or the value that arrived; empty where that says nothing, or may be personal data.
    """

    code: PlanCode
    table: str
    column: str
    found: str


@dataclass(slots=True)
class Extent:
    """How far a drift goes.

    Attributes:
        events: how many differ in this way.
        since: UNIX seconds at which the first was received.
        until: UNIX seconds at which the last was received.
        pages: how many came from each page.
    """

    events: int = 0
    since: float = float("inf")
    until: float = 0.0
    pages: Counter[str] = field(default_factory=Counter)

    def add(self, at: float, page: str) -> None:
        """Count an event."""
        self.events += 1
        self.since, self.until = min(self.since, at), max(self.until, at)
        if page and (page in self.pages or len(self.pages) < MAX_DISTINCT):
            self.pages[page] += 1


class Drifts:
    """How events of one account differ from its plan.

    Args:
        plan: the plan.

    Attributes:
        events: how many were compared.
        fitting: how many of them fit.
        found: each drift with its extent.
        missing: drifts beyond MAX_DRIFTS, which are only counted.
    """

    def __init__(self, plan: TrackingPlan) -> None:
        self._plan = plan
        self.events = 0
        self.fitting = 0
        self.missing = 0
        self.found: dict[Drift, Extent] = {}

    def add(self, table: str, row: Mapping[str, Any], at: float) -> None:
        """Compare a row of a table, received at a time in UNIX seconds."""
        self.events += 1
        planned = self._plan.tables.get(table)
        personal = planned.personal if planned else {}  # what the row has of these is not what was sent
        violations = [one for one in self._plan.violations(table, row) if one.column not in personal]
        self.fitting += not violations
        for violation in violations:
            drift = Drift(violation.code, table, violation.column, _found(violation, row))
            if drift not in self.found and len(self.found) >= MAX_DRIFTS:
                self.missing += 1
            else:
                self.found.setdefault(drift, Extent()).add(at, page_of(row))

    def sorted(self) -> Iterator[tuple[Drift, Extent]]:
        """Yield the drifts, table by table, the most frequent first."""
        yield from sorted(self.found.items(), key=lambda item: (item[0].table, -item[1].events, item[0]))

    def summary(self) -> str:
        """Return what they come to, in a sentence."""
        if not self.events:
            return "No event has arrived since then."
        differing = self.events - self.fitting
        if not differing:
            return f"All {screen.plural(self.events, 'event')} fit the plan."
        more = f" {screen.plural(self.missing, 'further difference')} not listed." if self.missing else ""
        share = 100 * differing / self.events
        return f"{differing:,} of {screen.plural(self.events, 'event')} differ from the plan ({share:.3g} %).{more}"

    def codes(self) -> Counter[tuple[str, PlanCode]]:
        """Return how many violations there are by table and code."""
        counts: Counter[tuple[str, PlanCode]] = Counter()
        for drift, extent in self.found.items():
            counts[drift.table, drift.code] += extent.events
        return counts


def _found(violation: Violation, row: Mapping[str, Any]) -> str:
    value = row.get(violation.column)
    if violation.code in ("wrong_type", "unplanned_column"):
        return type_of(value) or "null"
    if violation.code != "wrong_value" or is_personal(violation.column, value):
        return ""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_EXAMPLE else f"{text[: MAX_EXAMPLE - 1]}…"
