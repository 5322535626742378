"""Secrets, kept in memory."""

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from doubles.clock import ManualClock
from shared.errors import SecretUnavailableError
from worker.secret import Secret


class Secrets:
    """Secrets Manager with one secret that can be changed, or fail."""

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
    """Return what Secrets Manager answers about a secret without a value."""
    response: Any = {"Error": {"Code": "ResourceNotFoundException"}}
    return ClientError(response, "GetSecretValue")


def test_read_once() -> None:
    """The text is read once, without the white space around it."""
    secrets = Secrets(" text\n")
    one = secret(secrets)

    assert [one.get(), one.get(), secrets.reads] == ["text", "text", 1]


def test_an_old_text_is_read_again() -> None:
    """By wish an old text is read again, and kept while that fails."""
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


def test_a_refused_text_is_read_again() -> None:
    """After a refusal the text is read again, but not twice within half a minute."""
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
def test_unusable_secrets(change: dict[str, Any], message: str) -> None:
    """A secret without a usable value says what to do, and never what it holds."""
    secrets = Secrets()
    secrets.__dict__.update(change)
    with pytest.raises(SecretUnavailableError, match=message):
        secret(secrets).get()
