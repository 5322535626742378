"""What a response says about the events of its request, in every dialect.

It is read from the request and the response alone, without the ingest's code, so a bug there cannot hide itself.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from doubles.http_server import Request, Response
from shared import names

NO_EVENTS = frozenset(
    {
        "/",
        "/get_cookie_id",
        "/health",
        "/health/ready",
        "/robots.txt",
        "/js/v3/global_id",
        "/js/v3/enable_global_id",
    }
)
"""Paths that accept no events."""

_MOST_BYTES = 20_000_000
_ONE_EVENT: tuple[Any, ...] = ({}, {"created": True})


@dataclass(frozen=True, slots=True)
class EventResult:
    """What a response says about one event.

    Attributes:
        index: the event's place in its request; None for all of it.
        event: the event as sent; None if the request does not have it.
        table: the table as the sender wrote it; empty if unknown.
        code: why it was rejected; empty if it was accepted.
        message: the same for a person.
    """

    index: int | None
    event: Any
    table: str
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class RequestResult:
    """What a response says about its request.

    Attributes:
        account: the account in the write key, whether valid or not; empty without one.
        table: the table that the request names for all its events; empty if it names none.
        content: the body as a JSON value or text, or the query if no body is read; a repeated parameter is a list.
        events: its events; empty if the response lists none.
        accepted: how many events the response calls accepted; None if it does not say.
        refused: why the whole request was refused; empty if it was not.
        message: the same for a person; empty if the response does not say.
    """

    account: str
    table: str
    content: Any
    events: tuple[EventResult, ...]
    accepted: int | None
    refused: str
    message: str


def result_of(request: Request, response: Response) -> RequestResult:
    """Return what a response says."""
    parameters = parse_qs(urlsplit(request.target).query, keep_blank_values=True)
    query = {name: next(filter(None, values), "") for name, values in parameters.items()}  # the first counts
    sent = {name: values if values[1:] else values[0] for name, values in parameters.items()}
    is_pixel = request.target.startswith("/pixel.gif?")
    body = sent if is_pixel else _value(request.body)
    answer = _json(response.body)
    answer = answer if isinstance(answer, dict) else {}
    named = body.get("table") if isinstance(body, dict) else None
    table = named if isinstance(named, str) else query.get("t", "")
    events = tuple(_events(request, answer, body, table))
    accepted = answer.get("accepted")
    if is_pixel and response.status == 200:
        events, accepted = (EventResult(0, sent, table),), 1
    elif events and accepted is None:
        accepted = sum(not one.code for one in events)
    code = _code(response)
    error = answer.get("error")
    return RequestResult(
        account=_account(request, query, body),
        table=table,
        content=sent if body is None else body,
        events=events,
        accepted=accepted,
        refused="" if events else code,
        message=str(error.get("message", "")) if isinstance(error, dict) else "",
    )


def answer_line(request: Request, response: Response) -> bytes:
    """Return the line about a response in the gateway's log (`ops.logs.answers`); empty if it says nothing about events.

    Dialects answer with a count, with a receipt for each event, or only with the status, which counts as one event. Any other
    form counts as no event.
    """
    if code := _code(response):
        return f"refused {code}\n".encode()
    path = request.target.partition("?")[0]
    if request.method not in ("GET", "POST") or path in NO_EVENTS or response.status not in (200, 302):
        return b""
    count = result_of(request, response).accepted
    if count is None:
        is_json = _header(response, "content-type").startswith("application/json")
        count = int(not is_json or _json(response.body) in _ONE_EVENT)
    return f"accepted {count}\n".encode() if count else b""


def _events(request: Request, answer: Mapping[str, Any], body: Any, table: str) -> Iterator[EventResult]:
    """Yield what a JSON response says about each event."""
    match answer:
        case {"rejected": list(items)}:
            rejected = {item["index"]: (item["code"], item["message"]) for item in items}
            for index, event in enumerate(_sent(body)):
                own = event.get("table") if isinstance(event, dict) else None
                reason = rejected.pop(index, ("", ""))
                yield EventResult(index, event, own if isinstance(own, str) else table, *reason)
            for index, reason in rejected.items():
                yield EventResult(index, None, table, *reason)
        case {"receipts": list(items)}:
            yield from _of_receipts(items, _sent(body), request.segments[-1])
        case _ if answer and all(isinstance(items, list) for items in answer.values()):
            for name, items in answer.items():
                sent = body.get(name) if isinstance(body, dict) else None
                yield from _of_receipts(items, _sent(sent), name.rpartition(".")[2])


def _of_receipts(receipts: list[Any], sent: list[Any], table: str) -> Iterator[EventResult]:
    for index, receipt in enumerate(receipts):
        reason = ("", "")
        if not isinstance(receipt, dict) or receipt.get("success") is not True:
            error = receipt.get("error", {}) if isinstance(receipt, dict) else {}
            code, _, message = str(error.get("description", "")).partition(": ")
            reason = (code or "unknown", message)
        yield EventResult(index, sent[index] if index < len(sent) else None, table, *reason)


def _sent(body: Any) -> list[Any]:
    """Return the events of a body."""
    found = body.get("events", body.get("records")) if isinstance(body, dict) else body
    return found if isinstance(found, list) else [body]


def _value(data: bytes) -> Any:
    """Return a body as a JSON value or text; None without a body."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, _MOST_BYTES)
        except zlib.error:
            return repr(data[:200])
    if not data:
        return None
    value = _json(data)
    return data.decode(errors="backslashreplace") if value is None else value


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _header(response: Response, name: str, otherwise: str = "") -> str:
    return next((text for spelt, text in response.headers if spelt.lower() == name), otherwise)


def _code(response: Response) -> str:
    """Return why a request was refused; empty if it was not."""
    return _header(response, "x-sluice-error", f"http_{response.status}" if response.status >= 400 else "")


def _account(request: Request, query: Mapping[str, str], body: Any) -> str:
    places = (
        request.header("authorization").rpartition(" ")[2],
        request.header("x-write-key"),
        request.header("x-td-write-key"),
        query.get("k", ""),
        body.get("write_key") if isinstance(body, dict) else "",
    )
    for key in places:
        account = key.partition(".")[0] if isinstance(key, str) else ""
        if names.is_account(account):
            return account
    return ""
