"""A request, its answer, and what the two say of the events, read without the ingest's code.

The reconciliation rests on it: what a sender may believe was accepted.
"""

import gzip
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from local.recording import RecordedRequest


class InconsistentResponseError(Exception):
    """An answer contradicts itself or its request."""


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """An event that the answer calls accepted.

    Attributes:
        account: whose it is, by its write key.
        table: the table it names.
        event_id: its own id; empty where the sender gave none.
    """

    account: str
    table: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What one answer says.

    Attributes:
        accepted: the events that are accepted.
        rejected: how many events were rejected, by code.
        refused: why the request as a whole was refused; empty where it was not.
    """

    accepted: tuple[AcceptedEvent, ...] = ()
    rejected: Counter[str] = field(default_factory=Counter)
    refused: str = ""


def read_acknowledgement(
    request: RecordedRequest, status: int, headers: Mapping[str, str], body: bytes
) -> Acknowledgement:
    """Return what the answer says of the request's events.

    Args:
        request: what was sent.
        status: of the answer.
        headers: of the answer, their names in lower case.
        body: of the answer.

    Raises:
        InconsistentResponseError: the answer cannot be understood.
    """
    if request.method == "OPTIONS":
        return Acknowledgement()
    if request.path == "/v1/events" and status in (200, 400, 413) and b'"rejected"' in body:
        return _events_acknowledgement(request, json.loads(body))
    if "x-sluice-error" in headers:
        return Acknowledgement(refused=headers["x-sluice-error"])
    if request.path == "/pixel.gif" and status == 200:
        query = parse_qs(request.target.partition("?")[2], keep_blank_values=True)
        event = AcceptedEvent(_account(query["k"][0]), query["t"][0], query.get("event_id", [""])[0])
        return Acknowledgement((event,))
    if status >= 400:
        return Acknowledgement(refused=f"http_{status}")
    raise InconsistentResponseError(f"{request.method} {request.path}: status {status}, {body[:200]!r}")


def _events_acknowledgement(request: RecordedRequest, answer: Mapping[str, Any]) -> Acknowledgement:
    key, events = _events(request)
    codes = {item["index"]: item["code"] for item in answer["rejected"]}
    accepted = tuple(
        AcceptedEvent(_account(key), event["table"], str(event.get("event_id", "")))
        for index, event in enumerate(events)
        if index not in codes
    )
    if len(accepted) != answer["accepted"]:
        raise InconsistentResponseError(
            f"{len(events)} events were sent, {len(codes)} rejected and {answer['accepted']} accepted"
        )
    return Acknowledgement(accepted, Counter(codes.values()))


def _events(request: RecordedRequest) -> tuple[str, list[Any]]:
    body = gzip.decompress(request.body) if request.header("content-encoding") == "gzip" else request.body
    content = json.loads(body)
    outer = content if isinstance(content, dict) else {}
    events = outer.get("events", content)
    query = parse_qs(request.target.partition("?")[2])
    key = (
        request.header("authorization").removeprefix("Bearer ")
        or request.header("x-write-key")
        or query.get("k", [""])[0]
        or outer.get("write_key", "")
    )
    return key, events if isinstance(events, list) else [events]


def _account(key: str) -> str:
    return key.partition(".")[0]
