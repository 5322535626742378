"""The account cache."""

from typing import Any

import pytest
import redis

from doubles.clock import ManualClock
from doubles.redis import MemoryRedis
from shared.accounts import Account, AccountKeys
from shared.errors import SecretUnavailableError
from tests.support.telemetry import CollectedTelemetry
from worker.account_cache import INVALID, SILENT_SECONDS, UNKNOWN, AccountCache

KEYS = AccountKeys("ledger")
SHOP = Account("shop_db", "active", frozenset({"k2"}))
BLOG = Account("blog_db", "disabled")


def fill(client: Any, *, sentinel: bool = True) -> None:
    """Write two valid accounts and one invalid one."""
    for name, account in (("shop", SHOP), ("blog", BLOG)):
        client.hset(KEYS.of(name), mapping=account.to_fields())
    client.hset(KEYS.of("odd"), mapping={"database": "No!"})
    if sentinel:
        client.hset(KEYS.sentinel, mapping={"at": "2026-11-25T00:00:00Z", "count": "2"})


def unreachable(**_: Any) -> Any:
    """Fail as a client that does not reach Redis."""
    raise redis.ConnectionError


def cache(client: Any, clock: ManualClock | None = None) -> AccountCache:
    """Return a cache over a client."""
    return AccountCache(lambda: client, KEYS, clock or ManualClock(), CollectedTelemetry())


def test_resolves_known_unknown_and_invalid_accounts() -> None:
    """A malformed account is INVALID, and one that Redis does not have is UNKNOWN."""
    client = MemoryRedis()
    fill(client)

    assert cache(client).resolve(["shop", "blog", "odd", "nobody"]) == {
        "shop": SHOP,
        "blog": BLOG,
        "odd": INVALID,
        "nobody": UNKNOWN,
    }


def test_answers_are_cached_for_a_minute() -> None:
    """Within 60 s Redis is not asked again; after that, a change takes effect."""
    client, clock = MemoryRedis(), ManualClock()
    fill(client)
    made = cache(client, clock)
    made.resolve(["shop"])
    client.hset(KEYS.of("shop"), mapping=Account("new_db").to_fields())
    clock.sleep(59)
    assert {"shop": SHOP} == made.resolve(["shop"])
    clock.sleep(2)

    assert {"shop": Account("new_db")} == made.resolve(["shop"])


def test_an_answer_from_before_the_clock_was_set_back_is_not_fresh() -> None:
    """Nor does a failure from then keep Redis from being asked: the clock of a function may have been wrong by an hour."""
    client: Any = MemoryRedis()
    clock, connect = ManualClock(), client.pipeline
    fill(client)
    made = cache(client, clock)
    made.resolve(["shop"])
    client.hset(KEYS.of("shop"), mapping=Account("new_db").to_fields())
    client.pipeline = unreachable
    clock.time -= 3600
    assert {"shop": SHOP} == made.resolve(["shop"])
    client.pipeline = connect
    clock.time -= 3600

    assert {"shop": Account("new_db")} == made.resolve(["shop"])


def test_unknown_accounts_are_not_cached() -> None:
    """A new account takes effect at the next batch."""
    client = MemoryRedis()
    fill(client)
    made = cache(client)
    assert {"new": UNKNOWN} == made.resolve(["new"])
    client.hset(KEYS.of("new"), mapping=SHOP.to_fields())

    assert {"new": SHOP} == made.resolve(["new"])


@pytest.mark.parametrize(
    "error",
    [redis.ConnectionError("away"), redis.TimeoutError("slow"), SecretUnavailableError("no value yet")],
)
def test_cached_answers_are_served_while_redis_fails(error: Exception) -> None:
    """While Redis fails, cached accounts resolve however old they are, and are counted; other accounts get no answer."""
    client, clock = MemoryRedis(), ManualClock()
    fill(client)
    broken: list[Exception] = []

    def connect_or_fail() -> Any:
        if broken:
            raise broken[0]
        return client

    telemetry = CollectedTelemetry()
    made = AccountCache(connect_or_fail, KEYS, clock, telemetry)
    made.resolve(["shop"])
    broken.append(error)
    clock.sleep(86_400)

    assert {"shop": SHOP} == made.resolve(["shop", "blog"])
    assert {"AccountsStale": 1} == telemetry.counts


def test_redis_is_left_alone_for_a_moment_after_it_could_not_be_reached() -> None:
    """The sender has accounts to look up for thousands of spans, and each attempt may take long."""
    client, clock = MemoryRedis(), ManualClock()
    fill(client)
    tried: list[float] = []

    def connect_late() -> Any:
        tried.append(clock.now())
        if len(tried) == 1:
            raise redis.ConnectionError("away")
        return client

    made = AccountCache(connect_late, KEYS, clock, CollectedTelemetry())
    assert [{}, {}] == [made.resolve(["shop"]) for _ in range(2)]
    assert 1 == len(tried)
    clock.sleep(SILENT_SECONDS)

    assert {"shop": SHOP} == made.resolve(["shop"])


def test_a_secret_without_a_value_is_logged_with_its_remedy() -> None:
    """The log names the secret and what to do, since only the operator can fix it."""
    telemetry = CollectedTelemetry()

    def connect() -> Any:
        raise SecretUnavailableError("the secret x has no value yet: put one there")

    assert {} == AccountCache(connect, KEYS, ManualClock(), telemetry).resolve(["shop"])
    expected = {"error": "SecretUnavailableError", "reason": "the secret x has no value yet: put one there"}

    assert [expected] == telemetry.said("Redis cannot be reached")


def test_an_error_for_one_account_affects_only_that_account() -> None:
    """If one reply of a pipeline is an error, or has another form, the other accounts still resolve."""
    client: Any = MemoryRedis()
    fill(client)
    pipeline = client.pipeline(transaction=False)
    execute = pipeline.execute

    def partly(*, raise_on_error: bool) -> list[Any]:
        replies = execute(raise_on_error)
        replies[2] = redis.exceptions.ClusterDownError("CLUSTERDOWN Hash slot not served")
        replies[3] = redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return [*replies[:4], None, "text", ["shop_db"]]

    pipeline.execute = partly
    client.pipeline = lambda **_: pipeline

    assert {"shop": SHOP, "nobody": INVALID} == cache(client).resolve(
        ["shop", "blog", "nobody", "nil", "text", "short"]
    )
