"""Encodes events, as clients send them, as rows for Treasure Data.

A row is a flat map. Sluice sets the columns `time` (UNIX seconds, which Treasure Data partitions by), `event_id` and
`received_at` (UNIX milliseconds). Every other member of the event becomes a column by the rules below. Whatever a client
sends, only `Rejected` is raised.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgpack

from shared import json_codec, names
from shared.errors import TooDeepError

MAX_EVENT_BYTES = 256 * 1024
"""Maximum size of an event as compact JSON."""
MAX_COLUMNS = 512
"""Maximum columns per row, including Sluice's own: Treasure Data's limit for a streamed record."""
COLUMN_GROWTH = 40
"""Maximum bytes by which a column is larger than the member in the event's JSON text, even if it is hashed."""
MAX_COLUMN_NAME = 128
MAX_EVENT_ID = 128
EARLIEST_TIME = 946_684_800
"""2000-01-01 UTC in UNIX seconds; an earlier event time is a clock error."""
MAX_SECONDS_AHEAD = 3 * 86_400
"""How far an event's time may be ahead of its arrival."""
TRANSIT_SECONDS = 300
"""Longest time that a request is in transit."""

_ILLEGAL_CHARACTER = re.compile(r"[^a-z0-9_]")
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?")
_RESERVED_BY_TD = {"v": "_v"}  # Treasure Data's legacy map of all columns
_LIKE_A_BATCH = ("events", "Events", "event", "Event")
_NOT_COLUMNS = {"table", "time", "event_id"}
_INT64 = range(-(2**63), 2**63)
_YEAR_10000 = 253_402_300_800

# From this size on, a number is not seconds since 1970 but a finer unit (10**11 seconds are the year 5138).
_FINER_UNITS = (
    (10**17, 1_000_000_000, "nanoseconds"),
    (10**14, 1_000_000, "microseconds"),
    (10**11, 1_000, "milliseconds"),
)

Code = Literal[
    "not_an_object",
    "missing_table",
    "invalid_table",
    "too_many_tables",
    "too_many_columns",
    "too_deep",
    "event_too_large",
    "refused_person",
]
"""Why an event cannot become a row."""

PlanCode = Literal["unplanned_table", "unplanned_column", "missing_column", "wrong_type", "wrong_value"]
"""How an event differs from its account's tracking plan."""


class Rejected(Exception):  # noqa: N818 -- the result for one event, not a failure
    """The event does not become a row. `code` is stable, `message` is for a person."""

    def __init__(self, code: Code | PlanCode, message: str) -> None:
        super().__init__(message)
        self.code: Code | PlanCode = code
        self.message = message


class Arrival(NamedTuple):
    """What the receiver knows about all events of a request.

    Attributes:
        received_at: UNIX milliseconds.
        columns: added to each row that does not have them, as far as MAX_COLUMNS allows.
        drift: seconds that the sender's clock is behind; added to each event's time.
        table_is_column: an event's member `table` is an ordinary column.
    """

    received_at: int
    columns: Mapping[str, Any] = MappingProxyType({})
    drift: int = 0
    table_is_column: bool = False


def table_of(event: object, default: object = None) -> str:
    """Return the table in the event's member `table`, or `default` if it is absent or null.

    Raises:
        Rejected: `not_an_object`, `missing_table`, `invalid_table`.
    """
    if not isinstance(event, dict):
        raise Rejected("not_an_object", "the event is not a JSON object")
    table = event.get("table")
    if table is None:
        table = default
    if table is None:
        message = "the event names no table; set its field `table`"
        if any(isinstance(event.get(name, ""), list | dict | None) for name in _LIKE_A_BATCH):
            message += ". Several events belong in an array named `events`"
        raise Rejected("missing_table", message)
    if not isinstance(table, str) or not names.is_table(table):
        raise Rejected(
            "invalid_table", "this is not a legal table name: use 3 to 128 characters of a-z, 0-9 and _"
        )
    return table


def text_of(event: object) -> str:
    """Return an event as compact JSON; the same event always gives the same text.

    If a value is nested to the limit, the event around it is one level too deep. Its members are then written one by one.
    """
    try:
        return json_codec.dump(event)
    except TooDeepError:
        if not isinstance(event, dict):
            return _text_of_value(event)
        members = (f"{json_codec.dump(name)}:{_text_of_value(value)}" for name, value in event.items())
        return f"{{{','.join(members)}}}"


def _text_of_value(value: object) -> str:
    try:
        return json_codec.dump(value)
    except TooDeepError:
        try:
            # `repr` and the check take quadratic time
            return json.dumps(value, check_circular=False, allow_nan=False)
        except (RecursionError, ValueError):
            return "null"


