"""Reads and writes a stack's accounts in Redis.

Every function raises redis.RedisError if Redis does not answer.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from itertools import batched
from typing import Any

from shared import names
from shared.accounts import ALL_FIELDS, Account, AccountKeys

_AT_ONCE = 200
"""How many keys go into one round trip: thousands of accounts would take minutes one by one. All answers come within three seconds."""


def apply(redis: Any, keys: AccountKeys, accounts: Mapping[str, Account], now: float) -> None:
    """Replace the stack's accounts in Redis with these, by name; other stacks' accounts stay as they are.

    Each command concerns one key, so it works on a cluster. The sentinel is written last, so that a Redis that has lost its data
    counts as complete only when every account is there. A name that cannot be an account raises ValueError. After a redis.RedisError,
    apply the accounts again.
    """
    check(accounts)
    fields = {keys.of(name): account.to_fields() for name, account in accounts.items()}
    _each(redis, fields, lambda pipeline, key: pipeline.hset(key, mapping=fields[key]))
    removed = [key for key in _found(redis, keys) if key not in fields]
    _each(redis, removed, lambda pipeline, key: pipeline.delete(key))
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
    found = sorted(_found(redis, keys))
    answers = _each(redis, found, lambda pipeline, key: pipeline.hmget(key, ALL_FIELDS))
    return {
        key.removeprefix(keys.of("")): Account.from_fields(dict(zip(ALL_FIELDS, answer, strict=True)))
        for key, answer in zip(found, answers, strict=True)
    }


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


def _each(redis: Any, keys: Collection[str], queue: Callable[[Any, str], object]) -> list[Any]:
    """Send the command that `queue` adds to a pipeline for each key, in their order, and return the answers; raise the first error."""
    answers: list[Any] = []
    for some in batched(keys, _AT_ONCE, strict=False):
        pipeline = redis.pipeline(transaction=False)
        for key in some:
            queue(pipeline, key)
        for answer in pipeline.execute(raise_on_error=False):  # else the error would quote the command
            if isinstance(answer, Exception):
                raise answer
            answers.append(answer)
    return answers
