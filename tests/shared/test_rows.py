"""Any event becomes a row by the documented rules, or is rejected with a documented code."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared import json_codec, rows
from tests.support import json_values

NOW = 1_764_000_000
"""The time of arrival in UNIX seconds."""
ARRIVAL = rows.Arrival(NOW * 1000 + 123)


def row(event: object, arrival: rows.Arrival = ARRIVAL) -> dict[str, Any]:
    """Return the event's row, decoded, with its columns in order."""
    value: dict[str, Any] = msgpack.unpackb(rows.encode(event, arrival, lambda: "new"))
    return value


def columns(event: object) -> dict[str, Any]:
    """Return the columns that come from the event itself."""
    return dict(pair for pair in row(event).items() if pair[0] not in ("time", "event_id", "received_at"))


def refusal(event: object) -> tuple[str, str]:
    """Return the code with which the event is rejected, and the message."""
    with pytest.raises(rows.Rejected) as caught:
        rows.encode(event, ARRIVAL, lambda: "new")
    assert str(caught.value) == caught.value.message
    return caught.value.code, caught.value.message


# A second implementation of the rules, as simple as possible.


def expected_value(value: Any) -> Any:
    """Return the value that a column gets."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list | dict):
        return json_codec.dump(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return str(value)
    return value


def expected_name(name: str, taken: set[str]) -> str:
    """Return the name that a column gets, given the names in use."""
    name = re.sub("[^a-z0-9_]", "_", name[:128].lower())[:128] or "_"
    if name[0] in "0123456789":
        name = ("_" + name)[:128]
    if name == "v":
        name = "_v"
    if name in taken:
        name = next(free for n in range(2, 600) if (free := f"{name[:124]}_{n}") not in taken)
    return name


def expected_row(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event's row without `time` and the columns for an odd timestamp."""
    event_id = event.get("event_id")
    usable = isinstance(event_id, str) and 1 <= len(event_id) <= 128
    usable |= isinstance(event_id, int) and not isinstance(event_id, bool) and -(2**63) <= event_id < 2**63
    kept = expected_value(str(event_id)) if usable else "new"
    made = {"event_id": kept, "received_at": ARRIVAL.received_at}
    taken = {"time", *made} | set(rows.event_time(event.get("time"), NOW)[1])
    for name, value in event.items():
        if name not in ("table", "time", "event_id"):
            column = expected_name(name, taken)
            taken.add(column)
            made[column] = expected_value(value)
    if event_id is not None and not usable:
        made[expected_name("event_id", taken)] = expected_value(event_id)
    return made


@given(json_values.events)
@example({"a!": 1, "a?": 2, "A": 3, "a_": 4, "a__2": 5})
@example({"event_id": "", "event_id_2": 1})
@example({"v": 1, "V": 2, "_v": 3})
@example({"a" * 200: 1, "A" * 128: 2, "1" * 128: 3, "İ" * 128: 4, "": 5})
@example({"event_id": "x" * 128})
@example({"event_id": "x" * 129})
@example({"event_id": 0})
@example({"event_id": True})
@example({"a": 2**63, "b": 2**63 - 1, "c": -(2**63), "d": -(2**63) - 1})
@example({"event_id": "\ud800"})
def test_any_event_becomes_a_row_by_the_rules(event: dict[str, Any]) -> None:
    """Every member keeps its value or a documented replacement under a legal, unused name: equal ones end in numbers."""
    actual = row(event)

    time, odd = rows.event_time(event.get("time"), NOW)
    odd = {name: expected_value(value) for name, value in odd.items()}
    assert repr(sorted((expected_row(event) | {"time": time} | odd).items())) == repr(sorted(actual.items()))
    assert [] == [name for name in actual if not re.fullmatch("[a-z_][a-z0-9_]{0,127}", name)]


