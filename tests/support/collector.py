"""A collector for the browser SDK's tests: the real ingest behind the local gateway, with faults to switch on.

`python -m tests.support.collector` prints its address and keys and runs until its input ends. Beside the ingest's
routes it accepts events of other trackers on their routes, so that all can be compared under the same faults, and it has
routes for the tests:

| route | |
|---|---|
| `POST /-/fault` | the body names one of FAULTS, for all requests until the next fault is set |
| `GET /-/events` | the rows on the stream and in the queue, and the events of other trackers' requests, each with its table |
| `GET /-/requests` | method, target, size in bytes, content type and body of each request except the tests' own |
| `POST /-/reset` | forgets everything and ends the fault |
"""

import json
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

from doubles.gateway import Gateway
from doubles.http_server import Drop, Request, Response
from shared import write_key
from shared.envelope import Envelope
from tests.support.ingest import SECRETS, Site, rows_of

FAULTS = {
    "none": "everything is accepted",
    "unavailable": "the ingest's own 503 with Retry-After; nothing is accepted",
    "broken": "a gateway's 500, which no page can read because it allows no origin",
    "hanging": "nothing is accepted, and there is no response",
    "deaf": "everything is accepted, and there is no response",
    "slow": "everything is accepted, and responses are three seconds late",
    "rejecting": "the key is rejected",
    "dying": "everything is accepted, and the connection closes without a response; a retry is answered",
}
RETRY_AFTER_SECONDS = 1
SLOW_SECONDS = 3.0
HANGING_SECONDS = 20.0
"""Longer than the SDK waits."""

Result = dict[str, Any]
Event = Mapping[str, Any]


class Collector:
    """The handler behind the gateway.

    Args:
        allowed_origins: the origins whose pages may read the ingest's responses.
    """

    def __init__(self, allowed_origins: tuple[str, ...] = ("*",)) -> None:
        self._allowed_origins = allowed_origins
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._reset()

    def release(self) -> None:
        """Continue all requests that a fault holds."""
        self._released.set()
        self._released = threading.Event()

    def _reset(self) -> None:
        self.release()
        self._fault = "none"
        self._site = Site(self._allowed_origins)
        self._site.clock.now = time.time  # type: ignore[method-assign]  # real visits need real time
        self._others: list[dict[str, Any]] = []
        self._requests: list[dict[str, Any]] = []
        self._died: set[bytes] = set()

    def dies(self, method: str, body: bytes) -> bool:
        """Return whether the connection of this accepted request must close without a response."""
        if self._fault != "dying" or method != "POST" or body in self._died:
            return False
        self._died.add(body)
        return True

    def record(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes, _event: Event | None
    ) -> None:
        """Remember a request."""
        if target.startswith("/-/"):
            return
        head = len(f"{method} {target} HTTP/1.1\r\n\r\n") + sum(
            len(f"{name}: {value}\r\n") for name, value in headers
        )
        kinds = [value for name, value in headers if name.lower() == "content-type"]
        self._requests.append(
            {
                "method": method,
                "target": target,
                "bytes": head + len(body),
                "type": kinds[0] if kinds else "",
                "body": body.decode(errors="replace"),
            }
        )

    def __call__(self, event: Event, _context: object) -> Result:
        """Answer one request; the event and the result are of payload format 2.0."""
        path, method = event["rawPath"], event["requestContext"]["http"]["method"]
        if path.startswith("/-/"):
            return self._control(path, event.get("body") or "")
        fault, released = self._fault, self._released
        if method != "OPTIONS":
            if fault == "hanging":
                released.wait(HANGING_SECONDS)
                return _result(503)
            if fault == "broken":
                return {"statusCode": 500, "headers": {}, "body": '{"message":"Internal Server Error"}'}
            if fault == "unavailable":
                return self._refuse(event, 503, {"retry-after": str(RETRY_AFTER_SECONDS)})
            if fault == "rejecting":
                return self._refuse(event, 401, {})
        with self._lock:
            result = self._take(path, method, event)
        if method != "OPTIONS":
            if fault == "deaf":
                released.wait(HANGING_SECONDS)
            if fault == "slow":
                released.wait(SLOW_SECONDS)
        return result

    def _take(self, path: str, method: str, event: Event) -> Result:
        other = _OTHERS.get(path.rpartition("/")[0])
        if other is not None:
            if method == "OPTIONS":
                return _result(204, event)
            self._others += [{"table": "other", **found} for found in other(json.loads(_body(event)))]
            return _result(200, event, _ANSWERS.get(path, "{}"))
        return self._site.handler(event, None)

    def _refuse(self, event: Event, status: int, headers: Mapping[str, str]) -> Result:
        result = _result(status, event, '{"error":{"code":"stream_unavailable","message":"a test\'s fault"}}')
        result["headers"] |= headers | {"access-control-expose-headers": "retry-after, x-sluice-error"}
        return result

    def _control(self, path: str, body: str) -> Result:
        match path:
            case "/-/fault":
                if body not in FAULTS:
                    return _result(400)
                self._fault = body
                return _result(200)
            case "/-/reset":
                self._reset()
                return _result(200)
            case "/-/requests":
                return _result(200, text=json.dumps(self._requests))
            case "/-/events":
                return _result(200, text=json.dumps(self._events() + self._others))
        return _result(404)

    def _events(self) -> list[dict[str, Any]]:
        """Return the rows that will be delivered. Only one copy of each envelope counts."""
        counted: dict[str, Envelope] = {}
        with self._lock:
            for item in (*self._site.envelopes(), *self._site.queued()):
                counted.setdefault(item.request_id, item)
        return [{"table": table, **row} for item in counted.values() for table, row in rows_of(item)]


