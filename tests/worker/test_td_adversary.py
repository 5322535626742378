"""Worker and sender against an adversary at Treasure Data's address.

It answers each request as it likes: any documented answer of any call, with any status, cut off or not, whether or not the
request was carried out. Only false proof is off limits: of the answers that docs/internals/delivery.md says are believed (restated
here), it gives only true ones.
"""

import json
from collections import Counter
from hashlib import md5
from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.treasure_data import Request, Response
from tests.support.delivery import Delivery, envelope, row
from worker.states import State

ACCOUNTS = {"shop": "shop_db", "blog": "blog_db"}
STATUSES = (
    200,
    201,
    202,
    204,
    206,
    301,
    307,
    400,
    401,
    403,
    404,
    405,
    408,
    409,
    413,
    422,
    429,
    500,
    502,
    503,
)
JOB_MEMBERS = ("cpu_time", "created_at", "duration", "end_at", "result_size", "updated_at")
LATE, EARLY = "2100-01-01T00:00:00Z", "2000-01-01T00:00:00Z"


def error(status: int) -> dict[str, Any]:
    """Return Treasure Data's error document."""
    return {"error": "e", "message": "m", "text": "t", "severity": "error", "status_code": status}


def documents(request: Request) -> list[Any]:
    """Return documents that some call may answer, about the names in this request or about others."""
    names = [*request.segments, "other", "other", "other"]
    database, table, unique_id = names[3:6]
    checksums = [md5(body, usedforsecurity=False).hexdigest() for body in (request.body, b"", b"other")]
    jobs = [names[3], "999"]
    return [
        *map(error, STATUSES),
        *[
            {"elapsed_time": 0, "md5_hex": one, "database": database, "table": table, "unique_id": unique_id}
            for one in checksums
        ],
        {"database": database, "table": table, "type": "log"},
        {"database": database},
        {"job": "999", "job_id": "999", "database": names[-4]},
        {"job": "999", "job_id": "999", "database": "other"},
        *[
            dict.fromkeys(JOB_MEMBERS)
            | {"job_id": job, "status": status, "num_records": count, "start_at": at}
            for job in jobs
            for status in ("queued", "running", "success", "error", "killed")
            for count in (0, 1, 2)
            for at in (LATE, EARLY, None)
        ],
        {"databases": []},
        {"databases": [{"name": name} for name in ("other", *ACCOUNTS.values())]},
        {"tables": []},
        {"tables": [{"name": "views"}]},
        {"database": database, "name": names[4], "schema": "[]"},
        {"name": names[4], "schema": '[["event_id","string"],["received_at","long"]]'},
        {"status": "ok"},
        *([count] for count in range(4)),
        [0, 0],
        [],
        {},
    ]


def proves(request: Request, status: int, document: Any) -> bool:
    """Return whether an answer would prove something."""
    refusal = document == error(status)
    match request.segments[1:]:
        case ("table", "import_with_id", database, table, unique_id, _):
            if status == 200 and isinstance(document, dict):
                sent = {
                    "md5_hex": md5(request.body, usedforsecurity=False).hexdigest(),
                    "database": database,
                    "table": table,
                    "unique_id": unique_id,
                }
                return sent.items() <= document.items()
            return refusal and 400 <= status < 500 and status != 408
        case ("job", "status", job):
            return status == 200 and isinstance(document, dict) and document.get("job_id") == job
        case ("job", "result", _):
            return status == 200 and isinstance(document, list) and len(document) == 1
        case ("database" | "table", "list", *_):
            return (
                status == 200
                and isinstance(document, dict)
                and not document.keys().isdisjoint(("databases", "tables"))
            )
    return False


def is_true(request: Request, status: int, document: Any, honest: Response | None) -> bool:
    """Return whether a proof is true, given the honest answer if the request was carried out."""
    if "import_with_id" in request.segments:
        is_acceptance = status in (200, 409)
        return is_acceptance is (honest is not None and honest.status == 200)
    if "status" in request.segments:  # a status other than success proves nothing
        return bool(document["status"] != "success")
    if "list" in request.segments:
        return {"name": "shop_db"} in document.get("databases", ()) or "views" in str(document.get("tables"))
    return honest is not None and honest.status == 200 and json.loads(honest.body) == document


class Adversary:
    """Answers in place of Treasure Data.

    Args:
        made: the delivery with the double that carries requests out.
        draw: draws from hypothesis.
    """

    def __init__(self, made: Delivery, draw: Any) -> None:
        self._handle = made.td.handle
        self._draw = draw
        self.honest = False

    def __call__(self, request: Request) -> Response:
        """Answer a request."""
        if self.honest or self._draw(st.booleans(), label="honest"):
            return self._handle(request)
        honest = self._handle(request) if self._draw(st.booleans(), label="carried out") else None
        if self._draw(st.booleans(), label="in Treasure Data's words"):
            status = self._draw(
                st.sampled_from((404, 404, 404, 409, 401, 403, 413, 422, 429, 500)), label="status"
            )
            document = error(status)
        else:
            status = self._draw(st.sampled_from((200, 200, *STATUSES)), label="status")
            document = self._draw(st.sampled_from(documents(request)), label="document")
        if proves(request, status, document) and not is_true(request, status, document, honest):
            return Response(status, b"<html>")
        body = json.dumps(document).encode()
        return Response(status, body[: len(body) // 2] if self._draw(st.integers(0, 5)) == 5 else body)


def dead_rows(made: Delivery) -> Counter[str]:
    """Return how often each event is dead."""
    found: Counter[str] = Counter()
    for span in made.spans():
        for key, entry in span.all_leaves():
            if entry.state is State.DEAD:
                unpacker = msgpack.Unpacker()
                unpacker.feed(made.objects.payload(span, key))
                found.update(one["event_id"] for one in unpacker)
    return found


STEPS = st.sampled_from(("deliver", "send", "minutes", "hours", "cold"))


def act(made: Delivery, step: str) -> None:
    """Do one thing that can happen to a stack."""
    match step:
        case "deliver":
            made.deliver()
        case "send":
            made.send()
        case "minutes":
            made.clock.sleep(400)
        case "hours":
            made.clock.sleep(5000)
        case "cold":
            made.start()


@given(st.data(), st.booleans(), st.lists(STEPS, max_size=8))
@settings(max_examples=100, deadline=None)
def test_each_event_ends_in_one_place_whatever_is_answered(
    data: st.DataObject, tables_exist: bool, steps: list[str]
) -> None:
    """That is Treasure Data or a dead chunk.

    Once answers are right, nothing is lost, duplicated or waiting.
    """
    made = Delivery(unaskable_doubt="keep")
    made.map(**ACCOUNTS)
    if tables_exist:
        for database in ACCOUNTS.values():
            made.td.create(database, "views")
    adversary = Adversary(made, data.draw)
    made.td.handle = adversary  # type: ignore[method-assign]
    made.start()
    names = []
    for number, account in enumerate(("shop", "blog", "shop")):
        events = [f"e{number}{n}" for n in range(3)]
        made.put(
            envelope(account, {"views": [row(one, 1_700_000_000 + 3600 * n) for n, one in enumerate(events)]})
        )
        names += events
    for step in ("deliver", *steps, "hours", "send", "send", "hours", "send"):
        act(made, step)
    adversary.honest = True
    made.start()
    made.deliver()
    for _ in range(6):
        act(made, "hours")
        made.send()
    delivered = Counter(one["event_id"] for accepted in made.td.imports() for one in accepted.rows)

    assert {} == made.chunks(State.WAITING)
    assert Counter(names) == delivered + dead_rows(made)
