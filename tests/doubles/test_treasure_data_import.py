"""What the stand-in answers to imports, as values without sockets."""

import gzip
import hashlib
import json
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles.clock import START, ManualClock
from doubles.treasure_data import API_KEY, Fault, Kind, Request, Settings, TreasureData
from tests.support.treasure_data import AUTHORIZED, call, import_body, put, with_tables

UNIQUE_ID = "2ac30b788fd813e9ac7a3af9d395e109"
ROW = {"time": 1_700_000_000, "event_id": "e-1"}


@pytest.fixture
def clock() -> ManualClock:
    """Return the stand-in's clock."""
    return ManualClock()


@pytest.fixture
def td(clock: ManualClock) -> TreasureData:
    """Return a stand-in with two tables."""
    return with_tables(TreasureData(clock=clock), "shop.views", "shop.orders")


RECORDED_BODY = gzip.compress(
    bytes.fromhex("83a474696d65ce6553f100a16101a162a17883a474696d65ce6553f101a16102a162c0"), mtime=0
)
TD_CLIENT = {
    "Accept-Encoding": "identity",
    "authorization": f"TD1 {API_KEY}",
    "date": "Wed, 25 Nov 2026 09:06:12 -0000",
    "user-agent": "TD-Client-Python/1.7.0",
    "content-length": str(len(RECORDED_BODY)),
    "content-type": "application/octet-stream",
}
FLUENT_BIT = {
    "User-Agent": "Fluent-Bit",
    "Authorization": f"TD1 {API_KEY}",
    "Content-Length": str(len(RECORDED_BODY)),
    "Content-Type": "application/gzip",
}


@pytest.mark.parametrize("headers", [TD_CLIENT, FLUENT_BIT], ids=["td-client", "fluent-bit"])
@pytest.mark.parametrize("unique_id", [None, UNIQUE_ID])
def test_recorded_requests(td: TreasureData, headers: dict[str, str], unique_id: str | None) -> None:
    """Requests as the official clients send them get 200 and five fields, the checksum over the body as it came."""
    md5_hex = hashlib.md5(RECORDED_BODY).hexdigest()
    path = "import/shop/views" if unique_id is None else f"import_with_id/shop/views/{unique_id}"
    response = td.handle(Request("PUT", f"/v3/table/{path}/msgpack.gz", headers, RECORDED_BODY))

    assert response.status == 200
    assert json.loads(response.body) == {
        "elapsed_time": 0,
        "database": "shop",
        "table": "views",
        "md5_hex": md5_hex,
        "unique_id": unique_id or md5_hex,
    }
    assert td.rows("shop", "views") == [
        {"time": 1_700_000_000, "a": 1, "b": "x"},
        {"time": 1_700_000_001, "a": 2, "b": None},
    ]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.just(msgpack.Timestamp(1, 2))
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3) | st.integers(0, 9), inner)
    ),
    max_leaves=8,
)
COLUMNS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).filter(lambda name: name != "time")
ROWS = st.lists(
    st.builds(
        lambda row, time: row | {"time": time},
        st.dictionaries(COLUMNS, VALUES, max_size=5),
        st.integers(0, 253_402_300_799),
    ),
    max_size=5,
)


@given(ROWS)
def test_rows_come_back_equal(rows: list[dict[str, Any]]) -> None:
    """Whatever msgpack can carry comes back with the same values and types, and can be queried."""
    td = with_tables(TreasureData(clock=ManualClock()), "shop.views")

    assert put(td, "shop.views", rows).status == 200

    assert repr(rows) == repr(td.rows("shop", "views"))
    assert td.query("shop", "SELECT time FROM views").rows == [(row["time"],) for row in rows]
    assert call(td, "GET", "/-/rows?database=shop&table=views").status == 200
    td.close()


@given(st.binary())
def test_arbitrary_bytes_are_refused(body: bytes) -> None:
    """Bytes that are not gzip are refused with 400, and so are arbitrary bytes within gzip unless they are rows."""
    td = with_tables(TreasureData(clock=ManualClock()), "shop.views")
    path = "/v3/table/import/shop/views/msgpack.gz"

    assert call(td, "PUT", path, body).status == 400
    assert call(td, "PUT", path, gzip.compress(body)).status in ({200} if not body else {400, 422})
    assert td.rows("shop", "views") == []
    td.close()