def _body(event: Event) -> bytes:
    text = event.get("body") or ""
    return b64decode(text) if event["isBase64Encoded"] else text.encode()


def _treasure_data(body: Any) -> list[dict[str, Any]]:
    return [event for event in body["events"] if isinstance(event, dict)]


def _plausible(body: Any) -> list[dict[str, Any]]:
    return [{"name": body["n"], **(body.get("p") or {})}] if body["n"] != "engagement" else []


def _snowplow(body: Any) -> list[dict[str, Any]]:
    return [{"n": int(event["se_va"])} for event in body["data"] if "se_va" in event]


_OTHERS: Mapping[str, Callable[[Any], list[dict[str, Any]]]] = {
    "/other_database": _treasure_data,
    "/api": _plausible,
    "/com.snowplowanalytics.snowplow": _snowplow,
}
"""By the path's folder, a function that extracts the events from a request's body."""
_ANSWERS = {"/api/event": "ok", "/com.snowplowanalytics.snowplow/tp2": "ok"}


def _result(status: int, event: Event | None = None, text: str = "") -> Result:
    """Return a response that the requesting page may read, with credentials."""
    headers = {"content-type": "application/json", "access-control-allow-origin": "*"}
    sent = event["headers"] if event else {}
    if "origin" in sent:
        headers |= {
            "access-control-allow-origin": sent["origin"],
            "access-control-allow-credentials": "true",
            "access-control-allow-headers": sent.get("access-control-request-headers", ""),
            "access-control-max-age": "7200",
        }
    return {"statusCode": status, "headers": headers, "body": text}


class _Front(Gateway):
    """A gateway whose connections can die."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        super().__init__(collector, record=collector.record)

    def _respond(self, request: Request) -> Response:
        reply = super()._respond(request)
        is_control = request.target.startswith("/-/")
        if not is_control and self._collector.dies(request.method, request.body):
            return Response(drop=Drop.CLOSE)
        return reply


def main() -> None:
    """Serve until the input ends."""
    collector = Collector(tuple(sys.argv[1:]) or ("*",))
    with _Front(collector) as gateway:
        keys = {account: write_key.sign(account, "k1", SECRETS["k1"]) for account in ("shop", "outlet")}
        print(json.dumps({"url": gateway.url, "keys": keys}), flush=True)  # noqa: T201 -- for whoever started it
        sys.stdin.read()
        collector.release()


if __name__ == "__main__":
    main()
