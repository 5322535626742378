"""Requests to Treasure Data, and the meaning of its answers."""

import gzip
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any
from unittest.mock import Mock

import msgpack
import pytest
import tdclient.api
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import PoolManager

from doubles.clock import START, ManualClock
from doubles.http_server import HttpServer
from doubles.treasure_data import API_KEY, Fault, InProcess, Kind, Request, Response, TreasureData
from ops.deploy.td_client import SiteClient
from tests.support.delivery import StaticSecrets, row
from tests.support.treasure_data import put, with_tables
from worker.deadline import Deadline
from worker.rows import compress
from worker.secret import Secret
from worker.states import Event, Presence
from worker.treasure_data.answer import TdAnswer
from worker.treasure_data.client import ACCEPTED, Outcome, TreasureDataClient, classify

MD5 = "0" * 32
UNIQUE_ID = "2ac30b788fd813e9ac7a3af9d395e109"

SENT = {"md5_hex": MD5, "unique_id": UNIQUE_ID, "database": "shop_db", "table": "views"}
TAKEN = json.dumps(SENT | {"elapsed_time": 0}).encode()


def refusal(status: int, **changes: Any) -> bytes:
    """Return Treasure Data's error document."""
    document = {"error": "e", "message": "m", "text": "t", "severity": "error", "status_code": status}
    return json.dumps(document | changes).encode()


@pytest.mark.parametrize(
    ("statuses", "event", "surely_not"),
    [
        ([409], Event.ACCEPTED, False),
        ([400, 413, 422], Event.PARTLY_REFUSED, True),
        ([405, 415], Event.REFUSED, True),
        ([401, 403, 404, 425, 429], Event.UNANSWERED, True),
        ([301, 307, 408, 500, 502, 503, 504], Event.UNANSWERED, False),
    ],
)
def test_each_refusal_has_one_meaning(statuses: list[int], event: Event, surely_not: bool) -> None:
    """Only Treasure Data's own error document, but for 409, proves that the rows were not accepted; nothing does after a failure."""
    for status in statuses:
        outcome = classify(TdAnswer(status, refusal(status)), SENT)
        assert (event, surely_not, status == 404) == (outcome.event, outcome.surely_not, outcome.lacks_table)
        assert outcome.reason == ("" if status == 409 else f"http_{status}")


BY_OTHERS = [b"", b"{}", b"<html>", b'{"message": "Forbidden"}', refusal(500)]
BY_OTHERS += [refusal(400, status_code="400"), refusal(400)[:-1], refusal(400, more=1)]


@pytest.mark.parametrize("body", BY_OTHERS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 429])
def test_refusals_by_anyone_else_prove_nothing(status: int, body: bytes) -> None:
    """A proxy's page may come after the rows were accepted, so it neither rejects nor accepts them."""
    event = Event.PARTLY_REFUSED if status == 413 else Event.UNANSWERED
    expected = Outcome(event, f"http_{status}", key_refused=status in (401, 403))
    assert expected == classify(TdAnswer(status, body), SENT)


NO_PROOF = Outcome(Event.UNANSWERED, "undocumented_answer")
OTHERS = [json.dumps(SENT | {name: "other"}).encode() for name in ("unique_id", "database", "table")]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, TAKEN, ACCEPTED),
        (200, b'{"md5_hex": "%s"}' % MD5.encode(), ACCEPTED),
        (200, json.dumps(SENT | {"md5_hex": "1"}).encode(), Outcome(Event.UNANSWERED, "md5_mismatch")),
        *((200, body, NO_PROOF) for body in (b"{}", b"", TAKEN[:-1], *OTHERS)),
        *((status, TAKEN, Outcome(Event.UNANSWERED, f"http_{status}")) for status in (202, 206)),
        # Treasure Data's own clients know this member
        (409, refusal(409, details={"conflicts_with": 1}), ACCEPTED),
    ],
)
def test_only_the_md5_of_our_bytes_proves_a_success(status: int, body: bytes, expected: Outcome) -> None:
    """In a 200 that contradicts nothing we sent. Another one proves that Treasure Data has other bytes."""
    assert expected == classify(TdAnswer(status, body), SENT)


