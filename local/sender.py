"""Sends recorded requests to a gateway, as several visitors at once."""

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
    """A request that was sent, and what came back.

    Attributes:
        request: as it was recorded.
        status: of the answer, 0 where none came.
        acknowledgement: what the answer says of the events.
        fault: why no verdict could be had; empty where there is one.
    """

    request: RecordedRequest
    status: int
    acknowledgement: Acknowledgement
    fault: str = ""


def send(
    url: str, requests: Iterable[RecordedRequest], visitors: int, done: Callable[[Exchange], None]
) -> None:
    """Send the requests in their order, and return when all are answered.

    Args:
        url: the gateway's.
        requests: what to send.
        visitors: how many connections send at once.
        done: called, by one thread at a time, with each request as it is answered.
    """
    waiting: queue.SimpleQueue[RecordedRequest] = queue.SimpleQueue()
    for request in requests:
        waiting.put(request)
    one_at_a_time = threading.Lock()

    def visit() -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
        while True:
            try:
                request = waiting.get_nowait()
            except queue.Empty:
                break
            sent = _send(connection, request)
            with one_at_a_time:
                done(sent)
        connection.close()

    threads = [threading.Thread(target=visit, name=f"visitor {number}") for number in range(visitors)]
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
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return Exchange(request, 0, Acknowledgement(), f"no answer: {type(error).__name__}: {error}")
    headers = {name.lower(): value for name, value in answer.getheaders()}
    try:
        return Exchange(request, answer.status, read_acknowledgement(request, answer.status, headers, body))
    except Exception as error:  # noqa: BLE001 -- an answer that cannot be understood is what is looked for
        return Exchange(request, answer.status, Acknowledgement(), f"{type(error).__name__}: {error}")
