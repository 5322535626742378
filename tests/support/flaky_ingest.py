"""The real ingest behind the local gateway, with a network in between that fails on request."""

import threading
import time
from collections.abc import Callable
from typing import Literal

from doubles.gateway import Gateway
from doubles.http_server import Drop, Request, Response
from shared.envelope import Envelope
from tests.support.ingest import Site, rows_of

Fault = Literal["none", "unavailable", "hanging", "deaf", "reset", "page"]
"""What happens to a request: `none`: it is answered; `unavailable`: the ingest's own 503; `hanging`: it is not accepted and gets
no response; `deaf`: it is accepted and gets no response; `reset`: it is accepted and the connection is reset; `page`: a proxy
answers with its own page and status 200."""
FAULTS: tuple[Fault, ...] = ("none", "unavailable", "hanging", "deaf", "reset", "page")


class FlakyIngest(Gateway):
    """Serves the ingest, as a context manager.

    Args:
        hang_seconds: the longest time that a request hangs; longer than its sender waits.

    Attributes:
        fault: the fault for requests from now on.
        retry_after: the Retry-After header of a 503.
        site: the ingest, and what it has stored.
        requests: the requests that arrived.
        on_request: called when a request arrives, and again after it was accepted.
    """

    def __init__(self, hang_seconds: float = 5.0) -> None:
        self.fault: Fault = "none"
        self.retry_after = "1"
        self.requests: list[Request] = []
        self.on_request: Callable[[], None] = lambda: None
        self._hang_seconds = hang_seconds
        self._taking = threading.Lock()
        self.renew()
        super().__init__(lambda event, context: self.site.handler(event, context))  # noqa: PLW0108 -- the site changes

    def renew(self) -> None:
        """Forget what was stored."""
        self.site = Site()
        self.site.clock.now = time.time  # type: ignore[method-assign]  # real clients need real time

    def rows(self) -> list[dict[str, object]]:
        """Return the rows that will be delivered. Only one copy of each envelope counts."""
        counted: dict[str, Envelope] = {}
        with self._taking:
            for item in (*self.site.envelopes(), *self.site.queued()):
                counted.setdefault(item.request_id, item)
        return [row for item in counted.values() for _, row in rows_of(item)]

    def take(self, request: Request) -> Response:
        """Answer a request that reaches the ingest."""
        return super()._respond(request)

    def _respond(self, request: Request) -> Response:
        self.requests.append(request)
        self.on_request()
        fault = self.fault
        if fault == "unavailable":
            headers = (("retry-after", self.retry_after), ("x-sluice-error", "stream_unavailable"))
            return Response(503, b'{"error": {"code": "stream_unavailable", "message": "a fault"}}', headers)
        if fault == "page":
            return Response(200, b"<html>log in</html>", (("content-type", "text/html"),))
        if fault == "hanging":
            self.stopping.wait(self._hang_seconds)
            return Response(drop=Drop.CLOSE)
        with self._taking:
            reply = self.take(request)
        self.on_request()
        if fault == "deaf":
            self.stopping.wait(self._hang_seconds)
        if fault == "none":
            return reply
        return Response(drop=Drop.RESET if fault == "reset" else Drop.CLOSE)
