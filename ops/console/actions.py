"""The console's actions: send and drop rows, each after the operator has confirmed it.

The page sends the number of rows that the operator agreed to, and what identifies them. If they are others by then, nothing is done.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import click

from ops import sending
from ops.background import in_background
from ops.books.chunks import KINDS, ListedChunk, RowGroup, chunks
from ops.console.server import Doing, RefusedError
from ops.failure import FORESEEN, explained
from ops.stack import Stack
from shared.clock import Clock
from shared.errors import UnavailableError
from worker.selection import Selection

REDRIVABLE = tuple(name for name in KINDS if name != "rejected")
"""Kinds of rows that can be sent as they are."""
DROPPABLE = ("dead", "waiting", "rejected")
"""Kinds of rows that can be dropped."""
_ACTIONS = {"redrive": REDRIVABLE, "drop": DROPPABLE}
_KEPT = 20


@dataclass(slots=True)
class ConsoleAction:
    """An action that the operator requested, `redrive` or `drop`, and when, UNIX seconds.

    Its state is `running`, `done` (the result has rows by outcome) or `failed` (the error says why).
    """

    what: str
    kind: str
    account: str
    reason: str
    rows: int
    at: float
    state: str = "running"
    result: Mapping[str, int] | None = None
    error: str = ""


@dataclass(slots=True)
class Actions:
    """Runs one action at a time, in the background. Threads may share it. `changed` is called when the rows may have changed."""

    stack: Stack
    clock: Clock
    changed: Callable[[], None]
    start: Callable[[Callable[[], None]], None] = in_background
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _actions: list[ConsoleAction] = field(default_factory=list, init=False)

    def shown(self) -> list[dict[str, Any]]:
        """Return the actions, latest first."""
        return [asdict(action) for action in reversed(self._actions)]

    def by_path(self) -> Doing:
        """Return the page's actions, by path."""
        return {f"/{what}": partial(self.begin, what) for what in _ACTIONS}

    def begin(self, what: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Start to send or to drop rows.

        Args:
            what: `redrive` or `drop`.
            asked: `kind`, `account` and `reason` select the rows; `rows` is the number that the operator agreed to, and `which`
                identifies them.

        Raises:
            RefusedError: the request is invalid, another action is running, or the rows are others by now.
        """
        match asked:
            case {
                "kind": str(kind),
                "account": str(account),
                "reason": str(reason),
                "rows": int(rows),
                "which": str(which),
            }:
                pass
            case _:
                raise RefusedError(400, "send kind, account, reason, rows and which")
        if kind not in _ACTIONS[what]:
            raise RefusedError(400, f"{what} works for {', '.join(_ACTIONS[what])}, not for {kind!r}")
        selection = Selection((KINDS[kind],), account)
        action = ConsoleAction(what, kind, account, reason, rows, self.clock.now())
        with self._lock:
            if any(other.state == "running" for other in self._actions):
                raise RefusedError(409, "another action is running: wait until it ends")
            try:
                named = [one for one in chunks(self.stack.ledger(), selection) if one.reason == reason]
                found = RowGroup()
                for one in named:
                    found.add(one)
            except UnavailableError as error:
                raise RefusedError(503, explained(error).message) from error
            if (found.rows, found.which) != (rows, which):
                self.changed()
                others = f"{found.rows:,} rows, not {rows:,}" if found.rows != rows else "other rows"
                raise RefusedError(409, f"there are now {others}: nothing was done")
            self._actions = [*self._actions[1 - _KEPT :], action]
        self.start(lambda: self._run(action, named))
        return asdict(action)

    def _run(self, action: ConsoleAction, named: Collection[ListedChunk]) -> None:
        event = {
            "kinds": [KINDS[action.kind].value],
            "chunks": [one.name for one in named],
            **({"decision": "drop"} if action.what == "drop" else {}),
        }
        try:
            action.result = sending.send(self.stack, event, lambda _: None)
            action.state = "done"
        except (click.ClickException, *FORESEEN) as error:
            action.error, action.state = explained(error).message, "failed"
        except Exception as error:
            action.error, action.state = f"{type(error).__name__}: {error}", "failed"
            raise
        finally:
            self.changed()
