"""Accounts in Redis: how they are written, and the worker's cache of them."""

from typing import Any
from unittest.mock import Mock

import pytest
import redis

from doubles.clock import ManualClock
from doubles.redis import MemoryRedis
from shared.accounts import Account, AccountKeys
from shared.errors import SecretUnavailableError
from tests.support.telemetry import CollectedTelemetry
from worker import account_store
from worker.account_cache import INVALID, SILENT_SECONDS, UNKNOWN, AccountCache

KEYS = AccountKeys("ledger")
SHOP = Account("shop_db", "active", frozenset({"k2"}))
BLOG = Account("blog_db", "disabled", frozenset({"k1", "k1-2"}))


def filled() -> Any:
    """Return a Redis with two valid accounts and one invalid one."""
    client: Any = MemoryRedis()
    account_store.apply(client, KEYS, {"shop": SHOP, "blog": BLOG}, now=0)
    client.hset(KEYS.of("odd"), mapping={"database": "No!"})
    return client


def cache(client: Any, clock: ManualClock | None = None) -> AccountCache:
    """Return a cache over a client."""
    return AccountCache(lambda: client, KEYS, clock or ManualClock(), CollectedTelemetry())


def test_answers_are_cached_for_a_minute() -> None:
    """After that, a change takes effect; an account that was unknown does so at the next batch. One that was removed is not served while Redis fails."""
    client, clock = filled(), ManualClock()
    made = cache(client, clock)
    found = made.resolve(["shop", "blog", "odd", "new"])
    assert {"shop": SHOP, "blog": BLOG, "odd": INVALID, "new": UNKNOWN} == found
    for name in ("shop", "new"):
        client.hset(KEYS.of(name), mapping=Account("new_db").to_fields())
    clock.sleep(59)
    assert {"shop": SHOP, "new": Account("new_db")} == made.resolve(["shop", "new"])
    clock.sleep(2)
    assert {"shop": Account("new_db")} == made.resolve(["shop"])
    client.delete(KEYS.of("shop"))
    clock.sleep(61)
    assert {"shop": UNKNOWN} == made.resolve(["shop"])
    client.pipeline = Mock(side_effect=redis.ConnectionError)

    assert {} == made.resolve(["shop"])  # its database may be another account's by now


def test_an_answer_from_before_the_clock_was_set_back_is_not_fresh() -> None:
    """Nor does a failure from then keep Redis from being asked: the clock of a function may have been wrong by an hour."""
    client, clock = filled(), ManualClock()
    made, connect = cache(client, clock), client.pipeline
    made.resolve(["shop"])
    client.hset(KEYS.of("shop"), mapping=Account("new_db").to_fields())
    client.pipeline = Mock(side_effect=redis.ConnectionError)
    clock.time -= 3600
    assert {"shop": SHOP} == made.resolve(["shop"])
    client.pipeline = connect
    clock.time -= 3600

    assert {"shop": Account("new_db")} == made.resolve(["shop"])


@pytest.mark.parametrize(
    "error",
    [redis.ConnectionError("away"), redis.TimeoutError("slow"), SecretUnavailableError("put a value there")],
)
def test_cached_answers_are_served_while_redis_fails(error: Exception) -> None:
    """While Redis fails, cached accounts resolve however old they are, and are counted; others get no answer. The log says what to do."""
    client, clock = filled(), ManualClock()
    telemetry = CollectedTelemetry()
    made = AccountCache(Mock(side_effect=[client, error]), KEYS, clock, telemetry)
    made.resolve(["shop"])
    clock.sleep(86_400)

    assert {"shop": SHOP} == made.resolve(["shop", "blog"])
    assert {"AccountsStale": 1} == telemetry.counts
    reason = {"reason": str(error)} if isinstance(error, SecretUnavailableError) else {}
    reported = {"error": type(error).__name__, **reason}
    assert [reported] == telemetry.said("Redis cannot be reached")


def test_redis_is_left_alone_for_a_moment_after_it_could_not_be_reached() -> None:
    """The sender has accounts to look up for thousands of spans, and each attempt may take long."""
    client, clock = filled(), ManualClock()
    connect = Mock(side_effect=[redis.ConnectionError("away"), client])
    made = AccountCache(connect, KEYS, clock, CollectedTelemetry())
    assert [{}, {}] == [made.resolve(["shop"]) for _ in range(2)]
    assert 1 == connect.call_count
    clock.sleep(SILENT_SECONDS)

    assert {"shop": SHOP} == made.resolve(["shop"])


def test_an_error_for_one_account_affects_only_that_account() -> None:
    """If one reply of a pipeline is an error, or has another form, the other accounts still resolve."""
    client = filled()
    pipeline = client.pipeline(transaction=False)
    execute = pipeline.execute

    def partly(*, raise_on_error: bool) -> list[Any]:
        replies = execute(raise_on_error)
        replies[2] = redis.exceptions.ClusterDownError("CLUSTERDOWN Hash slot not served")
        replies[3] = redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return [*replies[:4], None, "text", ["shop_db"]]

    pipeline.execute = partly
    client.pipeline = lambda **_: pipeline

    names = ["shop", "blog", "nobody", "nil", "text", "short"]
    assert {"shop": SHOP, "nobody": INVALID} == cache(client).resolve(names)


def test_applying_replaces_the_accounts_of_its_own_stack() -> None:
    """An account that the new mapping lacks is deleted; other stacks' accounts and sentinels, and keys that are not Sluice's, stay."""
    client: Any = MemoryRedis()
    other = AccountKeys("other")
    client.hset("something", mapping={"a": "else"})
    account_store.apply(client, KEYS, {"shop": SHOP, "blog": BLOG}, now=0)
    assert ({}, None) == (account_store.applied(client, other), account_store.applied_at(client, other))
    account_store.apply(client, other, {"blog": BLOG}, now=0)
    account_store.change(client, other, "shop", BLOG, 2)
    account_store.apply(client, KEYS, {"blog": SHOP}, now=0)

    assert {"blog": SHOP} == account_store.applied(client, KEYS)
    assert {"blog": BLOG, "shop": BLOG} == account_store.applied(client, other)
    assert "else" == client.hget("something", "a")


def test_the_sentinel_is_written_last() -> None:
    """Until all accounts are written, Redis must not count as filled."""
    client = MemoryRedis()
    account_store.apply(client, KEYS, {"shop": SHOP, "blog": BLOG}, now=0)

    assert ["ledger:account:shop", "ledger:account:blog", "ledger:account:.applied"] == list(client.hashes)


def test_an_invalid_name_is_rejected_before_anything_is_written() -> None:
    """Otherwise an account could overwrite the sentinel."""
    with pytest.raises(ValueError, match="cannot be an account"):
        account_store.apply(None, KEYS, {"shop": SHOP, ".applied": BLOG}, now=0)
