"""From an event, as a client sent it, to a row, as it will stand in Treasure Data.

A row is a flat map. Its first columns are ours: `time` (UNIX seconds, which Treasure Data partitions by), `event_id`
and `received_at` (UNIX milliseconds). Every other member of the event becomes a column by the rules below; nothing
that a client can send raises anything but `Rejected`.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import msgpack

from shared import json_codec, names

MAX_ROW_BYTES = 256 * 1024
"""A row's size as MessagePack."""
MAX_COLUMNS = 512
"""Columns of a row, ours included: Treasure Data's limit for a streamed record."""
MAX_COLUMN_NAME = 128
MAX_EVENT_ID = 128
EARLIEST_TIME = 946_684_800
"""2000-01-01 UTC in UNIX seconds. What is said to have happened earlier is a wrong clock."""
MAX_SECONDS_AHEAD = 3 * 86_400
"""How far behind an event's time its arrival may lie."""

_ILLEGAL_CHARACTER = re.compile(r"[^a-z0-9_]")
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?")
_TAKEN_BY_TD = {"v": "_v"}  # Treasure Data's legacy map of all columns
_NOT_COLUMNS = {"table", "time", "event_id"}
_INT64 = range(-(2**63), 2**63)

# A count since 1970 of this size or more is in a finer unit than seconds: 10**11 seconds are the year 5138.
_FINER_UNITS = (
    (10**17, 1_000_000_000, "nanoseconds"),
    (10**14, 1_000_000, "microseconds"),
    (10**11, 1_000, "milliseconds"),
)


Code = Literal[
    "not_an_object", "missing_table", "invalid_table", "too_many_columns", "too_deep", "event_too_large"
]
"""Why an event cannot become a row."""


class Rejected(Exception):  # noqa: N818 -- a verdict on one event, not a failure
    """This event cannot become a row. `code` is stable, `message` is for a person."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the receiving side knows of all events of a request.

    Attributes:
        received_at: UNIX milliseconds.
        columns: added to each row whose event does not bring a column of that name.
        drift: seconds that the sender's clock is behind; they are added to each event's time.
        earliest: UNIX seconds; what is said to have happened earlier is a wrong clock.
        table_is_column: an event's member `table` names no table but is a column like others.
        screen: changes a row before it is encoded: takes out columns, or changes their values.
    """

    received_at: int
    columns: Mapping[str, Any] = field(default_factory=dict)
    drift: int = 0
    earliest: int = EARLIEST_TIME
    table_is_column: bool = False
    screen: Callable[[dict[str, Any]], None] | None = None


def table_of(event: object, default: object = None) -> str:
    """Return the table that the event's member `table` names, else `default`; null names none.

    Raises:
        Rejected: `not_an_object`, `missing_table`, `invalid_table`.
    """
    if not isinstance(event, Mapping):
        raise Rejected("not_an_object", "an event is a JSON object")
    table = event.get("table")
    if table is None:
        table = default
    if table is None:
        raise Rejected("missing_table", "name the table in the event's member `table`")
    if not isinstance(table, str) or not names.is_table(table):
        raise Rejected("invalid_table", "a table's name is 3 to 128 of a-z, 0-9 and _")
    return table


def encode(event: object, arrival: Arrival, new_id: Callable[[], str]) -> bytes:
    """Return the event as a row: one MessagePack map.

    Args:
        event: what the client sent, of JSON's types.
        arrival: when it arrived, and the columns that the receiving side adds.
        new_id: makes the `event_id` where the client gave none that can be used.

    Raises:
        Rejected: `not_an_object`, `too_many_columns`, `too_deep`, `event_too_large`.
    """
    if not isinstance(event, dict):
        raise Rejected("not_an_object", "an event is a JSON object")
    _refuse_many(len(event) - len(_NOT_COLUMNS))
    time, odd_time = event_time(
        event.get("time"), arrival.received_at // 1000, drift=arrival.drift, earliest=arrival.earliest
    )
    event_id = _event_id(event.get("event_id"))
    row: dict[str, Any] = {"time": time, "event_id": event_id or new_id(), "received_at": arrival.received_at}
    row |= odd_time
    numbers: dict[str, int] = {}
    for name, value in event.items():
        if name not in _NOT_COLUMNS or (arrival.table_is_column and name == "table"):
            column = column_name(name)
            row[_free(column, row, numbers) if column in row else column] = _column_value(value)
    if event_id is None and event.get("event_id") is not None:
        row[_free("event_id", row, numbers)] = _column_value(event["event_id"])
    for name, value in arrival.columns.items():
        row.setdefault(name, value)
    if arrival.screen is not None:
        arrival.screen(row)
    _refuse_many(len(row))
    data = _pack(row)
    if len(data) > MAX_ROW_BYTES:
        raise Rejected("event_too_large", f"the event takes {len(data)} bytes; {MAX_ROW_BYTES} are allowed")
    return data


