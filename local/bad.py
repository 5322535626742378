"""Refused requests and rejected events, derived from requests and responses.

The gateway writes them to a file before it responds, so a test that has the response finds them there.
"""

import json
from typing import Any

from doubles.http_server import Request, Response
from ingest.refusal import ANSWERS
from local.result import EventResult, result_of

FILE = "bad.jsonl"
"""The file's name, in the folder of the local stack."""

_MOST_LEVELS = 254


def bad_lines(request: Request, reply: Response, at: float) -> bytes:
    """Return the refused request or the rejected events that a response reports, each as a line of JSON.

    Args:
        request: the request.
        reply: its response.
        at: when it was answered, UNIX seconds.

    A line has the following fields.
        kind: `refused` or `rejected`.
        account: the account in the write key, whether valid or not; empty without one.
        table: the table as the sender wrote it; empty if unknown.
        original: the event as sent; for a refused request, its body, or its query if no body is read. One that is nested more than
            254 levels deep is shown as text, or left out.
        index: the event's place in its request; null for a refused request.
        at, code, message, method, path, status: as their names say.
    """
    if request.method not in ("GET", "POST"):
        return b""
    found = result_of(request, reply)
    kind, bad = "rejected", [one for one in found.events if one.code]
    if found.refused:
        known = ANSWERS.get(found.refused)  # type: ignore[call-overload]  # any text
        message = found.message or (known.meaning if known else "")
        kind, bad = "refused", [EventResult(None, found.content, found.table, found.refused, message)]
    lines = [
        {
            "kind": kind,
            "at": at,
            "account": found.account,
            "table": one.table,
            "code": one.code,
            "message": one.message,
            "original": _shown(one.event),
            "index": one.index,
            "method": request.method,
            "path": request.target.partition("?")[0],
            "status": reply.status,
        }
        for one in bad
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


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
