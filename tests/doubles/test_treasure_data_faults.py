"""Each fault as a client with urllib3 sees it: over sockets and in process, where it must look the same."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from threading import Semaphore
from typing import Any

import pytest
from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProtocolError, ReadTimeoutError

from doubles.clock import START, ManualClock
from doubles.http_server import HttpServer, Request, Response
from doubles.treasure_data import Action, Fault, InProcess, Kind, Settings, TreasureData
from shared.clock import SystemClock
from tests.support.treasure_data import AUTHORIZED, call, import_body, put, with_tables

ROW = {"time": 1_700_000_000, "event_id": "e-1"}
VIEWS = f"/v3/table/import_with_id/shop/views/{'2a' * 16}/msgpack.gz"
STATUS = "/v3/system/server_status"
PATIENCE = 0.05
Seconds = tuple[float | None, float | None]


class Wire:
    """A double with tables in two databases, and a client connected to it."""

    def __init__(self, *, in_process: bool) -> None:
        self.clock, self.heard = ManualClock(), Semaphore(0)
        self.timeout = (3.0, 10.0) if in_process else (60.0, 60.0)
        td = TreasureData(clock=self.clock if in_process else SystemClock())
        self.td = with_tables(td, "shop.views", "shop.orders", "blog.views")
        self.server = HttpServer(self.handle)
        self.pool = InProcess(self.handle, self.clock) if in_process else PoolManager()

    def handle(self, request: Request) -> Response:
        """Answer a request, and say so to whoever did not wait for the answer."""
        response = self.td.handle(request)
        self.heard.release()
        return response

    def send(
        self, method: str, target: str, body: bytes = b"", timeout: Seconds | None = None
    ) -> BaseHTTPResponse:
        """Send a request, by default with a time-out that no test should reach: to connect, and to read."""
        connect, read = timeout or self.timeout
        limits = Timeout(connect=connect, read=read)
        url, headers = self.server.url + target, AUTHORIZED
        return self.pool.request(method, url, body=body, headers=headers, timeout=limits, retries=False)

    def put(self, timeout: Seconds | None = None) -> BaseHTTPResponse:
        """Import one row."""
        return self.send("PUT", VIEWS, import_body([ROW]), timeout)

    def accepted(self) -> int:
        """Return how many rows TD has accepted."""
        return self.td.counts()["shop"]["views"]

    def close(self) -> None:
        """Close everything."""
        self.pool.clear()
        self.server.stop()


@pytest.fixture(params=["sockets", "in process"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A client and its double, once over sockets and once in process."""
    with closing(Wire(in_process=request.param == "in process")) as made:
        yield made


@pytest.fixture
def still() -> Iterator[Wire]:
    """A client and its double in process, with a clock that advances only for clients that wait."""
    with closing(Wire(in_process=True)) as made:
        yield made


@pytest.mark.parametrize(
    ("status", "retry_after", "lands"), [(400, None, None), (429, 7, None), (503, None, 0)]
)
def test_a_status_fault_has_the_error_document(
    wire: Wire, status: int, retry_after: float | None, lands: float | None
) -> None:
    """A status fault has TD's error document and optionally Retry-After, whether TD accepted the rows or not."""
    wire.td.faults.add(Fault(kind=Kind.STATUS, status=status, retry_after=retry_after, lands=lands, count=1))
    response = wire.put()
    accepted, again = wire.accepted(), wire.put()

    assert (status, status) == (response.status, response.json()["status_code"])
    assert (retry_after and str(retry_after)) == response.headers.get("Retry-After")
    assert (int(lands == 0), 200, "OK", 1) == (accepted, again.status, again.reason, wire.accepted())
    assert str(len(again.data)) == again.headers["content-length"]


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Fault(kind=Kind.CLOSE), ProtocolError, "closed connection without response"),
        (Fault(kind=Kind.CLOSE, lands=0), ProtocolError, "closed connection"),
        (Fault(kind=Kind.HANG, seconds=PATIENCE), ProtocolError, "closed connection"),
        (Fault(kind=Kind.HANG), ReadTimeoutError, f"read timeout={PATIENCE}"),
        (Fault(kind=Kind.HANG, lands=0), ReadTimeoutError, "read timeout"),
        (Fault(kind=Kind.SLOW, seconds=9), ReadTimeoutError, "read timeout"),
        (Fault(kind=Kind.RESET), ProtocolError, "ConnectionResetError"),
    ],
)
def test_a_connection_can_just_end(wire: Wire, fault: Fault, error: type[Exception], message: str) -> None:
    """A connection ends or stays silent, whether TD accepted the rows or not, and a retry adds no rows."""
    wire.td.faults.add(fault)
    with pytest.raises(error, match=message):
        wire.put(timeout=(60, PATIENCE if error is ReadTimeoutError else 60))
    assert wire.heard.acquire(timeout=60)
    accepted = wire.accepted()
    wire.td.faults.clear()

    assert int(fault.lands == 0 or fault.kind is Kind.SLOW) == accepted
    assert (200, 1) == (wire.put().status, wire.accepted())


