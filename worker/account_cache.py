"""Looks up in Redis which database an account's rows go to.

Answers are kept in memory: they are fresh for a minute, and used stale while Redis fails. An account that Redis does not have
is unknown only if the sentinel key exists. Without the sentinel, Redis has lost its data, and its answer proves nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from shared import accounts
from shared.accounts import Account, AccountKeys
from shared.clock import Clock
from shared.errors import InvalidAccountError, SecretUnavailableError
from shared.telemetry import Telemetry

FRESH_SECONDS = 60.0
SILENT_SECONDS = 1.0
"""How long Redis is not asked again after it could not be reached."""

UNKNOWN = "unknown_account"
INVALID = "invalid_account"


@dataclass(eq=False)
class AccountCache:
    """Looks up accounts, and remembers them."""

    _connect: Callable[[], Any]
    _keys: AccountKeys
    _clock: Clock
    _telemetry: Telemetry
    _known: dict[str, tuple[Account, float]] = field(default_factory=dict, init=False)
    _failed_at: float = field(default=float("-inf"), init=False)

    def resolve(self, wanted: Iterable[str]) -> dict[str, Account | str]:
        """Return each account, or why it has none: `unknown_account` or `invalid_account`.

        This takes at most one round trip. Accounts that Redis gives no answer for now are left out.
        """
        now = self._clock.now()
        answers: dict[str, Account | str] = {}
        missing = []
        for account in wanted:
            known = self._known.get(account)
            if known is not None and 0 <= now - known[1] < FRESH_SECONDS:
                answers[account] = known[0]
            else:
                missing.append(account)
        if missing:
            self._ask(missing, answers)
        return answers

    def _ask(self, missing: list[str], answers: dict[str, Account | str]) -> None:
        is_silent = 0 <= self._clock.now() - self._failed_at < SILENT_SECONDS
        replies = {} if is_silent else self.look_up(missing)
        asked_at = self._clock.now()
        stale = 0
        for account in missing:
            answer = replies.get(account)
            if isinstance(answer, Account):
                self._known[account] = (answer, asked_at)
            elif answer is not None:
                self._known.pop(account, None)  # its database may be another account's by now
            elif account in self._known:
                answer = self._known[account][0]
                stale += 1
            if answer is not None:
                answers[account] = answer
        if stale:
            self._telemetry.count("AccountsStale", stale)

    def look_up(self, missing: Sequence[str]) -> dict[str, Account | str]:
        """Return what Redis says now, as `resolve` does; nothing is remembered, or answered from memory."""
        try:
            pipeline = self._connect().pipeline(transaction=False)
            pipeline.hget(self._keys.sentinel, "at")
            for account in missing:
                pipeline.hmget(self._keys.of(account), accounts.FIELDS)
            sentinel, *replies = pipeline.execute(raise_on_error=False)
        except (redis.RedisError, SecretUnavailableError) as error:
            reason = {"reason": str(error)} if isinstance(error, SecretUnavailableError) else {}
            self._telemetry.warning("Redis cannot be reached", error=type(error).__name__, **reason)
            # no account is asked for in the next moment: the sender has some to look up for thousands of spans
            self._failed_at = self._clock.now()
            return {}
        complete = isinstance(sentinel, str)
        answers: dict[str, Account | str] = {}
        for account, reply in zip(missing, replies, strict=True):
            answer = _read(reply)
            if answer is not None and (complete or answer != UNKNOWN):
                answers[account] = answer
        if len(answers) < len(missing):
            self._telemetry.warning(
                "Redis does not answer for accounts", count=len(missing) - len(answers), sentinel=complete
            )
        return answers


def _read(reply: Any) -> Account | str | None:
    """Return the account in Redis's reply to HMGET, or the reason that there is none; None if the reply proves nothing."""
    if isinstance(reply, redis.ResponseError):
        return INVALID if str(reply).startswith("WRONGTYPE") else None
    if not isinstance(reply, list) or len(reply) != len(accounts.FIELDS):
        return None
    if all(value is None for value in reply):
        return UNKNOWN
    try:
        return Account.from_fields(dict(zip(accounts.FIELDS, reply, strict=True)))
    except InvalidAccountError:
        return INVALID
