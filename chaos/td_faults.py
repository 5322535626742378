"""What goes wrong at Treasure Data's address: faults of its own, and responses that it did not send or that belong to another request."""

import json
import random
from collections.abc import Callable
from typing import Any

from chaos.trouble import DATABASE_KINDS, Kind, Trouble
from doubles.treasure_data import Action, Fault, Target
from doubles.treasure_data import Kind as FaultKind

SETTINGS: dict[Kind, dict[str, Any]] = {
    Kind.TD_STALE_JOB: {"job_age": 2 * 3600.0},
    Kind.TD_SCHEMA_LAGS: {"schema_delay": 3 * 3600.0},
    Kind.TD_NO_SCHEMA: {"schema_delay": float("inf")},
    Kind.TD_TOO_LARGE: {"largest_import": 600},
    Kind.TD_BAD_ROWS: {"rejects": lambda row: is_bad(int(row["n"]))},
}
"""The settings of Treasure Data that change while a window of such a kind is open."""

_PAGE = "<html><body><h1>Welcome</h1>Please sign in.</body></html>"
_EMPTY = ("", "{}", "[]", "null", '{"error": null}')
_FOREIGN = ("", "{}", _PAGE, '{"message": "Not Found"}', '{"error": "conflict", "status_code": 409}')
_ERROR = {"error": "Resource not found", "message": "Resource not found", "text": "", "severity": "error"}
_ANOTHER_ANSWER = Fault(kind=FaultKind.STATUS, status=200, body=f'{{"md5_hex": "{"0" * 32}"}}')
_LANDS = 0.3

type _Make = Callable[[random.Random, Target], Fault]
type _Table = tuple[tuple[Kind, _Make], ...]


def is_bad(number: int) -> bool:
    """Return whether Treasure Data rejects the event with this number under TD_BAD_ROWS."""
    return number % 23 == 5


def _always(kind: FaultKind, **members: Any) -> _Make:
    return lambda _chances, _target: Fault(kind=kind, **members)


def _lands(chances: random.Random, target: Target) -> float | None:
    """Return 0 for an import that is accepted all the same."""
    return 0 if target.action is Action.IMPORT and chances.random() < _LANDS else None


def _told(answer: Callable[[random.Random], tuple[int, str]]) -> _Make:
    """Return the fault of a foreign response, whether the rows were accepted or not."""

    def make(chances: random.Random, _target: Target) -> Fault:
        status, body = answer(chances)
        lands = 0 if chances.random() < _LANDS else None
        return Fault(kind=FaultKind.STATUS, status=status, body=body, lands=lands)

    return make


def _outage(chances: random.Random, _target: Target) -> Fault:
    return chances.choice(
        (
            Fault(kind=FaultKind.REFUSE),
            Fault(kind=FaultKind.UNREACHABLE),
            Fault(kind=FaultKind.HANG),
            Fault(kind=FaultKind.HANG, lands=0 if chances.random() < 0.2 else None),
            Fault(kind=FaultKind.STATUS, status=503),
        )
    )


def _partial(chances: random.Random, _target: Target) -> Fault:
    foreign = Fault(kind=FaultKind.STATUS, status=206, body=chances.choice(("", _PAGE)))
    return chances.choice((Fault(kind=FaultKind.PARTIAL), foreign))


def _wrong_host(chances: random.Random, target: Target) -> Fault:
    """Return the response of a host without our databases, with Treasure Data's error document or another body."""
    if chances.random() < 0.5:
        status = 401 if target.action is Action.LIST and target.database is None else 404
        return Fault(kind=FaultKind.STATUS, status=status, body=json.dumps(_ERROR | {"status_code": status}))
    return Fault(kind=FaultKind.STATUS, status=chances.choice((404, 409)), body=chances.choice(_FOREIGN))


def _server_error(chances: random.Random, target: Target) -> Fault:
    lands = _lands(chances, target)
    return Fault(kind=FaultKind.STATUS, status=chances.choice((500, 502, 503, 504)), lands=lands)


def _lost_answer(chances: random.Random, _target: Target) -> Fault:
    kind = chances.choice((FaultKind.CLOSE, FaultKind.HANG))
    return Fault(kind=kind, seconds=None if kind is FaultKind.CLOSE else 300.0, lands=0)


