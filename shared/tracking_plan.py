"""Tracking plans: the tables, columns and types that an account expects, and what happens to events that differ.

A plan is a mapping, written by people in YAML and published in the edge policy:

    mode: quarantine                # observe (default), quarantine or off; a table may have its own
    tables:
      purchases:
        description: one per order
        columns:
          order_id: {type: string, required: true, pattern: "[A-Z]{2}-[0-9]+"}
          amount: number
          currency: {values: [JPY, USD]}
          email: {type: string, personal: hash}

Rows are checked, not events: a column's name and value are as they will be in Treasure Data. STANDARD_COLUMNS need not be in the
plan.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from shared import names, rows
from shared.rows import PlanCode

Mode = Literal["observe", "quarantine", "off"]
Type = Literal["string", "integer", "number", "boolean", "json"]
Personal = Literal["drop", "hash"]

MODES: tuple[Mode, ...] = get_args(Mode)
TYPES: tuple[Type, ...] = get_args(Type)
PERSONAL: tuple[Personal, ...] = get_args(Personal)
CODES: tuple[PlanCode, ...] = get_args(PlanCode)
COLUMN_CODES = frozenset(CODES) - {"unplanned_table"}
"""Codes of events whose table is in the plan."""

MAX_TABLES = 200
MAX_VALUES = 200
MAX_PATTERN = 200
MAX_MATCHED = 256
"""Longest value, in characters, that a pattern is tried on. A longer value never matches."""

STANDARD_COLUMNS = frozenset(
    {
        *names.ROW_COLUMNS,
        *("event_id_2", "time_raw", "time_rule", "time_drift", "bot", "ping_to", "uuid"),
        *("td_ip", "td_user_agent", "td_ua", "td_url", "td_client_id", "td_global_id", "td_ssc_id"),
        *("td_version", "td_charset", "td_language", "td_color", "td_screen", "td_viewport", "td_title"),
        *("td_description", "td_platform", "td_host", "td_path", "td_referrer"),
        *("td_browser", "td_browser_version", "td_os", "td_os_version"),
        *("td_uuid", "td_maid", "td_session_id", "td_session_event", "td_board", "td_brand", "td_device"),
        *("td_display", "td_model", "td_os_ver", "td_os_type", "td_app_ver", "td_app_ver_num"),
        *("td_app_previous_ver", "td_app_previous_ver_num", "td_locale_country", "td_locale_lang"),
        *("td_android_event", "td_ios_event", "td_unity_event", "sluice_dropped"),
        *("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "utm_id"),
        *("utm_source_platform", "utm_creative_format", "utm_marketing_tactic"),
    }
)
"""Columns that Sluice, its SDKs and Treasure Data's SDKs add. If any `td_…` or `utm_…` were allowed, a sender could add columns without end."""

_UNSAFE_PATTERN = re.compile(r"\)[*+{]|\\[1-9]|\(\?(?!:)")
_REPEAT = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?:|(?P<many>[*+])|(?P<once>\?)|\{(?P<least>[0-9]*),(?P<most>[0-9]*)\}"
)
_MAX_CHOICES_OF_ONE = 64
_MAX_CHOICES = 4 * _MAX_CHOICES_OF_ONE**3
"""A pattern may try this many combinations of how often each part is repeated."""

_ANY: frozenset[Any] = frozenset({str, int, float, bool, type(None)})
_CERTAIN: Mapping[Type | None, frozenset[Any]] = {
    "string": frozenset({str, type(None)}),
    "integer": frozenset({int, type(None)}),
    "number": frozenset({int, float, type(None)}),
    "boolean": frozenset({bool, type(None)}),
    "json": frozenset({type(None)}),
}

type Value = str | int | float | bool


class Violation(NamedTuple):
    """One way in which a row differs from its plan.

    Attributes:
        code: the kind of difference.
        column: the column's name; empty for a table.
        detail: what was found and what was expected, for the message; never a value.
    """

    code: PlanCode
    column: str
    detail: str = ""

    @property
    def message(self) -> str:
        """What is wrong, for a person, without the value."""
        return _MESSAGES[self.code].format(column=self.column, detail=self.detail)


