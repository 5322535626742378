"""The responses of the Treasure Data double, without sockets."""

import gzip
import hashlib
import json
import math
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

import msgpack
import pytest
import tdclient
from tdclient.errors import AlreadyExistsError, NotFoundError

from doubles.clock import START, ManualClock
from doubles.http_server import HttpServer
from doubles.treasure_data import API_KEY, Action, Fault, Kind, Request, Settings, TreasureData
from tests.support.treasure_data import call, import_body, put, with_tables

UNIQUE_ID = "2ac30b788fd813e9ac7a3af9d395e109"
IMPORT = f"/v3/table/import_with_id/shop/views/{UNIQUE_ID}/msgpack.gz"
ROW = {"time": 1_700_000_000, "event_id": "it's", "n": 1}
OTHER = {"time": 1_700_000_060, "event_id": "e-2", "n": 2}


@pytest.fixture
def clock() -> ManualClock:
    """The double's clock."""
    return ManualClock()


@pytest.fixture
def td(clock: ManualClock) -> TreasureData:
    """A double with two tables."""
    return with_tables(TreasureData(clock=clock), "shop.views", "shop.orders")


def read(td: TreasureData, target: str) -> Any:
    """Return the JSON at a target."""
    return json.loads(call(td, "GET", target).body)


def test_a_recorded_request_is_accepted(td: TreasureData) -> None:
    """A request recorded from Fluent Bit is answered with five fields, with the checksum of the body as received."""
    about = (("User-Agent", "Fluent-Bit"), ("Content-Type", "application/gzip"))
    packed = "83a474696d65ce6553f100a16101a162a17883a474696d65ce6553f101a16102a162c0"
    body = gzip.compress(bytes.fromhex(packed), mtime=0)
    response = td.handle(Request("PUT", IMPORT, (*about, ("AUTHORIZATION", f"TD1 {API_KEY}")), body))

    rows = [{"time": 1_700_000_000, "a": 1, "b": "x"}, {"time": 1_700_000_001, "a": 2, "b": None}]
    assert rows == td.rows("shop", "views")
    assert {
        "elapsed_time": 0,
        "database": "shop",
        "table": "views",
        "md5_hex": hashlib.md5(body).hexdigest(),
        "unique_id": UNIQUE_ID,
    } == json.loads(response.body)


GOOD = msgpack.packb(ROW)
FULL = ROW | {f"c{number}": number for number in range(509)}
WRONG = {
    "nothing": (b"", 400),
    "gzip cut off": (gzip.compress(GOOD)[:-1], 400),
    "msgpack cut off": (gzip.compress(GOOD[:-1]), 400),
    "not msgpack": (gzip.compress(b"\xc1"), 400),
    "not utf-8": (gzip.compress(b"\x81\xa1a\xa1\xff"), 400),
    "a number among the rows": (import_body([ROW, 1]), 400),
    "a number as a column": (import_body([ROW, {"time": 1, 2: 3}]), 400),
    "no time": (import_body([ROW, {"event_id": "e-2"}]), 422),
    "time is true": (import_body([ROW, {"time": True}]), 422),
    "time before 1970": (import_body([ROW, {"time": -1}]), 422),
    "time in milliseconds": (import_body([ROW, {"time": 1_700_000_000_000}]), 422),
    "too many columns": (import_body([ROW, FULL | {"one": "more"}]), 422),
    "too large": (import_body([ROW, {"time": 1, "bomb": "x" * 1_000_000}]), 413),
}


@pytest.mark.parametrize(("body", "status"), WRONG.values(), ids=WRONG)
def test_one_wrong_row_rejects_the_whole_import(td: TreasureData, body: bytes, status: int) -> None:
    """An import is accepted completely or not at all, and a rejected one does not use up its id."""
    good = gzip.compress(msgpack.packb(FULL)) + import_body([ROW])  # two members are one body
    td.settings = Settings(largest_import=10_000)
    rejected = call(td, "PUT", IMPORT, body)
    members = {"error", "message", "text", "severity", "status_code"}

    assert (status, members) == (rejected.status, set(json.loads(rejected.body)))
    assert ([], 200) == (td.imports(), call(td, "PUT", IMPORT, good).status)
    assert [FULL, ROW] == td.rows("shop", "views")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (f"PUT /v3/table/import_with_id/missing/views/{UNIQUE_ID}/msgpack.gz", 404),
        (f"PUT /v3/table/import_with_id/shop/missing/{UNIQUE_ID}/msgpack.gz", 404),
        (f"PUT /v3/table/import_with_id/shop/views/{UNIQUE_ID}/json.gz", 404),
        (f"PUT /v3/table/import_with_id/shop/views%2Fmore/{UNIQUE_ID}/msgpack.gz", 422),
        ("PUT /v3/table/import_with_id/shop/views/ABCDEF/msgpack.gz", 422),
        (f"POST /v3/database/create/{'d' * 129}", 422),
        ("POST /v3/database/create/shop", 409),
        ("POST /v3/table/create/shop/views/log", 409),
        ("POST /v3/table/create/missing/views/log", 404),
        ("GET /v3/table/show/shop/missing", 404),
        ("GET /v3/job/status/1", 404),
        ("GET /", 404),
        ("GET /-/", 404),
        ("GET /-/rows?limit=many", 400),
    ],
)
def test_errors_have_the_expected_status(td: TreasureData, request_line: str, status: int) -> None:
    """Unknown, invalid and existing names and unknown routes are answered with the statuses that TD's clients expect."""
    response = call(td, *request_line.split(), import_body([ROW]))

    assert (status, status) == (response.status, json.loads(response.body)["status_code"])
    assert {"shop": {"orders": 0, "views": 0}} == td.counts()


