"""Secrets cached in memory."""

from contextlib import suppress
from threading import Event, get_ident
from typing import Any

import pytest

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from shared.clock import Clock
from shared.errors import SecretUnavailableError
from tests.support.delivery import Meddled, StaticSecrets, lose_answer
from worker.executor import Threads, run_parallel
from worker.secret import Secret


def secrets(text: str = "one") -> Any:
    """Return Secrets Manager with one secret, whose reads are counted and can fail."""
    return Meddled(StaticSecrets(id=text))


def secret(client: Any, clock: Clock | None = None) -> Secret:
    """Return the secret."""
    return Secret(client, "id", clock or ManualClock())


def missing(_: Any) -> None:
    """Fail as Secrets Manager does for a secret without a value."""
    raise client_error("ResourceNotFoundException", "GetSecretValue")


def test_a_secret_is_read_once_until_it_is_older_than_max_age() -> None:
    """If it cannot be read again, the old text stays. Surrounding white space is removed."""
    client, clock = secrets(" one\n"), ManualClock()
    one = secret(client, clock)
    assert [one.get(), one.get(), len(client.calls)] == ["one", "one", 1]
    client.values["id"] = "two"
    clock.sleep(601)
    assert "one" == one.get()
    assert "two" == one.get(max_age=600)
    client.before["get_secret_value"] = missing
    clock.sleep(601)

    assert ["two", "two", 3] == [one.get(600), one.get(600), len(client.calls)]


def test_a_refused_secret_is_read_again() -> None:
    """It is read at most once in half a minute."""
    client, clock = secrets(), ManualClock()
    one = secret(client, clock)
    one.get()
    client.values["id"] = "two"
    assert not one.changed("one")
    clock.sleep(31)
    assert one.changed("one")
    assert "two" == one.get()
    assert one.changed("one")
    assert 2 == len(client.calls)
    clock.sleep(31)
    client.before["get_secret_value"] = missing

    assert not one.changed("two")


@pytest.mark.parametrize(
    ("text", "fail", "message"),
    [
        ("one", missing, "the secret id has no value yet: put one there"),
        ("one", lambda _: lose_answer(), "cannot be read: ConnectionClosedError"),
        ("", None, "holds no usable text"),
        ("two\nlines", None, "holds no usable text"),
        ("ü", None, "holds no usable text"),
    ],
)
def test_an_unusable_secret_raises_an_error_with_its_remedy(text: str, fail: Any, message: str) -> None:
    """The error never contains the secret's text."""
    client = secrets(text)
    client.before = {"get_secret_value": fail} if fail else {}

    with pytest.raises(SecretUnavailableError, match=message):
        secret(client).get()


@pytest.mark.parametrize("fail", [lambda _: None, missing])
def test_one_of_several_threads_reads_a_secret_for_all(fail: Any) -> None:
    """Each database's first send needs the API key, and so do all that are refused when it has changed. They wait by the clock that is passed in."""
    client, clock, waiting, all_wait = secrets(), ManualClock(), set[int](), Event()

    def wait(_: float) -> None:
        waiting.add(get_ident())
        if len(waiting) == 7:
            all_wait.set()

    def read(request: Any) -> None:
        all_wait.wait(5)
        fail(request)

    clock.sleep = wait  # type: ignore[method-assign]
    client.before["get_secret_value"] = read
    one = secret(client, clock)
    with suppress(SecretUnavailableError):
        assert ["one"] * 8 == run_parallel(Threads, [one.get] * 8)
    assert (1, True) == (len(client.calls), all_wait.is_set())
    one.text, one._read_at, client.values["id"] = "one", 0.0, "two"
    waiting.clear()
    all_wait.clear()

    assert [fail is not missing] * 8 == run_parallel(Threads, [lambda: one.changed("one")] * 8)
    assert 2 == len(client.calls)