GOOD = msgpack.packb(ROW)
FULL = ROW | {f"c{number}": number for number in range(510)}


WRONG = {
    "nothing": (b"", 400),
    "no gzip": (b"not gzip", 400),
    "gzip cut off": (gzip.compress(GOOD)[:-1], 400),
    "more behind the gzip": (gzip.compress(GOOD) + b"behind", 400),
    "msgpack cut off": (gzip.compress(GOOD[:-1]), 400),
    "no msgpack": (gzip.compress(b"\xc1"), 400),
    "no utf-8": (gzip.compress(b"\x81\xa1a\xa1\xff"), 400),
    "an array of rows": (import_body([[ROW]]), 400),
    "a number among the rows": (import_body([ROW, 1]), 400),
    "a number as a column": (import_body([ROW, {"time": 1, 2: 3}]), 400),
    "bytes as a column": (import_body([ROW, {b"time": 1}]), 400),
    "no time": (import_body([ROW, {"event_id": "e-2"}]), 422),
    "time is nil": (import_body([ROW, {"time": None}]), 422),
    "time is text": (import_body([ROW, {"time": "1700000000"}]), 422),
    "time is a float": (import_body([ROW, {"time": 1.7e9}]), 422),
    "time is true": (import_body([ROW, {"time": True}]), 422),
    "time before 1970": (import_body([ROW, {"time": -1}]), 422),
    "time in milliseconds": (import_body([ROW, {"time": 1_700_000_000_000}]), 422),
    "too many columns": (import_body([ROW, FULL | {"one": "more"}]), 422),
}


@pytest.mark.parametrize(("body", "status"), WRONG.values(), ids=WRONG)
def test_one_wrong_row_refuses_the_whole_import(td: TreasureData, body: bytes, status: int) -> None:
    """An import is taken whole or not at all, and what was refused leaves its id free."""
    path = f"/v3/table/import_with_id/shop/views/{UNIQUE_ID}/msgpack.gz"

    refused = call(td, "PUT", path, body)

    assert refused.status == status
    assert set(json.loads(refused.body)) == {"error", "message", "text", "severity", "status_code"}
    assert td.counts()["shop"]["views"] == 0
    assert put(td, "shop.views", [ROW], UNIQUE_ID).status == 200
    assert td.rows("shop", "views") == [ROW]


def test_as_many_columns_as_td_takes(td: TreasureData) -> None:
    """A row may have 512 columns, the time among them."""
    assert put(td, "shop.views", [FULL]).status == 200


def test_gzip_of_several_members(td: TreasureData) -> None:
    """Gzip bytes written one after another are one body."""
    body = import_body([ROW]) + import_body([ROW])

    assert call(td, "PUT", "/v3/table/import/shop/views/msgpack.gz", body).status == 200
    assert td.rows("shop", "views") == [ROW, ROW]


def test_the_largest_import(td: TreasureData) -> None:
    """An import that holds more than the largest is answered with 413, one that holds as much is taken."""
    td.settings = Settings(largest_import=2 * len(GOOD))

    assert put(td, "shop.views", [ROW, ROW]).status == 200
    assert put(td, "shop.views", [ROW, ROW, ROW]).status == 413
    assert put(td, "shop.views", [{"time": 1, "bomb": "x" * 1_000_000}]).status == 413
    assert td.counts()["shop"]["views"] == 2


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("PUT", "/v3/table/import/missing/views/msgpack.gz", 404),
        ("PUT", "/v3/table/import/shop/missing/msgpack.gz", 404),
        ("PUT", "/v3/table/import/shop/views/json.gz", 404),
        ("PUT", "/v3/table/import/Shop/views/msgpack.gz", 422),
        ("PUT", "/v3/table/import/shop/v/msgpack.gz", 422),
        ("PUT", "/v3/table/import/shop/views%2Fmore/msgpack.gz", 422),
        ("PUT", "/v3/table/import_with_id/shop/views/ABCDEF/msgpack.gz", 422),
        ("PUT", "/v3/table/import_with_id/shop/views//msgpack.gz", 422),
        ("POST", "/v3/table/import/shop/views/msgpack.gz", 404),
        ("POST", f"/v3/database/create/{'d' * 129}", 422),
        ("POST", "/v3/database/create/ab", 422),
        ("POST", "/v3/database/create/a-b-c", 422),
        ("POST", "/v3/database/create/sh%FFop", 422),
        ("POST", "/v3/database/create/shop", 409),
        ("POST", "/v3/table/create/shop/views/log", 409),
        ("POST", "/v3/table/create/shop/Views/log", 422),
        ("POST", "/v3/table/create/missing/views/log", 404),
        ("POST", "/v3/table/create/shop/items/item", 404),
        ("GET", "/v3/table/show/shop/missing", 404),
        ("GET", "/v3/table/list/missing", 404),
        ("GET", "/", 404),
        ("GET", "/-/", 404),
    ],
)
def test_errors(td: TreasureData, method: str, target: str, status: int) -> None:
    """Unknown names, illegal names, names that exist and unknown routes are answered as TD's clients expect."""
    body = import_body([ROW]) if method == "PUT" else b""

    response = call(td, method, target, body)

    assert response.status == status
    assert json.loads(response.body)["status_code"] == status
    assert sum(sum(tables.values()) for tables in td.counts().values()) == 0


