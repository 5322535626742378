"""Writes accounts to Redis: applying a mapping replaces all that a stack has there.

Every function raises redis.RedisError if Redis does not answer.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from shared import names
from shared.accounts import ALL_FIELDS, Account, AccountKeys


def apply(redis: Any, keys: AccountKeys, accounts: Mapping[str, Account], now: float) -> None:
    """Make Redis hold exactly these accounts of a stack, by name; those of other stacks stay as they are.

    Each command concerns one key, so that it works on a cluster. The sentinel is written last: an emptied Redis,
    which is not judged by, counts as filled only when all is there.

    Raises:
        ValueError: a name is no account's.
        redis.RedisError: Redis did not take it all; apply it again.
    """
    check(accounts)
    for name, account in accounts.items():
        redis.hset(keys.of(name), mapping=account.to_fields())
    for key in _found(redis, keys):
        if key.removeprefix(keys.of("")) not in accounts:
            redis.delete(key)
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    redis.hset(keys.sentinel, mapping={"at": at, "count": len(accounts)})


def check(accounts: Iterable[str]) -> None:
    """Check that these can be account names.

    Raises:
        ValueError: one cannot.
    """
    for name in accounts:
        if not names.is_account(name):
            raise ValueError(f"{name!r} cannot be an account: 3 to 64 of a-z, 0-9 and _")


def change(redis: Any, keys: AccountKeys, accounts: Mapping[str, Account], name: str) -> None:
    """Write one account, which may be new, given all accounts of the stack as they will be."""
    redis.hset(keys.of(name), mapping=accounts[name].to_fields())
    redis.hset(keys.sentinel, mapping={"count": len(accounts)})


def applied(redis: Any, keys: AccountKeys) -> dict[str, Account]:
    """Return the accounts that Redis holds, by name in order.

    Raises:
        shared.accounts.InvalidAccountError: one of them is invalid.
    """
    found = {}
    for key in sorted(_found(redis, keys)):
        fields = dict(zip(ALL_FIELDS, redis.hmget(key, ALL_FIELDS), strict=True))
        found[key.removeprefix(keys.of(""))] = Account.from_fields(fields)
    return found


def applied_at(redis: Any, keys: AccountKeys) -> str | None:
    """Return when accounts were applied last, as ISO 8601; None if Redis has lost its data."""
    at: str | None = redis.hget(keys.sentinel, "at")
    return at


def count(redis: Any, keys: AccountKeys) -> int | None:
    """Return how many accounts were applied last; None if Redis has lost its data."""
    text: str | None = redis.hget(keys.sentinel, "count")
    return int(text) if text and text.isdecimal() else None


def _found(redis: Any, keys: AccountKeys) -> Iterable[str]:
    found: list[str] = list(redis.scan_iter(match=keys.of("*"), count=1000))
    return [key for key in found if key != keys.sentinel]
