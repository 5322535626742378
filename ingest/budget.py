"""What an account may spend, counted over all function instances: a budget of bytes and events an hour, which refills continuously.

A request costs as many seconds as the budget takes to refill by its bytes of rows or by its events, whichever takes longer. In any
minute, an account may spend 60 seconds. Large requests may spend 45 of them, so that ordinary visitors pass during a flood of
large bodies.

Each instance counts for itself. When it has counted GRAIN_SECONDS within a minute, it adds them to the account's counters in
DynamoDB, and the response is what all instances have spent in this minute and the last. Most accounts never reach that, and cause
no call. If DynamoDB fails, is slow or returns nonsense, the instance decides by its own count.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ingest.refusal import Refused
from ingest.request import MAX_INFLATED_BYTES, Request
from shared.clock import Clock
from shared.counters import Counters, Spent, totals
from shared.errors import aws_errors, error_code
from shared.policy import AccountLimits
from shared.telemetry import Telemetry

if TYPE_CHECKING:
    from ingest.aws_client import DynamoDbClient

CLIENT_OPTIONS: Mapping[str, Any] = {"connect_timeout": 0.05, "read_timeout": 0.05}
"""Client options: a visitor waits 0.1 s at most."""
SMALL_BYTES = 64 * 1024
"""A request is large if its rows or its body have this size."""
MINUTE_SECONDS = 60
"""What an account may spend in a minute."""
LARGE_SECONDS = 45
"""What its large requests may spend in a minute."""
GRAIN_SECONDS = 0.3
"""What an instance spends in a minute before it asks. At the minute's end it forgets what is left."""
LEAST_WAIT_SECONDS = 5
"""How long an instance refuses large requests at least before it asks again."""
PAUSE_SECONDS = 60
"""How long no call is made after one has failed, and the time between reports of refused requests."""

_MAX_INSTANCES = 3000
_MAX_ACCOUNTS = 10_000
_HOUR_SECONDS = 3600
_ROUNDED = 0.001  # more than all that is lost when numbers are rounded to microseconds


