"""A collector for the browser SDK's tests: the real ingest behind the local gateway, with faults to switch on.

`python -m tests.support.collector` prints its address and keys and runs until its input ends. Beside the ingest's
routes it accepts events of other trackers on their routes, so that all can be compared under the same faults, and it has
routes for the tests:

| route | |
|---|---|
| `POST /-/fault` | the body names a fault of FlakyIngest, for all requests until the next fault is set |
| `GET /-/events` | the rows on the stream and in the queue, and the events of other trackers' requests, each with its table |
| `GET /-/requests` | method, target, size in bytes, content type and body of each request except the tests' own |
| `POST /-/reset` | forgets everything and ends the fault |
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, get_args, override

from doubles.http_server import Request, Response
from shared import write_key
from tests.support.flaky_ingest import Fault, FlakyIngest, readable
from tests.support.ingest import SECRETS

HANGING_SECONDS = 20.0
"""Longer than the SDK waits."""


_OTHERS: Mapping[str, Callable[[Any], list[dict[str, Any]]]] = {
    # Treasure Data, Plausible and Snowplow
    "/other_database": lambda body: [event for event in body["events"] if isinstance(event, dict)],
    "/api": lambda body: [{"name": body["n"], **(body.get("p") or {})}] if body["n"] != "engagement" else [],
    "/com.snowplowanalytics.snowplow": lambda body: [
        {"n": int(event["se_va"])} for event in body["data"] if "se_va" in event
    ],
}
"""By the path's folder, a function that extracts the events from a request's body."""
_ANSWERS = {"/api/event": "ok", "/com.snowplowanalytics.snowplow/tp2": "ok"}


class Collector(FlakyIngest):
    """Serves the ingest, other trackers' routes and the tests' own. Pages of `origins` may read the ingest's responses."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = origins
        super().__init__(HANGING_SECONDS)

    @override
    def renew(self, *origins: str) -> None:
        super().renew(*(origins or self._origins))
        self.fault = "none"
        self.requests.clear()
        self._others: list[dict[str, Any]] = []

    @override
    def take(self, request: Request) -> Response:
        path = request.target.partition("?")[0]
        other = _OTHERS.get(path.rpartition("/")[0])
        if other is None:
            return super().take(request)
        if request.method == "OPTIONS":
            return Response(204, headers=readable(request))
        self._others += [{"table": "other", **found} for found in other(json.loads(request.body))]
        return Response(200, _ANSWERS.get(path, "{}").encode(), readable(request))

    @override
    def _respond(self, request: Request) -> Response:
        match request.target, request.body.decode(errors="replace"):
            case "/-/fault", name if name in get_args(Fault):
                self.fault = name  # type: ignore[assignment]  # it is one of them
            case "/-/reset", _:
                self.renew()
            case "/-/requests", _:
                return _json([_shown(one) for one in self.requests])
            case "/-/events", _:
                return _json([{"table": table, **row} for table, row in self.table_rows()] + self._others)
            case path, _ if path.startswith("/-/"):
                return Response(400)
            case _:
                return super()._respond(request)
        return Response()


def _json(value: Any) -> Response:
    return Response(200, json.dumps(value).encode())


def _shown(request: Request) -> dict[str, Any]:
    head = [f"{request.method} {request.target} HTTP/1.1\r\n\r\n"]
    head += [f"{name}: {value}\r\n" for name, value in request.headers]
    return {
        "method": request.method,
        "target": request.target,
        "bytes": sum(map(len, head)) + len(request.body),
        "type": request.header("content-type"),
        "body": request.body.decode(errors="replace"),
    }


def main() -> None:
    """Serve until the input ends."""
    with Collector(tuple(sys.argv[1:]) or ("*",)) as collector:
        keys = {account: write_key.sign(account, "k1", SECRETS["k1"]) for account in ("shop", "outlet")}
        print(json.dumps({"url": collector.url, "keys": keys}), flush=True)  # noqa: T201 -- for whoever started it
        sys.stdin.read()


if __name__ == "__main__":
    main()
