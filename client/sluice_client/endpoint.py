"""Sends batches to Sluice's events API and decides what its responses mean."""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ssl import create_default_context
from urllib.parse import urlsplit

from sluice_client.version import VERSION

MAX_BATCH_EVENTS = 500
"""Sluice's limit for a request."""
MAX_BATCH_TABLES = 20
"""The same for tables: of a request that names more, Sluice rejects the events of the others."""
MAX_BATCH_BYTES = 900 * 1024
"""Sluice accepts 1 MiB as sent and 2 MiB once inflated. This limit relies on no compression."""

_MAX_ANSWER_BYTES = 1024 * 1024
_MAX_RETRY_AFTER_SECONDS = 3600.0
_BROKEN = (OSError, HTTPException)
_CAUSED_ON_THE_WAY = ("unreadable_body", "unsupported_encoding")
"""Codes for what only a proxy can do to a request of this client."""


@dataclass(frozen=True)
class Refused:
    """An event of a batch that Sluice will never accept.

    Attributes:
        index: its position in the batch, from 0.
        code: Sluice's error code.
        message: for a person.
    """

    index: int
    code: str
    message: str


@dataclass(frozen=True)
class Settled:
    """Every event of the batch is either durable or in `refused`."""

    refused: Sequence[Refused]


@dataclass(frozen=True)
class Unacceptable:
    """Sluice cannot read the batch as a whole, and never will."""

    code: str
    message: str


@dataclass(frozen=True)
class Unknown:
    """The outcome is unknown: the batch must be sent again.

    Attributes:
        reason: Sluice's error code, `http_STATUS`, or the name of a network error.
        message: for a person.
        after: minimum seconds to wait.
        needs_operator: retries will fail until somebody changes the key, the endpoint, or what is on the way to it.
    """

    reason: str
    message: str
    after: float = 0.0
    needs_operator: bool = False


Answer = Settled | Unacceptable | Unknown


class Endpoint:
    """Sluice's events API; for one thread.

    Args:
        url: Sluice's URL, with or without a path: `https://collect.example.com`.
        key: the write key.
        timeout: seconds to wait for the connection, and for each part of a response.
        now: returns UNIX seconds.

    Raises:
        ValueError: the URL's scheme is not http or https, or it has no host.
    """

    def __init__(self, url: str, key: str, timeout: float, now: Callable[[], float]) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a URL: use one such as https://collect.example.com")
        self._is_tls = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = f"{parts.path.rstrip('/')}/v1/events"
        self._timeout = timeout
        self._now = now
        self._connection: HTTPConnection | None = None
        self._headers = {
            "authorization": f"Bearer {key}",
            "content-type": "application/json",
            "content-encoding": "gzip",
            "user-agent": f"sluice-client/{VERSION}",
        }

    def send(self, batch_id: str, events: Sequence[bytes]) -> Answer:
        """Send a batch. If a kept connection fails other than by a timeout, send it once more on a new one."""
        head = f'{{"batch_id":"{batch_id}","sent_at":{int(self._now())},"events":['
        body = _gzip(b"".join((head.encode(), b",".join(events), b"]}")))
        is_new = self._connection is None
        try:
            try:
                status, headers, answer = self._exchange(body)
            except _BROKEN as error:
                self.close()
                if is_new or isinstance(error, TimeoutError):
                    raise
                status, headers, answer = self._exchange(body)
        except _BROKEN as error:
            self.close()
            return Unknown(type(error).__name__, str(error) or type(error).__name__)
        return meaning(status, headers, answer, len(events), self._now())

    def close(self) -> None:
        """Close the connection; the next `send` opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _exchange(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        connection.request("POST", self._path, body, self._headers)
        response = connection.getresponse()
        answer = response.read(_MAX_ANSWER_BYTES)
        if response.will_close or not response.isclosed():
            self.close()
        return response.status, {name.lower(): value for name, value in response.headers.items()}, answer

    def _connect(self) -> HTTPConnection:
        if self._is_tls:
            context = create_default_context()
            return HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        return HTTPConnection(self._host, self._port, timeout=self._timeout)


def meaning(status: int, headers: Mapping[str, str], body: bytes, events: int, now: float) -> Answer:
    """Return what a response to a batch means.

    Only a response that is certain to come from Sluice settles anything: it has a count that covers all events, or an
    error code in the header `x-sluice-error`. A proxy's page does not, whatever its status.

    Args:
        status: the HTTP status.
        headers: by name in lower case.
        body: the response's body.
        events: number of events in the batch.
        now: UNIX seconds.
    """
    if status in (200, 400) and (refused := _refused(body, events)) is not None:
        return Settled(refused)
    code = headers.get("x-sluice-error", "")
    needs_operator = status < 500 and status not in (408, 425, 429)
    message = f"HTTP status {status}"
    if code:
        message = _message(body) or message
    elif needs_operator:
        message = f"the response is not from Sluice: {message} {headers.get('location', '')}".rstrip()
    if code not in ("", *_CAUSED_ON_THE_WAY) and status in (400, 413):
        return Unacceptable(code, message)
    after = _retry_after(headers.get("retry-after", ""), now)
    return Unknown(code or f"http_{status}", message, after, needs_operator)


def _refused(body: bytes, events: int) -> list[Refused] | None:
    """Return the rejected events that a response lists, None if it does not account for all events."""
    answer = _parse(body)
    if not isinstance(answer, dict):
        return None
    accepted, rejected = answer.get("accepted"), answer.get("rejected")
    if type(accepted) is not int or not isinstance(rejected, list) or accepted + len(rejected) != events:
        return None
    refused = [
        Refused(item["index"], str(item.get("code")), str(item.get("message")))
        for item in rejected
        if isinstance(item, dict) and type(item.get("index")) is int and 0 <= item["index"] < events
    ]
    return refused if len({item.index for item in refused}) == len(rejected) else None


def _message(body: bytes) -> str:
    answer = _parse(body)
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("message", "")) if isinstance(error, dict) else ""


def _parse(body: bytes) -> object:
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed


def _retry_after(text: str, now: float) -> float:
    """Return the seconds that a `Retry-After` header asks for, as a number or a date; 0 if it is neither."""
    try:
        seconds = float(text) if text.strip().isdecimal() else parsedate_to_datetime(text).timestamp() - now
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS)


def _gzip(data: bytes) -> bytes:
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    return compressor.compress(data) + compressor.flush()
