"""Responses at Treasure Data's address that Treasure Data did not send, or that do not belong to the request."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from chaos.trouble import Kind, Trouble
from doubles.treasure_data import Action, Fault, Settings, Target
from doubles.treasure_data import Kind as FaultKind

SETTINGS: dict[Kind, dict[str, Any]] = {
    Kind.TD_STALE_JOB: {"job_age": 2 * 3600.0},
    Kind.TD_SCHEMA_LAGS: {"schema_delay": 3 * 3600.0},
    Kind.TD_NO_SCHEMA: {"schema_delay": float("inf")},
    Kind.TD_BAD_ROWS: {"rejects": lambda row: is_bad(int(row["n"]))},
}
"""The settings of Treasure Data that change while a window of such a kind is open."""

_PAGE = "<html><body><h1>Welcome</h1>Please sign in.</body></html>"
_EMPTY = ("", "{}", "[]", "null", '{"error": null}')
_FOREIGN = ("", "{}", _PAGE, '{"message": "Not Found"}', '{"error": "conflict", "status_code": 409}')
_LANDS = 0.3
_ANSWERS = (Kind.TD_FOREIGN_PAGE, Kind.TD_EMPTY_JSON, Kind.TD_REDIRECT, Kind.TD_FOREIGN_REFUSAL)
_ERROR = {"error": "Resource not found", "message": "Resource not found", "text": "", "severity": "error"}


def is_bad(number: int) -> bool:
    """Return whether Treasure Data rejects the event with this number under TD_BAD_ROWS."""
    return number % 23 == 5


def lie(trouble: Trouble, target: Target) -> Fault | None:
    """Return the lie that answers a request, if any."""
    for kind in _ANSWERS:
        if chances := trouble.strike(kind):
            status, body = _ANSWERED[kind](chances)
            lands = 0 if chances.random() < _LANDS else None
            return Fault(kind=FaultKind.STATUS, status=status, body=body, lands=lands)
    if trouble.strike(Kind.TD_TRUNCATED):
        return Fault(kind=FaultKind.TRUNCATED)
    if chances := trouble.strike(Kind.TD_PARTIAL):
        foreign = Fault(kind=FaultKind.STATUS, status=206, body=chances.choice(("", _PAGE)))
        return chances.choice((Fault(kind=FaultKind.PARTIAL), foreign))
    if chances := trouble.strike(Kind.TD_WRONG_HOST):
        return _of_wrong_host(chances, target)
    if target.action in (Action.QUERY, Action.LIST):
        for kind in (Kind.TD_STALE_JOB, Kind.TD_SCHEMA_LAGS, Kind.TD_NO_SCHEMA):
            if trouble.active(kind):
                trouble.count(kind)
    return None


_ANSWERED: dict[Kind, Callable[[random.Random], tuple[int, str]]] = {
    Kind.TD_FOREIGN_PAGE: lambda _chances: (200, _PAGE),
    Kind.TD_EMPTY_JSON: lambda chances: (200, chances.choice(_EMPTY)),
    Kind.TD_REDIRECT: lambda chances: (chances.choice((301, 302, 307, 308)), chances.choice(("", _PAGE))),
    Kind.TD_FOREIGN_REFUSAL: lambda chances: (
        chances.choice((400, 401, 403, 404, 405, 413, 422, 429)),
        chances.choice(_FOREIGN),
    ),
}


def _of_wrong_host(chances: random.Random, target: Target) -> Fault:
    """Return the response of a host without our databases, with Treasure Data's error document or another body."""
    if chances.random() < 0.5:
        status = 401 if target.action is Action.LIST and target.database is None else 404
        return Fault(kind=FaultKind.STATUS, status=status, body=json.dumps(_ERROR | {"status_code": status}))
    return Fault(kind=FaultKind.STATUS, status=chances.choice((404, 409)), body=chances.choice(_FOREIGN))


def altered(settings: Settings, kind: Kind, *, begins: bool) -> Settings:
    """Return the settings with those of a kind of trouble changed when its window begins, or restored when it ends."""
    usual = Settings()
    return replace(
        settings,
        **{name: value if begins else getattr(usual, name) for name, value in SETTINGS[kind].items()},
    )
