"""Reads and writes a stack's accounts in Redis.

An account is damaged if its key holds no account any more. It has a reason in place of its fields, and hides no others. Every function
raises redis.RedisError if Redis does not answer.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from itertools import batched
from typing import Any

from redis.exceptions import ResponseError

from shared import json_codec, names
from shared.accounts import ALL_FIELDS, Account, AccountKeys
from shared.errors import InvalidAccountError, InvalidJsonError

_AT_ONCE = 200
"""How many keys go into one round trip: thousands of accounts would take minutes one by one. All answers come within three seconds."""


def apply(redis: Any, keys: AccountKeys, accounts: Mapping[str, Account | str], now: float) -> None:
    """Replace the stack's accounts in Redis with these, by name; other stacks' accounts stay as they are, and so do damaged ones.

    Each command concerns one key, so it works on a cluster. The sentinel is written last, so that a Redis that has lost its data
    counts as complete only when every account is there. A name that cannot be an account raises ValueError. After a redis.RedisError,
    apply the accounts again.
    """
    check(accounts)
    _write(
        redis, {keys.of(name): one.to_fields() for name, one in accounts.items() if isinstance(one, Account)}
    )
    removed = [keys.of(name) for name in _found(redis, keys) if name not in accounts]
    _each(redis, removed, lambda pipeline, key: pipeline.delete(key))
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    _write(redis, {keys.sentinel: {"at": at, "count": len(accounts)}})


def check(accounts: Iterable[str]) -> None:
    """Raise ValueError unless all of these can be accounts' names."""
    for name in accounts:
        if not names.is_account(name):
            raise ValueError(f"{name!r} cannot be an account: 3 to 64 of a-z, 0-9 and _")


def change(redis: Any, keys: AccountKeys, name: str, account: Account, count: int) -> None:
    """Write one account, which may be new. `count` is how many the stack has then."""
    _write(redis, {keys.of(name): account.to_fields()})
    _write(redis, {keys.sentinel: {"count": count}})


def applied(redis: Any, keys: AccountKeys) -> dict[str, Account | str]:
    """Return the accounts that Redis holds, sorted by name, or why one is damaged."""
    found = sorted(_found(redis, keys))
    answers = _each(redis, found, lambda pipeline, name: pipeline.hmget(keys.of(name), ALL_FIELDS))
    return {name: _account(answer) for name, answer in zip(found, answers, strict=True)}


def applied_at(redis: Any, keys: AccountKeys) -> str | None:
    """Return when accounts were last applied, as ISO 8601; None if Redis has lost its data."""
    return _of_sentinel(redis, keys, "at")


def count(redis: Any, keys: AccountKeys) -> int | None:
    """Return how many accounts there were after the last change; None if Redis has lost its data."""
    text = _of_sentinel(redis, keys, "count")
    return int(text) if text and text.isdecimal() else None


def _of_sentinel(redis: Any, keys: AccountKeys, field: str) -> str | None:
    [answer] = _each(redis, [keys.sentinel], lambda pipeline, key: pipeline.hget(key, field))
    return answer if isinstance(answer, str) else None


def _found(redis: Any, keys: AccountKeys) -> list[str]:
    """Return the names of the accounts that have a key."""
    found = (key.removeprefix(keys.of("")) for key in redis.scan_iter(match=keys.of("*"), count=1000))
    return [name for name in found if names.is_account(name)]


def _account(answer: Any) -> Account | str:
    """Return the account in the answer to HMGET, or why it is damaged. The worker gets by without limits and a plan; here they would be lost."""
    if isinstance(answer, ResponseError):
        return "its key does not hold a hash"
    fields = dict(zip(ALL_FIELDS, answer, strict=True))
    try:
        account = Account.from_fields(fields)
        limits = json_codec.parse((fields["limits"] or "{}").encode())
    except (InvalidAccountError, InvalidJsonError) as error:
        return str(error)
    if not isinstance(limits, Mapping):
        return "its limits are not a mapping"
    return "its plan cannot be read" if fields["plan"] and account.plan is None else account


def _write(redis: Any, hashes: Mapping[str, Mapping[str, Any]]) -> None:
    """Set fields of hashes, in their order. A key that holds something else is deleted first."""
    answers = _each(redis, hashes, lambda pipeline, key: pipeline.hset(key, mapping=hashes[key]))
    for key, answer in zip(hashes, answers, strict=True):
        if isinstance(answer, ResponseError):
            redis.delete(key)
            redis.hset(key, mapping=hashes[key])


def _each(redis: Any, keys: Collection[str], queue: Callable[[Any, str], object]) -> list[Any]:
    """Send the command that `queue` adds to a pipeline for each key, in their order, and return the answers.

    If a key does not hold a hash, the answer is a ResponseError; the first other error is raised.
    """
    answers: list[Any] = []
    for some in batched(keys, _AT_ONCE, strict=False):
        pipeline = redis.pipeline(transaction=False)
        for key in some:
            queue(pipeline, key)
        for answer in pipeline.execute(raise_on_error=False):  # else the error would quote the command
            if isinstance(answer, Exception) and not str(answer).startswith("WRONGTYPE"):
                raise answer
            answers.append(answer)
    return answers