LINES = (
    "GET /v3/database/list",
    "GET /v3/table/show/shop/views",
    f"PUT {IMPORT}",
    "POST /v3/table/create/shop/more/log",
    "POST /v3/job/issue/trino/shop",
    "GET /v3/system/server_status",
)


@pytest.mark.parametrize(
    ("key", "statuses"),
    [
        ("", [401] * 5 + [200]),
        ("TD1 1/00", [401] * 5 + [200]),
        ("Bearer 1/import", [401] * 5 + [200]),
        ("TD1 1/import", [200, 200, 200, 403, 403, 200]),
        ("TD1 1/create", [200, 200, 403, 200, 403, 200]),
        ("TD1 1/query", [200, 200, 403, 403, 200, 200]),
    ],
)
def test_a_key_may_do_only_what_it_is_allowed(key: str, statuses: list[int]) -> None:
    """A key may do what it is allowed and list; without a known key in TD's scheme, only the status is answered."""
    keys = {f"1/{one}": frozenset({one}) for one in (Action.IMPORT, Action.CREATE, Action.QUERY)}
    td = with_tables(TreasureData(keys=keys), "shop.views")
    body, header = import_body([ROW]), (("authorization", key),)

    assert statuses == [td.handle(Request(*line.split(), header, body)).status for line in LINES]


def test_an_id_is_remembered_from_its_first_acceptance(td: TreasureData, clock: ManualClock) -> None:
    """A repeated id adds no rows and does not extend the memory, which is per table; after the memory ends, an id is new."""
    counts = []
    for seconds in (0, 1799, 1799, 2):
        clock.sleep(seconds)
        put(td, "shop.views", [ROW] * (1 + len(counts)), UNIQUE_ID)
        counts.append(td.counts()["shop"]["views"])
    put(td, "shop.orders", [ROW], UNIQUE_ID)

    assert ([1, 1, 1, 5], 2) == (counts, td.duplicates)
    assert [ROW] == td.rows("shop", "orders")


def test_the_local_stack_can_read_accepted_rows(td: TreasureData, clock: ManualClock) -> None:
    """Counts, event ids and the latest rows are available as JSON, whatever values the rows have and faults are set."""
    odd = {"bytes": b"\x00\xff", "nan": math.nan, "big": (1 << 64) - 1, "map": {1: None}}
    td.faults.add(Fault(kind=Kind.STATUS, count=1))
    td.create("shop", "views", "items")
    put(td, "shop.views", [ROW])
    put(td, "shop.views", [ROW, OTHER])
    clock.sleep(5)
    put(td, "shop.orders", [{"time": 1} | odd])

    shown = {"time": 1} | odd | {"bytes": "00ff", "nan": None, "map": {"1": None}}
    latest = [
        {"database": "shop", "table": "orders", "at": START + 5, "row": shown},
        {"database": "shop", "table": "views", "at": START, "row": OTHER},
    ]
    assert {"shop": {"items": 0, "orders": 1, "views": 2}} == read(td, "/-/counts")
    assert {"shop": {"items": [], "orders": [""], "views": ["it's", "e-2"]}} == read(td, "/-/event_ids")
    assert latest == read(td, "/-/rows?limit=2")["rows"]


