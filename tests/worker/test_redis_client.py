"""IAM authentication to Redis: the token, and what its users may do on a real Valkey."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import redis
from botocore.credentials import ReadOnlyCredentials

from doubles.clock import ManualClock
from local import valkey
from shared.accounts import Account, AccountKeys
from tests.support.delivery import envelope, row, shops
from tests.support.sam import properties
from tests.support.telemetry import CollectedTelemetry
from tests.support.tls_front import TlsFront
from worker import account_store, redis_client
from worker.account_cache import AccountCache
from worker.redis_client import ANSWER_SECONDS, TOKEN_SECONDS, IamUser, connect, iam_user
from worker.wiring import Wiring, _redis

KEYS = ReadOnlyCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", "a session=", "123456789012")
SHOP = Account("shop_db")
ACCOUNT_KEYS = AccountKeys("sluice-dev-Ledger-1ABC2DEF3GHI")


def test_a_token_is_a_signed_request_to_connect() -> None:
    """It names the cache, its user and kind. Credentials are read for each connection, so rotated ones take effect."""
    keys = iter([KEYS, KEYS._replace(access_key="AKIDROTATED")])
    address, user = iam_user(
        "rediss://sluice-reader@sluice-a1.public.serverless.eu-central-1.cache.amazonaws.com:6379/?cache=Sluice-Dev",
        "eu-central-1",
        lambda: next(keys),
    )
    name, token = user.get_credentials()
    parts = urlsplit(f"https://{token}")
    given = dict(parse_qsl(parts.query))
    age = datetime.now(UTC) - datetime.strptime(f"{given['X-Amz-Date']}+0000", "%Y%m%dT%H%M%SZ%z")

    assert "AKIDROTATED" in user.get_credentials()[1]
    assert address == "rediss://sluice-a1.public.serverless.eu-central-1.cache.amazonaws.com:6379/0"
    assert name == "sluice-reader"
    assert (parts.netloc, parts.path) == ("sluice-dev", "/")
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert given == {
        "Action": "connect",
        "User": "sluice-reader",
        "ResourceType": "ServerlessCache",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"AKIDEXAMPLE/{given['X-Amz-Date'][:8]}/eu-central-1/elasticache/aws4_request",
        "X-Amz-Date": given["X-Amz-Date"],
        "X-Amz-Expires": str(TOKEN_SECONDS),
        "X-Amz-Security-Token": "a session=",
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Signature": given["X-Amz-Signature"],
    }


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey in cluster mode behind TLS 1.3, with the template's users, who may give any token."""
    folder = tmp_path_factory.mktemp("valkey")
    server, port = valkey.start(folder, is_quiet=True, is_cluster=True)
    with connect(f"redis://127.0.0.1:{port}") as owner:
        for kind in ("Reader", "Writer"):
            rules = properties(f"Redis{kind}")["AccessString"].split()
            owner.execute_command("ACL", "SETUSER", kind, *rules, "nopass")
        owner.execute_command("ACL", "SETUSER", "Owner", "on", "~*", "+@all", "nopass")
        owner.execute_command("ACL", "SETUSER", "default", "off")
    with TlsFront(port, folder) as front:
        yield f"rediss://127.0.0.1:{front.port}?ssl_ca_certs={folder}/certificate.pem"
    server.kill()
    server.wait()


@pytest.fixture
def sign_in(address: str) -> Iterator[Any]:
    """Return a function that connects to the Valkey as a user."""
    with ExitStack() as clients:
        yield lambda name: clients.enter_context(
            connect(address, IamUser(name, "sluice-dev", "us-east-1", lambda: KEYS))
        )


def test_the_admin_function_writes_thousands_of_accounts_and_the_worker_reads(sign_in: Any) -> None:
    """The template's users may do all that the functions do with accounts. One round trip for each would outlast the admin function; the server counts."""
    writer, owner = sign_in("Writer"), sign_in("Owner")
    before = owner.info("stats")["total_reads_processed"]
    for number in (4000, 2000):
        account_store.apply(writer, ACCOUNT_KEYS, {f"shop{n}": SHOP for n in range(number)}, number)
    account_store.change(writer, ACCOUNT_KEYS, "blog", Account("blog_db", "disabled"), 2001)
    cache = AccountCache(lambda: sign_in("Reader"), ACCOUNT_KEYS, ManualClock(), CollectedTelemetry())

    assert (2001, True) == (len(found := account_store.applied(writer, ACCOUNT_KEYS)), "blog" in found)
    assert "1970-01-01T00:33:20+00:00" == account_store.applied_at(writer, ACCOUNT_KEYS)
    assert {"shop0": SHOP, "shop3000": "unknown_account"} == cache.resolve(["shop0", "shop3000"])
    assert owner.info("stats")["total_reads_processed"] - before < 400