def test_the_screen_runs_last() -> None:
    """It gets the whole row, including the added columns."""
    arrival = rows.Arrival(NOW * 1000, {"td_ip": "192.0.2.1"})
    many = {f"c{n}": n for n in range(508)}

    actual = msgpack.unpackb(rows.encode(many, arrival, lambda: "id", lambda row: row.pop("td_ip")))

    assert ["time", "event_id", "received_at", *many] == list(actual)


@pytest.mark.parametrize(("is_column", "expected"), [(True, {"table": "chair"}), (False, {})])
def test_table_may_be_a_column(is_column: bool, expected: dict[str, str]) -> None:
    """If the request names the table, `table` is an ordinary column; `time` and `event_id` are never repeated."""
    arrival = rows.Arrival(NOW * 1000, table_is_column=is_column)

    actual = row({"table": "chair", "time": NOW, "event_id": "e-1"}, arrival)

    assert {"time": NOW, "event_id": "e-1", "received_at": NOW * 1000} | expected == actual


ILLEGAL = ("invalid_table", "use 3 to 128 characters of a-z, 0-9 and _")


@pytest.mark.parametrize(
    ("event", "default", "expected"),
    [
        ({"table": "page_views1"}, None, "page_views1"),
        ({"table": "own"}, "default", "own"),
        ({"table": None}, "default", "default"),
        ({}, "default", "default"),
        ({"table": "a" * 128}, None, "a" * 128),
        ({"events": 1}, None, ("missing_table", "set its field `table`$")),
        *[
            (
                {name: value},
                None,
                ("missing_table", "`table`. Several events belong in an array named `events`$"),
            )
            for name, value in {"events": {}, "Events": [], "event": [{}], "Event": None}.items()
        ],
        *[({"table": text}, "default", ILLEGAL) for text in ("a" * 129, "ab", "", "Views", "views\n", 123)],
        ({}, ["pageviews"], ILLEGAL),
        *[
            (event, "default", ("not_an_object", "^the event is not a JSON object$"))
            for event in (None, 1, [{}])
        ],
    ],
)
def test_the_event_names_its_table(event: Any, default: object, expected: str | tuple[str, str]) -> None:
    """The event's table precedes the request's, even if it is illegal; null counts as absent. A rejection says what to do."""
    if isinstance(expected, str):
        assert expected == rows.table_of(event, default)
        return
    code, message = expected
    with pytest.raises(rows.Rejected, match=message) as caught:
        rows.table_of(event, default)
    assert code == caught.value.code


def test_numbering_takes_linear_time() -> None:
    """Numbering the last of two hundred equal names takes one lookup, like numbering the second."""
    looked_up = []

    class Watched(dict[str, Any]):
        def __contains__(self, name: object) -> bool:
            looked_up.append(name)
            return super().__contains__(name)

    numbers: dict[str, int] = {}
    made = Watched(a=1)
    for _ in range(200):
        made[rows._unused_name("a", made, numbers)] = 1

    assert 200 == len(looked_up)


def test_cached_names_are_short() -> None:
    """Names are truncated before they are cached, so long ones cannot fill the memory."""
    rows._column_name.cache_clear()

    rows.column_name("x" * 100_000)
    rows.column_name("x" * 200_000)

    assert 1 == rows._column_name.cache_info().currsize


def test_a_row_has_at_most_512_columns() -> None:
    """`time`, `event_id` and `received_at` count; `table` does not. Members are counted before any is converted."""
    many = {f"c{n}": n for n in range(509)}

    assert 512 == len(row(many | {"table": "pageviews", "time": NOW, "event_id": "e"}))
    assert "too_many_columns" == refusal(many | {"one_more": 1})[0]
    with pytest.raises(rows.Rejected, match="more than 512 columns"):
        rows.encode({f"c{n}": n for n in range(516)}, ARRIVAL, pytest.fail)


def test_values_have_at_most_254_levels() -> None:
    """A value with more levels rejects the event."""
    deep = json.loads("[" * 254 + "]" * 254)

    assert "[" * 254 == columns({"a": deep})["a"][:254]
    assert ("too_deep", "a value is nested deeper than 254 levels") == refusal({"a": [deep]})


