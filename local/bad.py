"""Refused requests and rejected events, derived from requests and responses.

The gateway writes them to a file before it responds, so a test that has the response finds them there.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from doubles.http_server import Request, Response
from ingest.refusal import ANSWERS
from local.result import result_of

FILE = "bad.jsonl"
"""The file's name, in the folder of the local stack."""

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
    found = result_of(request, reply)
    path = request.target.partition("?")[0]
    common: dict[str, Any] = {"at": at, "method": request.method, "path": path, "status": reply.status}
    for one in found.events:
        if one.code:
            yield Bad(
                "rejected",
                account=found.account,
                table=one.table,
                code=one.code,
                message=one.message,
                original=one.event,
                index=one.index,
                **common,
            )
    if found.refused:
        known = ANSWERS.get(found.refused)  # type: ignore[call-overload]  # any text
        yield Bad(
            "refused",
            account=found.account,
            table=found.table,
            code=found.refused,
            message=found.message or (known.meaning if known else ""),
            original=found.content,
            index=None,
            **common,
        )


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
