"""Outages on demand, for `sluice local break` and the page's buttons."""

import json
import re
import threading
import time
from contextlib import suppress
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from redis import Redis, RedisError

from local.stack import LocalStack
from shared.accounts import Account, AccountKeys
from shared.errors import InvalidError
from worker.account_store import applied

TARGETS = {
    "td": "Treasure Data answers 503 to everything",
    "td:DATABASE": "Treasure Data answers 503 for one database",
    "td:DATABASE=STATUS": "Treasure Data answers imports into one database with a status, such as 403",
    "td:DATABASE.TABLE=STATUS": "Treasure Data answers imports into one table with a status, such as 422",
    "answers": "Treasure Data accepts imports, but its responses are lost",
    "redis": "Valkey is down",
    "kinesis": "the stream rejects every call",
    "worker": "the worker is down",
}
"""The targets of outages, and their effect."""

_TREASURE_DATA = re.compile(r"td(?::(?P<database>\w+)(?:\.(?P<table>\w+))?)?(?:=(?P<status>[45]\d\d))?")
_PAUSED = {"redis": "valkey", "worker": "worker"}
_DIRECT = build_opener(ProxyHandler({}))
_SECONDS = 10.0


class UnknownTargetError(InvalidError):
    """There is no such target, or no account has its database; the message lists those that there are."""


class Outages:
    """The outages of a running stack. Threads may share it."""

    def __init__(self, stack: LocalStack) -> None:
        self._stack = stack
        self._lock = threading.Lock()
        self._ends: dict[str, float] = {}

    def order(self, target: str, seconds: float) -> dict[str, Any]:
        """Begin an outage of one of TARGETS, perhaps without table and status, or end it with 0 seconds; return those in progress.

        Raises:
            UnknownTargetError: there is no such target, or no account has the database.
        """
        found = _TREASURE_DATA.fullmatch(target)
        if not found and (":" in target or target not in TARGETS):
            raise UnknownTargetError(f"{target!r} is not a target. The targets are {', '.join(TARGETS)}")
        database = found["database"] if found else None
        known = self._databases() if database else []
        if known and database not in known:
            names = ", ".join(known)
            raise UnknownTargetError(f"no account has the database {database}. The databases are {names}")
        with self._lock:
            self._ends[target] = time.time() + seconds
            if part := _PAUSED.get(target):
                self._stack.part(part).pause(seconds)
            elif target == "kinesis":
                self._send(f"{self._stack.addresses.aws}/-/outage", {"seconds": seconds})
            else:
                self._set_faults()
        return self.under_way()

    def under_way(self) -> dict[str, float]:
        """Return the outages in progress, with the seconds left of each."""
        now = time.time()
        return {target: round(end - now, 1) for target, end in self._ends.items() if end > now}

    def _databases(self) -> list[str]:
        """List the accounts' databases; nothing while Redis is down."""
        address, keys = self._stack.addresses.redis, AccountKeys(self._stack.resources.ledger_table)
        with suppress(RedisError), Redis.from_url(address, decode_responses=True, socket_timeout=9) as redis:
            found = applied(redis, keys).values()
            return sorted({one.database for one in found if isinstance(one, Account)})
        return []

    def _set_faults(self) -> None:
        """Give Treasure Data the faults of the outages in progress, and no others."""
        td, now = self._stack.addresses.treasure_data, time.time()
        self._send(f"{td}/-/faults", method="DELETE")
        for target, end in self._ends.items():
            if end <= now or target in _PAUSED or target == "kinesis":
                continue
            fault: dict[str, Any] = {"kind": "close", "action": "import", "lands": 0}
            if found := _TREASURE_DATA.fullmatch(target):
                fault = {"kind": "status", "database": found["database"], "table": found["table"]}
                if found["status"]:
                    fault |= {"action": "import", "status": int(found["status"])}
            self._send(f"{td}/-/faults", fault | {"end": end})

    def _send(self, url: str, document: dict[str, Any] | None = None, *, method: str = "POST") -> None:
        body = None if document is None else json.dumps(document).encode()
        request = Request(url, body, method=method)  # noqa: S310 -- one of the stack's own
        _DIRECT.open(request, timeout=_SECONDS).close()