def test_an_event_has_at_most_256_kib() -> None:
    """The limit applies to the event as compact JSON in UTF-8."""
    room = 262_144 - len('{"é":""}'.encode())

    assert room == len(row({"é": "x" * room})["_"])
    code, message = refusal({"é": "x" * (room + 1)})
    assert "event_too_large" == code
    assert "the event is 262145 bytes as JSON; at most 262144 are allowed" == message


@pytest.mark.parametrize("event", [None, 1, "text", [{}]])
def test_an_event_is_an_object(event: object) -> None:
    """No other JSON value is one."""
    assert ("not_an_object", "the event is not a JSON object") == refusal(event)


@pytest.mark.parametrize(
    ("members", "time", "added"),
    [
        (508, NOW, ["td_ip"]),
        (508, "odd", ["td_ip"]),
        (507, "odd", ["time_raw", "time_rule"]),
        (506, "odd", ["time_raw", "time_rule", "td_ip"]),
    ],
)
def test_optional_columns_are_added_while_there_is_room(members: int, time: object, added: list[str]) -> None:
    """The columns for an odd time come first, both or none."""
    full = {f"c{n}": n for n in range(members)}
    arrival = rows.Arrival(NOW * 1000, {"td_ip": "192.0.2.7", "td_user_agent": "UA"})

    made = row(full | {"time": time}, arrival)

    assert {"time", "event_id", "received_at", *full, *added} == set(made)
    assert "192.0.2.7" == made.get("td_ip", "192.0.2.7")


@given(json_values.events | json_values.values)
def test_the_text_of_an_event_is_the_same_each_time(event: Any) -> None:
    """The sender's white space and escapes do not matter."""
    text = json.dumps(event).replace("NaN", "null").replace("Infinity", "1e999")
    once = json_codec.parse(text.encode())
    again = json_codec.parse(json.dumps(once, indent=1).replace("Infinity", "1e999").encode())

    assert rows.text_of(once) == rows.text_of(again)


def test_deep_events_have_distinct_texts() -> None:
    """A batch's identity depends on its rejected events too."""
    deep = json.loads("[" * 300 + "true" + "]" * 300)

    assert 5 == len({rows.text_of(one) for one in ({"a": deep}, {"a": [deep]}, {"b": deep}, deep, [deep])})
    assert f'{{"a":{json.dumps(deep)},"b":1}}' == rows.text_of({"a": deep, "b": 1})
    assert '{"a":null}' == rows.text_of({"a": [deep, math.inf]})
    for _ in range(100_000):
        deep = [deep]
    assert "null" == rows.text_of(deep)  # Python itself cannot write this one


