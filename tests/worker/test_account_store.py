"""Accounts in Redis."""

from collections.abc import Iterator
from pathlib import Path

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
    """Run a Valkey and give its port."""
    process, port = valkey.start(Path(tmp_path_factory.mktemp("valkey")))
    yield port
    process.terminate()
    process.wait()


@pytest.fixture
def redis(server: int) -> Iterator[Redis]:
    """Give a client of an empty Valkey."""
    with Redis(port=server, decode_responses=True) as client:
        client.flushall()
        yield client


def test_what_is_applied_is_what_stands(redis: Redis) -> None:
    """Applied accounts can be read back."""
    account_store.apply(redis, KEYS, {"shop": SHOP, "news": NEWS}, now=0)

    assert {"news": NEWS, "shop": SHOP} == account_store.applied(redis, KEYS)


def test_what_is_no_longer_applied_goes(redis: Redis) -> None:
    """An account that the mapping does not have leaves Redis; other keys stay."""
    redis.set("something", "else")
    account_store.apply(redis, KEYS, {"shop": SHOP, "news": NEWS}, now=0)
    account_store.apply(redis, KEYS, {"news": SHOP}, now=0)

    assert {"news": SHOP} == account_store.applied(redis, KEYS)
    assert "else" == redis.get("something")


def test_stacks_that_share_a_redis_do_not_see_each_other(redis: Redis) -> None:
    """What one applies leaves the other's accounts alone, and does not count as the other's being applied."""
    other = AccountKeys("two")
    account_store.apply(redis, KEYS, {"shop": SHOP}, now=0)
    assert ({}, None) == (account_store.applied(redis, other), account_store.applied_at(redis, other))

    account_store.apply(redis, other, {"news": NEWS}, now=0)
    account_store.change(redis, other, {"news": NEWS, "shop": NEWS}, "shop")

    assert {"shop": SHOP} == account_store.applied(redis, KEYS)
    assert {"news": NEWS, "shop": NEWS} == account_store.applied(redis, other)


def test_the_sentinel_says_when_and_how_many(redis: Redis) -> None:
    """The sentinel tells a filled Redis from an emptied one."""
    account_store.apply(redis, KEYS, {"shop": SHOP}, now=1_700_000_000)

    assert {"at": "2023-11-14T22:13:20+00:00", "count": "1"} == redis.hgetall(KEYS.sentinel)


def test_the_sentinel_is_written_last() -> None:
    """While accounts are being written, Redis does not count as filled."""
    written: list[str] = []

    class Recorder:
        def hset(self, key: str, **_: object) -> None:
            written.append(key)

        def scan_iter(self, **_: object) -> list[str]:
            return []

    account_store.apply(Recorder(), KEYS, {"shop": SHOP, "news": NEWS}, now=0)

    assert ["one:account:shop", "one:account:news", "one:account:.applied"] == written


def test_an_illegal_name_is_refused_before_anything_is_written() -> None:
    """No account can take the sentinel's place."""
    with pytest.raises(ValueError, match="cannot be an account"):
        account_store.apply(None, KEYS, {"shop": SHOP, ".applied": NEWS}, now=0)