_MESSAGES: Mapping[PlanCode, str] = {
    "unplanned_table": "the tracking plan has no such table",
    "unplanned_column": "the tracking plan has no column {column} for this table",
    "missing_column": "the tracking plan requires a value for column {column}",
    "wrong_type": "column {column} has the type {detail}",
    "wrong_value": "the value of column {column} {detail} in the tracking plan",
}


class PlannedColumn(NamedTuple):
    """What a plan says about a column.

    Attributes:
        type: of its values; None allows any.
        required: whether every row needs a value that is not null.
        pattern: a regular expression that must match the whole value; empty allows any.
        values: the allowed values; empty allows any.
        personal: what happens to the value before the row is stored; None keeps it.
        description: for people.
    """

    type: Type | None = None
    required: bool = False
    pattern: str = ""
    values: tuple[Value, ...] = ()
    personal: Personal | None = None
    description: str = ""

    @property
    def certain_types(self) -> frozenset[Any]:
        """Python types whose values always fit, and texts that fit."""
        if self.pattern:
            return frozenset()
        if self.values:
            return frozenset(
                text for text in self.values if isinstance(text, str) and self.fault(text) is None
            )
        types = _CERTAIN.get(self.type, _ANY)
        return types - {type(None)} if self.required else types

    def fault(self, value: Any) -> PlanCode | None:
        """Return how a value that is not null differs; None if it fits."""
        if self.type is not None and not _has_type(value, self.type):
            return "wrong_type"
        if self.values and not any(_kind(value) is _kind(one) and value == one for one in self.values):
            return "wrong_value"
        if self.pattern and not _matches(self.pattern, value):
            return "wrong_value"
        return None

    def detail(self, code: PlanCode, value: Any) -> str:
        """Return a violation's detail. Senders read it, so it shows neither values nor the pattern."""
        if code == "wrong_type":
            return f"{type_of(value)}, but the tracking plan requires {self.type}"
        return f"is not one of the {len(self.values)}" if self.values else "does not match the pattern"


@dataclass
class PlannedTable:
    """What a plan says about a table.

    Attributes:
        columns: by name.
        mode: None for the plan's mode.
        description: for people.
        personal: what happens to the values of columns with personal data.
    """

    columns: Mapping[str, PlannedColumn]
    mode: Mode | None = None
    description: str = ""

    def __post_init__(self) -> None:
        """Precompute what makes `violations` fast."""
        self.personal = {name: column.personal for name, column in self.columns.items() if column.personal}
        self._required = frozenset(name for name, column in self.columns.items() if column.required)
        certain = {name: column.certain_types for name, column in self.columns.items()}
        self._types = dict.fromkeys(STANDARD_COLUMNS, _ANY) | certain

    def violations(self, row: Mapping[str, Any]) -> Sequence[Violation]:
        """Return how a row differs: its own columns in order, then the columns that it lacks."""
        types = self._types
        for name, value in row.items():  # the fast path: most rows fit
            known = types.get(name)
            if known is None or (type(value) not in known and value not in known):
                return list(self._differences(row))
        return () if self._required <= row.keys() else list(self._differences(row))

    def _differences(self, row: Mapping[str, Any]) -> Iterator[Violation]:
        for name, value in row.items():
            column = self.columns.get(name)
            if column is None:
                if name not in STANDARD_COLUMNS:
                    yield Violation("unplanned_column", name)
            elif value is not None and (code := column.fault(value)):
                yield Violation(code, name, column.detail(code, value))
        for name in self.columns:
            if name in self._required and row.get(name) is None:
                yield Violation("missing_column", name)


