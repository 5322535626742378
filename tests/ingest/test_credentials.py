"""Where the ingest's credentials come from, and when they are renewed."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from doubles.clock import ManualClock
from doubles.http_server import HttpServer, Request, Response
from ingest.credentials import RENEW_SECONDS, Credentials, credentials_from
from shared.errors import ConnectionFailedError, NoCredentialsError

LIFE_SECONDS = 3600


class Container(HttpServer):
    """An endpoint for container credentials, which answers with a new key each time. It remembers each request's token."""

    def __init__(self) -> None:
        super().__init__(self._key)
        self.clock = ManualClock(1_800_000_000)
        self.asked: list[str] = []
        self.change: Callable[[bytes], bytes] = lambda body: body
        self.environment = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/keys?v=1",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "let me in",
        }

    def _key(self, request: Request) -> Response:
        self.asked.append(request.header("authorization"))
        expires = datetime.fromtimestamp(self.clock.now() + LIFE_SECONDS, UTC)
        value = {"Token": request.target, "Expiration": expires.isoformat().replace("+00:00", "Z")}
        value |= {"AccessKeyId": f"key {len(self.asked)}", "SecretAccessKey": "secret"}
        return Response(200, self.change(json.dumps(value).encode()))


@pytest.fixture
def container() -> Iterator[Container]:
    """Yield a running endpoint."""
    with Container() as made:
        yield made


def test_credentials_come_from_the_environment() -> None:
    """Lambda sets the variables; an empty session token counts as none."""
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}

    assert Credentials("a", "b", "c") == credentials_from(given)()
    assert Credentials("a", "b") == credentials_from(given | {"AWS_SESSION_TOKEN": ""})()


def test_container_credentials_are_renewed_before_they_expire(container: Container) -> None:
    """Each request carries the environment's current token: a restored function has another one."""
    current = credentials_from(container.environment, container.clock.now)
    first = current()
    container.clock.time += LIFE_SECONDS - RENEW_SECONDS
    again = current()
    container.environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "restored"
    container.clock.time += 1

    assert Credentials("key 1", "secret", "/keys?v=1") == first == again
    assert "key 2" == current().access_key
    assert ["let me in", "restored"] == container.asked


def test_credentials_that_cannot_be_renewed_stay_in_use_until_they_expire(container: Container) -> None:
    """A failing endpoint does not fail a call as long as the old credentials are valid."""
    current = credentials_from(container.environment, container.clock.now)
    first = current()
    container.change = lambda _body: b"<html>"
    container.clock.time += LIFE_SECONDS - 1
    kept = current()
    container.clock.time += 1

    assert first == kept
    with pytest.raises(NoCredentialsError, match="returned no credentials: 200"):
        current()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"Expiration": 1}', b'{"Expiration": "soon"}'])
def test_an_unreadable_answer_gives_no_credentials(container: Container, body: bytes) -> None:
    """The call fails with an error that its callers expect."""
    container.change = lambda _body: body

    with pytest.raises(NoCredentialsError):
        credentials_from(container.environment, container.clock.now)()


def test_missing_credentials_fail_each_call() -> None:
    """A sandbox can start without credentials, or with an endpoint on which nothing listens; only its calls fail."""
    nowhere = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/keys"}

    for environment, error in (({}, NoCredentialsError), (nowhere, ConnectionFailedError)):
        credentials = credentials_from(environment)
        with pytest.raises(error):
            credentials()
