"""Accounts from Redis: memory doubles for the rules, real Valkey servers for the protocol."""

import socket
import subprocess
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
from local.valkey import find_server
from shared.accounts import Account, AccountKeys
from shared.errors import SecretUnavailableError
from tests.support.telemetry import CollectedTelemetry
from tests.support.tls_front import TlsFront
from worker.account_cache import INVALID, UNKNOWN, AccountCache
from worker.redis_client import connect

KEYS = AccountKeys("ledger")
SHOP = Account("shop_db", "active", frozenset({"k2"}))
BLOG = Account("blog_db", "disabled")


def fill(client: Any, *, sentinel: bool = True) -> None:
    """Write two accounts and one that is none."""
    for name, account in (("shop", SHOP), ("blog", BLOG)):
        client.hset(KEYS.of(name), mapping=account.to_fields())
    client.hset(KEYS.of("odd"), mapping={"database": "No!"})
    if sentinel:
        client.hset(KEYS.sentinel, mapping={"at": "2026-11-25T00:00:00Z", "count": "2"})


def cache(client: Any, clock: ManualClock | None = None) -> AccountCache:
    """Return a cache over a client."""
    return AccountCache(lambda: client, KEYS, clock or ManualClock(), CollectedTelemetry())


def test_answers() -> None:
    """Known accounts, unknown ones and those that are none are told apart."""
    client = MemoryRedis()
    fill(client)

    assert cache(client).resolve(["shop", "blog", "odd", "nobody"]) == {
        "shop": SHOP,
        "blog": BLOG,
        "odd": INVALID,
        "nobody": UNKNOWN,
    }


def test_missing_sentinel_makes_nobody_unknown() -> None:
    """Without the sentinel, accounts that are there count and those that are not have no answer."""
    client = MemoryRedis()
    fill(client, sentinel=False)

    assert {"shop": SHOP} == cache(client).resolve(["shop", "nobody"])


def test_fresh_then_asked_again() -> None:
    """An answer is believed for a minute; then a change shows."""
    client, clock = MemoryRedis(), ManualClock()
    fill(client)
    made = cache(client, clock)
    made.resolve(["shop"])
    client.hset(KEYS.of("shop"), mapping=Account("new_db").to_fields())
    clock.sleep(59)
    assert {"shop": SHOP} == made.resolve(["shop"])
    clock.sleep(2)

    assert {"shop": Account("new_db")} == made.resolve(["shop"])


def test_unknown_is_not_remembered() -> None:
    """An account that is added is known at the next batch."""
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
def test_stale_while_redis_fails(error: Exception) -> None:
    """While Redis fails, what is in memory counts however old it is, and other accounts have no answer."""
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


def test_a_secret_without_a_value_is_logged_with_what_to_do() -> None:
    """The log says why Redis cannot be reached where that is for the operator to fix."""
    telemetry = CollectedTelemetry()

    def connect() -> Any:
        raise SecretUnavailableError("the secret x has no value yet: put one there")

    assert {} == AccountCache(connect, KEYS, ManualClock(), telemetry).resolve(["shop"])
    expected = {
        "error": "SecretUnavailableError",
        "reason": "the secret x has no value yet: put one there",
    }

    assert [expected] == telemetry.said("Redis cannot be reached")


def test_failures_of_single_accounts() -> None:
    """When Redis answers for some accounts only, only the others go without an answer."""
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
def valkey(folder: Path, *options: str) -> Iterator[int]:
    """Run a Valkey server and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    command = [find_server(), "--save", "", "--dir", str(folder), "--bind", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL) as server:
        try:
            for _ in range(1000):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert server.poll() is None
                    time.sleep(0.01)
            yield port
        finally:
            server.kill()


def test_real_server_in_cluster_mode_with_tls(tmp_path: Path) -> None:
    """One pipeline asks a server in cluster mode over TLS for accounts in many slots, as ElastiCache Serverless serves them."""
    with (
        valkey(tmp_path, "--cluster-enabled", "yes", "--requirepass", "secret") as port,
        TlsFront(port, tmp_path) as front,
    ):
        client = connect(f"rediss://:secret@127.0.0.1:{front.port}?ssl_ca_certs={tmp_path}/certificate.pem")
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        for _ in range(1000):
            if "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")):
                break
            time.sleep(0.01)
        fill(client)
        many = [f"acct_{n}" for n in range(200)]
        for name in many:
            client.hset(KEYS.of(name), mapping=SHOP.to_fields())
        answers = cache(client).resolve(["shop", "blog", "odd", "nobody", *many])
        expected = {"shop": SHOP, "blog": BLOG, "odd": INVALID, "nobody": UNKNOWN} | dict.fromkeys(many, SHOP)
        assert answers == expected
        client.close()


def test_real_server_that_hangs_or_is_gone(tmp_path: Path) -> None:
    """A server that no longer answers costs seconds, not minutes, and so does one that has gone."""
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


def test_a_connection_speaks_resp2(tmp_path: Path) -> None:
    """No greeting at each connect, which proxies and older servers reject, and no pushes."""
    with valkey(tmp_path) as port:
        client = connect(f"redis://127.0.0.1:{port}")
        assert " resp=2 " in str(client.execute_command("CLIENT", "INFO"))
        client.close()


def test_wrong_type_on_a_real_server(tmp_path: Path) -> None:
    """A key that holds something else than a hash is an account that is none."""
    with valkey(tmp_path) as port:
        client = connect(f"redis://127.0.0.1:{port}")
        fill(client)
        client.set(KEYS.of("text"), "x")
        assert {"text": INVALID, "shop": SHOP} == cache(client).resolve(["text", "shop"])
        client.close()
