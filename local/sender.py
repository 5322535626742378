"""Sends recorded requests to a gateway over several connections at once."""

import http.client
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from doubles.http_server import Response
from local.recording import RecordedRequest
from local.result import EventResult, result_of

_TIMEOUT_SECONDS = 30.0
_PAUSE_SECONDS = 0.2
_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was sent, and the response.

    Attributes:
        account: the account in the write key; empty without one.
        events: what the response says about each event.
        refused: the code with which the whole request was refused; empty if it was not.
        error: why there is no usable response; empty if there is one.
    """

    request: RecordedRequest
    account: str = ""
    events: tuple[EventResult, ...] = ()
    refused: str = ""
    error: str = ""


def send(
    url: str, requests: Iterable[RecordedRequest], connections: int, done: Callable[[Exchange], None]
) -> None:
    """Send the requests in order, and return when each has a response.

    A connection that gets no response pauses for a moment.

    Args:
        url: the gateway's URL.
        requests: what to send; read by one thread at a time, as connections become free.
        connections: number of connections.
        done: called with each exchange when it is complete, by one thread at a time.
    """
    waiting, one_at_a_time = iter(requests), threading.Lock()

    def send_waiting(_: int) -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
        while True:
            with one_at_a_time:
                request = next(waiting, None)
            if request is None:
                break
            exchange = _send(connection, request)
            with one_at_a_time:
                done(exchange)
        connection.close()

    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(send_waiting, range(connections)))  # raises what a connection raised


def _send(connection: http.client.HTTPConnection, request: RecordedRequest) -> Exchange:
    try:
        connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("host", request.header("host"))
        for name, value in request.headers:
            if name.lower() not in _HOP_BY_HOP:
                connection.putheader(name, value)
        if request.body or request.method == "POST":
            connection.putheader("content-length", str(len(request.body)))
        connection.endheaders(request.body or None)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        time.sleep(_PAUSE_SECONDS)
        return Exchange(request, error=f"no response: {type(error).__name__}: {error}")
    return exchange_of(request, Response(response.status, body, tuple(response.getheaders())))


def exchange_of(request: RecordedRequest, response: Response) -> Exchange:
    """Return what a response says about the events of its request, or that it contradicts itself or the request."""
    if request.method == "OPTIONS":
        return Exchange(request)
    try:
        found = result_of(request, response)
    except Exception as error:  # noqa: BLE001 -- unreadable responses are what the demo looks for
        return Exchange(request, error=f"{type(error).__name__}: {error}")
    accepted = sum(not one.code and isinstance(one.event, dict) for one in found.events)
    if not found.refused and found.accepted != accepted:
        return Exchange(
            request,
            error=f"{request.target}: status {response.status}, {found.accepted} of {len(found.events)} events accepted, "
            f"but {len(found.events) - accepted} rejected or unknown: {response.body[:200]!r}",
        )
    return Exchange(request, found.account, found.events, found.refused)
