"""What queries see in the stand-in, as values without sockets."""

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles.clock import START, ManualClock
from doubles.treasure_data import QueryError, Settings, TreasureData, query_tables
from tests.support.treasure_data import call, put, with_tables

ROWS = [
    {"time": 1_700_000_000, "event_id": "it's", "n": 1},
    {"time": 1_700_000_060, "event_id": "e-2", "n": 2},
]


@pytest.fixture
def clock() -> ManualClock:
    """Return the stand-in's clock."""
    return ManualClock()


@pytest.fixture
def td(clock: ManualClock) -> TreasureData:
    """Return a stand-in with three tables."""
    return with_tables(TreasureData(clock=clock), "shop.views", "shop.orders", "blog.views")


def issue(td: TreasureData, query: str, database: str = "shop") -> str:
    """Issue a query as a form, urlencoded, and return its job's id."""
    form = urlencode({"query": query, "priority": "1"}).encode()
    response = call(
        td,
        "POST",
        f"/v3/job/issue/trino/{database}",
        form,
        **{"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert response.status == 200
    job_id: str = json.loads(response.body)["job_id"]
    return job_id


def status(td: TreasureData, job: str) -> str:
    """Return a job's status."""
    answered: str = json.loads(call(td, "GET", f"/v3/job/status/{job}").body)["status"]
    return answered


def result(td: TreasureData, job: str) -> list[Any]:
    """Return a job's result, read as lines of JSON."""
    return [
        json.loads(line) for line in call(td, "GET", f"/v3/job/result/{job}?format=json").body.splitlines()
    ]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("event_id = 'it''s' AND TD_TIME_RANGE(time, 1700000000, 1700000060)", [["it's"]]),
        ("event_id = 'e-2' AND TD_TIME_RANGE(time, 1700000000, 1700000060)", []),
        ("TD_TIME_RANGE(time, 1700000000, 1700000061)", [["it's"], ["e-2"]]),
        ("TD_TIME_RANGE(time, NULL, 1700000060)", [["it's"]]),
        ("td_time_range(time, 1700000001)", [["e-2"]]),
        ("TD_TIME_RANGE(time, '2023-11-14 22:14:00', '2023-11-15', 'UTC')", [["e-2"]]),
        ("TD_TIME_RANGE(NULL, 0)", []),
        ("n IN (2, 3)", [["e-2"]]),
    ],
)
@pytest.mark.parametrize("table", ["views", '"views"', "`views`", "shop.views", '"shop"."views"'])
def test_asking_for_rows(td: TreasureData, table: str, where: str, found: list[list[str]]) -> None:
    """A query finds rows by values and by a range of time whose end does not belong to it, the table quoted or not."""
    put(td, "shop.views", ROWS)
    put(td, "blog.views", [ROWS[0] | {"event_id": "another database's"}])

    job = issue(td, f"SELECT event_id FROM {table} WHERE {where} ORDER BY time")

    assert status(td, job) == "success"
    assert result(td, job) == found


def test_rows_are_seen_after_a_delay(td: TreasureData, clock: ManualClock) -> None:
    """Queries see an import only once the delay from import to query has passed, each import by itself."""
    td.settings = Settings(query_delay=600)
    put(td, "shop.views", ROWS[:1])
    clock.sleep(599)
    put(td, "shop.views", ROWS[1:])
    count = "SELECT count(*) FROM views"

    assert result(td, issue(td, count)) == [[0]]
    clock.sleep(1)
    assert result(td, issue(td, count)) == [[1]]
    clock.sleep(599)
    assert result(td, issue(td, count)) == [[2]]
    assert td.counts()["shop"]["views"] == 2


def test_columns_are_seen_after_a_delay_too(td: TreasureData, clock: ManualClock) -> None:
    """A column of rows that cannot be queried yet is unknown, so that a job that names it fails."""
    td.settings = Settings(query_delay=600)
    put(td, "shop.views", ROWS)

    assert status(td, issue(td, "SELECT event_id FROM views")) == "error"
    assert json.loads(call(td, "GET", "/v3/table/show/shop/views").body)["schema"] == "[]"
    clock.sleep(600)
    assert status(td, issue(td, "SELECT event_id FROM views")) == "success"


def test_a_job_takes_its_time(td: TreasureData, clock: ManualClock) -> None:
    """A job runs for as long as the setting says, has no result before, and then what it saw when it was issued."""
    td.settings = Settings(job_seconds=30)
    job = issue(td, "SELECT count(*) FROM views")
    put(td, "shop.views", ROWS)

    assert status(td, job) == "running"
    assert call(td, "GET", f"/v3/job/result/{job}?format=json").status == 404
    assert "end_at" not in json.loads(call(td, "GET", f"/v3/job/show/{job}").body)
    clock.sleep(30)
    assert status(td, job) == "success"
    assert result(td, job) == [[0]]
    shown = json.loads(call(td, "GET", f"/v3/job/show/{job}").body)
    assert (shown["database"], shown["type"], shown["priority"], shown["num_records"]) == (
        "shop",
        "trino",
        1,
        1,
    )


