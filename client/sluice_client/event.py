"""Encodes events as the JSON text that is stored and sent."""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from sluice_client.errors import InvalidEventError

MAX_EVENT_BYTES = 256 * 1024
"""Sluice's limit for an event as compact JSON."""
MAX_COLUMNS = 512
"""Sluice's limit for a row: `received_at`, which Sluice adds, is in place of `table`."""

_TABLE = re.compile(r"[a-z0-9_]{3,128}")
_MAX_DEPTH = 254
"""Sluice's limit for the nesting of a column's value."""


def encode(table: str, columns: Mapping[str, Any], now: int) -> tuple[str, bytes]:
    """Return an event's id and its JSON text.

    Args:
        table: the event's table.
        columns: JSON values, and dates, times, decimals and UUIDs, which become text. NaN and infinity become null.
            `time` and `event_id` are added unless they are given and not None.
        now: UNIX seconds.

    Raises:
        InvalidEventError: Sluice would reject it.
    """
    if not isinstance(table, str) or not _TABLE.fullmatch(table):  # type: ignore[redundant-expr]  # callers are not always typed
        raise InvalidEventError(f"{table!r} is not a table name: use 3 to 128 characters of a-z, 0-9 and _")
    event = {**columns, "table": table}
    if event.get("time") is None:
        event["time"] = now
    event_id = event.get("event_id")
    if event_id is None:
        event_id = event["event_id"] = os.urandom(16).hex()
    try:
        text = _dump(event)
    except ValueError:  # NaN, infinity, or a circular reference
        text = _dump_finite(event)
    except (TypeError, RecursionError) as error:
        raise InvalidEventError(f"the event cannot be written as JSON: {error}") from error
    if len(event) > MAX_COLUMNS:
        raise InvalidEventError(f"the row would have {len(event)} columns; at most {MAX_COLUMNS} are allowed")
    if text.count("[") + text.count("{") > _MAX_DEPTH and _is_too_deep(event.values()):
        raise InvalidEventError(f"a value is nested deeper than {_MAX_DEPTH} levels")
    size = len(text)
    if size > MAX_EVENT_BYTES:  # perhaps not without its escapes
        size = len(_dump_unescaped(json.loads(text)).encode("utf-8", "surrogatepass"))
    if size > MAX_EVENT_BYTES:
        raise InvalidEventError(f"the event is {size} bytes as JSON; at most {MAX_EVENT_BYTES} are allowed")
    return str(event_id), text.encode()


def _is_too_deep(values: Iterable[Any]) -> bool:
    for _ in range(_MAX_DEPTH + 1):
        containers = [value for value in values if isinstance(value, dict | list | tuple)]
        values = [
            item
            for container in containers
            for item in (container.values() if isinstance(container, dict) else container)
        ]
    return bool(values)


def _text_of(value: Any) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


# Escaped to ASCII: lone surrogates, which UTF-8 cannot encode, become legal, and every character is one byte.
_dump = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_text_of).encode
_dump_unescaped = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _dump_finite(event: Mapping[str, Any]) -> str:
    try:
        return _dump(_finite(event, _MAX_DEPTH + 1))
    except (TypeError, ValueError) as error:
        raise InvalidEventError(f"the event cannot be written as JSON: {error}") from error


def _finite(value: Any, depth: int) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, dict | list | tuple):
        return value
    if not depth:
        raise ValueError("a value is nested too deeply, or contains itself")
    if isinstance(value, dict):
        return {
            (None if isinstance(name, float) and not math.isfinite(name) else name): _finite(item, depth - 1)
            for name, item in value.items()
        }
    return [_finite(item, depth - 1) for item in value]