Handler = Callable[[Request], Response]


def client_of(handle: Handler, clock: ManualClock | None = None, key: str = API_KEY) -> SiteClient:
    """Return a client whose requests are handled in process."""
    clock = clock or ManualClock()
    secret = Secret(StaticSecrets(td=key), "td", clock)
    return SiteClient(InProcess(handle, clock), "http://import", "http://api", secret, clock)


def imported(client: TreasureDataClient) -> Outcome:
    """Import no rows."""
    return client.send("shop_db", "views", UNIQUE_ID, compress(b""), 10)


@pytest.mark.parametrize(
    ("fault", "reason", "surely_not"),
    [
        (Fault(kind=Kind.REFUSE), "connection_refused", True),
        (Fault(kind=Kind.UNREACHABLE), "connect_timeout", True),
        (Fault(kind=Kind.HANG), "timeout", False),
        (Fault(kind=Kind.RESET), "connection_lost", False),
        (Fault(kind=Kind.CLOSE), "connection_lost", False),
    ],
)
def test_only_failed_connects_prove_that_nothing_landed(fault: Fault, reason: str, surely_not: bool) -> None:
    """After a connection is made, the rows may have been accepted."""
    clock = ManualClock()
    td = with_tables(TreasureData(clock=clock), "shop_db.views")
    td.faults.add(fault)

    assert Outcome(Event.UNANSWERED, reason, surely_not) == imported(client_of(td.handle, clock))
    assert clock.now() - START <= 10


def test_an_import_equals_the_official_client_s_request() -> None:
    """td-client sends the same headers and bytes for the same rows."""
    stream = b"".join(msgpack.packb(row(f"e{n}", n=n, text="ü")) for n in range(20))
    body, received, clock = compress(stream), list[Request](), ManualClock()

    def handle(request: Request) -> Response:
        received.append(request)
        return Response(200, b'{"elapsed_time":0}')

    key = Secret(StaticSecrets(td=API_KEY), "td", clock)
    with HttpServer(handle) as server, PoolManager() as pool:
        client = TreasureDataClient(pool, server.url, server.url, key, clock)
        client.send("shop_db", "views", UNIQUE_ID, body, 5)
        with closing(tdclient.api.API(API_KEY, endpoint=f"{server.url}/")) as official:
            official.import_data("shop_db", "views", "msgpack.gz", body, len(body), unique_id=UNIQUE_ID)
    our, their = received
    ours, theirs = ({name.lower(): value for name, value in one.headers} for one in received)
    differing = {name for name in ours if ours[name] != theirs.get(name)}

    assert (their.method, their.segments) == (our.method, our.segments)
    assert stream == gzip.decompress(our.body) == gzip.decompress(their.body)
    assert theirs.keys() == ours.keys()
    assert differing <= {"date", "user-agent"}
    assert "Tue, 14 Nov 2023 22:13:20 -0000" == ours["date"]
    assert ours["user-agent"].startswith("Sluice/")


def asked(handle: Handler, *chunks: Sequence[object], key: str = API_KEY) -> list[Presence]:
    """Return the client's answers to whether the rows of chunks are there."""
    clock = ManualClock()
    until = Deadline(clock, clock.now() + 60)
    return client_of(handle, clock, key).ask("shop_db", "views", chunks, until, START)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([{}], Presence.PRESENT),
        # equal rows count once
        ([{}, {}, {"event_id": "e2"}], Presence.PRESENT),
        *(([change], Presence.ABSENT) for change in ({"event_id": "e3"}, {"time": 1}, {"received_at": 5})),
    ],
)
def test_rows_are_found_by_what_identifies_them(changes: list[dict[str, Any]], expected: Presence) -> None:
    """That is their event id, time and arrival, however often Treasure Data has a row."""
    td = with_tables(TreasureData(), "shop_db.views")
    put(td, "shop_db.views", [row("e1"), row("e1"), row("e2")])

    assert [expected] == asked(td.handle, [row("e1") | change for change in changes])


