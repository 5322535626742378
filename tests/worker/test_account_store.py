"""The account store: how accounts are written to Redis."""

from typing import Any

import pytest

from doubles.redis import MemoryRedis
from shared.accounts import Account, AccountKeys
from worker import account_store

KEYS = AccountKeys("one")
SHOP = Account("shop")
NEWS = Account("media", "disabled", frozenset({"k1", "k1-2"}))


@pytest.fixture
def redis() -> Any:
    """Return an empty Redis."""
    return MemoryRedis()


def test_applied_accounts_can_be_read_back(redis: Any) -> None:
    """Status and revoked key ids round-trip as well as databases. The number of accounts shows later whether Redis has lost some."""
    account_store.apply(redis, KEYS, {"shop": SHOP, "news": NEWS}, now=1_700_000_000)

    assert {"news": NEWS, "shop": SHOP} == account_store.applied(redis, KEYS)
    assert ["2023-11-14T22:13:20+00:00", "2"] == redis.hmget(KEYS.sentinel, ["at", "count"])


def test_applying_replaces_the_accounts_of_its_own_stack(redis: Any) -> None:
    """An account that the new mapping lacks is deleted; other stacks' accounts and sentinels, and keys that are not Sluice's, stay."""
    other = AccountKeys("two")
    redis.hset("something", mapping={"a": "else"})
    account_store.apply(redis, KEYS, {"shop": SHOP, "news": NEWS}, now=0)
    assert ({}, None) == (account_store.applied(redis, other), account_store.applied_at(redis, other))
    account_store.apply(redis, other, {"news": NEWS}, now=0)
    account_store.change(redis, other, {"news": NEWS, "shop": NEWS}, "shop")
    account_store.apply(redis, KEYS, {"news": SHOP}, now=0)

    assert {"news": SHOP} == account_store.applied(redis, KEYS)
    assert {"news": NEWS, "shop": NEWS} == account_store.applied(redis, other)
    assert "else" == redis.hget("something", "a")


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
