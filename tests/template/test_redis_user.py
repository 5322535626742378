"""The permissions of the managed Redis's only user, tested on Valkey with the template's access string."""

from collections.abc import Iterator

import pytest
import redis

from local import valkey
from shared.accounts import Account
from shared.clock import SystemClock
from shared.telemetry import NullTelemetry
from tests.support.sam import properties
from worker import account_store
from worker.account_cache import AccountCache
from worker.redis_client import connect

PASSWORD = "0123456789abcdef"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey with the template's user."""
    user = properties("RedisUser")
    process, port = valkey.start(tmp_path_factory.mktemp("valkey"))
    try:
        with redis.Redis.from_url(f"redis://127.0.0.1:{port}") as server:
            server.execute_command(
                "ACL", "SETUSER", user["UserName"], "reset", f">{PASSWORD}", *user["AccessString"].split()
            )
        yield f"redis://{user['UserName']}:{PASSWORD}@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def test_the_user_may_do_what_functions_do(url: str) -> None:
    """Apply, change, list and look up accounts."""
    client = connect(url)
    with client:
        account_store.apply(client, {"shop": Account("shop"), "news": Account("media")}, 0.0)
        account_store.apply(client, {"shop": Account("shop")}, 0.0)
        account_store.change(client, "shop", Account("store"))

        assert {"shop": Account("store")} == account_store.applied(client)
        assert "1970-01-01T00:00:00+00:00" == account_store.applied_at(client)
        cache = AccountCache(lambda: client, SystemClock(), NullTelemetry())
        assert {"shop": Account("store"), "news": "unknown_account"} == cache.resolve(["shop", "news"])
        assert client.ping()


@pytest.mark.parametrize(
    "command",
    ["GET other", "SET other 1", "FLUSHALL", "KEYS *", "CONFIG GET *", "ACL LIST", "SHUTDOWN", "EVAL x 0"],
)
def test_the_user_may_do_nothing_else(url: str, command: str) -> None:
    """Other keys and dangerous commands are denied."""
    with connect(url) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


def test_without_the_password_nothing_is_allowed(url: str) -> None:
    """The user is the default one, and it has a password."""
    nobody = url.replace(f"default:{PASSWORD}@", "")
    with redis.Redis.from_url(nobody) as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()