def job(status: str, **changes: Any) -> tuple[int, bytes]:
    """Return an answer about a job."""
    empty = dict.fromkeys(("cpu_time", "created_at", "duration", "end_at", "result_size", "updated_at"))
    shown = {"job_id": "7", "status": status, "num_records": 1, "start_at": "2023-11-14T22:13:20Z"}
    return 200, json.dumps(empty | shown | changes).encode()


def document(**members: Any) -> tuple[int, bytes]:
    """Return a 200 answer with a JSON object."""
    return 200, json.dumps(members).encode()


ISSUED = document(job="7", job_id="7", database="shop_db")
SUCCESS, FAILED, ZERO = job("success"), job("error"), (200, b"[0]\n")
SHOWN = document(name="views", schema='[["event_id", "string"], ["received_at", "long"]]')
HIDDEN = document(name="views", schema="[]")
MISTYPED = document(name="views", schema='[["event_id","long"],["received_at","long"]]')
GONE = (404, refusal(404))
UNCLEAR = [b"[2]\n", b"", b"[]\n", b"[1]\n[1]\n", b"[0,0]\n", b"[[1]]\n", b"1\n", b"[0.0]\n", b'["0"]\n']
UNCLEAR += [b"[false]\n", b"[-1]\n", b'{"count": 1}\n', b"<html>", b"[\xff]"]
"""Results of a job that are anything but one line with an array of one count, or count more rows than were asked for."""


def answering(*answers: tuple[int, bytes]) -> Handler:
    """Return a Treasure Data that gives these answers in turn, and then HTML pages."""
    script = iter(answers)
    return lambda _: Response(*next(script, (200, b"<html>")))


UNSETTLING: list[tuple[tuple[int, bytes], ...]] = [
    *((answer,) for answer in ((500, b"{}"), (307, ISSUED[1]), (403, b"<html>"), (404, b"<html>"), GONE)),
    (document(job_id="7"),),
    (document(job="7", job_id="7", database="other"),),
    (document(job="", job_id="", database="shop_db"),),
    *(
        (GONE, document(databases=names))
        for names in (None, [{"name": "shop_db"}], [{"name": "other"}, {"name": 7}])
    ),
    (GONE, (206, b'{"databases":[]}')),
    (ISSUED, *[(404, b"{}")] * 20),
    (ISSUED, *[job("running")] * 20),
    (ISSUED, job("success", job_id="8"), ZERO, SHOWN),
    (ISSUED, job("killed")),
    (ISSUED, job("success", num_records=2), ZERO, SHOWN),
    (ISSUED, job("success", num_records=None), ZERO, SHOWN),
    *((ISSUED, SUCCESS, (status, b"[0]"), SHOWN) for status in (503, 206)),
    (ISSUED, job("success", start_at="2023-11-14T22:13:19Z"), ZERO, SHOWN),
    (ISSUED, job("success", start_at="soon"), ZERO, SHOWN),
    *((ISSUED, SUCCESS, (200, result), SHOWN) for result in UNCLEAR),
    *((ISSUED, SUCCESS, ZERO, shown) for shown in (HIDDEN, MISTYPED, (404, b"<html>"))),
    (ISSUED, SUCCESS, ZERO, document(schema=json.loads(SHOWN[1])["schema"])),
    (ISSUED, SUCCESS, ZERO, document(name="views", schema="[1]")),
    (ISSUED, SUCCESS, ZERO, HIDDEN, ISSUED, SUCCESS, (200, b"[1]")),
    (ISSUED, FAILED),
    (ISSUED, FAILED, HIDDEN, ISSUED, SUCCESS, (200, b"[1]")),
    (ISSUED, FAILED, SHOWN, ISSUED, FAILED),
    (ISSUED, FAILED, (404, b"<html>"), document(tables=[])),
    (ISSUED, FAILED, GONE),
    (ISSUED, FAILED, GONE, document(tables=[{"name": "views"}])),
]
"""Answers of which one on the way is not exactly the documented one."""


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((ISSUED, SUCCESS, (200, b"[1]")), Presence.PRESENT),
        ((ISSUED, job("success", start_at="2023-11-14T22:13:19Z"), (200, b"[1]")), Presence.PRESENT),
        ((ISSUED, SUCCESS, ZERO, SHOWN), Presence.ABSENT),
        ((ISSUED, job("running"), SUCCESS, ZERO, SHOWN), Presence.ABSENT),
        ((ISSUED, job("success", start_at="2023-11-14 22:13:20 UTC"), ZERO, SHOWN), Presence.ABSENT),
        ((ISSUED, SUCCESS, ZERO, HIDDEN, ISSUED, SUCCESS, ZERO), Presence.ABSENT),
        ((ISSUED, FAILED, HIDDEN, ISSUED, SUCCESS, ZERO), Presence.ABSENT),
        ((ISSUED, FAILED, GONE, document(tables=[])), Presence.ABSENT),
        ((GONE, document(databases=[{"name": "other"}])), Presence.ABSENT),
        (((403, refusal(403)),), Presence.UNASKABLE),
        (((401, refusal(401)),), Presence.UNASKABLE),
        *((answers, Presence.UNDECIDED) for answers in UNSETTLING),
    ],
)
def test_only_documented_answers_settle(answers: tuple[tuple[int, bytes], ...], expected: Presence) -> None:
    """One that is not leaves it undecided."""
    assert [expected] == asked(answering(*answers), [row("e1")])


