"""The official td-client against the double, over real sockets."""

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
def td() -> TreasureData:
    """A double with three keys."""
    rights = {API_KEY: frozenset(Right), WRITE_ONLY: {Right.WRITE}, QUERY_ONLY: {Right.QUERY}}
    return TreasureData(keys={key: frozenset(allowed) for key, allowed in rights.items()})


@pytest.fixture
def server(td: TreasureData) -> Iterator[Server]:
    """The double's server."""
    with Server(td.handle) as server:
        yield server


def client_of(server: Server, key: str = API_KEY) -> tdclient.Client:
    """Return td-client with a key."""
    return tdclient.Client(apikey=key, endpoint=server.url)


@pytest.fixture
def client(server: Server) -> Iterator[tdclient.Client]:
    """td-client with a database and a table that it created."""
    with client_of(server) as client:
        client.create_database("shop")
        client.create_log_table("shop", "views")
        yield client


def send(client: tdclient.Client, table: str = "views") -> None:
    """Import the rows under the id."""
    body = import_body(ROWS)
    client.import_data("shop", table, "msgpack.gz", body, len(body), unique_id=UNIQUE_ID)


def test_imported_rows_read_back(client: tdclient.Client, td: TreasureData) -> None:
    """Rows that were imported come back by a query with equal values."""
    send(client)
    names = ("time", "event_id", "n", "x", "title", "none", "late")
    job = client.query("shop", f'SELECT {", ".join(names)} FROM "views" ORDER BY time', type="trino")

    assert job.success()
    assert [[row.get(name) for name in names] for row in ROWS] == client.api.job_result_format(job.id, "json")
    assert ROWS == td.rows("shop", "views")
    assert ["shop"] == [database.name for database in client.databases()]


def test_import_file(client: tdclient.Client, td: TreasureData) -> None:
    """A file that td-client packs itself arrives, an integer beyond 64 bits as text."""
    file = BytesIO(
        b'{"time": 1700000000, "n": 18446744073709551616}\n{"time": 1700000001, "a": [1, {"b": null}]}\n'
    )
    client.import_file("shop", "views", "json", file, unique_id=UNIQUE_ID)

    assert [
        {"time": 1_700_000_000, "n": "18446744073709551616"},
        {"time": 1_700_000_001, "a": [1, {"b": None}]},
    ] == td.rows("shop", "views")


def test_a_repeated_id_is_accepted_once(client: tdclient.Client, td: TreasureData) -> None:
    """A repeated import under the same id succeeds, or is a 409 by a setting, and adds nothing."""
    send(client)
    send(client)
    td.settings = Settings(duplicate_status=409)
    with pytest.raises(AlreadyExistsError):
        send(client)

    assert {"shop": {"views": 2}} == td.counts()
    assert (2, 0) == (td.duplicates, td.conflicts)


def test_td_client_repeats_an_import_whose_response_was_lost(
    client: tdclient.Client, td: TreasureData
) -> None:
    """td-client's own repetition after a lost response adds nothing, thanks to the id."""
    td.faults.add(Fault(kind=Kind.CLOSE, lands=0, count=1))
    send(client)

    assert ({"shop": {"views": 2}}, 1) == (td.counts(), td.duplicates)


def test_errors_are_those_that_td_client_knows(client: tdclient.Client, server: Server) -> None:
    """Missing, existing and illegal names and unknown keys raise td-client's own errors."""
    empty = import_body([])
    client.import_data("shop", "views", "msgpack.gz", empty, len(empty), unique_id=UNIQUE_ID)
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
    with client_of(server, "nonsense") as stranger, pytest.raises(AuthError):
        stranger.create_database("blog")


def test_rights(client: tdclient.Client, server: Server) -> None:
    """A key may do only what it has a right to."""
    assert client.databases()
    with client_of(server, WRITE_ONLY) as writer:
        send(writer)
        with pytest.raises(ForbiddenError):
            writer.create_log_table("shop", "other")
        with pytest.raises(ForbiddenError):
            writer.query("shop", "SELECT 1", type="trino")
    with client_of(server, QUERY_ONLY) as reader:
        assert reader.query("shop", "SELECT 1", type="trino").success()
        with pytest.raises(ForbiddenError):
            send(reader)


def test_server_status(client: tdclient.Client, td: TreasureData) -> None:
    """TD's status endpoint answers, unless a fault strikes it."""
    healthy = client.server_status()
    td.faults.add(Fault(kind=Kind.STATUS, status=404))

    assert ("ok", "Server is down (404)") == (healthy, client.server_status())
