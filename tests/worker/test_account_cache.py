"""The account cache: in-memory doubles test the rules, real Valkey servers test the protocol."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from doubles.clock import ManualClock
from doubles.redis import MemoryRedis
from doubles.tcp_proxy import TcpProxy
from local.valkey import start
from shared.accounts import Account, AccountKeys
from shared.errors import SecretUnavailableError
from tests.support.telemetry import CollectedTelemetry
from worker.account_cache import INVALID, SILENT_SECONDS, UNKNOWN, AccountCache
from worker.redis_client import connect

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


def test_without_the_sentinel_no_account_is_unknown() -> None:
    """An empty Redis may have lost its data: accounts in it still resolve, and the others get no answer."""
    client = MemoryRedis()
    fill(client, sentinel=False)

    assert {"shop": SHOP} == cache(client).resolve(["shop", "nobody"])


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
    """While Redis fails, cached accounts resolve however old they are, and other accounts get no answer."""
    client, clock = MemoryRedis(), ManualClock()
    fill(client)
    broken: list[Exception] = []

    def connect_or_fail() -> Any:
        if broken:
            raise broken[0]
        return client

    made = AccountCache(connect_or_fail, KEYS, clock, CollectedTelemetry())
    made.resolve(["shop"])
    broken.append(error)
    clock.sleep(86_400)

    assert {"shop": SHOP} == made.resolve(["shop", "blog"])


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
    """If one reply of a pipeline is an error, the other accounts still resolve."""
    client = MemoryRedis()
    fill(client)

    class Pipeline:
        def __init__(self) -> None:
            self.inner = client.pipeline(transaction=False)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def execute(self, *, raise_on_error: bool) -> list[Any]:
            replies = self.inner.execute(raise_on_error)
            replies[2] = redis.exceptions.ClusterDownError("CLUSTERDOWN Hash slot not served")
            replies[3] = redis.ResponseError(
                "WRONGTYPE Operation against a key holding the wrong kind of value"
            )
            return replies

    class Client:
        def pipeline(self, *, transaction: bool) -> Pipeline:
            assert not transaction
            return Pipeline()

    assert {"shop": SHOP, "nobody": INVALID} == cache(Client()).resolve(["shop", "blog", "nobody"])


@contextmanager
def valkey(folder: Path) -> Iterator[int]:
    """Run a Valkey server and yield its port."""
    server, port = start(folder, is_quiet=True)
    try:
        yield port
    finally:
        server.kill()
        server.wait()


def test_a_server_that_hangs_or_is_down_costs_seconds(tmp_path: Path) -> None:
    """A lookup gives up within 4 s, so the batch still has time."""
    with valkey(tmp_path) as port, TcpProxy(f"http://127.0.0.1:{port}") as proxy:
        client = connect(proxy.url.replace("http", "redis"))
        fill(client)
        made = cache(client)
        assert {"shop": SHOP} == made.resolve(["shop"])
        client.close()
        proxy.hanging = True
        began = time.monotonic()
        assert {} == made.resolve(["blog"])
        assert time.monotonic() - began < 4
    began = time.monotonic()
    assert {} == cache(client).resolve(["blog"])
    assert time.monotonic() - began < 4
    client.close()


def test_connections_speak_resp2(tmp_path: Path) -> None:
    """RESP3 would need a HELLO, which proxies and older servers reject, and would bring push messages."""
    with valkey(tmp_path) as port:
        client = connect(f"redis://127.0.0.1:{port}")
        assert " resp=2 " in str(client.execute_command("CLIENT", "INFO"))
        client.close()


def test_a_key_that_is_not_a_hash_is_an_invalid_account(tmp_path: Path) -> None:
    """A real server answers WRONGTYPE for this key alone; the other accounts resolve."""
    with valkey(tmp_path) as port:
        client = connect(f"redis://127.0.0.1:{port}")
        fill(client)
        client.set(KEYS.of("text"), "x")
        assert {"text": INVALID, "shop": SHOP} == cache(client).resolve(["text", "shop"])
        client.close()
