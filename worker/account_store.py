"""Reads and writes a stack's accounts in Redis.

Every function raises redis.RedisError if Redis does not answer.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from shared import names
from shared.accounts import ALL_FIELDS, Account, AccountKeys


def apply(redis: Any, keys: AccountKeys, accounts: Mapping[str, Account], now: float) -> None:
    """Replace the stack's accounts in Redis with these, by name; other stacks' accounts stay as they are.

    Each command concerns one key, so it works on a cluster. The sentinel is written last, so that a Redis that has lost its data
    counts as complete only when every account is there. A name that cannot be an account raises ValueError. After a redis.RedisError,
    apply the accounts again.
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
    """Raise ValueError unless all of these can be accounts' names."""
    for name in accounts:
        if not names.is_account(name):
            raise ValueError(f"{name!r} cannot be an account: 3 to 64 of a-z, 0-9 and _")


def change(redis: Any, keys: AccountKeys, accounts: Mapping[str, Account], name: str) -> None:
    """Write the account `name`, which may be new. `accounts` holds all accounts of the stack, including the changed one."""
    redis.hset(keys.of(name), mapping=accounts[name].to_fields())
    redis.hset(keys.sentinel, mapping={"count": len(accounts)})


def applied(redis: Any, keys: AccountKeys) -> dict[str, Account]:
    """Return the accounts that Redis holds, sorted by name; raise InvalidAccountError if one of them is invalid."""
    found = {}
    for key in sorted(_found(redis, keys)):
        fields = dict(zip(ALL_FIELDS, redis.hmget(key, ALL_FIELDS), strict=True))
        found[key.removeprefix(keys.of(""))] = Account.from_fields(fields)
    return found


def applied_at(redis: Any, keys: AccountKeys) -> str | None:
    """Return when accounts were last applied, as ISO 8601; None if Redis has lost its data."""
    at: str | None = redis.hget(keys.sentinel, "at")
    return at


def count(redis: Any, keys: AccountKeys) -> int | None:
    """Return how many accounts there were after the last change; None if Redis has lost its data."""
    text: str | None = redis.hget(keys.sentinel, "count")
    return int(text) if text and text.isdecimal() else None


def _found(redis: Any, keys: AccountKeys) -> Iterable[str]:
    found: list[str] = list(redis.scan_iter(match=keys.of("*"), count=1000))
    return [key for key in found if key != keys.sentinel]
