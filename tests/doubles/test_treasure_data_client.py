"""The official td-client against the stand-in, over real sockets."""

from collections.abc import Iterator
from io import BytesIO

import pytest
import tdclient
from tdclient.errors import AlreadyExistsError, APIError, AuthError, ForbiddenError, NotFoundError

from doubles.treasure_data import API_KEY, Fault, Kind, Right, Server, Settings, TreasureData
from tests.support.treasure_data import import_body

WRITE_ONLY = "1/" + "a" * 40
QUERY_ONLY = "1/" + "b" * 40
ROWS = [
    {"time": 1_700_000_000, "event_id": "e-1", "n": 1, "x": 1.5, "title": "Grüße", "none": None},
    {"time": 1_700_000_060, "event_id": "e-2", "n": -2, "late": "a new column"},
]
UNIQUE_ID = "2ac30b788fd813e9ac7a3af9d395e109"


@pytest.fixture
def td() -> Iterator[TreasureData]:
    """Return a stand-in with three keys."""
    keys = {
        API_KEY: frozenset(Right),
        WRITE_ONLY: frozenset({Right.WRITE}),
        QUERY_ONLY: frozenset({Right.QUERY}),
    }
    td = TreasureData(keys=keys)
    yield td
    td.close()


@pytest.fixture
def server(td: TreasureData) -> Iterator[Server]:
    """Return the stand-in's server."""
    with Server(td.handle) as server:
        yield server


def client_of(server: Server, key: str = API_KEY) -> tdclient.Client:
    """Return td-client with a key."""
    return tdclient.Client(apikey=key, endpoint=server.url)


@pytest.fixture
def client(server: Server) -> Iterator[tdclient.Client]:
    """Return td-client with a table at hand."""
    with client_of(server) as client:
        client.create_database("shop")
        client.create_log_table("shop", "views")
        yield client


def test_databases_and_tables_are_listed(client: tdclient.Client) -> None:
    """What td-client creates, td-client lists."""
    client.create_log_table("shop", "orders")

    assert [database.name for database in client.databases()] == ["shop"]
    assert [(table.name, table.type, table.count) for table in client.tables("shop")] == [
        ("orders", "log", 0),
        ("views", "log", 0),
    ]


def test_deleting(client: tdclient.Client) -> None:
    """Deleted tables and databases are gone with their rows."""
    body = import_body(ROWS)
    client.import_data("shop", "views", "msgpack.gz", body, len(body))

    assert client.delete_table("shop", "views") == "log"
    client.create_log_table("shop", "views")
    assert client.table("shop", "views").count == 0
    client.delete_database("shop")
    assert client.databases() == []


@pytest.mark.parametrize("unique_id", [None, UNIQUE_ID])
def test_import_data_reads_back(client: tdclient.Client, td: TreasureData, unique_id: str | None) -> None:
    """Rows imported as they are, with an id or without, come back by a query with equal values."""
    body = import_body(ROWS)
    client.import_data("shop", "views", "msgpack.gz", body, len(body), unique_id=unique_id)

    job = client.query("shop", 'SELECT * FROM "views" ORDER BY time', type="trino")
    job.wait()

    assert job.status() == "success"
    names = [name for name, _ in job.result_schema]
    assert [
        {name: row.get(name) for name in ("time", "event_id", "n", "x", "title", "none", "late")}
        for row in ROWS
    ] == [dict(zip(names, cells, strict=True)) for cells in job.result()]
    assert td.rows("shop", "views") == ROWS


def test_import_file(client: tdclient.Client, td: TreasureData) -> None:
    """A file that td-client packs itself arrives, an integer beyond 64 bits as text."""
    file = BytesIO(
        b'{"time": 1700000000, "n": 18446744073709551616}\n{"time": 1700000001, "a": [1, {"b": null}]}\n'
    )
    client.import_file("shop", "views", "json", file, unique_id=UNIQUE_ID)

    assert td.rows("shop", "views") == [
        {"time": 1_700_000_000, "n": "18446744073709551616"},
        {"time": 1_700_000_001, "a": [1, {"b": None}]},
    ]


def test_tail_and_schema(client: tdclient.Client) -> None:
    """The tail shows rows as they were packed, the last first; the schema shows the types first seen."""
    body = import_body(ROWS)
    client.import_data("shop", "views", "msgpack.gz", body, len(body))

    assert client.tail("shop", "views", 5) == ROWS[::-1]
    table = client.table("shop", "views")
    assert table.count == 2
    assert table.schema == [
        ["event_id", "string", "event_id"],
        ["n", "long", "n"],
        ["x", "double", "x"],
        ["title", "string", "title"],
        ["none", "string", "none"],
        ["late", "string", "late"],
    ]