class TrackingPlan(NamedTuple):
    """A tracking plan.

    Attributes:
        tables: by name.
        mode: for tables that have no mode of their own, and for those that are not in the plan.
    """

    tables: Mapping[str, PlannedTable] = MappingProxyType({})
    mode: Mode = "observe"

    def mode_of(self, table: str) -> Mode:
        """Return a table's mode."""
        found = self.tables.get(table)
        return found.mode or self.mode if found else self.mode

    def violations(self, table: str, row: Mapping[str, Any]) -> Sequence[Violation]:
        """Return how a row of a table differs, whatever the mode."""
        found = self.tables.get(table)
        return (Violation("unplanned_table", ""),) if found is None else found.violations(row)

    @classmethod
    def parse(cls, value: object) -> "TrackingPlan":
        """Parse a plan.

        Raises:
            ValueError: it is not a plan; the message says where, and what to write.
        """
        members = _members("a plan", value, ("mode", "tables"))
        tables = members.get("tables", {})
        if not isinstance(tables, Mapping):
            raise ValueError("`tables` must be a mapping: `tables: {purchases: {columns: {…}}}`")  # noqa: TRY004 -- a value
        if len(tables) > MAX_TABLES:
            raise ValueError(f"a plan has at most {MAX_TABLES} tables, not {len(tables)}")
        return cls(
            {name: _table(name, table) for name, table in tables.items()},
            _one_of("mode", members.get("mode", "observe"), MODES),
        )

    @classmethod
    def of_known(cls, value: object) -> "TrackingPlan | None":
        """Parse the legal parts of a published plan, as a newer publisher may know more; None if it is not a plan at all.

        A column with an illegal rule may hold anything, but its personal data is still dropped or hashed.
        """
        if not isinstance(value, Mapping) or not isinstance(tables := value.get("tables"), Mapping):
            return None
        found = {}
        for name, table in tables.items():
            if isinstance(name, str) and isinstance(table, Mapping) and names.is_table(name):
                columns = table.get("columns")
                kept = columns.items() if isinstance(columns, Mapping) else ()
                rules = {column: _known_column(column, rule) for column, rule in kept}
                found[name] = PlannedTable(
                    rules, _known(table.get("mode"), MODES), str(table.get("description", ""))
                )
        return cls(found, _known(value.get("mode"), MODES) or "observe")

    def to_value(self, *, describes: bool = True) -> dict[str, Any]:
        """Return the mapping that `parse` reads, without members that have their default value.

        Args:
            describes: whether to include the descriptions.
        """
        tables: dict[str, Any] = {}
        for name, table in self.tables.items():
            kept = {"mode": table.mode, "description": table.description if describes else ""}
            columns = {column: _shown(rule, describes=describes) for column, rule in table.columns.items()}
            tables[name] = {key: text for key, text in kept.items() if text} | {"columns": columns}
        return ({"mode": self.mode} if self.mode != "observe" else {}) | {"tables": tables}


def _shown(column: PlannedColumn, *, describes: bool) -> Any:
    members = {name: value for name, value in column._asdict().items() if value}
    if not describes:
        members.pop("description", None)
    if "values" in members:
        members["values"] = list(column.values)
    return column.type if members.keys() == {"type"} else members


def type_of(value: Any) -> Type | None:
    """Return the narrowest type of a row's value; None for null."""
    match value:
        case None:
            return None
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
    return "json" if isinstance(value, str) and value[:1] in ("{", "[") else "string"


def _has_type(value: Any, wanted: Type) -> bool:
    match wanted:
        case "string":
            return isinstance(value, str)
        case "json":
            return isinstance(value, str) and value[:1] in ("{", "[")
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return type(value) is int or (type(value) is float and value.is_integer())
        case "number":
            return type(value) is int or type(value) is float


def _kind(value: Any) -> type:
    """Return a value's type. JSON does not tell 1 from 1.0, but true from both."""
    return float if type(value) is int else type(value)