def test_a_damaged_account_fails_no_others_and_is_repaired_by_applying(sign_in: Any) -> None:
    """Whatever its key holds, and that of the sentinel. Until then it stays as it is, if others are applied. The worker holds no other rows."""
    owner, keys = sign_in("Owner"), AccountKeys("sluice-damaged-Ledger-1ABC2DEF3GHI")
    wanted = dict.fromkeys(("shop", "text", "bytes", "bare", "limits", "json", "plan"), SHOP)
    account_store.apply(owner, keys, wanted, 0)
    owner.set(keys.of("text"), "text")
    owner.hset(keys.of("bytes"), "database", b"shop\xff_db")
    owner.hdel(keys.of("bare"), "database")
    owner.hset(keys.of("limits"), "limits", "[]")
    owner.hset(keys.of("json"), "plan", "{")
    owner.hset(keys.of("plan"), "plan", "{}")
    cache = AccountCache(lambda: sign_in("Reader"), keys, ManualClock(), CollectedTelemetry())
    assert {"shop": SHOP, "bytes": "invalid_account"} == cache.resolve(["shop", "bytes"])
    owner.set(keys.sentinel, "text")
    found = account_store.applied(owner, keys)
    assert {"shop": SHOP} == {name: one for name, one in found.items() if isinstance(one, Account)}
    assert account_store.applied_at(owner, keys) is None
    account_store.apply(owner, keys, found, 0)
    assert (found, 7) == (account_store.applied(owner, keys), account_store.count(owner, keys))
    account_store.apply(owner, keys, wanted, 0)

    assert wanted == account_store.applied(owner, keys)


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("Reader", ("HSET", "ledger:account:shop", "database", "mine")),
        ("Reader", ("DEL", "ledger:account:shop")),
        ("Reader", ("SCAN", "0")),
        ("Reader", ("HGET", "session:1", "x")),
        ("Writer", ("HSET", "session:1", "x", "y")),
        ("Writer", ("FLUSHALL",)),
        ("Writer", ("ACL", "LIST")),
        ("Writer", ("CONFIG", "GET", "*")),
    ],
)
def test_users_may_do_nothing_else(sign_in: Any, user: str, command: tuple[str, ...]) -> None:
    """The worker cannot write, and neither user can reach other keys or administer the server. There are no other users."""
    with pytest.raises(redis.exceptions.NoPermissionError):
        sign_in(user).execute_command(*command)
    with pytest.raises(redis.AuthenticationError):
        sign_in("Somebody").execute_command(*command)


@contextmanager
def slow_server(**seconds: float) -> Iterator[tuple[str, list[bytes]]]:
    """Serve connections one after the other, the first command of a name after its number of seconds; yield the URL and the commands."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended, commands = threading.Event(), list[bytes]()

    def serve() -> None:
        with suppress(OSError):
            while not ended.is_set():
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    while command := connection.recv(65_536):
                        commands.append(command.split(b"\r\n")[2])
                        ended.wait(seconds.pop(commands[-1].decode(), 0))
                        connection.sendall(b"+OK\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}", commands
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def test_signing_in_may_take_longer_than_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first contact with a serverless cache takes seconds."""
    monkeypatch.setattr(redis_client, "SIGN_IN_SECONDS", 60.0)
    user = IamUser("sluice-reader", "sluice-dev", "us-east-1", lambda: KEYS)
    with slow_server(AUTH=ANSWER_SECONDS + 0.2) as (url, commands), connect(url, user) as client:
        assert "OK" == client.execute_command("GET", "key")
        assert [b"AUTH", b"GET"] == commands[:2]


def test_a_command_without_an_answer_is_sent_again_on_a_new_connection() -> None:
    """A frozen instance does not learn that its connection is dead; the next command must not wait long for it."""
    with slow_server(DEL=ANSWER_SECONDS + 0.2) as (url, commands), connect(url) as client:
        assert ["OK", "OK"] == [client.execute_command(name, "key") for name in ("GET", "DEL")]

        assert [b"DEL", b"DEL"] == commands[-2:]


def test_the_answers_to_commands_that_are_sent_at_once_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are. Nothing is sent again, and the connection is not used again."""
    monkeypatch.setattr(redis_client, "ANSWERS_SECONDS", 0.1)
    with slow_server(GET=0.3) as (url, commands), connect(url) as client:
        with pytest.raises(redis.RedisError, match="in time"):
            client.pipeline(transaction=False).get("a").get("b").execute()
        assert "OK" == client.execute_command("DEL", "key")

        assert [b"GET", b"DEL"] == commands


@pytest.mark.parametrize("text", ["redis.example.com:6379", "rediss://:pass/word@redis.example.com:6379"])
def test_a_secret_that_holds_no_url_of_a_redis_holds_nothing(text: str) -> None:
    """Rows wait, as for any outage of Redis, and the log has no part of the secret."""
    made = shops(envelope("shop", {"views": [row("e1")]}))
    made.secrets.values["redis-url"] = text
    settings = replace(made.wiring.settings, redis_url_secret="redis-url")
    effects = replace(made.wiring.effects, redis=_redis(settings, made.secrets, made.clock))  # type: ignore[arg-type]  # a double
    made.worker = Wiring(settings, effects).worker

    assert made.deliver() is None
    assert {"shop:k1/views/0": ("waiting", "account_unavailable", 1)} == made.chunks()
    [line] = made.telemetry.said("Redis cannot be reached")
    assert "the secret redis-url holds no URL of a Redis: put the right one there" == line["reason"]