def event_time(
    value: object, received_at: int, *, drift: int = 0, earliest: int = EARLIEST_TIME
) -> tuple[int, dict[str, Any]]:
    """Return when the event happened, in UNIX seconds, and the columns that tell of an odd stamp.

    Seconds, milliseconds, microseconds and nanoseconds since 1970 are told apart by size; ISO 8601 text without an
    offset is UTC. `drift` seconds are added to what could be read. What cannot be read, or then lies before `earliest`
    or more than three days after `received_at` (both UNIX seconds), counts as having happened on arrival. Unless the
    stamp was whole seconds within range, the columns are `time_raw`, the stamp as it was sent, and `time_rule`:
    `fraction`, `milliseconds`, `microseconds`, `nanoseconds`, `text`, `out_of_range` or `unreadable`. Where drift was
    added, they are `time_raw` and `time_drift`, and `time_rule` where there is one.
    """
    if value is None:
        return received_at, {}
    seconds, rule = _read_time(value)
    if seconds is None:
        return received_at, {"time_raw": _column_value(value), "time_rule": rule}
    seconds += drift
    if not earliest <= seconds <= received_at + MAX_SECONDS_AHEAD:
        seconds, rule = received_at, "out_of_range"
    columns: dict[str, Any] = {"time_raw": _column_value(value)} if rule or drift else {}
    if rule:
        columns["time_rule"] = rule
    if drift:
        columns["time_drift"] = drift
    return seconds, columns


def read_time(value: object) -> int | None:
    """Return the UNIX seconds that a stamp says, by the same rules; None where it cannot be read."""
    return _read_time(value)[0]


def column_name(name: str) -> str:
    """Return the name by which Treasure Data knows a column.

    The first 128 characters count. Lower case; what is not of `a-z`, `0-9`, `_` becomes `_`; a leading digit gets `_`
    before it; nothing becomes `_`; at most 128 characters; `v`, which Treasure Data keeps for itself, becomes `_v`.
    """
    return _column_name(name[:MAX_COLUMN_NAME])


@lru_cache(maxsize=4096)  # of short names only, so that nobody can fill the memory
def _column_name(name: str) -> str:
    name = _ILLEGAL_CHARACTER.sub("_", name.lower())
    if not name or name[0].isdigit():
        name = "_" + name
    name = name[:MAX_COLUMN_NAME]
    return _TAKEN_BY_TD.get(name, name)


def _free(name: str, row: Mapping[str, Any], numbers: dict[str, int]) -> str:
    """Return the first of `name_2`, `name_3` … that the row does not have.

    `numbers` remembers where to go on for the next one of that name: hundreds of names that become the same take no
    longer than others.
    """
    stem = name[: MAX_COLUMN_NAME - 4]
    number = numbers.get(stem, 2)
    while (free := f"{stem}_{number}") in row:
        number += 1
    numbers[stem] = number + 1
    return free


def _column_value(value: Any) -> Any:
    """Return what MessagePack and Treasure Data can both hold."""
    match value:
        case str() | bool() | None:
            return value
        case int():
            return value if value in _INT64 else _digits(value)
        case float():
            return value if math.isfinite(value) else None
    try:
        return json_codec.dump(value)
    except json_codec.TooDeepError as error:
        raise Rejected("too_deep", f"a value is {error}") from None


def _digits(value: int) -> str:
    return str(value)  # at most 4,000 digits: json_codec reads longer ones as text


def _event_id(value: object) -> str | None:
    match value:
        case bool() | None:
            return None
        case int() if value in _INT64:
            return str(value)
        case str() if 0 < len(value) <= MAX_EVENT_ID:
            return json_codec.without_surrogates(value)
    return None


def _read_time(value: object) -> tuple[int | None, str]:
    """Return UNIX seconds and the rule by which they were read; None and `unreadable` where there are none."""
    match value:
        case bool():
            return None, "unreadable"
        case int():
            return _scale(value)
        case float() if math.isfinite(value):
            seconds, rule = _scale(value)
            return seconds, rule or ("" if value.is_integer() else "fraction")
        case str() if _NUMBER.fullmatch(value):
            return _read_time(float(value) if "." in value else int(value))
        case str():
            return _read_date(value)
    return None, "unreadable"


def _scale(count: float) -> tuple[int, str]:
    for size, per_second, name in _FINER_UNITS:
        if count >= size:
            return int(count // per_second), name
    return math.floor(count), ""


def _read_date(text: str) -> tuple[int | None, str]:
    try:
        date = datetime.fromisoformat(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return math.floor(date.timestamp()), "text"
    except ValueError:
        return None, "unreadable"


def _refuse_many(columns: int) -> None:
    if columns > MAX_COLUMNS:
        raise Rejected(
            "too_many_columns",
            f"a row has at most {MAX_COLUMNS} columns, time, event_id and received_at included",
        )


def _pack(row: dict[str, Any]) -> bytes:
    try:
        data: bytes = msgpack.packb(row)
    except UnicodeEncodeError:  # a lone surrogate, in a value: column names are ASCII
        data = msgpack.packb(
            {
                name: json_codec.without_surrogates(value) if isinstance(value, str) else value
                for name, value in row.items()
            }
        )
    return data