NOT_SETTLED = Outcome(Event.UNANSWERED, "create_unanswered", surely_not=True)
refused = partial(Outcome, surely_not=True, words="m")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (document(database="shop_db", table="views", type="log"), ACCEPTED),
        *(
            (one, NOT_SETTLED)
            for one in (document(database="shop_db"), document(database="shop_db", table="other"))
        ),
        *((one, NOT_SETTLED) for one in ((200, b"<html>"), (404, b"<html>"), (409, b"{}"))),
        ((201, b'{"database":"shop_db","table":"views"}'), NOT_SETTLED),
        ((401, refusal(401)), refused(Event.UNANSWERED, "http_401")),
        ((403, refusal(403)), refused(Event.REFUSED, "may_not_create")),
        ((404, refusal(404)), refused(Event.UNANSWERED, "create_http_404", lacks_table=True)),
        ((409, refusal(409)), ACCEPTED),
        ((422, refusal(422)), refused(Event.REFUSED, "create_http_422")),
        ((503, refusal(503)), refused(Event.UNANSWERED, "create_http_503")),
    ],
)
def test_only_treasure_data_s_answers_decide_a_creation(answer: tuple[int, bytes], expected: Outcome) -> None:
    """Any other answer does not show whether a table was created, exists or cannot be created."""
    assert expected == client_of(answering(answer)).create_table("shop_db", "views", 5)


def test_only_documented_answers_count_for_listings_and_status() -> None:
    """An HTML page does not prove a database gone, a key known, or Treasure Data available."""
    page = (200, b"<html>")
    other, own = (document(databases=[{"name": one}]) for one in ("other", "shop_db"))

    def clients(*answers: tuple[int, bytes]) -> list[TreasureDataClient]:
        return [client_of(answering(one)) for one in answers]

    databases = [one.missing_databases(["shop_db"]) for one in clients(other, own, page, GONE)]
    assert [["shop_db"], [], None, None] == databases
    known = [one.knows_key() for one in clients(other, (403, refusal(403)), (403, b""), page)]
    assert [True, True, False, False] == known
    assert [True, False, False] == [one.answers() for one in clients(document(status="ok"), page, document())]
    shown = [one.shows_columns("shop_db", "views") for one in clients(SHOWN, HIDDEN, page, GONE)]
    assert [True, False, None, None] == shown
    right = client_of(TreasureData().handle)
    assert [True, True] == [right.answers(), right.knows_key()]


