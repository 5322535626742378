"""Sends recorded requests to a gateway over several connections at once."""

import http.client
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from local.acknowledgement import Acknowledgement, read_acknowledgement
from local.recording import RecordedRequest

_TIMEOUT_SECONDS = 30.0
_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was sent, and the response.

    Attributes:
        request: the recorded request.
        status: the response's status; 0 if there was no response.
        acknowledgement: what the response says about the events.
        error: why there is no acknowledgement; empty if there is one.
    """

    request: RecordedRequest
    status: int
    acknowledgement: Acknowledgement
    error: str = ""


def send(
    url: str, requests: Iterable[RecordedRequest], connections: int, done: Callable[[Exchange], None]
) -> None:
    """Send the requests in order, and return when each has a response.

    Args:
        url: the gateway's URL.
        requests: what to send.
        connections: number of connections.
        done: called with each exchange when it is complete, by one thread at a time.
    """
    waiting: queue.SimpleQueue[RecordedRequest] = queue.SimpleQueue()
    for request in requests:
        waiting.put(request)
    one_at_a_time = threading.Lock()

    def send_waiting() -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
        while True:
            try:
                request = waiting.get_nowait()
            except queue.Empty:
                break
            exchange = _send(connection, request)
            with one_at_a_time:
                done(exchange)
        connection.close()

    threads = [
        threading.Thread(target=send_waiting, name=f"connection {number}") for number in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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
        return Exchange(request, 0, Acknowledgement(), f"no response: {type(error).__name__}: {error}")
    headers = {name.lower(): value for name, value in response.getheaders()}
    try:
        return Exchange(
            request, response.status, read_acknowledgement(request, response.status, headers, body)
        )
    except Exception as error:  # noqa: BLE001 -- unreadable responses are what the demo looks for
        return Exchange(request, response.status, Acknowledgement(), f"{type(error).__name__}: {error}")
