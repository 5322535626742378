"""Refused requests and rejected events, derived from requests and responses.

The gateway writes them to a file before it responds, so a test that has the response finds them there.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from doubles.http_server import Request, Response
from ingest.refusal import ANSWERS
from shared import names

FILE = "bad.jsonl"
"""The file's name, in the folder of the local stack."""

_MOST_BYTES = 20_000_000
_MOST_LEVELS = 254


@dataclass(frozen=True, slots=True)
class Bad:
    """A refused request, or a rejected event.

    Attributes:
        kind: `refused` or `rejected`.
        at: UNIX seconds.
        account: the account in the write key, whether valid or not; empty without one.
        table: the table as the sender wrote it; empty if unknown.
        code: the error code.
        message: the error message.
        original: the event as sent; for a refused request, its body, or its query if it has no body. One that is nested more than
            254 levels deep is shown as text, or left out.
        index: the event's place in its request; None for a refused request.
        method: the request's method.
        path: the request's path.
        status: the response's status.
    """

    kind: str
    at: float
    account: str
    table: str
    code: str
    message: str
    original: Any
    index: int | None
    method: str
    path: str
    status: int

    @property
    def line(self) -> bytes:
        """All of it as a line of JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(values | {"original": _shown(self.original)}).encode() + b"\n"


def bad_of(request: Request, reply: Response, at: float) -> Iterator[Bad]:
    """Yield the refused request or the rejected events that a response reports."""
    if request.method not in ("GET", "POST"):
        return
    url = urlsplit(request.target)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    body = _value(request)
    answer = _json(reply.body)
    answer = answer if isinstance(answer, dict) else {}
    headers = {name.lower(): text for name, text in reply.headers}
    account = _account(request, query, body)
    rejected = list(_rejected(answer, body))
    named = body.get("table") if isinstance(body, dict) else None
    table = named if isinstance(named, str) else query.get("t", "")
    common: dict[str, Any] = {"at": at, "method": request.method, "path": url.path, "status": reply.status}
    for index, code, message, event in rejected:
        own = event.get("table") if isinstance(event, dict) else None
        of_event = own if isinstance(own, str) else table
        yield Bad(
            "rejected",
            account=account,
            table=of_event,
            code=code,
            message=message,
            original=event,
            index=index,
            **common,
        )
    code = headers.get("x-sluice-error", f"http_{reply.status}" if reply.status >= 400 else "")
    if code and not rejected:
        error = answer.get("error")
        said = error.get("message") if isinstance(error, dict) else None
        known = ANSWERS.get(code)  # type: ignore[call-overload]  # any text
        message = str(said or (known.meaning if known else ""))
        original = query if body is None else body
        yield Bad(
            "refused",
            account=account,
            table=table,
            code=code,
            message=message,
            original=original,
            index=None,
            **common,
        )


def _rejected(answer: Mapping[str, Any], body: Any) -> Iterator[tuple[int, str, str, Any]]:
    """Yield index, code, message and original of each event that a response reports as rejected."""
    match answer:
        case {"rejected": list(items)}:
            for item in items:
                yield item["index"], item["code"], item["message"], _event(body, item["index"])
        case {"receipts": list(items)}:
            yield from _failed(items, body)
        case _ if answer and all(isinstance(items, list) for items in answer.values()):
            for name, items in answer.items():
                yield from _failed(items, body.get(name) if isinstance(body, dict) else None)


def _failed(receipts: list[Any], body: Any) -> Iterator[tuple[int, str, str, Any]]:
    for index, receipt in enumerate(receipts):
        if isinstance(receipt, dict) and receipt.get("success") is False:
            code, _, message = str(receipt.get("error", {}).get("description", "")).partition(": ")
            yield index, code, message, _event(body, index)


def _event(body: Any, index: int) -> Any:
    """Return the event at an index of a body; None if there is none."""
    events: Any = body
    if isinstance(body, dict):
        events = body.get("events", body.get("records", [body]))
    return events[index] if isinstance(events, list) and index < len(events) else None


def _value(request: Request) -> Any:
    """Return a request's body as a JSON value or text; None without a body."""
    data = request.body
    if data[:2] == b"\x1f\x8b":
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, _MOST_BYTES)
        except zlib.error:
            return repr(data[:200])
    if not data:
        return None
    value = _json(data)
    return data.decode(errors="backslashreplace") if value is None else value


def _shown(value: Any) -> Any:
    """Return the value. If it is nested so deeply that its readers might fail, return its JSON text, or a note."""
    values = [value]
    for _ in range(_MOST_LEVELS):
        inner = (
            one.values() if isinstance(one, dict) else one for one in values if isinstance(one, dict | list)
        )
        values = [one for many in inner for one in many]
        if not values:
            return value
    try:
        return json.dumps(value)
    except RecursionError:
        return "(nested too deeply)"


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _account(request: Request, query: Mapping[str, str], body: Any) -> str:
    headers = {name.lower(): text for name, text in request.headers}
    places = (
        headers.get("authorization", "").rpartition(" ")[2],
        headers.get("x-write-key", ""),
        headers.get("x-td-write-key", ""),
        query.get("k", ""),
        body.get("write_key") if isinstance(body, dict) else "",
    )
    for key in places:
        account = key.partition(".")[0] if isinstance(key, str) else ""
        if names.is_account(account):
            return account
    return ""
