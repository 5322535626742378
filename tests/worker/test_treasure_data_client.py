"""What is sent to Treasure Data, and what its answers mean."""

import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from typing import Any

import msgpack
import pytest
import requests
import tdclient.api

from doubles.clock import START, ManualClock
from doubles.treasure_data import API_KEY, Action, Fault, InProcess, Kind, Right, Server, TreasureData
from doubles.treasure_data.settings import Settings
from tests.support.delivery import StaticSecrets, row
from tests.support.treasure_data import put, with_tables
from worker.chunk import compress
from worker.deadline import Deadline
from worker.secret import Secret
from worker.treasure_data import Asked, Verdict, classify
from worker.treasure_data import TreasureData as Client

MD5 = "0" * 32
UNIQUE_ID = "2ac30b788fd813e9ac7a3af9d395e109"


@pytest.mark.parametrize(
    ("status", "body", "verdict", "sure"),
    [
        (200, b'{"md5_hex": "%s", "elapsed_time": 0}' % MD5.encode(), Verdict.DELIVERED, True),
        (200, b"{}", Verdict.DELIVERED, True),
        (200, b'{"md5_hex": "1"}', Verdict.MISMATCH, False),
        (200, b"<html>", Verdict.PASSING, False),
        (200, b"[]", Verdict.PASSING, False),
        (202, b"{}", Verdict.DELIVERED, True),
        (409, b"", Verdict.DELIVERED, True),
        (404, b"", Verdict.MISSING, True),
        (413, b"", Verdict.TOO_LARGE, True),
        (400, b"", Verdict.REFUSED, True),
        (422, b"", Verdict.REFUSED, True),
        (405, b"", Verdict.REFUSED, True),
        (415, b"", Verdict.REFUSED, True),
        (401, b"", Verdict.KEY_REFUSED, True),
        (403, b"", Verdict.KEY_REFUSED, True),
        (408, b"", Verdict.PASSING, False),
        (425, b"", Verdict.PASSING, True),
        (429, b"", Verdict.PASSING, True),
        (500, b"", Verdict.PASSING, False),
        (502, b"", Verdict.PASSING, False),
        (503, b"", Verdict.PASSING, False),
        (504, b"", Verdict.PASSING, False),
        (301, b"", Verdict.PASSING, False),
        (307, b"", Verdict.PASSING, False),
    ],
)
def test_answers(status: int, body: bytes, verdict: Verdict, sure: bool) -> None:
    """Each answer has one meaning, and only some exclude that the rows were taken."""
    answer = classify(status, {}, body, MD5, START)
    assert (answer.verdict, answer.sure) == (verdict, sure)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("-3", 0.0),
        ("1.5", 1.5),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:13:30 -0000", 10.0),
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0.0),
        ("nan", 0.0),
        ("soon", 0.0),
        ("", 0.0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    """Retry-After counts in seconds or as a date; what cannot be read is no wish."""
    assert classify(503, {"Retry-After": text}, b"", MD5, START).retry_after == seconds


def made_client(td: TreasureData, clock: ManualClock, key: str = API_KEY) -> Client:
    """Return a client of the stand-in, in process."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", InProcess(td.handle, clock))
    return Client(session, "http://import", "http://api", Secret(StaticSecrets(td=key), "td", clock), clock)


@pytest.mark.parametrize(
    ("fault", "reason", "sure"),
    [
        (Fault(kind=Kind.REFUSE), "connection_refused", True),
        (Fault(kind=Kind.UNREACHABLE), "connect_timeout", True),
        (Fault(kind=Kind.HANG), "timeout", False),
        (Fault(kind=Kind.RESET), "connection_lost", False),
        (Fault(kind=Kind.CLOSE), "connection_lost", False),
    ],
)
def test_lost_connections(fault: Fault, reason: str, sure: bool) -> None:
    """Only where no connection was made is it sure that the rows were not taken."""
    clock = ManualClock()
    td = with_tables(TreasureData(clock=clock), "shop_db.views")
    td.faults.add(fault)  # type: ignore[attr-defined]  # the default source
    answer = made_client(td, clock).send("shop_db", "views", UNIQUE_ID, compress(b""), 10)
    assert (answer.verdict, answer.reason, answer.sure) == (Verdict.PASSING, reason, sure)
    assert clock.now() - START <= 10


@contextmanager
def capture() -> Iterator[tuple[str, list[bytes]]]:
    """Listen on loopback and keep what arrives, answering as Treasure Data does."""
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
                while len(body) < int(fields[b"content-length"]):
                    body += connection.recv(65536)
                received.append(head + b"\r\n\r\n" + body)
                answer = b'{"elapsed_time":0}'
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
                    % (len(answer), answer)
                )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield url, received
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def parts(request: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """Return request line, headers by lower-case name, and what the body inflates to."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    headers = dict(field.decode().split(": ", 1) for field in fields)
    return line, {name.lower(): value for name, value in headers.items()}, gzip.decompress(body)


def test_same_request_as_the_official_client() -> None:
    """Our import is, header by header and byte by byte, what td-client sends for the same rows."""
    stream = b"".join(msgpack.packb(row(f"e{n}", n=n, text="ü")) for n in range(20))
    body = compress(stream)
    with capture() as (url, received):
        session = requests.Session()
        session.trust_env = False
        key = Secret(StaticSecrets(td=API_KEY), "td", ManualClock())
        Client(session, url, url, key, ManualClock()).send("shop_db", "views", UNIQUE_ID, body, 5)
        with closing(tdclient.api.API(API_KEY, endpoint=f"{url}/")) as official:
            official.import_data("shop_db", "views", "msgpack.gz", body, len(body), unique_id=UNIQUE_ID)
    (our_line, ours, our_rows), (their_line, theirs, their_rows) = map(parts, received)
    assert our_line == their_line
    assert our_rows == their_rows == stream
    assert ours.keys() == theirs.keys()
    differing = {name for name in ours if ours[name] != theirs[name]}
    assert differing <= {"date", "user-agent"}
    assert ours["date"] == "Tue, 14 Nov 2023 22:13:20 -0000"
    assert ours["user-agent"].startswith("Sluice/")


def test_same_request_for_what_the_official_client_packs() -> None:
    """Rows that td-client packs itself arrive as the same bytes as our ingest's."""
    rows = [{"time": 1_700_000_000, "a": 1, "b": None, "c": "x", "d": 0.5, "e": True}]
    packed = b"".join(msgpack.packb(one) for one in rows)
    with capture() as (url, received):
        session = requests.Session()
        session.trust_env = False
        key = Secret(StaticSecrets(td=API_KEY), "td", ManualClock())
        Client(session, url, url, key, ManualClock()).send("shop_db", "views", UNIQUE_ID, compress(packed), 5)
        with closing(tdclient.api.API(API_KEY, endpoint=f"{url}/")) as official:
            official.import_file("shop_db", "views", "msgpack", BytesIO(packed), unique_id=UNIQUE_ID)
    (_, _, our_rows), (_, _, their_rows) = map(parts, received)
    assert our_rows == their_rows


def test_against_the_stand_in_over_sockets() -> None:
    """Sends, creations, probes and questions work over real connections."""
    td = TreasureData()
    with Server(td.handle) as server:
        clock = ManualClock()
        session = requests.Session()
        session.trust_env = False
        client = Client(
            session, server.url, server.url, Secret(StaticSecrets(td=API_KEY), "td", clock), clock
        )
        deadline = Deadline(clock, clock.now() + 60)
        body = compress(msgpack.packb(row("e'1")))
        assert client.send("shop_db", "views", UNIQUE_ID, body, 5).verdict is Verdict.MISSING
        assert client.create_table("shop_db", "views", 5) == 404
        assert client.create_database("shop_db", 5) == 200
        assert client.create_database("shop_db", 5) == 409
        assert client.create_table("shop_db", "views", 5) == 200
        assert client.send("shop_db", "views", UNIQUE_ID, body, 5).verdict is Verdict.DELIVERED
        assert client.ask("shop_db", "views", row("e'1"), deadline) is Asked.THERE
        assert client.ask("shop_db", "views", row("e2"), deadline) is Asked.NOT_THERE
        assert client.answers()
        assert client.knows_key()
        session.close()
    assert not client.answers()


def asked(
    td: TreasureData, one: Any, *, key: str = API_KEY, table: str = "views", seconds: float = 60
) -> Asked:
    """Ask whether a row is there."""
    clock = ManualClock()
    return made_client(td, clock, key).ask("shop_db", table, one, Deadline(clock, clock.now() + seconds))


def test_asking() -> None:
    """A row is there, or not: also without its table, its database, its columns, or when only its like is there."""
    td = TreasureData()
    assert asked(td, row("e1")) is Asked.NOT_THERE
    with_tables(td, "shop_db.views")
    assert asked(td, row("e1")) is Asked.NOT_THERE
    assert asked(td, row("e1"), table="gone") is Asked.NOT_THERE
    put(td, "shop_db.views", [row("e1"), row('"; DROP TABLE views --'), row("it's")])
    assert asked(td, row("e1")) is Asked.THERE
    assert asked(td, row("it's")) is Asked.THERE
    assert asked(td, row('"; DROP TABLE views --')) is Asked.THERE
    assert asked(td, row("e1", time=1_700_000_001)) is Asked.NOT_THERE
    assert asked(td, row("e1") | {"received_at": 5}) is Asked.NOT_THERE
    assert asked(td, row("' OR 1 = 1 --")) is Asked.NOT_THERE


def test_asking_a_full_table() -> None:
    """A table whose columns ran out before ours came cannot be asked, and is not taken for one without our rows."""
    td = with_tables(TreasureData(), "shop_db.views", "shop_db.clicks")
    wide = {f"column_{n}": n for n in range(511)}
    put(td, "shop_db.views", [{"time": 1_700_000_000, **wide}])
    put(td, "shop_db.views", [row("e1")], "1" * 32)
    assert asked(td, row("e1")) is Asked.FORBIDDEN
    put(td, "shop_db.clicks", [{"time": 1_700_000_000, "column": 1}], "2" * 32)
    assert asked(td, row("e1"), table="clicks") is Asked.NOT_THERE


def test_asking_without_leave_or_answer() -> None:
    """A key that may not query, a row that cannot be asked for, and a query that does not end are told apart."""
    keys = {"1/w": frozenset({Right.WRITE, Right.CREATE}), API_KEY: frozenset(Right)}
    td = with_tables(TreasureData(keys=keys), "shop_db.views")
    assert asked(td, row("e1"), key="1/w") is Asked.FORBIDDEN
    assert asked(td, {"time": 1}) is Asked.FORBIDDEN
    td.settings = Settings(job_seconds=1e9)
    assert asked(td, row("e1")) is Asked.UNDECIDED
    td.settings = Settings()
    td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=500))  # type: ignore[attr-defined]
    assert asked(td, row("e1")) is Asked.UNDECIDED
    td.faults.add(Fault(kind=Kind.CLOSE, action=Action.QUERY))  # type: ignore[attr-defined]


def test_an_endless_answer_is_cut_off() -> None:
    """An answer that does not end costs no more than its bytes' limit, and is not taken for a delivery."""
    clock = ManualClock()
    td = with_tables(TreasureData(clock=clock), "shop_db.views")
    td.faults.add(Fault(kind=Kind.STATUS, status=502, body="x" * (3 << 20)))  # type: ignore[attr-defined]
    assert made_client(td, clock).send("shop_db", "views", UNIQUE_ID, compress(b""), 5).reason == "http_502"