# fmt: off
_ANYWHERE: _Table = (
    (Kind.TD_REFUSED, _always(FaultKind.REFUSE)),
    (Kind.TD_OUTAGE, _outage),
    (Kind.TD_FOREIGN_PAGE, _told(lambda _chances: (200, _PAGE))),
    (Kind.TD_EMPTY_JSON, _told(lambda chances: (200, chances.choice(_EMPTY)))),
    (Kind.TD_REDIRECT, _told(lambda chances: (chances.choice((301, 302, 307, 308)), chances.choice(("", _PAGE))))),
    (Kind.TD_FOREIGN_REFUSAL, _told(lambda chances: (chances.choice((400, 401, 403, 404, 405, 413, 422, 429)), chances.choice(_FOREIGN)))),
    (Kind.TD_TRUNCATED, _always(FaultKind.TRUNCATED)),
    (Kind.TD_PARTIAL, _partial),
    (Kind.TD_WRONG_HOST, _wrong_host),
)
_OF_CALLS: _Table = (
    (Kind.TD_UNAUTHORIZED, _always(FaultKind.STATUS, status=401)),
    (Kind.TD_FORBIDDEN_DATABASE, _always(FaultKind.STATUS, status=403)),
    (Kind.TD_HANGING_DATABASE, lambda chances, target: Fault(kind=FaultKind.HANG, lands=_lands(chances, target))),
    (Kind.TD_SLOW_DATABASE, lambda chances, _: Fault(kind=FaultKind.SLOW, seconds=chances.choice((3.0, 5.0, 8.0)))),
    (Kind.TD_BROKEN_DATABASE, _always(FaultKind.STATUS, status=500)),
    (Kind.TD_JOB_FAILS, lambda chances, _: Fault(kind=FaultKind.STATUS, status=chances.choice((500, 429, 503)))),
    (Kind.TD_5XX, _server_error),
    (Kind.TD_429, lambda chances, _: Fault(kind=FaultKind.STATUS, status=429, retry_after=chances.choice((0, 1, 7, 90)))),
    (Kind.TD_HANG, lambda chances, _: Fault(kind=FaultKind.HANG, seconds=chances.choice((None, 20.0)))),
    (Kind.TD_RESET_BEFORE, _always(FaultKind.RESET)),
    (Kind.TD_RESET_AFTER, _always(FaultKind.CLOSE)),
    (Kind.TD_SLOW, lambda chances, _: Fault(kind=FaultKind.SLOW, seconds=chances.choice((0.5, 5.0, 25.0, 70.0)))),
)
_OF_IMPORTS: _Table = (
    (Kind.TD_REJECTS_TABLE, _always(FaultKind.STATUS, status=422)),
    (Kind.TD_LOST_ANSWER, _lost_answer),
    (Kind.TD_LATE, lambda chances, _: Fault(kind=FaultKind.HANG, lands=chances.uniform(0.0, 100.0))),
    (Kind.TD_WRONG_MD5, lambda chances, _: chances.choice((Fault(kind=FaultKind.WRONG_MD5), _ANOTHER_ANSWER))),
    (Kind.TD_NOT_JSON, _always(FaultKind.NOT_JSON)),
)
# fmt: on
"""What each kind of trouble makes of a request, in the order in which they strike."""


def strike(trouble: Trouble, target: Target, _now: float) -> Fault | None:
    """Return the fault that the Treasure Data double shows for a request, if any."""
    if fault := _first(trouble, _ANYWHERE, target):
        return fault
    if target.action in (Action.QUERY, Action.LIST):
        for kind in (Kind.TD_STALE_JOB, Kind.TD_SCHEMA_LAGS, Kind.TD_NO_SCHEMA):
            if trouble.active(kind):
                trouble.count(kind)
    if target.action is Action.STATUS:
        return None
    return _first(trouble, _OF_CALLS + (_OF_IMPORTS if target.action is Action.IMPORT else ()), target)


def _first(trouble: Trouble, table: _Table, target: Target) -> Fault | None:
    struck = {Kind.TD_REJECTS_TABLE: target.table, **dict.fromkeys(DATABASE_KINDS, target.database)}
    for kind, make in table:
        if kind is Kind.TD_JOB_FAILS and target.action is not Action.QUERY:
            continue
        if chances := trouble.strike(kind, struck.get(kind) or ""):
            return make(chances, target)
    return None
