"""Events are converted to JSON."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from sluice_client import InvalidEventError
from sluice_client.event import encode


def test_an_event_gets_a_time_and_an_id() -> None:
    """The caller's own `time` and `event_id` are kept, unless they are None."""
    made, text = encode("orders", {"time": None, "event_id": None}, 7)
    kept, other = encode("orders", {"time": 1, "event_id": "e-1"}, 7)

    assert {"time": 7, "event_id": made, "table": "orders"} == json.loads(text)
    assert ("e-1", {"time": 1, "event_id": "e-1", "table": "orders"}) == (kept, json.loads(other))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (float("nan"), None),
        ([1.5, {"a": float("-inf")}], [1.5, {"a": None}]),
        ("a\ud800😀", "a\ud800😀"),
        (10**30, 10**30),
        # its size is that of its 240,000 bytes, as Sluice measures it, although each character is stored as an escape of six
        ("寿" * 80_000, "寿" * 80_000),
    ],
)
def test_values_are_converted(value: Any, expected: Any) -> None:
    """Values that JSON lacks become text or null; the others are unchanged."""
    assert expected == json.loads(encode("orders", {"x": value}, 0)[1])["x"]


def nested(levels: int, value: Any) -> Any:
    """Return the value in this many lists and objects."""
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("table", "value", "message"),
    [
        *((name, 1, "table name") for name in ("Orders", "", None)),
        ("orders", object(), "object is not a JSON type"),
        ("orders", CIRCLE, "contains itself"),
        ("orders", "x" * 262_144, "at most 262144"),
        ("orders", "寿" * 90_000, "the event is 2700[0-9]{2} bytes"),
        ("orders", [float("nan"), object()], "object is not a JSON type"),
        ("orders", nested(255, 1), "deeper than 254 levels"),
        ("orders", nested(900, [1, 2]), "deeper than 254 levels"),
    ],
)
def test_an_event_that_can_never_be_accepted_raises(table: Any, value: Any, message: str) -> None:
    """The caller gets an exception at once, rather than a log line later."""
    with pytest.raises(InvalidEventError, match=message):
        encode(table, {"x": value}, 0)


@pytest.mark.parametrize(
    "columns", [{"x": nested(254, float("nan")), "y": [[]] * 300}, {f"c{n}": n for n in range(509)}]
)
def test_an_event_at_a_limit_is_not_refused(columns: dict[str, Any]) -> None:
    """It has 254 levels, or 512 columns with those that the client and Sluice add; with one column more it raises."""
    encode("orders", columns, 0)
    with pytest.raises(InvalidEventError, match="513 columns"):
        encode("orders", {**columns, **{f"d{n}": n for n in range(510 - len(columns))}}, 0)