def test_td_client_works_with_the_double(td: TreasureData) -> None:
    """td-client retries after a lost response; a repeated import adds nothing, and is a 409 if the setting says so."""
    body = import_body([ROW])
    with HttpServer(td.handle) as server, tdclient.Client(apikey=API_KEY, endpoint=server.url) as client:
        client.create_database("blog")
        client.create_log_table("blog", "views")
        td.faults.add(Fault(kind=Kind.CLOSE, lands=0, count=1))
        client.import_data("blog", "views", "msgpack.gz", body, len(body), unique_id=UNIQUE_ID)
        td.settings = Settings(duplicate_status=409)
        with pytest.raises(AlreadyExistsError):
            client.import_data("blog", "views", "msgpack.gz", body, len(body), unique_id=UNIQUE_ID)
        file = BytesIO(b'{"time": 1700000000, "n": 18446744073709551616, "a": [1, {"b": null}]}\n')
        client.import_file("blog", "views", "json", file, unique_id="00")
        tables, databases = client.tables("blog"), client.databases()
        with pytest.raises(NotFoundError):
            client.job_status("77")

    packed = {"time": 1_700_000_000, "n": "18446744073709551616", "a": [1, {"b": None}]}
    assert ([ROW, packed], 2) == (td.rows("blog", "views"), td.duplicates)
    assert [("views", 2)] == [(table.name, table.count) for table in tables]
    assert ["blog", "shop"] == [database.name for database in databases]


def issue(td: TreasureData, query: str) -> str:
    """Issue a query as a urlencoded form and return its job's id."""
    form = urlencode({"query": query, "priority": "1"}).encode()
    job_id: str = json.loads(call(td, "POST", "/v3/job/issue/trino/shop", form).body)["job_id"]
    return job_id


def result(td: TreasureData, job: str) -> list[Any] | int:
    """Return a job's result, or the status of the error."""
    response = call(td, "GET", f"/v3/job/result/{job}?format=json")
    if response.status != 200:
        return response.status
    return [json.loads(line) for line in response.body.splitlines()]


def found(td: TreasureData, query: str) -> list[Any] | int:
    """Return what a query finds, or the status of the error."""
    return result(td, issue(td, query))


def test_queries_find_rows(td: TreasureData) -> None:
    """A query finds rows of one table by values and by a time range that excludes its end."""
    put(td, "shop.views", [ROW, OTHER])
    put(td, "shop.orders", [ROW])
    most, all_ = "TD_TIME_RANGE(time, 1700000000, 1700000060)", "TD_TIME_RANGE(time, 1700000000, 1700000061)"
    wanted = (f"event_id = 'it''s' AND {most}", f"event_id = 'e-2' AND {most}", all_)

    assert [[["it's"]], [], [["it's"], ["e-2"]]] == [
        found(td, f'SELECT event_id FROM "views" WHERE {where} ORDER BY time') for where in wanted
    ]


def test_rows_are_visible_after_a_delay(td: TreasureData, clock: ManualClock) -> None:
    """Queries see an import and its columns only after the delay from import to query."""
    td.settings = Settings(query_delay=600)
    put(td, "shop.views", [ROW])
    clock.sleep(599)
    put(td, "shop.views", [OTHER])
    count = "SELECT count(*) FROM views"
    shown = read(td, "/v3/table/show/shop/views")["schema"]
    seen = [found(td, count), shown, found(td, "SELECT n FROM views")]
    for seconds in (1, 599):
        clock.sleep(seconds)
        seen.append(found(td, count))

    assert [[[0]], "[]", 404, [[1]], [[2]]] == seen


def test_a_table_keeps_the_columns_of_rows_that_a_query_deletes(td: TreasureData) -> None:
    """A later query of them counts 0."""
    put(td, "shop.views", [ROW])
    issue(td, 'DELETE FROM "views" WHERE event_id IS NOT NULL')

    assert [[0]] == found(td, "SELECT count(event_id) FROM views")


NO_SELECT = (
    *("", "nonsense", "SELECT nothing FROM views", 'SELECT "no column but a name" FROM views', "SELECT '\0'"),
    *("SELECT * FROM missing", "SELECT 1; SELECT 2", "DELETE FROM views", "ATTACH '/etc/passwd' AS other"),
)


def test_only_valid_select_queries_succeed(td: TreasureData) -> None:
    """An invalid query, or one that would change something, becomes a job that fails."""
    put(td, "shop.views", [ROW])
    jobs = [issue(td, query) for query in NO_SELECT]

    states = [(read(td, f"/v3/job/status/{job}")["status"], result(td, job)) for job in jobs]
    assert [("error", 404)] * len(NO_SELECT) == states


def test_values_that_sql_cannot_store_are_text(td: TreasureData) -> None:
    """Integers beyond 64 bits are digits, nested values JSON, true is 1; only names that TD allows are columns."""
    row = {"time": 1, "N": 1, "n": (1 << 64) - 1, "b": True, "list": [1, {"a": None}], "": "", 'q"': 2}
    put(td, "shop.views", [row])
    schema = json.loads(read(td, "/v3/table/show/shop/views")["schema"])

    assert [[1, "18446744073709551615", 1, '[1,{"a":null}]']] == found(td, "SELECT * FROM views")
    assert [["n", "long", "n"], ["b", "int", "b"], ["list", "string", "list"]] == schema
