"""The real ingest behind the local gateway, with a network in between that fails on request."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from doubles.gateway import Gateway
from doubles.http_server import Drop, Request, Response
from shared.envelope import Envelope
from tests.support.ingest import Site, rows_of

Fault = Literal["none", "unavailable", "hanging", "deaf", "reset", "page", "broken", "slow", "dying"]
"""What happens to a request: `none`: it is answered; `unavailable`: the ingest's own 503; `hanging`: it is not accepted and gets
no response; `deaf`: it is accepted and gets no response; `reset`: it is accepted and the connection is reset; `page`: a proxy
answers with its own page and status 200; `broken`: the gateway's own 500, which no page can read because it allows no origin;
`slow`: it is accepted, and answered three seconds later; `dying`: it is accepted and the connection closes; a retry is answered."""
FAULTS: tuple[Fault, ...] = ("none", "unavailable", "hanging", "deaf", "reset", "page")
SLOW_SECONDS = 3.0


class FlakyIngest(Gateway):
    """Serves the ingest. The `fault` strikes all requests but preflights. `on_request` is called when one arrives, and again after it was accepted."""

    def __init__(self, hang_seconds: float) -> None:
        self.fault: Fault = "none"
        self.retry_after = "1"
        self.on_request: Callable[[], None] = lambda: None
        self._hang_seconds = hang_seconds
        self._taking = threading.Lock()
        self.requests: list[Request] = []
        self.renew()
        super().__init__(lambda event, context: self.site.handler(event, context))  # noqa: PLW0108 -- the site changes

    def renew(self, *origins: str) -> None:
        """Forget what was stored. Pages of these origins may read the responses; by default all may."""
        self.site = Site(origins or ("*",))
        self.site.clock.now = time.time  # type: ignore[method-assign]  # real clients need real time
        self._died: set[bytes] = set()

    def table_rows(self) -> list[tuple[str, dict[str, object]]]:
        """Return the rows that will be delivered, with their tables. Only one copy of each envelope counts."""
        counted: dict[str, Envelope] = {}
        with self._taking:
            for item in (*self.site.envelopes(), *self.site.queued()):
                counted.setdefault(item.request_id, item)
        return [row for item in counted.values() for row in rows_of(item)]

    def rows(self) -> list[dict[str, object]]:
        """Return the rows that will be delivered."""
        return [row for _, row in self.table_rows()]

    def take(self, request: Request) -> Response:
        """Answer a request that reaches the ingest."""
        return super()._respond(request)

    def _respond(self, request: Request) -> Response:
        self.requests.append(request)
        self.on_request()
        fault = "none" if request.method == "OPTIONS" else self.fault
        if fault == "unavailable":
            headers = (("retry-after", self.retry_after), ("x-sluice-error", "stream_unavailable"))
            headers += readable(request)
            return Response(503, b'{"error": {"code": "stream_unavailable", "message": "a fault"}}', headers)
        if fault == "page":
            return Response(200, b"<html>log in</html>", (("content-type", "text/html"),))
        if fault == "broken":
            return Response(500, b'{"message":"Internal Server Error"}')
        if fault == "hanging":
            self.stopping.wait(self._hang_seconds)
            return Response(drop=Drop.CLOSE)
        with self._taking:
            reply = self.take(request)
            dies = fault == "dying" and request.method == "POST" and request.body not in self._died
            self._died |= {request.body} if dies else set()
        self.on_request()
        if fault == "slow":
            return replace(reply, delay=SLOW_SECONDS)
        if fault == "deaf":
            self.stopping.wait(self._hang_seconds)
        if fault == "none" or (fault == "dying" and not dies):
            return reply
        return Response(drop=Drop.RESET if fault == "reset" else Drop.CLOSE)


def readable(request: Request) -> tuple[tuple[str, str], ...]:
    """Return headers that let the requesting page read a response, with credentials."""
    return (
        ("content-type", "application/json"),
        ("access-control-allow-origin", request.header("origin") or "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-headers", request.header("access-control-request-headers")),
        ("access-control-max-age", "7200"),
        ("access-control-expose-headers", "retry-after, x-sluice-error"),
    )
