"""Each fault as a client of requests meets it: over real sockets, and in process, where it must look the same."""

import gzip
import json
import math
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Any

import pytest
import requests
from urllib3.exceptions import NewConnectionError

from doubles.clock import START, ManualClock
from doubles.treasure_data import (
    Action,
    Fault,
    Faults,
    InProcess,
    Kind,
    Request,
    Response,
    Server,
    Settings,
    Target,
    TreasureData,
)
from shared.clock import SystemClock
from tests.support.treasure_data import AUTHORIZED, call, import_body, put, with_tables

ROW = {"time": 1_700_000_000, "event_id": "e-1"}
UNIQUE_ID = "2ac30b788fd813e9ac7a3af9d395e109"
VIEWS = f"/v3/table/import_with_id/shop/views/{UNIQUE_ID}/msgpack.gz"
PATIENCE = 0.05


@dataclass
class Wire:
    """A stand-in, and a client's way to it."""

    td: TreasureData
    faults: Faults
    session: requests.Session
    url: str

    def send(self, method: str, target: str, data: bytes | None = None, **options: Any) -> requests.Response:
        """Send a request with a key and a time-out that no test wants to reach."""
        return self.session.request(method, self.url + target, data=data, **{"timeout": (5, 5)} | options)

    def put(self, **options: Any) -> requests.Response:
        """Import one row."""
        return self.send("PUT", VIEWS, import_body([ROW]), **options)

    def taken(self) -> int:
        """Return how many rows TD has."""
        return self.td.counts()["shop"]["views"]


