"""The events that a response calls accepted. Senders rely on this, so the reconciliation starts from it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from doubles.http_server import Request, Response
from local.recording import RecordedRequest
from local.result import result_of
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
        headers: the response's headers.
        body: the response's body.

    Raises:
        InconsistentResponseError: the response cannot be interpreted.
    """
    if request.method == "OPTIONS":
        return Acknowledgement()
    sent = Request(request.method, request.target, request.headers, request.body)
    found = result_of(sent, Response(status, body, tuple(headers.items())))
    accepted = [one for one in found.events if not one.code]
    if found.refused:
        return Acknowledgement(refused=found.refused)
    if found.accepted != len(accepted):
        raise InconsistentResponseError(
            f"{request.method} {request.path}: status {status}, {found.accepted} events accepted, but {len(found.events)} "
            f"sent and {len(found.events) - len(accepted)} rejected: {body[:200]!r}"
        )
    return Acknowledgement(
        tuple(
            AcceptedEvent(found.account, one.table, str(one.event.get("event_id", ""))) for one in accepted
        ),
        Counter(one.code for one in found.events if one.code),
    )
