"""The console's view of a stack, as JSON values."""

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from ops import known_accounts
from ops.books.accounting import Balance
from ops.books.table_history import RECENT_SECONDS, History
from ops.console.refreshed import Reading, Refreshed
from ops.known_accounts import KnownAccounts
from ops.stack import Stack
from ops.state import state_document
from ops.state.checks import Checks
from ops.state.faults import findings, summary
from ops.state.stack_state import StackState, StateReader, accounting
from shared.clock import Clock, SystemClock
from shared.tracking_plan import TrackingPlan

_FIRST_COUNT_SECONDS = 10.0
_COUNTS = ("received", "delivered", "in_flight", "waiting", "dead")


@dataclass
class ConsoleView:
    """The console's view of a stack. Threads may share it.

    Args:
        look_seconds: how old the state may be.
        count_seconds: how old the counts by table may be. Counting reads the whole ledger.
        count_share: the share of the time that counting may take. A busy stack's ledger takes hundreds of thousands of read units.
        account_seconds: how old the accounts may be. Reading them invokes a function.
    """

    stack: Stack
    _: KW_ONLY
    look_seconds: float = 5.0
    count_seconds: float = 30.0
    count_share: float = 0.01
    account_seconds: float = 60.0
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        stack, clock = self.stack, self.clock
        # A key tried every minute would show among the events as a refused request.
        look = StateReader(stack, checks=Checks(stack, tries_key=False))
        self._look = Refreshed(look.state, self.look_seconds, clock)
        self._counted = Refreshed(self._count, self.count_seconds, clock, share=self.count_share)
        self._accounts = Refreshed(lambda: known_accounts.known(stack), self.account_seconds, clock)

    def first(self) -> None:
        """Read the state once, so that missing permissions show before the page is served.

        Raises:
            UnavailableError, ClientError, BotoCoreError, Failure: something cannot be read.
        """
        self._look.first()
        self._counted.wait(_FIRST_COUNT_SECONDS)
        self._accounts.refresh()  # Redis may be down; the page says so

    def expire(self) -> None:
        """Refresh soon, because something has changed."""
        self._look.expire()
        self._counted.expire()

    def plan(self, account: str) -> TrackingPlan | None:
        """Return the tracking plan of an account; None if it has none or it is not known yet."""
        known = self._accounts.latest().value
        found = known.accounts.get(account) if known else None
        return found.plan if found else None

    def state(self) -> dict[str, Any]:
        """Return what is known, without waiting. Old values are refreshed in the background."""
        looked, counted, known = self._look.latest(), self._counted.latest(), self._accounts.latest()
        return {
            "stack": {
                "name": self.stack.name,
                "region": None if self.stack.is_local else self.stack.session.region_name,
                "option": self.stack.option,
            },
            "at": self.clock.now(),
            "look": self._looked(looked),
            "counts": _counts(counted),
            "accounts": _accounts(known),
        }

    def _count(self) -> tuple[Balance, History]:
        history = History(self.clock.now())
        return accounting(self.stack).take(each=history.add), history

    def _looked(self, reading: Reading[StackState]) -> dict[str, Any]:
        shown = _dated(reading)
        if reading.value is not None:
            found = findings(reading.value, self.stack.option)
            shown |= state_document.document(reading.value, found)
            shown["lines"] = state_document.findings_document(summary(reading.value, found))
        return shown


def _dated(reading: Reading[Any]) -> dict[str, Any]:
    return {"at": reading.at, "error": reading.error, "known": reading.value is not None}


def _counts(reading: Reading[tuple[Balance, History]]) -> dict[str, Any]:
    """Return what was received and what happened to it."""
    shown = _dated(reading)
    if reading.value is None:
        return shown
    balance, history = reading.value
    sums = balance.total
    waiting = balance.unread.rows
    return shown | {
        "accepted": sums.received + waiting,
        "in_flight": sums.in_flight + waiting,
        "delivered": sums.delivered,
        "waiting": sums.waiting,
        "dead": sums.dead,
        "is_complete": balance.unread.is_complete,
        "adds_up": balance.adds_up,
        "tables": [
            {"account": account, "table": table}
            | {name: getattr(rows, name) for name in _COUNTS}
            | _history(history, account, table)
            for (account, table), rows in sorted(balance.tables.items())
        ],
    }


def _history(history: History, account: str, table: str) -> dict[str, Any]:
    found = history.tables.get((account, table))
    if found is None:
        return {"first": None, "last": None, "per_minute": 0.0, "hours": []}
    rate = round(found.recent / RECENT_SECONDS * 60, 1)
    return {"first": found.first, "last": found.last, "per_minute": rate, "hours": found.hours}


def _accounts(reading: Reading[KnownAccounts]) -> dict[str, Any]:
    shown = _dated(reading)
    if reading.value is None:
        return shown
    known = reading.value
    accounts = [
        {
            "account": name,
            "database": one.database,
            "status": one.status,
            "revoked_key_ids": sorted(one.revoked_key_ids),
            "plan": {"mode": one.plan.mode, "tables": len(one.plan.tables)} if one.plan else None,
        }
        for name, one in known.accounts.items()
    ]
    nothing: dict[str, Any] = {"database": "", "status": "damaged", "revoked_key_ids": [], "plan": None}
    accounts += [{"account": name} | nothing for name in known.damaged]
    return shown | {
        "applied_at": known.applied_at,
        "accounts": sorted(accounts, key=lambda one: str(one["account"])),
    }
