"""The account store: how accounts are written to Redis."""

from collections.abc import Iterator

import pytest
from redis import Redis

from local import valkey
from shared.accounts import Account, AccountKeys
from worker import account_store

KEYS = AccountKeys("one")
SHOP = Account("shop")
NEWS = Account("media", "disabled", frozenset({"k1", "k1-2"}))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run a Valkey server and return its port."""
    process, port = valkey.start(tmp_path_factory.mktemp("valkey"), is_cluster=True)
    yield port
    process.terminate()
    process.wait()


@pytest.fixture
def redis(server: int) -> Iterator[Redis]:
    """Return a client of an empty Valkey."""
    with Redis(port=server, decode_responses=True) as client:
        client.flushall()
        yield client


def test_applied_accounts_can_be_read_back(redis: Redis) -> None:
    """Status and revoked key ids round-trip as well as databases."""
    account_store.apply(redis, KEYS, {"shop": SHOP, "news": NEWS}, now=0)

    assert {"news": NEWS, "shop": SHOP} == account_store.applied(redis, KEYS)


def test_applying_removes_accounts_that_are_not_in_the_mapping(redis: Redis) -> None:
    """An account that the new mapping lacks is deleted from Redis; keys that are not Sluice's stay."""
    redis.set("something", "else")
    account_store.apply(redis, KEYS, {"shop": SHOP, "news": NEWS}, now=0)
    account_store.apply(redis, KEYS, {"news": SHOP}, now=0)

    assert {"news": SHOP} == account_store.applied(redis, KEYS)
    assert "else" == redis.get("something")


def test_stacks_that_share_a_redis_are_isolated(redis: Redis) -> None:
    """One stack's accounts and sentinel are invisible to the other, and applying does not delete them."""
    other = AccountKeys("two")
    account_store.apply(redis, KEYS, {"shop": SHOP}, now=0)
    assert ({}, None) == (account_store.applied(redis, other), account_store.applied_at(redis, other))

    account_store.apply(redis, other, {"news": NEWS}, now=0)
    account_store.change(redis, other, {"news": NEWS, "shop": NEWS}, "shop")

    assert {"shop": SHOP} == account_store.applied(redis, KEYS)
    assert {"news": NEWS, "shop": NEWS} == account_store.applied(redis, other)


def test_the_sentinel_records_the_time_and_the_number_of_accounts(redis: Redis) -> None:
    """The number shows later whether Redis has lost accounts."""
    account_store.apply(redis, KEYS, {"shop": SHOP}, now=1_700_000_000)

    assert {"at": "2023-11-14T22:13:20+00:00", "count": "1"} == redis.hgetall(KEYS.sentinel)


def test_the_sentinel_is_written_last() -> None:
    """Until all accounts are written, Redis must not count as filled."""
    written: list[str] = []

    class Recorder:
        def hset(self, key: str, **_: object) -> None:
            written.append(key)

        def scan_iter(self, **_: object) -> list[str]:
            return []

    account_store.apply(Recorder(), KEYS, {"shop": SHOP, "news": NEWS}, now=0)

    assert ["one:account:shop", "one:account:news", "one:account:.applied"] == written


def test_an_invalid_name_is_rejected_before_anything_is_written() -> None:
    """Otherwise an account could overwrite the sentinel."""
    with pytest.raises(ValueError, match="cannot be an account"):
        account_store.apply(None, KEYS, {"shop": SHOP, ".applied": NEWS}, now=0)
