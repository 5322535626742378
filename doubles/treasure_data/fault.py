"""What can go wrong with Treasure Data, as values that are set beforehand."""

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

    Under the last five the request is carried out and its response altered. Under the others nothing is carried out,
    unless `lands` says so.
    """

    STATUS = "status"  # answered with `status`
    HANG = "hang"  # silence for `seconds`, or for ever; then the connection is closed
    CLOSE = "close"  # the connection is closed without a response
    RESET = "reset"  # the connection is reset, and TD has not seen the request
    REFUSE = "refuse"  # the connection is refused
    UNREACHABLE = "unreachable"  # the connection cannot be made, until the client gives up
    SLOW = "slow"  # carried out at once, answered after `seconds`
    NOT_JSON = "not_json"  # the response's body is not JSON
    WRONG_MD5 = "wrong_md5"  # the response has another checksum
    PARTIAL = "partial"  # the response has the status 206
    TRUNCATED = "truncated"  # half of the response's body, well-formed as HTTP


_ALTERING = {Kind.SLOW, Kind.NOT_JSON, Kind.WRONG_MD5, Kind.PARTIAL, Kind.TRUNCATED}
_NEVER_ARRIVES = {Kind.RESET, Kind.REFUSE, Kind.UNREACHABLE}
_PAGE = b"<html><body><h1>A proxy's page</h1></body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    It strikes requests that name its database and table and do its action; None is any. A fault without all three
    strikes all of TD, the status endpoint included.

    Attributes:
        count: how many requests it strikes, None for all.
        begin: when it begins, UNIX seconds.
        end: when it is over, UNIX seconds.
        status: the status of a `status` fault, 200 to 599.
        retry_after: its Retry-After in seconds.
        body: its body, text that need not be JSON; None is TD's error document.
        seconds: how long a `slow` or `hang` fault takes; None is for ever.
        lands: seconds after which TD carries the request out although it was answered with the fault: 0 is a lost
            response, more is a request that arrives after its client gave up. None is never.

    Raises:
        ValueError: the parts do not fit each other.
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
            raise ValueError(f"a request under the fault {self.kind} cannot land")
        if self.kind is Kind.SLOW and self.seconds is None:
            raise ValueError("a slow fault needs its seconds")
        if not 200 <= self.status <= 599:
            raise ValueError("a fault's status is 200 to 599")

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """Read a fault from JSON: an object with the attributes' names, as the constructor takes them."""
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
        """Whether the request is carried out and only its response altered."""
        return self.kind in _ALTERING

    def altered(self, response: Response) -> Response:
        """Return the response to a request that was carried out under an altering fault."""
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
        """Return the response to a request that was not carried out."""
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
    """The faults that are set. Of those that match a request, the first one set strikes. TreasureData locks it.

    So "503 twice, then a reset" is two faults with a count, one after the other.
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
