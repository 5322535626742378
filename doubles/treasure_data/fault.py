"""What can go wrong with Treasure Data, as values that are set beforehand."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from hashlib import md5
from threading import Lock
from typing import Any, Protocol, Self

from doubles.treasure_data.exchange import Drop, Request, Response, error


class Action(StrEnum):
    """What a request is about."""

    IMPORT = "import"
    CREATE = "create"  # databases and tables: create and delete
    LIST = "list"  # databases and tables: list, show, tail
    QUERY = "query"  # jobs
    STATUS = "status"  # TD's status endpoint
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about, and which database and table it names."""

    action: Action
    database: str | None = None
    table: str | None = None


class Kind(StrEnum):
    """A sort of fault.

    The last three let the request be carried out and alter its answer. With the others nothing is carried out, unless
    `lands` says so.
    """

    STATUS = "status"  # answered with `status`
    HANG = "hang"  # silence for `seconds`, or for ever; then the connection is closed
    CLOSE = "close"  # the connection is closed without an answer, once the body was read
    RESET = "reset"  # the connection is reset before the body is read
    REFUSE = "refuse"  # the connection is refused
    UNREACHABLE = "unreachable"  # the connection cannot be made, until the client gives up
    SLOW = "slow"  # carried out at once, answered after `seconds`
    NOT_JSON = "not_json"  # the answer's body is not JSON
    WRONG_MD5 = "wrong_md5"  # the answer's checksum is another one


_ALTERING = {Kind.SLOW, Kind.NOT_JSON, Kind.WRONG_MD5}
_READS_NO_BODY = {Kind.RESET, Kind.REFUSE, Kind.UNREACHABLE}
_PAGE = "<html><body><h1>A proxy's page</h1></body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    It strikes requests that name its database and table and are about its action; None is any. So a fault without all
    three is TD's as a whole, the status endpoint included.

    Attributes:
        kind: what happens.
        database: whose requests it strikes.
        table: whose requests it strikes.
        action: which requests it strikes.
        count: how many requests it strikes, or None for all.
        begin: when it begins, UNIX seconds.
        end: when it is over, UNIX seconds.
        status: the status of a `status` fault.
        retry_after: its Retry-After, seconds or an HTTP date.
        location: its Location; None for a redirection is the request's own target.
        body: its body, text that need not be JSON; None is TD's error document.
        seconds: how long a `slow` or `hang` fault takes; None is for ever.
        lands: seconds after which TD carries the request out all the same, although it was answered with the fault: 0 is
            the lost answer, more is a request that arrives after its client gave up. None is never.

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
    retry_after: float | str | None = None
    location: str | None = None
    body: str | None = None
    seconds: float | None = None
    lands: float | None = None

    def __post_init__(self) -> None:
        if self.lands is not None and self.kind in _ALTERING | _READS_NO_BODY:
            raise ValueError(f"a request under the fault {self.kind} cannot land otherwise")
        if self.kind is Kind.SLOW and self.seconds is None:
            raise ValueError("a slow fault needs its seconds")
        if not 300 <= self.status <= 599:
            raise ValueError("a fault's status is 300 to 599")

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Read a fault from JSON: an object with the attributes' names.

        Raises:
            ValueError: it is none.
        """
        try:
            kind = Kind(document["kind"])
            action = None if document.get("action") is None else Action(document["action"])
            return cls(**document | {"kind": kind, "action": action})
        except (AttributeError, KeyError, TypeError) as problem:
            raise ValueError(f"not a fault: {problem}") from problem

    def document(self) -> dict[str, Any]:
        """Return what is unusual about the fault, as `from_document` reads it."""
        usual = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    def strikes(self, target: Target, now: float) -> bool:
        """Tell whether the fault strikes a request now."""
        return (
            self.begin <= now < self.end
            and self.database in (None, target.database)
            and self.table in (None, target.table)
            and self.action in (None, target.action)
        )

    @property
    def alters(self) -> bool:
        """Whether the request is carried out and only its answer altered."""
        return self.kind in _ALTERING

    @property
    def reads_body(self) -> bool:
        """Whether TD reads the request's body."""
        return self.kind not in _READS_NO_BODY

    def altered(self, response: Response) -> Response:
        """Return the answer to a request that was carried out under an altering fault."""
        match self.kind:
            case Kind.SLOW:
                return replace(response, delay=response.delay + (self.seconds or 0.0))
            case Kind.NOT_JSON:
                return replace(response, body=_PAGE.encode(), headers={"Content-Type": "text/html"})
            case _:
                document = json.loads(response.body)
                if "md5_hex" not in document:
                    return response
                document["md5_hex"] = md5(b"something else", usedforsecurity=False).hexdigest()
                return replace(response, body=json.dumps(document).encode())

    def response(self, request: Request) -> Response:
        """Return the answer to a request under a fault that does not alter but prevents its answer."""
        if self.kind is Kind.STATUS:
            return self._status(request)
        if self.kind is Kind.HANG:
            return Response(delay=math.inf if self.seconds is None else self.seconds, drop=Drop.CLOSE)
        return Response(drop=Drop(self.kind))

    def _status(self, request: Request) -> Response:
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status < 400:
            headers["Location"] = request.target if self.location is None else self.location
        if self.body is not None:
            return Response(self.status, self.body.encode(), headers)
        return error(self.status, "a fault was set", headers=headers)


class FaultSource(Protocol):
    """What decides which fault strikes a request."""

    def strike(self, target: Target, now: float) -> Fault | None:
        """Return the fault that strikes this request; it is asked once for each."""
        ...


class Faults:
    """The faults that are set, struck in the order in which they were set: of those that fit the first one.

    So "503 twice, then a reset" is two faults with a count, one after the other.
    """

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = Lock()

    def add(self, fault: Fault) -> None:
        """Set a fault, behind those that are set."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Take all faults away."""
        with self._lock:
            self._faults.clear()

    def all(self) -> list[Fault]:
        """Return the faults that can still strike, each with the count that is left."""
        with self._lock:
            return list(self._faults)

    def strike(self, target: Target, now: float) -> Fault | None:
        """Return the first fault that strikes this request, and count it."""
        with self._lock:
            for position, fault in enumerate(self._faults):
                if fault.strikes(target, now):
                    self._count(position, fault)
                    return fault
        return None

    def _count(self, position: int, fault: Fault) -> None:
        if fault.count is None:
            return
        if fault.count <= 1:
            del self._faults[position]
        else:
            self._faults[position] = replace(fault, count=fault.count - 1)