@given(st.text(max_size=200), json_values.values)
def test_a_column_is_at_most_slightly_larger_than_its_member(name: str, value: Any) -> None:
    """The ingest estimates the size of rows from their events before it encodes them."""
    arrival, event = rows.Arrival(NOW * 1000), {name: value}
    growth = len(rows.encode(event, arrival, lambda: "")) - len(rows.encode({}, arrival, lambda: ""))

    assert growth <= len(rows.text_of(event).encode(errors="replace")) + rows.COLUMN_GROWTH


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the process's time zone to one other than UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("tokyo")
@pytest.mark.parametrize(
    ("value", "expected", "rule"),
    [
        (None, NOW, None),
        ("1700000000", 1_700_000_000, None),
        (1_700_000_000.0, 1_700_000_000, None),
        (1_700_000_000.9, 1_700_000_000, "fraction"),
        ("1700000000.25", 1_700_000_000, "fraction"),
        (1_700_000_000_123, 1_700_000_000, "milliseconds"),
        ("1700000000123", 1_700_000_000, "milliseconds"),
        (1_700_000_000_123.5, 1_700_000_000, "milliseconds"),
        (1_700_000_000_123_456, 1_700_000_000, "microseconds"),
        (1_700_000_000_123_456_789, 1_700_000_000, "nanoseconds"),
        ("2023-11-14T22:13:20Z", 1_700_000_000, "text"),
        ("2023-11-14t22:13:20z", 1_700_000_000, "text"),
        ("2023-11-14T22:13:20", 1_700_000_000, "text"),
        ("2023-11-14T23:13:20.9+01:00", 1_700_000_000, "text"),
        (NOW + 3 * 86_400, NOW + 3 * 86_400, None),
        (NOW + 3 * 86_400 + 1, NOW, "out_of_range"),
        (946_684_800, 946_684_800, None),
        (946_684_799, NOW, "out_of_range"),
        (-1, NOW, "out_of_range"),
        (10**40, NOW, "out_of_range"),
        (math.inf, NOW, "unreadable"),
        (True, NOW, "unreadable"),
        ("yesterday", NOW, "unreadable"),
        ("9999-12-31T23:59:59-14:00", NOW, "out_of_range"),
        ("0001-01-01T00:00:00+14:00", NOW, "out_of_range"),
        ("\ud800", NOW, "unreadable"),
        ([1], NOW, "unreadable"),
    ],
)
def test_time_is_parsed_by_the_rules(value: object, expected: int, rule: str | None) -> None:
    """Units are told apart by size, and odd times kept with the rule. Text without an offset is in UTC, not the machine's zone."""
    odd = {} if rule is None else {"time_raw": expected_value(value), "time_rule": rule}

    actual = row({"time": value})

    assert {"time": expected, **odd} == {name: actual[name] for name in actual if name.startswith("time")}


@pytest.mark.parametrize("border", [10**11, 10**14, 10**17])
@pytest.mark.parametrize("spelled", [int, str, float])
def test_units_have_exact_borders(border: int, spelled: Callable[[int], object]) -> None:
    """Each unit ends exactly where the next finer one begins."""
    is_rounded = spelled is float and int(float(border - 1)) == border
    times = [rows.event_time(spelled(count), 10**11, earliest=0)[0] for count in (border - 1, border)]

    assert [10**8 if is_rounded else 10**11 - 1, 10**8] == times


@pytest.mark.parametrize(
    ("sent_at", "expected"),
    [
        (NOW - 301, 301),
        (NOW - 300, 0),
        (NOW + 300, 0),
        (NOW + 301, -301),
        ((NOW - 301) * 1000, 301),
        (0, NOW),
        (-1, 0),
        ("9999-12-31T23:59:59Z", NOW - 253_402_300_799),
        ("9999-12-31T23:59:00-00:01", 0),
        ("yesterday", 0),
    ],
)
def test_a_clock_is_wrong_if_it_differs_by_more_than_the_transit_time(sent_at: object, expected: int) -> None:
    """The drift is the whole difference. A timestamp that no clock shows gives no drift."""
    assert expected == rows.clock_drift(sent_at, NOW)


@pytest.mark.parametrize(
    ("time", "added"),
    [
        (NOW - 3610, {"time": NOW - 10, "time_drift": 3600}),
        ((NOW - 3610) * 1000, {"time": NOW - 10, "time_drift": 3600, "time_rule": "milliseconds"}),
        (NOW + rows.MAX_SECONDS_AHEAD - 3599, {"time": NOW, "time_drift": 3600, "time_rule": "out_of_range"}),
        ("soon", {"time": NOW, "time_rule": "unreadable"}),
        (None, {"time": NOW}),
    ],
)
def test_the_drift_of_a_wrong_clock_is_added(time: object, added: dict[str, object]) -> None:
    """The range applies to the corrected time. Only a time that can be read is corrected, and kept as it was sent."""
    made = row({"time": time}, rows.Arrival(NOW * 1000, drift=3600))

    raw = {} if time is None else {"time_raw": time}
    assert added | raw == {name: made[name] for name in made if name.startswith("time")}
