"""The routes under `/-/`, which TD does not have: what it has accepted, and faults to set."""

import json
from typing import TYPE_CHECKING

from doubles.http_server import Request, Response
from doubles.treasure_data.fault import Fault
from doubles.treasure_data.response import answer, error

if TYPE_CHECKING:
    from doubles.treasure_data.core import TreasureData


def control(td: "TreasureData", request: Request) -> Response:
    """Carry out a request of the local stack or its tests.

    - `GET /-/counts`: {database: {table: rows}}
    - `GET /-/event_ids`: {database: {table: [event id]}}
    - `GET /-/rows?limit=`: {"rows": [{"database", "table", "at", "row"}]}, the latest first, at most `limit`
    - `POST`, `DELETE /-/faults`: set a fault, an object; remove all
    - `POST /-/lose` with {"database", "table", "begin", "end"}: {"lost": n}
    """
    try:
        match request.method, request.segments[1:]:
            case "GET", ("counts",):
                return answer(td.counts())
            case "GET", ("event_ids",):
                return answer(td.event_ids())
            case "GET", ("rows",):
                return answer({"rows": td.latest(int(request.target.partition("?limit=")[2]))})
            case "POST", ("faults",):
                td.faults.add(Fault.from_document(json.loads(request.body)))
                return answer({})
            case "DELETE", ("faults",):
                td.faults.clear()
                return answer({})
            case "POST", ("lose",):
                return answer({"lost": td.lose(**json.loads(request.body))})
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        return error(400, f"{type(problem).__name__}: {problem}")
    return error(404, f"there is no {request.method} {request.target}")
