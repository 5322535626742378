"""Faults of Treasure Data, as values that are set in advance."""

import json
import math
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import md5
from typing import Any, Self

from doubles.http_server import Drop, Response
from doubles.treasure_data.response import error


class Action(StrEnum):
    """What a request does."""

    IMPORT = "import"
    CREATE = "create"  # databases and tables
    LIST = "list"  # databases and tables: list, show
    QUERY = "query"  # jobs
    STATUS = "status"  # TD's status endpoint
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Target:
    """What a request does, and which database and table it names."""

    action: Action
    database: str | None = None
    table: str | None = None


class Kind(StrEnum):
    """A kind of fault.

    With the last five, the request is executed and its response altered. With the others it is not executed, unless
    `lands` says so.
    """

    STATUS = "status"  # a response with `status`
    HANG = "hang"  # no response for `seconds`, or forever; then the connection is closed
    CLOSE = "close"  # the connection is closed without a response
    RESET = "reset"  # the connection is reset before TD sees the request
    REFUSE = "refuse"  # the connection is refused
    UNREACHABLE = "unreachable"  # the client gives up connecting
    SLOW = "slow"  # executed at once, answered after `seconds`
    NOT_JSON = "not_json"  # the response's body is not JSON
    WRONG_MD5 = "wrong_md5"  # the response has a wrong checksum
    PARTIAL = "partial"  # the response has status 206
    TRUNCATED = "truncated"  # half of the response's body, in well-formed HTTP


_ALTERING = {Kind.SLOW, Kind.NOT_JSON, Kind.WRONG_MD5, Kind.PARTIAL, Kind.TRUNCATED}
_NEVER_ARRIVES = {Kind.RESET, Kind.REFUSE, Kind.UNREACHABLE}
_PAGE = b"<html><body><h1>A proxy's page</h1></body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault.

    It strikes requests that match its database, table and action; None matches any. A fault with none of the three
    strikes all of TD, including the status endpoint.

    Attributes:
        count: the number of requests to strike; None for all.
        begin: when it begins, UNIX seconds.
        end: when it ends, UNIX seconds.
        status: the status of a `status` fault, 200 to 599.
        retry_after: its Retry-After header in seconds.
        body: its body, any text; None for TD's error document.
        seconds: the duration of a `slow` or `hang` fault; None is forever.
        lands: seconds after which TD executes the request although it was answered with the fault. 0 is a lost
            response; more is a request that arrives after its client has given up. None is never.

    Raises:
        ValueError: the attributes contradict each other.
    """

    kind: Kind
    database: str | None = None
    table: str | None = None
    action: Action | None = None
    count: int | None = None
    begin: float = -math.inf
    end: float = math.inf
    status: int = 503
    retry_after: float | None = None
    body: str | None = None
    seconds: float | None = None
    lands: float | None = None

    def __post_init__(self) -> None:
        if self.lands is not None and self.kind in _ALTERING | _NEVER_ARRIVES:
            raise ValueError(f"a request struck by {self.kind} cannot land")
        if self.kind is Kind.SLOW and self.seconds is None:
            raise ValueError("a slow fault needs seconds")
        if not 200 <= self.status <= 599:
            raise ValueError("a fault's status must be 200 to 599")

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """Create a fault from a JSON object with the constructor's arguments."""
        action = None if document.get("action") is None else Action(document["action"])
        return cls(**document | {"kind": Kind(document["kind"]), "action": action})

    def strikes(self, target: Target, now: float) -> bool:
        """Return whether the fault strikes a request now."""
        return (
            self.begin <= now < self.end
            and self.database in (None, target.database)
            and self.table in (None, target.table)
            and self.action in (None, target.action)
        )

    @property
    def alters(self) -> bool:
        """Whether the request is executed and only its response altered."""
        return self.kind in _ALTERING

    def altered(self, response: Response) -> Response:
        """Alter the response to a request that was executed."""
        if self.kind is Kind.SLOW:
            return replace(response, delay=response.delay + (self.seconds or 0.0))
        if self.kind is Kind.NOT_JSON:
            return replace(response, body=_PAGE, headers=(("Content-Type", "text/html"),))
        if self.kind is Kind.PARTIAL:
            return replace(response, status=206)
        if self.kind is Kind.TRUNCATED:
            return replace(response, body=response.body[: len(response.body) // 2])
        document = json.loads(response.body)
        if "md5_hex" in document:
            document["md5_hex"] = md5(b"something else", usedforsecurity=False).hexdigest()
        return replace(response, body=json.dumps(document).encode())

    def response(self) -> Response:
        """Return the response to a request that was not executed."""
        if self.kind is Kind.HANG:
            return Response(delay=math.inf if self.seconds is None else self.seconds, drop=Drop.CLOSE)
        if self.kind is not Kind.STATUS:
            return Response(drop=Drop(self.kind))
        later = () if self.retry_after is None else (("Retry-After", str(self.retry_after)),)
        if self.body is not None:
            return Response(self.status, self.body.encode(), later)
        document = error(self.status, "a fault was set")
        return replace(document, headers=(*document.headers, *later))


class Faults(list[Fault]):
    """The faults that are set. The first one that matches a request strikes. Not thread-safe: TreasureData locks it.

    "503 twice, then a reset" is two faults with counts, one after the other.
    """

    add = list.append

    def strike(self, target: Target, now: float) -> Fault | None:
        """Return the first fault that strikes this request, and count it."""
        for position, fault in enumerate(self):
            if fault.strikes(target, now):
                left = None if fault.count is None else fault.count - 1
                self[position : position + 1] = [] if left == 0 else [replace(fault, count=left)]
                return fault
        return None