def test_responses_can_be_altered(wire: Wire) -> None:
    """A request is executed, but its response is slow, a page, truncated, a 206, or has a wrong checksum."""
    wire.td.settings = Settings(answer_seconds=9)
    with pytest.raises(ReadTimeoutError):
        wire.put(timeout=(60, PATIENCE))
    assert wire.heard.acquire(timeout=60)
    wire.td.settings = Settings()
    right = wire.put().json()
    for kind in (Kind.SLOW, Kind.WRONG_MD5, Kind.WRONG_MD5, Kind.TRUNCATED, Kind.PARTIAL, Kind.NOT_JSON):
        wire.td.faults.add(Fault(kind=kind, seconds=PATIENCE, count=1))
    slow, wrong, unaltered = wire.put().json(), wire.put().json(), wire.send("GET", STATUS).json()
    half, partial, page = wire.put(), wire.put(), wire.put()

    assert (right, {"status": "ok"}) == (slow, unaltered)
    assert (206, right) == (partial.status, partial.json())
    assert json.dumps(right, separators=(",", ":")).startswith(half.data.decode())
    assert str(len(half.data)) == half.headers["content-length"]
    assert right["md5_hex"] != wrong["md5_hex"]
    assert right | {"md5_hex": ""} == wrong | {"md5_hex": ""}
    assert (200, "text/html", 1) == (page.status, page.headers["Content-Type"], wire.accepted())
    assert page.data.decode().startswith("<html>")


NO_FAULTS = (
    *("", "1", '{"kind": "mood"}', '{"status": 500}', '{"kind": "slow"}', '{"kind": "close", "hue": 1}'),
    *('{"kind": "reset", "lands": 0}', '{"kind": "close", "status": 199}'),
)


def test_faults_can_be_set_over_http(wire: Wire) -> None:
    """A fault without a target strikes all of TD but not the double's own routes; invalid faults are rejected."""
    wire.send("POST", "/-/faults", b'{"kind": "status", "status": 429, "body": "slow down"}')
    struck = [wire.send(*one) for one in (("PUT", VIEWS), ("GET", STATUS))]
    counts = wire.send("GET", "/-/counts").json()
    rejected = [wire.send("POST", "/-/faults", one.encode()).status for one in NO_FAULTS]
    wire.send("DELETE", "/-/faults")

    assert [(429, "slow down")] * 2 == [(one.status, one.data.decode()) for one in struck]
    assert {"blog": {"views": 0}, "shop": {"orders": 0, "views": 0}} == counts
    assert ([400] * len(NO_FAULTS), 200) == (rejected, wire.put().status)


def test_a_stopped_server_refuses_connections(wire: Wire) -> None:
    """Once the server has stopped, even a connected client is refused, as with the fault `refuse` in process."""
    wire.put()
    wire.server.stop()
    wire.td.faults.add(Fault(kind=Kind.REFUSE))
    with pytest.raises(NewConnectionError, match="Connection refused"):
        wire.put()