def _matches(pattern: str, value: Any) -> bool:
    text = value if isinstance(value, str) else str(value)
    return len(text) <= MAX_MATCHED and _compiled(pattern).fullmatch(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _table(name: object, value: object) -> PlannedTable:
    if not isinstance(name, str) or not names.is_table(name):
        raise ValueError(f"{name!r} is not a legal table name: use 3 to 128 characters of a-z, 0-9 and _")
    members = _members(f"table {name}", value, ("columns", "mode", "description"))
    columns = members.get("columns", {})
    if not isinstance(columns, Mapping):
        raise ValueError(f"table {name}: `columns` must be a mapping: `columns: {{amount: number}}`")  # noqa: TRY004 -- a value
    if len(columns) > rows.MAX_COLUMNS:
        raise ValueError(f"table {name}: a row has at most {rows.MAX_COLUMNS} columns, not {len(columns)}")
    return PlannedTable(
        {column: _column(f"{name}.{column}", column, rule) for column, rule in columns.items()},
        None if members.get("mode") is None else _one_of(f"table {name}: mode", members["mode"], MODES),
        _text(f"table {name}: description", members.get("description", "")),
    )


def _column(place: str, name: object, value: object) -> PlannedColumn:
    if not isinstance(name, str) or rows.column_name(name) != name:
        hint = f": write it as {rows.column_name(name)}" if isinstance(name, str) else ""
        raise ValueError(f"{place} is not the name of a column in Treasure Data{hint}")
    if isinstance(value, str):
        value = {"type": value}
    members = _members(place, value if value is not None else {}, PlannedColumn._fields)
    column_type = members.get("type")
    values = members.get("values", [])
    required = members.get("required", False)
    if not isinstance(values, list | tuple) or not all(
        type(item) in (str, int, float, bool) for item in values
    ):
        raise ValueError(
            f"{place}: values must be a list of strings, numbers or booleans, such as [JPY, USD]"
        )
    if len(values) > MAX_VALUES:
        raise ValueError(
            f"{place}: a column has at most {MAX_VALUES} values, not {len(values)}: use a pattern"
        )
    if not isinstance(required, bool):
        raise ValueError(f"{place}: required must be true or false, not {required!r}")  # noqa: TRY004 -- a value
    personal = members.get("personal")
    if personal and name in names.ROW_COLUMNS:
        raise ValueError(f"{place}: every row needs this column, so it cannot be dropped or hashed")
    return PlannedColumn(
        type=None if column_type is None else _one_of(f"{place}: type", column_type, TYPES),
        required=required,
        pattern=_pattern(place, members.get("pattern", "")),
        values=tuple(values),
        personal=None if personal is None else _one_of(f"{place}: personal", personal, PERSONAL),
        description=_text(f"{place}: description", members.get("description", "")),
    )


def _known_column(name: object, value: object) -> PlannedColumn:
    members = value if isinstance(value, Mapping) else {"type": value}
    known = {key: member for key, member in members.items() if key in PlannedColumn._fields}
    try:
        return _column("", name, known)
    except ValueError:
        return PlannedColumn(personal=_known(members.get("personal"), PERSONAL))


def _known[Word: str](value: object, allowed: tuple[Word, ...]) -> Word | None:
    return next((word for word in allowed if word == value), None)


def _pattern(place: str, value: object) -> str:
    """Check that a pattern is fast on every text, because senders choose the texts."""
    text = _text(f"{place}: pattern", value)
    if len(text) > MAX_PATTERN:
        raise ValueError(f"{place}: a pattern has at most {MAX_PATTERN} characters, not {len(text)}")
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{place}: {text!r} is not a regular expression: {error}") from None
    if _UNSAFE_PATTERN.search(text) or prod(map(_choices, _REPEAT.finditer(text))) > _MAX_CHOICES:
        raise ValueError(
            f"{place}: {text!r} could take too long on some values: do not repeat groups, use no backreferences and no (?…) "
            "except (?:…), and fewer of *, +, ? and {m,n}"
        )
    return text


def _choices(repeat: re.Match[str]) -> int:
    """Return how many numbers of repetitions a part of a pattern allows."""
    if repeat["many"] or (repeat["least"] is not None and not repeat["most"]):
        return _MAX_CHOICES_OF_ONE
    if repeat["most"]:
        return min(int(repeat["most"]) - int(repeat["least"] or 0) + 1, _MAX_CHOICES_OF_ONE)
    return 2 if repeat["once"] else 1


def _members(place: str, value: object, allowed: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{place} must be a mapping with {', '.join(allowed)}, not {value!r}")  # noqa: TRY004 -- a value
    for name in value:
        if name not in allowed:
            raise ValueError(f"{place} has no member {name!r}: use {', '.join(allowed)}")
    return value


def _one_of[Word: str](place: str, value: object, allowed: tuple[Word, ...]) -> Word:
    for word in allowed:
        if value == word or (value is False and word == "off"):  # YAML reads `off` as false
            return word
    raise ValueError(f"{place} must be one of {', '.join(allowed)}, not {value!r}")


def _text(place: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place} must be a string, not {value!r}")  # noqa: TRY004 -- a value
    return value
