"""The official td-client against the double, over real sockets."""

from collections.abc import Iterator
from io import BytesIO

import pytest
import requests
import tdclient
from tdclient.errors import AlreadyExistsError, APIError, AuthError, ForbiddenError, NotFoundError

from doubles.treasure_data import API_KEY, Fault, Kind, Right, Server, Settings, TreasureData
from tests.support.treasure_data import import_body

WRITE_ONLY, QUERY_ONLY = "1/" + "a" * 40, "1/" + "b" * 40
ROWS = [
    {"time": 1_700_000_000, "event_id": "e-1", "n": 1, "x": 1.5, "title": "Grüße", "none": None},
    {"time": 1_700_000_060, "event_id": "e-2", "n": -2, "late": "a new column"},
]
UNIQUE_ID = "2ac30b788fd813e9ac7a3af9d395e109"


@pytest.fixture
def td() -> TreasureData:
    """A double with three keys."""
    rights = {API_KEY: frozenset(Right), WRITE_ONLY: {Right.WRITE}, QUERY_ONLY: {Right.QUERY}}
    return TreasureData(keys={key: frozenset(allowed) for key, allowed in rights.items()})


@pytest.fixture
def server(td: TreasureData) -> Iterator[Server]:
    """The double's server."""
    with Server(td.handle) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[tdclient.Client]:
    """td-client with a database and a table that it created."""
    with tdclient.Client(apikey=API_KEY, endpoint=server.url) as client:
        client.create_database("shop")
        client.create_log_table("shop", "views")
        yield client


def send(client: tdclient.Client, table: str = "views") -> None:
    """Import the rows under the id."""
    body = import_body(ROWS)
    client.import_data("shop", table, "msgpack.gz", body, len(body), unique_id=UNIQUE_ID)


def test_imported_rows_read_back(client: tdclient.Client, td: TreasureData) -> None:
    """Rows that were imported come back by a query with equal values, and one that td-client packs itself arrives."""
    send(client)
    file = BytesIO(b'{"time": 1700000000, "n": 18446744073709551616, "a": [1, {"b": null}]}\n')
    client.import_file("shop", "views", "json", file, unique_id="00")
    names = ("time", "event_id", "n", "x", "title", "none", "late")
    columns = ", ".join(names)
    job = client.query(
        "shop", f"SELECT {columns} FROM \"views\" WHERE event_id > '' ORDER BY time", type="trino"
    )

    assert job.success()
    assert [[row.get(name) for name in names] for row in ROWS] == client.api.job_result_format(job.id, "json")
    packed = {"time": 1_700_000_000, "n": "18446744073709551616", "a": [1, {"b": None}]}
    assert [*ROWS, packed] == td.rows("shop", "views")
    assert ["shop"] == [database.name for database in client.databases()]


def test_a_repeated_id_is_accepted_once(client: tdclient.Client, td: TreasureData) -> None:
    """A repeated import succeeds, or is a 409 by a setting, and adds nothing; td-client repeats after a lost response."""
    td.faults.add(Fault(kind=Kind.CLOSE, lands=0, count=1))
    send(client)
    send(client)
    td.settings = Settings(duplicate_status=409)
    with pytest.raises(AlreadyExistsError):
        send(client)

    assert ({"shop": {"views": 2}}, 3) == (td.counts(), td.duplicates)


def test_errors_are_those_that_td_client_knows(client: tdclient.Client, server: Server) -> None:
    """Missing, existing and illegal names and unknown keys raise td-client's own errors."""
    for missing in (
        lambda: send(client, "missing"),
        lambda: client.create_log_table("missing", "views"),
        lambda: client.query("missing", "SELECT 1", type="trino"),
        lambda: client.job_status("77"),
    ):
        with pytest.raises(NotFoundError):
            missing()
    with pytest.raises(AlreadyExistsError):
        client.create_database("shop")
    with pytest.raises(AlreadyExistsError):
        client.create_log_table("shop", "views")
    with pytest.raises(APIError, match="422"):
        client.create_database("Shop-1")
    with tdclient.Client(apikey="nonsense", endpoint=server.url) as stranger, pytest.raises(AuthError):
        stranger.create_database("blog")


@pytest.mark.usefixtures("client")
def test_rights(server: Server) -> None:
    """A key may do only what it has a right to."""
    with tdclient.Client(apikey=WRITE_ONLY, endpoint=server.url) as writer:
        send(writer)
        with pytest.raises(ForbiddenError):
            writer.create_log_table("shop", "other")
        with pytest.raises(ForbiddenError):
            writer.query("shop", "SELECT 1", type="trino")
    with tdclient.Client(apikey=QUERY_ONLY, endpoint=server.url) as reader:
        assert reader.query("shop", "SELECT 1", type="trino").success()
        with pytest.raises(ForbiddenError):
            send(reader)


def test_the_read_routes_of_td_client(client: tdclient.Client) -> None:
    """Tables, jobs and results in each format, as td-client and pytd ask for them."""
    send(client)
    job = client.query("shop", "SELECT event_id, n FROM views ORDER BY n", type="presto")
    job.wait(wait_interval=0.01)
    client.query("shop", "SELECT broken", type="hive")
    (table,) = client.tables("shop")
    shown = client.job(job.id)

    assert ("views", 2) == (table.name, table.count)
    assert ["hive", "presto"] == [one.type for one in client.jobs()]
    assert [job.id] == [one.id for one in client.jobs(status="success")]
    assert ("presto", "shop", "SELECT event_id, n FROM views ORDER BY n") == (
        shown.type,
        shown.database,
        shown.query,
    )
    assert [["event_id", "varchar"], ["n", "varchar"]] == shown.result_schema
    rows = [["e-2", -2], ["e-1", 1]]
    assert rows == client.job_result(job.id) == list(client.job_result_each(job.id))
    assert rows == client.job_result_format(job.id, "json")


def test_requests_as_the_node_client_sends_them(client: tdclient.Client, server: Server) -> None:
    """A query as a JSON document, and bodies in chunks."""
    send(client)
    headers = {"Authorization": f"TD1 {API_KEY}"}
    issued = requests.post(
        f"{server.url}/v3/job/issue/presto/shop",
        json={"query": "SELECT n FROM views WHERE n > 0", "priority": 0},
        headers=headers,
        timeout=10,
    ).json()
    imported = requests.put(
        f"{server.url}/v3/table/import_with_id/shop/views/ab/msgpack.gz",
        data=iter([import_body(ROWS)]),  # which requests sends in chunks
        headers=headers,
        timeout=10,
    )

    assert [[1]] == client.job_result(issued["job_id"])
    assert (200, 4) == (imported.status_code, client.tables("shop")[0].count)