class Spending:
    """What one account has spent, as far as this instance knows, in seconds of its budget."""

    def __init__(self, budgets: "Budgets", account: str, limits: AccountLimits) -> None:
        self._budgets = budgets
        self.account = account
        self.use(limits)
        self.shut_until = self.large_shut_until = self._report_at = 0.0
        self._minute = 0
        self._this_small = self._this_large = self._last_small = self._last_large = 0.0
        self._pending_small = self._pending_large = self._own_large = 0.0
        self._told = Spent(0.0, 0.0)  # what of this minute's counters is this instance's
        self._refused_requests = self._refused_events = 0

    def use(self, limits: AccountLimits) -> None:
        """Set the account's budget."""
        self.limits = limits
        self._per_byte = _HOUR_SECONDS / limits.bytes_per_hour
        self._per_event = _HOUR_SECONDS / limits.events_per_hour
        # What all instances together can spend before each has asked. A greater total is nonsense.
        self._most = Spent(
            MINUTE_SECONDS + _MAX_INSTANCES * (GRAIN_SECONDS + SMALL_BYTES * self._per_byte),
            LARGE_SECONDS + _MAX_INSTANCES * (GRAIN_SECONDS + MAX_INFLATED_BYTES * self._per_byte),
        )

    def check(self, now: float) -> None:
        """Check that the account may spend anything.

        Raises:
            Refused: `budget_exceeded`.
        """
        if _is_ahead(self.shut_until, now):
            raise self._refusal(1, now)

    def body(self, request: Request) -> bytes:
        """Return a request's body. While the account may send no large requests, reading ends at SMALL_BYTES.

        Raises:
            Refused: `budget_exceeded`, or as `Request.body`.
        """
        now = self._budgets.now()
        if not _is_ahead(self.large_shut_until, now):
            return request.body()
        try:
            return request.body(SMALL_BYTES)
        except Refused as refused:
            raise (self._refusal(1, now) if refused.code == "body_too_large" else refused) from None

    def spend(self, events: int, size: int, now: float, overflow_level: int | None = None) -> None:
        """Count a request before it is stored.

        Args:
            events: how many it has.
            size: bytes of rows.
            now: UNIX seconds.
            overflow_level: while the overflow queue holds too much, how often an instance's share of large requests is halved.

        Raises:
            Refused: `budget_exceeded`.
        """
        is_large = size >= SMALL_BYTES
        if is_large and _is_ahead(self.large_shut_until, now):
            raise self._refusal(events, now)
        cost = max(size * self._per_byte, events * self._per_event)
        if now // MINUTE_SECONDS != self._minute:
            self._begin_minute(now // MINUTE_SECONDS)
        if is_large:
            if overflow_level is not None and self._own_large + cost > GRAIN_SECONDS / 2**overflow_level:
                raise self._refusal(events, now)
            self._own_large += cost
        self._add(cost, is_large=is_large)
        if self._pending_small + self._pending_large >= GRAIN_SECONDS:
            self._report(now)
        if self._this_small + self._this_large + self._last_small + self._last_large < LARGE_SECONDS:
            return
        self._decide(cost, events, now, is_large=is_large)

    def _decide(self, cost: float, events: int, now: float, *, is_large: bool) -> None:
        past = now % MINUTE_SECONDS / MINUTE_SECONDS
        if is_large:
            wait = _wait(self._this_large - cost, self._last_large, LARGE_SECONDS, past)
            if wait:
                self.large_shut_until = now + max(wait, LEAST_WAIT_SECONDS)
                raise self._take_back(cost, events, now, is_large=True)
        large = min(LARGE_SECONDS, self._this_large + self._last_large * (1 - past))
        wait = _wait(
            self._this_small + large - (0 if is_large else cost), self._last_small, MINUTE_SECONDS, past
        )
        if wait:
            self.shut_until = now + wait
            raise self._take_back(cost, events, now, is_large=is_large)

    def _add(self, cost: float, *, is_large: bool) -> None:
        if is_large:
            self._this_large += cost
            self._pending_large += cost
        else:
            self._this_small += cost
            self._pending_small += cost

    def _take_back(self, cost: float, events: int, now: float, *, is_large: bool) -> Refused:
        """Take back what a refused request costs: it must not count against those that follow. The counters may have it already."""
        self._add(-cost, is_large=is_large)
        refused = self._refusal(events, now)
        if self._pending_small + self._pending_large < 0:
            self._report(now)
        return refused

    def _begin_minute(self, minute: float) -> None:
        follows = minute == self._minute + 1
        self._last_small, self._last_large = (self._this_small, self._this_large) if follows else (0.0, 0.0)
        self._this_small = self._this_large = self._pending_small = self._pending_large = 0.0
        self._own_large = 0.0
        self._told = Spent(0.0, 0.0)
        self._minute = int(minute)

    def _refusal(self, events: int, now: float) -> Refused:
        """Count a refused request and return what to raise."""
        self._refused_requests += 1
        self._refused_events += events
        if not _is_ahead(self._report_at, now):
            self._report_at = now + PAUSE_SECONDS
            if now // MINUTE_SECONDS != self._minute:
                self._begin_minute(now // MINUTE_SECONDS)
            self._report(now)
        return Refused("budget_exceeded")

    def _report(self, now: float) -> None:
        """Add what is pending to the account's counters, and learn what all instances have spent."""
        own = Spent(self._pending_small, self._pending_large)
        counters = Counters(self._minute, own, self._refused_requests, self._refused_events)
        self._pending_small = self._pending_large = 0.0
        self._refused_requests = self._refused_events = 0
        found = self._budgets.add(self.account, counters, now)
        if found is None:
            return
        self._told = least = Spent(self._told.small + own.small, self._told.large + own.large)
        this, last = found
        if this.small < least.small - _ROUNDED or this.large < least.large - _ROUNDED:
            return  # the counters have forgotten something
        if self._is_possible(this):
            self._this_small, self._this_large = this
        if last is not None and self._is_possible(last):
            self._last_small, self._last_large = last

    def _is_possible(self, total: Spent) -> bool:
        return total.small <= self._most.small and total.large <= self._most.large


class Budgets:
    """What each account has spent.

    Args:
        client: a boto3-like DynamoDB client.
        table: the table of counters.
        clock: tells the minute.
        telemetry: logs failures.
    """

    def __init__(self, client: "DynamoDbClient", table: str, clock: Clock, telemetry: Telemetry) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self.now = clock.now
        self._telemetry = telemetry
        self._accounts: dict[str, Spending] = {}
        self._no_call_before = 0.0

    def of(self, account: str, limits: AccountLimits) -> Spending:
        """Return what an account with these limits has spent.

        Raises:
            Refused: `budget_exceeded`: it may spend nothing now.
        """
        found = self._accounts.get(account)
        if found is None:
            if len(self._accounts) >= _MAX_ACCOUNTS:
                self._accounts.clear()
            found = self._accounts[account] = Spending(self, account, limits)
        elif found.limits is not limits:  # a newer policy
            found.use(limits)
        if found.shut_until:
            found.check(self._clock.now())
        return found

    def add(self, account: str, counters: Counters, now: float) -> tuple[Spent, Spent | None] | None:
        """Add to an account's counters; return the totals of this minute and, if known, the last. None if they are unknown."""
        if _is_ahead(self._no_call_before, now):
            return None
        try:
            answer = self._client.update_item(**counters.update(self._table, account))
            return totals(answer, counters.minute)
        except aws_errors(ValueError) as error:
            self._no_call_before = now + PAUSE_SECONDS
            self._telemetry.warning("accounts' spending cannot be counted", code=error_code(error))
            return None


def _is_ahead(time: float, now: float) -> bool:
    """Return whether a time that was set within two minutes before it is in the future. Clocks can be set back."""
    return 0 < time - now <= 2 * MINUTE_SECONDS


def _wait(this: float, last: float, limit: float, past: float) -> float:
    """Return in how many seconds an account is below a limit; 0 if it is.

    What was spent in the last minute counts in proportion to how much of that minute is still within 60 seconds.

    Args:
        this: what was spent in this minute.
        last: what was spent in the last minute.
        limit: what may be spent.
        past: how much of this minute has passed, 0 to 1.
    """
    if this + last * (1 - past) < limit:
        return 0.0
    if this < limit:
        return ((1 - (limit - this) / last) - past) * MINUTE_SECONDS + 0.001
    return (2 - past - limit / this) * MINUTE_SECONDS + 0.001