def test_a_secret_without_a_value_settles_nothing() -> None:
    """Nothing is sent, asked or created."""
    handle = TreasureData().handle
    client = client_of(handle, key=" ")

    assert Outcome(Event.UNANSWERED, "no_key", surely_not=True, key_refused=True) == imported(client)
    assert [Presence.UNDECIDED] == asked(handle, [row("e1")], key=" ")
    created = client.create_table("shop_db", "views", 5), client.create_database("shop_db", 5)
    assert (NOT_SETTLED, NOT_SETTLED) == created
    assert [False, False] == [client.answers(), client.knows_key()]


def test_an_endless_answer_is_cut_off_and_redirects_are_not_followed() -> None:
    """It costs a limited number of bytes, and does not count as a delivery. Rows and key go only to the addresses in the settings."""
    endless = TAKEN[:-1] + b" " * (1 << 16) + b"}"

    assert NO_PROOF == imported(client_of(answering((200, endless))))
    handle = Mock(return_value=Response(307, b"", (("Location", "http://elsewhere/x"),)))
    assert Outcome(Event.UNANSWERED, "http_307") == imported(client_of(handle))
    assert 1 == handle.call_count


CHUNK = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=4, unique_by=lambda one: one[0])
CHUNKS = st.lists(CHUNK, min_size=1, max_size=6)
"""Chunks of rows: each row's number, and whether Treasure Data has it."""
STRANGE = "it's \"/1 {0} %s; --\n"


@given(
    chunks=CHUNKS, unidentified=st.dictionaries(st.integers(0, 5), st.sampled_from([{"time": 1}, 7, None]))
)
def test_each_chunk_gets_its_own_answer_from_one_query(
    chunks: list[list[tuple[int, bool]]], unidentified: dict[int, object]
) -> None:
    """Present if all its rows are there, absent if none is, else undecided; unaskable only if no query can identify its rows."""
    rows: list[list[Any]] = [
        [row(f"{place}-{number}{STRANGE}") for number, _ in chunk]
        + [unidentified[one] for one in unidentified if one == place]
        for place, chunk in enumerate(chunks)
    ]
    there = [
        one
        for chunk, found in zip(chunks, rows, strict=True)
        for (_, is_there), one in zip(chunk, found, strict=False)
        if is_there
    ]
    td = with_tables(TreasureData(), "shop_db.views")
    put(td, "shop_db.views", [row("other"), *there])

    def expected(place: int) -> Presence:
        if not chunks[place] or place in unidentified:
            return Presence.UNASKABLE
        found = {is_there for _, is_there in chunks[place]}
        if found == {True}:
            return Presence.PRESENT
        return Presence.ABSENT if found == {False} else Presence.UNDECIDED

    answers = asked(td.handle, *rows)

    assert [expected(place) for place in range(len(chunks))] == answers
    assert td.queries <= 1
    assert answers == [answer for one in rows for answer in asked(td.handle, one)]


def test_a_table_that_does_not_show_our_columns_is_asked_by_time_for_all_chunks_at_once() -> None:
    """The second query has a count for each chunk too: only the one of a second without rows is absent."""
    td = with_tables(TreasureData(), "shop_db.views")
    put(td, "shop_db.views", [{"time": 1_700_000_000, "x": 1}])
    chunks = [[row("e1")], [row("e2", time=1_700_000_001)]]

    assert [Presence.UNDECIDED, Presence.ABSENT] == asked(td.handle, *chunks)
    assert 2 == td.queries
