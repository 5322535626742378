"""Determines from a request and its response which events were accepted, without using the ingest's code.

Senders rely on this, so the reconciliation starts from it.
"""

import gzip
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from local.recording import RecordedRequest
from shared.errors import SluiceError


class InconsistentResponseError(SluiceError):
    """A response contradicts itself or its request."""


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """An event that the response reports as accepted.

    Attributes:
        account: from the write key.
        table: from the event.
        event_id: from the event; empty if the sender gave none.
    """

    account: str
    table: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What one response says about the events of its request.

    Attributes:
        accepted: the accepted events.
        rejected: number of rejected events by code.
        refused: the code with which the whole request was refused; empty if it was not.
    """

    accepted: tuple[AcceptedEvent, ...] = ()
    rejected: Counter[str] = field(default_factory=Counter)
    refused: str = ""


def read_acknowledgement(
    request: RecordedRequest, status: int, headers: Mapping[str, str], body: bytes
) -> Acknowledgement:
    """Return what a response says about the events of its request.

    Args:
        request: the request.
        status: the response's status.
        headers: the response's headers, with names in lower case.
        body: the response's body.

    Raises:
        InconsistentResponseError: the response cannot be interpreted.
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


def _events_acknowledgement(request: RecordedRequest, response: Mapping[str, Any]) -> Acknowledgement:
    key, events = _events(request)
    codes = {item["index"]: item["code"] for item in response["rejected"]}
    accepted = tuple(
        AcceptedEvent(_account(key), event["table"], str(event.get("event_id", "")))
        for index, event in enumerate(events)
        if index not in codes
    )
    if len(accepted) != response["accepted"]:
        raise InconsistentResponseError(
            f"{len(events)} events sent, but {len(codes)} rejected and {response['accepted']} accepted"
        )
    return Acknowledgement(accepted, Counter(codes.values()))


def _events(request: RecordedRequest) -> tuple[str, list[Any]]:
    body = gzip.decompress(request.body) if request.header("content-encoding") == "gzip" else request.body
    content = json.loads(body)
    wrapper = content if isinstance(content, dict) else {}
    events = wrapper.get("events", content)
    query = parse_qs(request.target.partition("?")[2])
    key = (
        request.header("authorization").removeprefix("Bearer ")
        or request.header("x-write-key")
        or query.get("k", [""])[0]
        or wrapper.get("write_key", "")
    )
    return key, events if isinstance(events, list) else [events]


def _account(key: str) -> str:
    return key.partition(".")[0]
