"""The routes under `/-/`, which TD does not have: what is in it by now, and faults to set."""

from typing import TYPE_CHECKING, Any

from doubles.treasure_data.exchange import JSON, Refusal, Request, Response, answer, error
from doubles.treasure_data.fault import Fault, Faults
from doubles.treasure_data.query_tables import QueryError, as_json

if TYPE_CHECKING:
    from doubles.treasure_data.core import TreasureData


class Control:
    """The routes under `/-/`.

    - `GET /-/counts`: {database: {table: rows}}
    - `GET /-/rows?database=&table=&limit=&after=`: {"rows": [{"number", "database", "table", "at", "row"}]}, the latest
      first, at most `limit` (100), and only those with a number above `after`, so that a page can ask for what is new;
      every parameter may be left out
    - `GET /-/query?database=&query=`: {"columns": [[name, type]], "rows": [[cell]]}
    - `GET`, `POST`, `DELETE /-/faults`: the faults that are set; set one (an object) or several (an array); clear them
    - `POST /-/lose` with {"database", "table", "begin", "end"}: {"lost": n}

    Args:
        td: the stand-in.
    """

    def __init__(self, td: "TreasureData") -> None:
        self._td = td

    def answer(self, request: Request) -> Response:
        """Carry out a request."""
        try:
            return self._route(request)
        except Refusal as refusal:
            return error(refusal.status, refusal.message)
        except (KeyError, TypeError, ValueError) as problem:
            return error(400, f"{type(problem).__name__}: {problem}")
        except QueryError as problem:
            return error(422, str(problem))

    def _route(self, request: Request) -> Response:
        query = request.query
        match request.method, request.segments:
            case "GET", ("-", "counts"):
                return answer(self._td.counts())
            case "GET", ("-", "rows"):
                found = self._td.latest(
                    query.get("database") or None,
                    query.get("table") or None,
                    limit=int(query.get("limit", "100")),
                    after=int(query.get("after", "0")),
                )
                return _shown({"rows": found})
            case "GET", ("-", "query"):
                return _shown(self._td.query(query["database"], query["query"]))
            case "GET" | "POST" | "DELETE", ("-", "faults"):
                return self._faults(request)
            case "POST", ("-", "lose"):
                return answer({"lost": self._td.lose(**request.json)})
        raise Refusal(404, f"there is no {request.method} {request.target}")

    def _faults(self, request: Request) -> Response:
        faults = self._td.faults
        if not isinstance(faults, Faults):
            raise Refusal(409, "the faults are decided in code")
        if request.method == "DELETE":
            faults.clear()
        if request.method == "POST":
            documents: list[dict[str, Any]] = (
                request.json if isinstance(request.json, list) else [request.json]
            )
            for fault in [Fault.from_document(document) for document in documents]:
                faults.add(fault)
        return answer({"faults": [fault.document() for fault in faults.all()]})


def _shown(value: object) -> Response:
    return Response(200, as_json(value), {"Content-Type": JSON})