def encode(
    event: object,
    arrival: Arrival,
    new_id: Callable[[], str],
    screen: Callable[[dict[str, Any]], None] | None = None,
) -> bytes:
    """Encode an event as a row: one MessagePack map.

    Except for `screen`, rejection depends only on the event, never on what the receiver adds: a retry from another address or
    under other settings gets the same result.

    Args:
        event: parsed JSON, as the client sent it.
        arrival: when it arrived, and the columns to add.
        new_id: returns an `event_id` if the event has no usable one.
        screen: removes or changes columns of the row before it is encoded, or rejects it.

    Raises:
        Rejected: `not_an_object`, `too_many_columns`, `too_deep`, `event_too_large`.
    """
    if not isinstance(event, dict):
        raise Rejected("not_an_object", "the event is not a JSON object")
    _check_column_count(len(event) - len(_NOT_COLUMNS))  # fail fast for events with 100,000 members
    time, time_columns = event_time(event.get("time"), arrival.received_at // 1000, drift=arrival.drift)
    event_id = _event_id(event.get("event_id"))
    row: dict[str, Any] = {"time": time, "event_id": event_id or new_id(), "received_at": arrival.received_at}
    row |= time_columns
    numbers: dict[str, int] = {}
    for name, value in event.items():
        if name not in _NOT_COLUMNS or (arrival.table_is_column and name == "table"):
            column = _column_name(name[:MAX_COLUMN_NAME])
            column = _unused_name(column, row, numbers) if column in row else column
            row[column] = value if isinstance(value, str) else _column_value(value)
    if event_id is None and event.get("event_id") is not None:
        row[_unused_name("event_id", row, numbers)] = _column_value(event["event_id"])
    _check_column_count(len(row) - len(time_columns))
    size = len(text_of(event).encode(errors="replace"))
    if size > MAX_EVENT_BYTES:
        raise Rejected(
            "event_too_large", f"the event is {size} bytes as JSON; at most {MAX_EVENT_BYTES} are allowed"
        )
    if len(row) > MAX_COLUMNS:
        row = {name: value for name, value in row.items() if name not in time_columns}
    for name, value in arrival.columns.items():
        if len(row) < MAX_COLUMNS:
            row.setdefault(name, value)
    if screen is not None:
        screen(row)
    return _pack(row)


def event_time(
    value: object, received_at: int, *, drift: int = 0, earliest: int = EARLIEST_TIME
) -> tuple[int, dict[str, Any]]:
    """Return the event's time in UNIX seconds, and extra columns if the timestamp needed interpretation.

    Seconds, milliseconds, microseconds and nanoseconds since 1970 are distinguished by size. RFC 3339 text without an offset
    is UTC. `drift` seconds are added to a parsed time. A time that cannot be parsed, or that is then before `earliest` or more
    than three days after `received_at` (both UNIX seconds), is replaced with the arrival time. Unless the timestamp was whole
    seconds within range, the columns are `time_raw`, the timestamp as sent, and `time_rule`: `fraction`, `milliseconds`,
    `microseconds`, `nanoseconds`, `text`, `out_of_range` or `unreadable`. If drift was added, they are `time_raw`, `time_drift`
    and, if a rule applied, `time_rule`.
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


def clock_drift(sent_at: object, received_at: int) -> int:
    """Return the seconds that a sender's clock is behind; 0 if it is right or unknown.

    The difference between sending and arrival is transit time plus clock error, which cannot be separated. Only a difference
    too long for transit counts as clock error. It is the same for all events of a request, so their order and distances stay.

    Args:
        sent_at: when the request was sent, by the sender's clock, in any form that an event's `time` may have.
        received_at: when it arrived, UNIX seconds.
    """
    sent, _ = _read_time(sent_at)
    if sent is None or not 0 <= sent < _YEAR_10000:  # not a plausible clock
        return 0
    behind = received_at - sent
    return behind if abs(behind) > TRANSIT_SECONDS else 0


def column_name(name: str) -> str:
    """Return a member's column name in Treasure Data.

    The name is cut to 128 characters and lowercased; characters other than `a-z`, `0-9` and `_` become `_`; a leading digit is
    prefixed with `_`; an empty name becomes `_`; and `v`, which Treasure Data reserves, becomes `_v`.
    """
    return _column_name(name[:MAX_COLUMN_NAME])


@lru_cache(maxsize=4096)  # names are at most 128 characters, so memory is bounded
def _column_name(name: str) -> str:
    name = _ILLEGAL_CHARACTER.sub("_", name.lower())
    if not name or name[0].isdigit():
        name = "_" + name
    name = name[:MAX_COLUMN_NAME]
    return _RESERVED_BY_TD.get(name, name)


def _unused_name(name: str, row: Mapping[str, Any], numbers: dict[str, int]) -> str:
    """Return the first of `name_2`, `name_3` … that the row does not have.

    `numbers` holds the next number for each name, so that hundreds of equal names take linear time.
    """
    stem = name[: MAX_COLUMN_NAME - 4]
    number = numbers.get(stem, 2)
    while (free := f"{stem}_{number}") in row:
        number += 1
    numbers[stem] = number + 1
    return free


def _column_value(value: Any) -> Any:
    """Convert a value to one that both MessagePack and Treasure Data support."""
    match value:
        case str() | bool() | None:
            return value
        case int():
            return value if value in _INT64 else str(value)  # json_codec limits the digits
        case float():
            return value if math.isfinite(value) else None
    try:
        return json_codec.dump(value)
    except TooDeepError as error:
        raise Rejected("too_deep", f"a value is {error}") from None


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
    """Return UNIX seconds and the rule that applied; None and `unreadable` if there are none."""
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
        date = datetime.fromisoformat(text.upper())  # `t` and `z` too, as RFC 3339 allows
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return math.floor(date.timestamp()), "text"
    except ValueError:
        return None, "unreadable"


def _check_column_count(columns: int) -> None:
    if columns > MAX_COLUMNS:
        raise Rejected(
            "too_many_columns",
            f"the row would have more than {MAX_COLUMNS} columns, including time, event_id and received_at",
        )


def _pack(row: dict[str, Any]) -> bytes:
    try:
        data: bytes = msgpack.packb(row)
    except UnicodeEncodeError:  # a lone surrogate in a value; column names are ASCII
        data = msgpack.packb(
            {
                name: json_codec.without_surrogates(value) if isinstance(value, str) else value
                for name, value in row.items()
            }
        )
    return data