@pytest.mark.parametrize(
    "query",
    [
        "",
        "nonsense",
        "SELECT event_id FROM views WHERE",
        "SELECT nothing FROM views",
        'SELECT "no column but a name" FROM views',
        "SELECT * FROM missing",
        "SELECT 1; SELECT 2",
        "INSERT INTO views (time) VALUES (1)",
        "UPDATE views SET n = 3",
        "DELETE FROM views",
        "DROP TABLE views",
        "CREATE TABLE other (x)",
        "ATTACH '/etc/passwd' AS other",
        "PRAGMA user_version",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('x')",
        "SELECT TD_TIME_RANGE(time, 'soon') FROM views",
        "SELECT TD_TIME_RANGE(time, 0, 1, 'JST') FROM views",
        "SELECT '\0'",
    ],
)
def test_only_right_queries_that_read(td: TreasureData, query: str) -> None:
    """A query that is wrong or would change something becomes a job that failed."""
    put(td, "shop.views", ROWS)

    job = issue(td, query)

    assert status(td, job) == "error"
    assert call(td, "GET", f"/v3/job/result/{job}?format=json").status == 404
    assert td.query("shop", "SELECT count(*), sum(n) FROM views").rows == [(2, 3)]


def test_an_endless_query_is_given_up(td: TreasureData, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that would never end fails."""
    monkeypatch.setattr(query_tables, "MAX_STEPS", 10_000)

    with pytest.raises(QueryError, match="interrupted"):
        td.query(
            "shop", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        )


def test_an_unknown_form_of_result(td: TreasureData) -> None:
    """A result in a form that the stand-in does not know is refused."""
    job = issue(td, "SELECT 1")

    assert call(td, "GET", f"/v3/job/result/{job}?format=xml").status == 400


def test_a_priority_that_is_no_number(td: TreasureData) -> None:
    """A priority must be a number."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    response = call(td, "POST", "/v3/job/issue/trino/shop", b"query=SELECT+1&priority=high", **form)

    assert response.status == 422


def test_what_sql_cannot_hold_is_text(td: TreasureData) -> None:
    """Integers beyond 64 bits are digits, nested values JSON, true and false 1 and 0, and column names become SQL's."""
    row = {
        "time": 1,
        "N": (1 << 64) - 1,
        "n": -(1 << 63),
        "b": True,
        "list": [1, {"a": None}],
        "": "",
        'q"\0': 2,
    }
    put(td, "shop.views", [row])

    found = td.query("shop", "SELECT * FROM views")

    assert [name for name, _ in found.columns] == ["time", "n", "n_1", "b", "list", "_", "q__"]
    assert found.rows == [(1, "18446744073709551615", -(1 << 63), 1, '[1,{"a":null}]', "", 2)]


def test_more_columns_than_a_table_has(td: TreasureData) -> None:
    """Columns beyond TD's number cannot be queried, but their rows can and are kept whole."""
    rows = [{"time": n, **{f"c{n}_{m}": m for m in range(400)}} for n in range(2)]
    put(td, "shop.views", rows)

    assert td.query("shop", "SELECT count(*), sum(c0_1), sum(c1_1) FROM views").rows == [(2, 1, 1)]
    assert len(td.query("shop", "SELECT * FROM views").columns) == 512
    assert td.rows("shop", "views") == rows


@pytest.mark.parametrize("name", ["main", "temp", "select", "123"])
def test_names_that_mean_something_to_sqlite(name: str) -> None:
    """Databases and tables may be called whatever TD allows."""
    td = with_tables(TreasureData(clock=ManualClock()), f"{name}.{name}")
    put(td, f"{name}.{name}", ROWS)

    assert td.rows(name, name) == ROWS
    assert call(td, "GET", f"/v3/table/list/{name}").status == 200
    assert td.query(name, f'SELECT event_id FROM "{name}" WHERE n = 2').rows == [("e-2",)]
    td.close()


def test_tables_that_sqlite_does_not_take() -> None:
    """A table whose name SQLite keeps to itself takes rows and is listed, but cannot be queried."""
    td = with_tables(TreasureData(clock=ManualClock()), "shop.sqlite_sequence")
    put(td, "shop.sqlite_sequence", ROWS)

    assert td.rows("shop", "sqlite_sequence") == ROWS
    assert json.loads(call(td, "GET", "/v3/table/show/shop/sqlite_sequence").body)["count"] == 2
    assert status(td, issue(td, "SELECT * FROM sqlite_sequence")) == "error"


def test_querying_over_http(td: TreasureData) -> None:
    """People can query without a job."""
    put(td, "shop.views", ROWS)
    query = quote("SELECT event_id AS e, n FROM views WHERE n = 1")

    shown = json.loads(call(td, "GET", f"/-/query?database=shop&query={query}").body)

    assert shown == {"columns": [["e", "varchar"], ["n", "bigint"]], "rows": [["it's", 1]]}
    assert call(td, "GET", "/-/query?database=shop&query=DROP+TABLE+views").status == 422
    assert call(td, "GET", "/-/query?database=missing&query=SELECT+1").status == 404
    assert call(td, "GET", "/-/query?database=shop").status == 400


@given(st.lists(st.integers(0, 5), max_size=6))
def test_queries_in_between_change_nothing(sizes: list[int]) -> None:
    """However imports and queries alternate, a query sees every row once, in order."""
    td = with_tables(TreasureData(clock=ManualClock()), "shop.views")
    expected = []
    for size in sizes:
        rows = [{"time": len(expected) + n, f"c{size}": n} for n in range(size)]
        expected += rows
        put(td, "shop.views", rows)
        assert td.query("shop", "SELECT time FROM views").rows == [(row["time"],) for row in expected]
    td.close()


def test_deleted_tables_start_anew(td: TreasureData) -> None:
    """A table that was deleted and created again has no rows and none of the old columns."""
    put(td, "shop.views", ROWS)
    assert td.query("shop", "SELECT count(*) FROM views").rows == [(2,)]
    call(td, "POST", "/v3/table/delete/shop/views")
    call(td, "POST", "/v3/table/create/shop/views/log")
    put(td, "shop.views", [{"time": int(START), "other": 1}])

    assert [name for name, _ in td.query("shop", "SELECT * FROM views").columns] == ["time", "other"]
