"""Profiles of the events that arrived: tables, columns, types and values, to make tracking plans from and to compare plans with."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ops import personal_data, screen
from shared.rows import PlanCode
from shared.settings import columns
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
"""The most distinct values to remember per column."""
MAX_LISTED = 12
"""The most values of a column that an inferred plan lists."""
MIN_LISTED = 20
"""The fewest events of a table from which an inferred plan calls a column required, or lists its values."""
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
    """Return the page that an event came from, without query; empty if the event names none."""
    url = row.get("td_url")
    if not isinstance(url, str):
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.hostname or ''}{parts.path}"


def is_personal(column: str, value: object = None) -> bool:
    """Return whether a column, or this value of it, may be personal data. If so, its values are not shown."""
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
        present: number of rows with a value that is not null.
        types: number of values by type.
        values: number of rows by value; None if there are more than MAX_DISTINCT values, or they may be personal or are long.
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
        """The type that fits all values; None if there is none."""
        found = set(self.types)
        if found == {"integer", "number"}:
            return "number"
        if found == {"string", "json"}:
            return "string"
        return found.pop() if len(found) == 1 else None


@dataclass(slots=True)
class TableProfile:
    """What arrived in one table: the number of events, and the columns in the order of their first arrival."""

    events: int = 0
    columns: dict[str, ColumnProfile] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row."""
        self.events += 1
        for name, value in row.items():
            if name not in STANDARD_COLUMNS:
                self.columns.setdefault(name, ColumnProfile()).add(name, value)

    def plan(self) -> PlannedTable:
        """Return a plan of the table that fits all of its rows."""
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
        """Return a plan that fits everything that arrived."""
        return TrackingPlan({name: table.plan() for name, table in sorted(self.tables.items())})


def changed_columns(parameters: Mapping[str, str]) -> frozenset[str]:
    """Return the columns that a stack with these parameters drops or hashes after it has compared events with the plan."""
    named = (parameters.get(name, "") for name in ("DroppedColumns", "HashedColumns"))
    return frozenset(column for text in named for column in columns(text))


class Drift(NamedTuple):
    """One way in which events differ from the plan. The column is empty if the table itself differs.

    `found` is the type or value that arrived; empty if it is irrelevant or may be personal data.
    """

    code: PlanCode
    table: str
    column: str
    found: str


@dataclass(slots=True)
class Extent:
    """The extent of a drift: how many events, first and last received when (UNIX seconds), and how many by page."""

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


@dataclass(slots=True)
class Drifts:
    """How events of one account differ from its plan: each drift with its extent.

    Attributes:
        plan: the plan.
        changed: columns of which rows do not have the original values, whatever the plan says.
        fitting: number of events that fit.
        missing: number of differences that are not in `found`, because it has MAX_DRIFTS drifts.
    """

    plan: TrackingPlan
    changed: frozenset[str] = frozenset()
    events: int = 0
    fitting: int = 0
    found: dict[Drift, Extent] = field(default_factory=dict)
    missing: int = 0

    def add(self, table: str, row: Mapping[str, Any], at: float) -> None:
        """Compare a row of a table, received at a time in UNIX seconds."""
        self.events += 1
        planned = self.plan.tables.get(table)
        changed = self.changed.union(planned.personal if planned else ())
        violations = [
            one
            for one in self.plan.violations(table, row)
            if one.column not in changed or one.code == "unplanned_column"
        ]
        self.fitting += not violations
        for violation in violations:
            drift = Drift(violation.code, table, violation.column, _found(violation, row))
            if drift not in self.found and len(self.found) >= MAX_DRIFTS:
                self.missing += 1
            else:
                self.found.setdefault(drift, Extent()).add(at, page_of(row))

    def sorted(self) -> Iterator[tuple[Drift, Extent]]:
        """Yield the drifts by table, most frequent first."""
        yield from sorted(self.found.items(), key=lambda item: (item[0].table, -item[1].events, item[0]))

    def summary(self) -> str:
        """Return a summary in one sentence."""
        if not self.events:
            return "No events were found."
        differing = self.events - self.fitting
        if not differing:
            return f"All {screen.plural(self.events, 'event')} fit the plan."
        more = f" {screen.plural(self.missing, 'further difference')} not listed." if self.missing else ""
        share = 100 * differing / self.events
        return f"{differing:,} of {screen.plural(self.events, 'event')} differ from the plan ({share:.3g} %).{more}"


def _found(violation: Violation, row: Mapping[str, Any]) -> str:
    value = row.get(violation.column)
    if violation.code in ("wrong_type", "unplanned_column"):
        return type_of(value) or "null"
    if violation.code != "wrong_value" or is_personal(violation.column, value):
        return ""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_EXAMPLE else f"{text[: MAX_EXAMPLE - 1]}…"
