"""The official td-client against the double, over real sockets."""

from collections.abc import Iterator
from io import BytesIO

import pytest
import tdclient
from tdclient.errors import AlreadyExistsError, APIError, AuthError, NotFoundError

from doubles.treasure_data import API_KEY, Fault, Kind, Server, Settings, TreasureData
from tests.support.treasure_data import import_body

ROWS = [{"time": 1_700_000_000, "n": 1, "x": 1.5, "title": "Grüße", "none": None}]


@pytest.fixture
def td() -> TreasureData:
    """The double."""
    return TreasureData()


@pytest.fixture
def client(td: TreasureData) -> Iterator[tdclient.Client]:
    """td-client with a database and a table that it created."""
    with Server(td.handle) as server, tdclient.Client(apikey=API_KEY, endpoint=server.url) as client:
        client.create_database("shop")
        client.create_log_table("shop", "views")
        yield client


def send(client: tdclient.Client, table: str = "views") -> None:
    """Import the rows under one id."""
    body = import_body(ROWS)
    client.import_data("shop", table, "msgpack.gz", body, len(body), unique_id="2ac30b788fd813e9")


def test_imports_arrive_once(client: tdclient.Client, td: TreasureData) -> None:
    """td-client repeats after a lost response; a repetition adds nothing, and is a 409 by a setting."""
    td.faults.add(Fault(kind=Kind.CLOSE, lands=0, count=1))
    send(client)
    td.settings = Settings(duplicate_status=409)
    with pytest.raises(AlreadyExistsError):
        send(client)
    file = BytesIO(b'{"time": 1700000000, "n": 18446744073709551616, "a": [1, {"b": null}]}\n')
    client.import_file("shop", "views", "json", file, unique_id="00")
    packed = {"time": 1_700_000_000, "n": "18446744073709551616", "a": [1, {"b": None}]}

    assert ([*ROWS, packed], 2) == (td.rows("shop", "views"), td.duplicates)
    assert ["shop"] == [database.name for database in client.databases()]
    assert [("views", 2)] == [(table.name, table.count) for table in client.tables("shop")]


def test_errors_are_those_that_td_client_knows(client: tdclient.Client) -> None:
    """Missing, existing and illegal names and unknown keys raise td-client's own errors."""
    for missing in (
        lambda: send(client, "missing"),
        lambda: client.create_log_table("missing", "views"),
        lambda: client.job_status("77"),
    ):
        with pytest.raises(NotFoundError):
            missing()
    with pytest.raises(AlreadyExistsError):
        client.create_database("shop")
    with pytest.raises(APIError, match="422"):
        client.create_database("Shop-1")
    with (
        tdclient.Client(apikey="nonsense", endpoint=client.api.endpoint) as stranger,
        pytest.raises(AuthError),
    ):
        stranger.create_database("blog")
