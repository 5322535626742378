"""Secrets cached in memory."""

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from doubles.clock import ManualClock
from shared.errors import SecretUnavailableError
from worker.secret import Secret


class Secrets:
    """Secrets Manager with one secret that can change or fail."""

    def __init__(self, text: str = "one") -> None:
        self.text = text
        self.error: Exception | None = None
        self.reads = 0

    def get_secret_value(self, *, SecretId: str) -> dict[str, str]:  # noqa: N803 -- boto3's name
        """Return the value."""
        assert SecretId == "id"
        self.reads += 1
        if self.error is not None:
            raise self.error
        return {"SecretString": self.text}


def secret(secrets: Secrets, clock: ManualClock | None = None) -> Secret:
    """Return a secret."""
    return Secret(secrets, "id", clock or ManualClock())


def missing() -> ClientError:
    """Return Secrets Manager's error for a secret without a value."""
    response: Any = {"Error": {"Code": "ResourceNotFoundException"}}
    return ClientError(response, "GetSecretValue")


def test_a_secret_is_read_once() -> None:
    """Surrounding white space is removed."""
    secrets = Secrets(" text\n")
    one = secret(secrets)

    assert [one.get(), one.get(), secrets.reads] == ["text", "text", 1]


def test_a_secret_older_than_max_age_is_read_again() -> None:
    """If that fails, the old text stays."""
    secrets, clock = Secrets(), ManualClock()
    one = secret(secrets, clock)
    one.get()
    secrets.text = "two"
    clock.sleep(601)
    assert "one" == one.get()
    assert "two" == one.get(max_age=600)
    secrets.error = missing()
    clock.sleep(601)

    assert "two" == one.get(max_age=600)


def test_a_refused_secret_is_read_again() -> None:
    """It is read at most once in half a minute."""
    secrets, clock = Secrets(), ManualClock()
    one = secret(secrets, clock)
    one.get()
    secrets.text = "two"
    assert not one.changed("one")
    clock.sleep(31)
    assert one.changed("one")
    assert "two" == one.get()
    assert one.changed("one")
    assert 2 == secrets.reads
    clock.sleep(31)
    secrets.error = missing()

    assert not one.changed("two")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"error": missing()}, "the secret id has no value yet: put one there"),
        ({"error": EndpointConnectionError(endpoint_url="x")}, "cannot be read: EndpointConnectionError"),
        ({"text": ""}, "holds no usable text"),
        ({"text": "two\nlines"}, "holds no usable text"),
        ({"text": "ü"}, "holds no usable text"),
    ],
)
def test_an_unusable_secret_raises_an_error_with_its_remedy(change: dict[str, Any], message: str) -> None:
    """The error never contains the secret's text."""
    secrets = Secrets()
    secrets.__dict__.update(change)
    with pytest.raises(SecretUnavailableError, match=message):
        secret(secrets).get()