def test_show_table(td: TreasureData) -> None:
    """A table can be shown by itself."""
    put(td, "shop.views", [ROW])

    shown = json.loads(call(td, "GET", "/v3/table/show/shop/views").body)

    assert (shown["database"], shown["name"], shown["count"]) == ("shop", "views", 1)
    assert shown["counter_updated_at"] == "2023-11-14T22:13:20Z"


def test_creating_in_code(td: TreasureData) -> None:
    """In code, databases and tables are created where they are missing, whatever faults are set."""
    td.faults.add(Fault(kind=Kind.STATUS))
    td.create("shop", "views", "items")
    td.create("blog")

    assert td.counts() == {"shop": {"items": 0, "orders": 0, "views": 0}, "blog": {}}


@pytest.mark.parametrize("header", [{}, {"Authorization": "TD1 1/00"}, {"Authorization": API_KEY}])
def test_without_a_known_key(td: TreasureData, header: dict[str, str]) -> None:
    """Without a key that is known, and in TD's scheme, everything but the status is refused."""
    for target in (
        "/v3/database/list",
        "/v3/table/list/shop",
        "/v3/table/tail/shop/views",
        "/v3/job/status/1",
    ):
        assert td.handle(Request("GET", target, header)).status == 401
    path = "/v3/table/import/shop/views/msgpack.gz"
    assert td.handle(Request("PUT", path, header, import_body([ROW]))).status == 401
    assert td.handle(Request("GET", "/v3/system/server_status", header)).status == 200


def test_an_id_is_remembered_from_its_first_acceptance(td: TreasureData, clock: ManualClock) -> None:
    """Repeats neither add rows nor prolong the memory: once it ends, the same id is taken again."""
    td.settings = Settings(id_memory=3600)
    put(td, "shop.views", [ROW], UNIQUE_ID)
    for _ in range(2):
        clock.sleep(1799)
        assert put(td, "shop.views", [ROW], UNIQUE_ID).status == 200
        assert td.counts()["shop"]["views"] == 1

    clock.sleep(2)
    put(td, "shop.views", [ROW], UNIQUE_ID)

    assert td.counts()["shop"]["views"] == 2


def test_ids_belong_to_their_table(td: TreasureData) -> None:
    """The same id in another table is another import."""
    put(td, "shop.views", [ROW], UNIQUE_ID)
    put(td, "shop.orders", [ROW], UNIQUE_ID)

    assert td.counts() == {"shop": {"orders": 1, "views": 1}}


def test_an_id_with_other_rows_is_a_conflict(td: TreasureData) -> None:
    """Other rows under a remembered id are dropped as TD would, but counted; gzip's own differences do not matter."""
    put(td, "shop.views", [ROW], UNIQUE_ID)
    path = f"/v3/table/import_with_id/shop/views/{UNIQUE_ID}/msgpack.gz"

    call(td, "PUT", path, gzip.compress(GOOD, 1, mtime=5))
    assert (td.duplicates, td.conflicts) == (1, 0)

    call(td, "PUT", path, import_body([ROW | {"n": 1}]))
    assert (td.duplicates, td.conflicts) == (2, 1)
    assert td.rows("shop", "views") == [ROW]