@pytest.fixture(params=["sockets", "in process"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Return a way to a stand-in with tables in two databases, once over sockets and once in process."""
    faults = Faults()
    in_process = request.param == "in process"
    clock = ManualClock() if in_process else SystemClock()
    td = with_tables(TreasureData(clock=clock, faults=faults), "shop.views", "shop.orders", "blog.views")
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(AUTHORIZED)
        if in_process:
            session.mount("http://", InProcess(td.handle, clock))
            yield Wire(td, faults, session, "http://td.test")
        else:
            with Server(td.handle) as server:
                yield Wire(td, faults, session, server.url)
    td.close()


def test_no_fault(wire: Wire) -> None:
    """Without a fault an answer carries its length and type, and one connection serves many requests."""
    for _ in range(3):
        answered = wire.put()
        assert (answered.status_code, answered.reason, answered.json()["database"]) == (200, "OK", "shop")
        assert answered.headers["content-length"] == str(len(answered.content))
        assert answered.headers["Content-Type"].startswith("application/json")
    assert wire.taken() == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503])
@pytest.mark.parametrize("retry_after", [None, 7, "Wed, 25 Nov 2026 09:06:12 GMT"])
def test_status(wire: Wire, status: int, retry_after: float | str | None) -> None:
    """A status is answered in TD's form of an error, with or without Retry-After, and nothing is taken."""
    wire.faults.add(Fault(kind=Kind.STATUS, status=status, retry_after=retry_after, count=1))

    answered = wire.put()

    assert (answered.status_code, answered.json()["status_code"]) == (status, status)
    assert answered.headers.get("Retry-After") == (None if retry_after is None else str(retry_after))
    assert wire.taken() == 0
    assert wire.put().status_code == 200


def test_a_proxys_error(wire: Wire) -> None:
    """A status may come with a body that is not JSON."""
    wire.faults.add(Fault(kind=Kind.STATUS, status=502, body="<html>Bad Gateway</html>"))

    answered = wire.put()

    assert (answered.status_code, answered.text) == (502, "<html>Bad Gateway</html>")


def test_an_error_after_acceptance(wire: Wire) -> None:
    """TD may answer with an error although it took the rows."""
    wire.faults.add(Fault(kind=Kind.STATUS, status=500, lands=0, count=1))

    assert wire.put().status_code == 500
    assert wire.taken() == 1
    assert wire.put().status_code == 200
    assert wire.taken() == 1


@pytest.mark.parametrize("status", [307, 308])
def test_redirections(wire: Wire, status: int) -> None:
    """A redirection leads to the same place, where requests repeats the same import, or to another."""
    wire.faults.add(Fault(kind=Kind.STATUS, status=status, count=2))

    unfollowed = wire.put(allow_redirects=False)
    assert (unfollowed.status_code, unfollowed.headers["Location"], wire.taken()) == (status, VIEWS, 0)
    assert wire.put().status_code == 200
    assert wire.taken() == 1

    wire.faults.add(Fault(kind=Kind.STATUS, status=status, location="http://elsewhere/"))
    assert wire.put(allow_redirects=False).headers["Location"] == "http://elsewhere/"


@pytest.mark.parametrize(("lands", "taken"), [(None, 0), (0, 1)])
def test_closed_without_an_answer(wire: Wire, lands: float | None, taken: int) -> None:
    """A connection is closed without an answer, and TD may have taken the rows or not."""
    wire.faults.add(Fault(kind=Kind.CLOSE, lands=lands, count=1))

    with pytest.raises(
        requests.exceptions.ConnectionError, match="Remote end closed connection without response"
    ):
        wire.put()

    assert wire.taken() == taken
    assert wire.put().status_code == 200
    assert wire.taken() == 1


def test_reset(wire: Wire) -> None:
    """A connection is reset, which is not the same as closed."""
    wire.faults.add(Fault(kind=Kind.RESET, count=1))

    with pytest.raises(requests.exceptions.ConnectionError, match="Connection aborted") as raised:
        wire.send("GET", "/v3/database/list")

    assert type(raised.value.args[0].args[1]) is ConnectionResetError


@pytest.mark.parametrize("size", [10, 8_000_000])
def test_reset_before_the_body_is_read(wire: Wire, size: int) -> None:
    """A connection is reset before the body was read, be it small or large, and the next request is answered."""
    wire.faults.add(Fault(kind=Kind.RESET, count=1))

    with pytest.raises(requests.exceptions.ConnectionError, match="Connection aborted"):
        wire.send("PUT", VIEWS, b"x" * size)

    assert wire.put().status_code == 200


@pytest.mark.parametrize(("lands", "taken"), [(None, 0), (0, 1)])
def test_silence(wire: Wire, lands: float | None, taken: int) -> None:
    """Silence ends with the client's time-out, and TD may have taken the rows or not."""
    wire.faults.add(Fault(kind=Kind.HANG, lands=lands, count=1))

    with pytest.raises(requests.exceptions.ReadTimeout, match=f"read timeout={PATIENCE}"):
        wire.put(timeout=(5, PATIENCE))

    assert wire.taken() == taken
    assert wire.put().status_code == 200


def test_silence_that_ends(wire: Wire) -> None:
    """Silence for a time ends with the connection."""
    wire.faults.add(Fault(kind=Kind.HANG, seconds=PATIENCE))

    with pytest.raises(requests.exceptions.ConnectionError, match="Remote end closed connection"):
        wire.put()
    assert wire.taken() == 0


def test_slow(wire: Wire) -> None:
    """A slow answer is a right one for who waits, and a time-out after acceptance for who does not."""
    wire.faults.add(Fault(kind=Kind.SLOW, seconds=2 * PATIENCE))

    with pytest.raises(requests.exceptions.ReadTimeout):
        wire.put(timeout=PATIENCE)
    assert wire.taken() == 1
    assert wire.put().json()["unique_id"] == UNIQUE_ID


def test_answers_that_take_their_time(wire: Wire) -> None:
    """By a setting, every import takes its time to be answered."""
    wire.td.settings = Settings(answer_seconds=PATIENCE)

    with pytest.raises(requests.exceptions.ReadTimeout):
        wire.put(timeout=PATIENCE / 2)
    assert wire.put().status_code == 200


def test_not_json(wire: Wire) -> None:
    """A request is carried out, but its answer is a page."""
    wire.faults.add(Fault(kind=Kind.NOT_JSON))

    answered = wire.put()

    assert (answered.status_code, answered.headers["Content-Type"], wire.taken()) == (200, "text/html", 1)
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answered.json()


def test_wrong_md5(wire: Wire) -> None:
    """An import is carried out, but another checksum is told; other answers stay as they are."""
    right = wire.put().json()
    wire.faults.add(Fault(kind=Kind.WRONG_MD5))

    wrong = wire.put().json()

    assert wrong["md5_hex"] != right["md5_hex"]
    assert wrong | {"md5_hex": ""} == right | {"md5_hex": ""}
    assert wire.send("GET", "/v3/system/server_status").json() == {"status": "ok"}


def test_silent_altogether(wire: Wire) -> None:
    """A fault that names nothing strikes all of TD, its status endpoint too, but not the stand-in's own routes."""
    hang = {"kind": "hang"}
    assert wire.send("POST", "/-/faults", json.dumps(hang).encode()).json() == {"faults": [hang]}

    for method, target in (
        ("PUT", VIEWS),
        ("GET", "/v3/system/server_status"),
        ("POST", "/v3/database/create/new"),
    ):
        with pytest.raises(requests.exceptions.ReadTimeout):
            wire.send(method, target, b"", timeout=PATIENCE)
    assert wire.send("GET", "/-/counts").json()["shop"] == {"orders": 0, "views": 0}
    assert wire.send("DELETE", "/-/faults").json() == {"faults": []}
    assert wire.put().status_code == 200


def test_faults_over_http(wire: Wire) -> None:
    """Faults can be set by JSON, several at once, and what is no fault is refused and sets none."""
    faults = [
        {"kind": "status", "status": 429, "count": 1, "database": "shop"},
        {"kind": "close", "count": 2},
    ]
    answered = wire.send("POST", "/-/faults", json.dumps(faults).encode())
    assert [Fault.from_document(document) for document in answered.json()["faults"]] == [
        Fault(kind=Kind.STATUS, status=429, count=1, database="shop"),
        Fault(kind=Kind.CLOSE, count=2),
    ]

    for wrong in (
        b"",
        b"1",
        b'{"kind": "mood"}',
        b'{"status": 500}',
        b'{"kind": "slow"}',
        b'{"kind": "reset", "lands": 0}',
        b'{"kind": "status", "status": 200}',
        b'{"kind": "status", "colour": "red"}',
        b'{"kind": "status", "action": "dance"}',
        b'[{"kind": "close"}, {"kind": "mood"}]',
    ):
        assert wire.send("POST", "/-/faults", wrong).status_code == 400
    assert len(wire.send("GET", "/-/faults").json()["faults"]) == 2
    assert wire.put().status_code == 429


def test_a_server_that_is_gone() -> None:
    """Once the server has stopped, connections are refused, as in process under the fault `refuse`."""
    td = with_tables(TreasureData(faults=(faults := Faults())), "shop.views")
    with Server(td.handle) as server:
        url = server.url
    faults.add(Fault(kind=Kind.REFUSE))
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://td.test", InProcess(td.handle))
        for address in (url, "http://td.test"):
            with pytest.raises(requests.exceptions.ConnectionError, match="Connection refused") as raised:
                session.put(address + VIEWS, data=b"", timeout=5)
            assert not isinstance(raised.value, requests.exceptions.ConnectTimeout)
            assert isinstance(raised.value.args[0].reason, NewConnectionError)


# In process only: what sockets on one machine cannot do, and what the clock says.


@pytest.fixture
def clock() -> ManualClock:
    """Return the stand-in's clock."""
    return ManualClock()


@pytest.fixture
def still(clock: ManualClock) -> Wire:
    """Return a way to a stand-in in process, by a clock that moves only for those who wait."""
    faults = Faults()
    td = with_tables(TreasureData(clock=clock, faults=faults), "shop.views", "shop.orders", "blog.views")
    session = requests.Session()
    session.headers.update(AUTHORIZED)
    session.mount("https://", InProcess(td.handle, clock))
    return Wire(td, faults, session, "https://td.test")


@pytest.mark.parametrize(
    ("fault", "raised", "seconds"),
    [
        (Fault(kind=Kind.UNREACHABLE), requests.exceptions.ConnectTimeout, 3),
        (Fault(kind=Kind.REFUSE), requests.exceptions.ConnectionError, 0),
        (Fault(kind=Kind.RESET), requests.exceptions.ConnectionError, 0),
        (Fault(kind=Kind.CLOSE), requests.exceptions.ConnectionError, 0),
        (Fault(kind=Kind.HANG), requests.exceptions.ReadTimeout, 10),
        (Fault(kind=Kind.HANG, seconds=4), requests.exceptions.ConnectionError, 4),
        (Fault(kind=Kind.SLOW, seconds=11), requests.exceptions.ReadTimeout, 10),
        (Fault(kind=Kind.SLOW, seconds=4), None, 4),
        (Fault(kind=Kind.STATUS), None, 0),
    ],
)
def test_time_passes_as_for_a_client_that_waits(
    still: Wire, clock: ManualClock, fault: Fault, raised: type[Exception] | None, seconds: float
) -> None:
    """The clock moves by as much as a client would have waited, limited by its time-outs."""
    still.faults.add(fault)

    if raised is None:
        still.put(timeout=(3, 10))
    else:
        with pytest.raises(raised):
            still.put(timeout=(3, 10))

    assert clock.now() == START + seconds


@pytest.mark.parametrize("fault", [Fault(kind=Kind.HANG), Fault(kind=Kind.UNREACHABLE)])
def test_waiting_for_ever_is_a_mistake(still: Wire, fault: Fault) -> None:
    """A request without a time-out that would wait for ever is told so."""
    still.faults.add(fault)

    with pytest.raises(RuntimeError, match="without a time-out"):
        still.put(timeout=None)


def test_a_request_that_lands_late(still: Wire, clock: ManualClock) -> None:
    """A request can land after its client gave up, even after its repetition, as of the time when it landed."""
    still.td.settings = Settings(id_memory=60)
    still.faults.add(Fault(kind=Kind.HANG, lands=100, count=1))
    with pytest.raises(requests.exceptions.ReadTimeout):
        still.put(timeout=(3, 10))
    assert still.taken() == 0
    assert still.put().status_code == 200
    assert still.taken() == 1

    clock.sleep(89)
    assert still.taken() == 1
    clock.sleep(100)
    assert still.taken() == 2
    assert [taken.at - START for taken in still.td.imports()] == [10, 100]


def test_a_late_request_may_find_its_table_gone(still: Wire, clock: ManualClock) -> None:
    """What lands late is answered by nobody, but as the world is by then."""
    still.faults.add(Fault(kind=Kind.CLOSE, lands=100, count=1))
    with pytest.raises(requests.exceptions.ConnectionError):
        still.put()
    still.send("POST", "/v3/table/delete/shop/views")
    clock.sleep(100)

    assert still.td.counts()["shop"] == {"orders": 0}


STRUCK: list[tuple[dict[str, Any], str, str, bool]] = [
    ({}, "PUT", "/v3/table/import/shop/views/msgpack.gz", True),
    ({"database": "shop"}, "PUT", "/v3/table/import/shop/views/msgpack.gz", True),
    ({"database": "shop"}, "PUT", "/v3/table/import/blog/views/msgpack.gz", False),
    ({"database": "shop"}, "POST", "/v3/table/create/shop/new/log", True),
    ({"database": "shop"}, "GET", "/v3/table/list/shop", True),
    ({"database": "shop"}, "GET", "/v3/database/list", False),
    ({"database": "shop"}, "GET", "/v3/system/server_status", False),
    ({"database": "shop"}, "POST", "/v3/job/issue/trino/shop", True),
    ({"database": "shop"}, "GET", "/v3/job/status/1", True),
    ({"database": "blog"}, "GET", "/v3/job/status/1", False),
    ({"table": "views"}, "PUT", "/v3/table/import/blog/views/msgpack.gz", True),
    ({"table": "views"}, "PUT", "/v3/table/import/shop/orders/msgpack.gz", False),
    ({"action": Action.IMPORT}, "PUT", "/v3/table/import/shop/views/msgpack.gz", True),
    ({"action": Action.IMPORT}, "GET", "/v3/system/server_status", False),
    ({"action": Action.CREATE}, "POST", "/v3/database/create/new", True),
    ({"action": Action.LIST}, "GET", "/v3/table/tail/shop/views", True),
    ({"action": Action.QUERY}, "GET", "/v3/job/result/1", True),
    ({"action": Action.STATUS}, "GET", "/v3/system/server_status", True),
    ({"action": Action.OTHER}, "GET", "/favicon.ico", True),
    ({"begin": START + 1}, "GET", "/v3/database/list", False),
    ({"begin": START, "end": START + 1}, "GET", "/v3/database/list", True),
    ({"end": START}, "GET", "/v3/database/list", False),
    ({}, "GET", "/-/counts", False),
]


@pytest.mark.parametrize(("narrowing", "method", "target", "struck"), STRUCK)
def test_whom_a_fault_strikes(
    still: Wire, narrowing: dict[str, Any], method: str, target: str, *, struck: bool
) -> None:
    """A fault strikes the requests of its database, table and action, in its time."""
    call(still.td, "POST", "/v3/job/issue/trino/shop")
    still.faults.add(Fault(kind=Kind.STATUS, status=507, **narrowing))

    assert (call(still.td, method, target, gzip.compress(b"")).status == 507) is struck


def test_faults_strike_in_order(still: Wire) -> None:
    """Faults with a count are used up one after the other, and what is left can be seen."""
    for fault in (
        Fault(kind=Kind.STATUS, status=503, count=2),
        Fault(kind=Kind.STATUS, status=500, database="blog"),
        Fault(kind=Kind.STATUS, status=429, count=1),
        Fault(kind=Kind.STATUS, status=503, count=1),
    ):
        still.faults.add(fault)

    assert [put(still.td, "shop.views", [ROW]).status for _ in range(5)] == [503, 503, 429, 503, 200]
    assert still.faults.all() == [Fault(kind=Kind.STATUS, status=500, database="blog")]


def test_faults_that_are_decided_in_code() -> None:
    """Anything that decides for each request can take the place of a list of faults."""

    class EveryOther:
        def __init__(self) -> None:
            self.seen: list[Target] = []

        def strike(self, target: Target, now: float) -> Fault | None:
            assert now == START
            self.seen.append(target)
            return Fault(kind=Kind.STATUS) if len(self.seen) % 2 == 0 else None

    faults = EveryOther()
    td = TreasureData(clock=ManualClock(), faults=faults)

    assert [call(td, "GET", "/v3/database/list").status for _ in range(4)] == [200, 503, 200, 503]
    assert faults.seen[0] == Target(Action.LIST)
    assert call(td, "POST", "/-/faults", b"{}").status == 409


def test_faults_as_documents() -> None:
    """A fault written as JSON reads back equal."""
    for fault in (
        Fault(kind=Kind.HANG),
        Fault(
            kind=Kind.STATUS,
            status=307,
            location="/x",
            count=3,
            begin=1.0,
            end=2.0,
            action=Action.QUERY,
            body="",
        ),
        Fault(kind=Kind.CLOSE, database="shop", table="views", lands=0),
        Fault(kind=Kind.SLOW, seconds=0.5, retry_after=1.5),
    ):
        assert Fault.from_document(json.loads(json.dumps(fault.document()))) == fault


# Over sockets only.


@pytest.fixture
def served() -> Iterator[tuple[TreasureData, Server]]:
    """Return a stand-in and its server."""
    td = with_tables(TreasureData(), "shop.views")
    with Server(td.handle) as server:
        yield td, server


def test_one_connection_is_kept(served: tuple[TreasureData, Server]) -> None:
    """A connection carries one request after the other, those with an unread body included."""
    _, server = served
    body = import_body([ROW])
    head = f"HTTP/1.1\r\nHost: td\r\nContent-Length: {len(body)}\r\n"
    refused = f"PUT {VIEWS} {head}\r\n".encode() + body
    taken = f"PUT {VIEWS} {head}AUTHORIZATION: {AUTHORIZED['Authorization']}\r\n\r\n".encode() + body

    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(refused + taken + refused)
        answers = connection.makefile("rb")
        statuses = []
        for _ in range(3):
            statuses.append(answers.readline())
            fields = dict(line.split(b": ", 1) for line in iter(answers.readline, b"\r\n"))
            answers.read(int(fields[b"Content-Length"]))
        answers.close()

    assert statuses == [
        b"HTTP/1.1 401 Unauthorized\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 401 Unauthorized\r\n",
    ]


def test_chunked_bodies_are_refused(served: tuple[TreasureData, Server]) -> None:
    """A body without a length, which no client of TD sends, is refused."""
    td, server = served

    answered = requests.put(
        server.url + VIEWS, data=iter([import_body([ROW])]), headers=AUTHORIZED, timeout=5
    )

    assert (answered.status_code, td.counts()["shop"]["views"]) == (411, 0)


def test_a_mistake_of_the_stand_in_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """What goes wrong in the stand-in itself is shown, and ends the connection."""

    def handle(_: Request) -> Response:
        raise RuntimeError("a mistake")

    with Server(handle) as server, pytest.raises(requests.exceptions.ConnectionError):
        requests.get(server.url, timeout=5)
    assert "a mistake" in capsys.readouterr().err


def test_half_a_body_imports_nothing(served: tuple[TreasureData, Server]) -> None:
    """A client that goes away in the middle of a body leaves nothing behind."""
    td, server = served
    body = import_body([ROW])
    head = f"PUT {VIEWS} HTTP/1.1\r\nContent-Length: {len(body) + 1}\r\nAuthorization: {AUTHORIZED['Authorization']}"

    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""

    assert td.counts()["shop"]["views"] == 0


def test_stopping_ends_what_hangs() -> None:
    """A server that stops ends the requests that hang and the connections that are kept."""
    faults = Faults()
    td = with_tables(TreasureData(faults=faults), "shop.views")
    hung = Event()

    def handle(request: Request) -> Response:
        response = td.handle(request)
        if response.delay == math.inf:
            hung.set()
        return response

    server = Server(handle)
    with requests.Session() as session, ThreadPoolExecutor(1) as executor:
        session.trust_env = False
        session.get(server.url + "/v3/system/server_status", timeout=5)
        faults.add(Fault(kind=Kind.HANG))
        hanging = executor.submit(requests.get, server.url + "/v3/system/server_status", timeout=5)
        assert hung.wait(5)
        server.stop()

        assert isinstance(hanging.exception(5), requests.exceptions.ConnectionError)


def test_many_threads_at_once(served: tuple[TreasureData, Server]) -> None:
    """Many clients at once import each row once, repeats under the same id included."""
    td, server = served

    def send(number: int) -> int:
        path = f"/v3/table/import_with_id/shop/views/{number % 40:032x}/msgpack.gz"
        body = import_body([{"time": 1, "n": number % 40}])
        return requests.put(server.url + path, data=body, headers=AUTHORIZED, timeout=5).status_code

    with ThreadPoolExecutor(8) as executor:
        assert set(executor.map(send, range(80))) == {200}

    assert sorted(row["n"] for row in td.rows("shop", "views")) == list(range(40))
    assert td.duplicates == 40


def test_the_command(tmp_path: Any) -> None:
    """The stand-in runs by itself and keeps its rows in a file."""
    path = str(tmp_path / "td.sqlite")
    command = [sys.executable, "-m", "doubles.treasure_data", "--port", "0", "--file", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split(" at ")[1].split(",")[0]
        created = requests.post(url + "/v3/database/create/shop", headers=AUTHORIZED, timeout=5)
        process.send_signal(signal.SIGTERM)

    assert (created.status_code, process.returncode) == (200, 0)
    kept = TreasureData(path)
    assert kept.counts() == {"shop": {}}
    kept.close()