@pytest.mark.parametrize(
    ("fault", "timeout", "outcome", "seconds"),
    [
        (Fault(kind=Kind.UNREACHABLE), (3, 10), pytest.raises(ConnectTimeoutError), 3),
        (Fault(kind=Kind.REFUSE), (3, 10), pytest.raises(NewConnectionError), 0),
        (Fault(kind=Kind.HANG), (3, 10), pytest.raises(ReadTimeoutError), 10),
        (Fault(kind=Kind.HANG, seconds=4), (3, 10), pytest.raises(ProtocolError), 4),
        (Fault(kind=Kind.SLOW, seconds=11), (3, 10), pytest.raises(ReadTimeoutError), 10),
        (Fault(kind=Kind.SLOW, seconds=4), (3, 10), nullcontext(), 4),
        (Fault(kind=Kind.HANG), (None, None), pytest.raises(RuntimeError, match="without a time-out"), 0),
        (
            Fault(kind=Kind.UNREACHABLE),
            (None, None),
            pytest.raises(RuntimeError, match="without a time-out"),
            0,
        ),
    ],
)
def test_time_passes_as_for_a_client_that_waits(
    still: Wire, fault: Fault, timeout: Any, outcome: AbstractContextManager[Any], seconds: float
) -> None:
    """In process the clock advances by as much as a client would have waited; waiting forever raises RuntimeError."""
    still.td.faults.add(fault)
    with outcome:
        still.put(timeout=timeout)

    assert START + seconds == still.clock.now()


def test_a_request_can_land_late(still: Wire) -> None:
    """A request can land after its client has given up, even after a retry, and counts from when it lands."""
    still.td.settings = Settings(id_memory=60)
    still.td.faults.add(Fault(kind=Kind.HANG, lands=100, count=1))
    with pytest.raises(ReadTimeoutError):
        still.put()
    counts = [still.accepted()]
    still.put()
    for seconds in (0, 89, 100):
        still.clock.sleep(seconds)
        counts.append(still.accepted())

    assert [0, 1, 1, 2] == counts
    assert [10, 100] == [taken.at - START for taken in still.td.imports()]


IMPORT = "PUT /v3/table/import_with_id/{}/00/msgpack.gz"
STRUCK: list[tuple[dict[str, Any], str, bool]] = [
    ({"database": "shop"}, IMPORT.format("shop/views"), True),
    ({"database": "shop"}, IMPORT.format("blog/views"), False),
    ({"database": "shop"}, "POST /v3/job/issue/trino/shop", True),
    ({"database": "blog"}, "GET /v3/job/status/1", False),
    ({"table": "views"}, IMPORT.format("shop/orders"), False),
    ({"action": Action.IMPORT}, IMPORT.format("shop/views"), True),
    ({"action": Action.IMPORT}, f"GET {STATUS}", False),
    ({"action": Action.CREATE}, "POST /v3/database/create/new", True),
    ({"action": Action.LIST}, "GET /v3/table/show/shop/views", True),
    ({"action": Action.QUERY}, "GET /v3/job/result/1?format=json", True),
    ({"action": Action.STATUS}, f"GET {STATUS}", True),
    ({"begin": START, "end": START + 1}, "GET /v3/database/list", True),
    ({"end": START}, "GET /v3/database/list", False),
    ({}, "GET /-/counts", False),
]


@pytest.mark.parametrize(("narrowing", "request_line", "struck"), STRUCK)
def test_a_fault_strikes_only_its_requests(
    still: Wire, narrowing: dict[str, Any], request_line: str, *, struck: bool
) -> None:
    """A fault strikes only requests that match its database, table, action and time."""
    call(still.td, "POST", "/v3/job/issue/trino/shop")
    still.td.faults.add(Fault(kind=Kind.STATUS, status=507, **narrowing))

    assert struck is (507 == call(still.td, *request_line.split(), import_body([])).status)


def test_faults_strike_in_order(still: Wire) -> None:
    """Faults with a count are used up one after another, in the order in which they were set."""
    for status, more in ((503, {"count": 2}), (500, {"database": "blog"}), (429, {"count": 1})):
        still.td.faults.add(Fault(kind=Kind.STATUS, status=status, **more))  # type: ignore[arg-type]
    statuses = [put(still.td, f"{name}.views", [ROW]).status for name in ("shop",) * 4 + ("blog",)]

    assert [503, 503, 429, 200, 500] == statuses