def test_a_repeated_id_is_taken_once(client: tdclient.Client, td: TreasureData) -> None:
    """A repeated import under the same id succeeds and adds nothing."""
    body = import_body(ROWS)
    for _ in range(3):
        client.import_data("shop", "views", "msgpack.gz", body, len(body), unique_id=UNIQUE_ID)

    assert td.counts() == {"shop": {"views": 2}}
    assert (td.duplicates, td.conflicts) == (2, 0)


def test_a_repeated_id_may_be_a_conflict(client: tdclient.Client, td: TreasureData) -> None:
    """By a setting, the answer to a repeated id is 409."""
    td.settings = Settings(duplicate_status=409)
    body = import_body(ROWS)
    client.import_data("shop", "views", "msgpack.gz", body, len(body), unique_id=UNIQUE_ID)

    with pytest.raises(AlreadyExistsError):
        client.import_data("shop", "views", "msgpack.gz", body, len(body), unique_id=UNIQUE_ID)
    assert td.counts() == {"shop": {"views": 2}}


def test_an_empty_import_shows_whether_a_table_exists(client: tdclient.Client) -> None:
    """An empty gzip is accepted, so it can be used to ask for a table."""
    empty = import_body([])
    client.import_data("shop", "views", "msgpack.gz", empty, len(empty))

    with pytest.raises(NotFoundError):
        client.import_data("shop", "missing", "msgpack.gz", empty, len(empty))


def test_what_is_missing_or_there_already(client: tdclient.Client) -> None:
    """Unknown names are not found, names that exist cannot be created."""
    with pytest.raises(NotFoundError):
        client.create_log_table("missing", "views")
    with pytest.raises(NotFoundError):
        client.query("missing", "SELECT 1", type="trino")
    with pytest.raises(NotFoundError):
        client.job_status("77")
    with pytest.raises(AlreadyExistsError):
        client.create_database("shop")
    with pytest.raises(AlreadyExistsError):
        client.create_log_table("shop", "views")


def test_illegal_names(client: tdclient.Client) -> None:
    """A name that TD does not allow is refused."""
    with pytest.raises(APIError, match="422"):
        client.create_database("Shop-1")


@pytest.mark.parametrize("key", ["1/" + "c" * 40, "nonsense"])
def test_unknown_keys(server: Server, key: str) -> None:
    """A key that nobody gave may do nothing."""
    with client_of(server, key) as client, pytest.raises(AuthError):
        client.create_database("shop")


@pytest.mark.usefixtures("client")
def test_rights(server: Server) -> None:
    """A key may do only what it has a right to."""
    body = import_body(ROWS)
    with client_of(server, WRITE_ONLY) as writer:
        writer.import_data("shop", "views", "msgpack.gz", body, len(body))
        with pytest.raises(ForbiddenError):
            writer.create_log_table("shop", "other")
        with pytest.raises(ForbiddenError):
            writer.query("shop", "SELECT 1", type="trino")
    with client_of(server, QUERY_ONLY) as reader:
        assert reader.query("shop", "SELECT 1", type="trino").success()
        with pytest.raises(ForbiddenError):
            reader.import_data("shop", "views", "msgpack.gz", body, len(body))


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_results_in_both_forms(client: tdclient.Client, form: str) -> None:
    """A result can be had as lines of JSON or as msgpack, with the columns' names on demand."""
    job = client.query("shop", "SELECT 'ä' AS a, 2 AS b, NULL AS c", type="trino", priority="HIGH")

    assert list(job.result_format(form)) == [["ä", 2, None]]
    assert client.api.job_result_format(job.id, form, header=True) == [["a", "b", "c"], ["ä", 2, None]]
    assert client.job(job.id).priority == "HIGH"


def test_a_wrong_query_is_an_error_of_its_job(client: tdclient.Client) -> None:
    """A query that names an unknown column becomes a job that fails and says why."""
    job = client.query("shop", 'SELECT event_id FROM "views"', type="trino")
    job.wait()

    assert job.error()
    assert "event_id" in job.debug["stderr"]
    with pytest.raises(NotFoundError):
        client.job_result(job.id)


def test_server_status(client: tdclient.Client, td: TreasureData) -> None:
    """TD's status endpoint answers, unless a fault strikes it."""
    assert client.server_status() == "ok"

    td.faults.add(Fault(kind=Kind.STATUS, status=404))
    assert client.server_status() == "Server is down (404)"


def test_td_client_repeats_an_import_whose_answer_was_lost(client: tdclient.Client, td: TreasureData) -> None:
    """td-client's own repetition after a lost answer adds nothing, thanks to the id."""
    td.faults.add(Fault(kind=Kind.CLOSE, lands=0, count=1))
    body = import_body(ROWS)
    client.import_data("shop", "views", "msgpack.gz", body, len(body), unique_id=UNIQUE_ID)

    assert td.counts() == {"shop": {"views": 2}}
    assert td.duplicates == 1
