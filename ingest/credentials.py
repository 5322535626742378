"""AWS credentials: from the environment, as in Lambda, or from the endpoint that Lambda gives to functions restored from a snapshot."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from ingest.connection import Address, Connection
from shared.errors import AwsError, NoCredentialsError

RENEW_SECONDS = 600
"""How long before they expire credentials are renewed. Until then, those in use stay in use if that fails."""

_TIMEOUT_SECONDS = 1.0
_URL, _TOKEN = "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"


class Credentials(NamedTuple):
    """AWS credentials; `token` is None without a session."""

    access_key: str
    secret_key: str
    token: str | None = None


def credentials_from(
    environment: Mapping[str, str], now: Callable[[], float] = time.time
) -> Callable[[], Credentials]:
    """Return a source of credentials; it raises AwsError while there are none."""
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if key and secret:
        fixed = Credentials(key, secret, environment.get("AWS_SESSION_TOKEN") or None)
        return lambda: fixed
    return _Container(environment, now)


class _Container:
    """The credentials that an endpoint on this machine hands out, for a limited time."""

    def __init__(self, environment: Mapping[str, str], now: Callable[[], float]) -> None:
        self._environment = environment  # a restored function gets another token
        self._now = now
        self._found: tuple[Credentials, float] | None = None

    def __call__(self) -> Credentials:
        if self._found is None or self._found[1] - self._now() < RENEW_SECONDS:
            try:
                self._found = self._fetch()
            except AwsError:
                if self._found is None or self._found[1] <= self._now():
                    raise
        return self._found[0]

    def _fetch(self) -> tuple[Credentials, float]:
        url = urlsplit(self._environment.get(_URL, ""))
        if not url.netloc:
            raise NoCredentialsError("there are no AWS credentials in the environment")
        head = (
            f"GET {url.path}{f'?{url.query}' if url.query else ''} HTTP/1.1\r\nhost:{url.netloc}\r\n"
            f"authorization:{self._environment.get(_TOKEN, '')}\r\nconnection:close\r\n\r\n"
        )
        address = Address(url.hostname or "", url.port or 80, None)
        connection = Connection(address, _TIMEOUT_SECONDS, _TIMEOUT_SECONDS)
        try:
            answer = connection.exchange(head.encode())
        finally:
            connection.close()
        try:
            found = orjson.loads(answer.body)
            expires = datetime.fromisoformat(found["Expiration"]).timestamp()
            return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["Token"]), expires
        except (ValueError, KeyError, TypeError) as error:
            raise NoCredentialsError(f"{address.url} returned no credentials: {answer.status}") from error