def test_imports_without_an_id_are_all_taken(td: TreasureData) -> None:
    """Without an id, equal bodies are taken each time."""
    put(td, "shop.views", [ROW])
    put(td, "shop.views", [ROW])

    assert [(taken.number, taken.at, taken.first_row, taken.unique_id) for taken in td.imports()] == [
        (1, START, 1, None),
        (2, START, 2, None),
    ]


def test_the_latest_rows(td: TreasureData, clock: ManualClock) -> None:
    """The latest rows come first and can be asked for by number, over all tables or in one."""
    put(td, "shop.views", [ROW | {"n": n} for n in (1, 2)])
    clock.sleep(5)
    put(td, "shop.orders", [ROW | {"n": n} for n in (3, 4)])

    assert [(row.number, row.table, row.at, row.row["n"]) for row in td.latest()] == [
        (4, "orders", START + 5, 4),
        (3, "orders", START + 5, 3),
        (2, "views", START, 2),
        (1, "views", START, 1),
    ]
    assert [row.number for row in td.latest(after=1, limit=2)] == [4, 3]
    assert [row.number for row in td.latest("shop", "views", after=1)] == [2]
    assert [row.number for row in td.latest("other")] == []


def test_rows_and_counts_over_http(td: TreasureData) -> None:
    """The local page's routes show counts and rows as JSON, whatever the rows hold."""
    put(
        td,
        "shop.views",
        [ROW | {"bytes": b"\x00\xff", "nan": math.nan, "big": (1 << 64) - 1, "map": {1: None}}],
    )

    counts = json.loads(call(td, "GET", "/-/counts").body)
    (shown,) = json.loads(call(td, "GET", "/-/rows?database=shop&table=views&limit=5&after=0").body)["rows"]

    assert counts == {"shop": {"orders": 0, "views": 1}}
    assert shown == {
        "number": 1,
        "database": "shop",
        "table": "views",
        "at": START,
        "row": ROW | {"bytes": "00ff", "nan": None, "big": (1 << 64) - 1, "map": {"1": None}},
    }
    assert call(td, "GET", "/-/rows?limit=many").status == 400


def test_losing_rows(td: TreasureData) -> None:
    """Rows of a time range can be lost, in code and over HTTP; their ids stay remembered, other rows stay as they were."""
    rows = [{"time": time, "n": (1 << 64) - 1} for time in range(10)]
    put(td, "shop.views", rows[:5], UNIQUE_ID)
    put(td, "shop.views", rows[5:])
    assert td.query("shop", "SELECT count(*) FROM views").rows == [(10,)]

    assert td.lose("shop", "views", 2, 4) == 2
    lose = json.dumps({"database": "shop", "table": "views", "begin": 8, "end": 99}).encode()
    assert json.loads(call(td, "POST", "/-/lose", lose).body) == {"lost": 2}

    assert td.rows("shop", "views") == [rows[time] for time in (0, 1, 4, 5, 6, 7)]
    assert td.query("shop", "SELECT time FROM views").rows == [(0,), (1,), (4,), (5,), (6,), (7,)]
    put(td, "shop.views", rows[:5], UNIQUE_ID)
    assert td.counts()["shop"]["views"] == 6


def test_a_file_keeps_everything(tmp_path: Any, clock: ManualClock) -> None:
    """With a file, another stand-in finds databases, tables, rows and remembered ids."""
    path = str(tmp_path / "td.sqlite")
    first = with_tables(TreasureData(path, clock=clock), "shop.views")
    put(first, "shop.views", [ROW], UNIQUE_ID)
    first.close()

    second = TreasureData(path, clock=clock)
    put(second, "shop.views", [ROW], UNIQUE_ID)
    put(second, "shop.views", [ROW])

    assert second.duplicates == 1
    assert [row.number for row in second.latest()] == [2, 1]
    assert second.query("shop", "SELECT count(*) FROM views").rows == [(2,)]
    second.close()


def test_header_names_in_any_case(td: TreasureData) -> None:
    """Header names count in any case, and so may be spelled as each client likes."""
    shouting = {name.upper(): value for name, value in AUTHORIZED.items()}

    assert td.handle(Request("GET", "/v3/database/list", shouting)).status == 200
