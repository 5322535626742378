"""Creates the Redis client, which never waits for long."""

import time
from collections.abc import Callable
from typing import Any, override
from urllib.parse import parse_qs, urlsplit

import redis
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

TOKEN_SECONDS = 900
"""How long a token is valid for signing in, the maximum that ElastiCache accepts."""

SIGN_IN_SECONDS = 3.0
"""How long the connection, the TLS handshake and signing in may each take: with a serverless cache the first contact takes seconds."""
ANSWER_SECONDS = 0.5
"""How long a command may take on an open connection."""
ANSWERS_SECONDS = 3.0
"""How long all commands that are sent at once may take: a slow server might answer each of hundreds just in time."""


class IamUser(redis.CredentialProvider):
    """Signs in to an ElastiCache serverless cache with IAM. Each connection gets its own token, signed locally.

    `cache` is the name of the cache, which is not its address.
    """

    def __init__(
        self, name: str, cache: str, region: str, credentials: Callable[[], ReadOnlyCredentials]
    ) -> None:
        self._name = name
        self._cache = cache.lower()
        self._region = region
        self._credentials = credentials

    @override
    def get_credentials(self) -> tuple[str, str]:
        """Return the user and a token: the signed request to connect, without its scheme."""
        question = {"Action": "connect", "User": self._name, "ResourceType": "ServerlessCache"}
        request = AWSRequest("GET", f"https://{self._cache}/", params=question)
        SigV4QueryAuth(self._credentials(), "elasticache", self._region, expires=TOKEN_SECONDS).add_auth(
            request
        )
        return self._name, str(request.url).removeprefix("https://")


def iam_user(url: str, region: str, credentials: Callable[[], ReadOnlyCredentials]) -> tuple[str, IamUser]:
    """Return the address and the user that `rediss://USER@HOST:PORT/?cache=NAME` names."""
    parts = urlsplit(url)
    user = IamUser(parts.username or "", parse_qs(parts.query)["cache"][0], region, credentials)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}/0", user


class _Patient(redis.Connection):
    """A connection that takes longer to open than its commands may take."""

    _until = 0.0

    @override
    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send commands."""
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]
        self._until = time.monotonic() + ANSWERS_SECONDS

    @override
    def read_response(self, *args: Any, **options: Any) -> Any:
        """Return the next answer; raise RedisError, for which nothing is sent again, if the time for all is up."""
        if time.monotonic() > self._until:
            self.disconnect()  # type: ignore[no-untyped-call]  # answers may still come
            raise redis.RedisError("the answers did not end in time")
        return super().read_response(*args, **options)

    @override
    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Connect and sign in, unless this is connected."""
        self.socket_timeout = SIGN_IN_SECONDS
        super().connect_check_health(check_health, retry_socket_connect)
        self.socket_timeout = ANSWER_SECONDS

    @override
    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Sign in."""
        self.socket_timeout = ANSWER_SECONDS  # for the parser; the socket itself still has the other one
        super().on_connect_check_health(check_health)
        self.update_current_socket_timeout(-1)  # of the socket, to socket_timeout


class _PatientTls(_Patient, redis.SSLConnection):
    pass


def connect(url: str, user: redis.CredentialProvider | None = None) -> Any:
    """Return a client for a `redis://` or `rediss://` URL, with the user of the URL unless one is given. It connects at its first command.

    A command fails after 0.1 s if the server refuses connections, after 3 s if it cannot be reached, and after about a second if a
    connection breaks; with redis-py's own defaults that would take a minute. Many that are sent at once fail after 3 s.
    """
    # several threads share a few connections, because each takes several milliseconds of CPU to open
    pool = redis.BlockingConnectionPool.from_url(
        url,
        connection_class=_PatientTls if url.startswith("rediss:") else _Patient,
        credential_provider=user,
        protocol=2,  # RESP3 adds a HELLO to each connect, and pushes, which reach a frozen function instance too late
        socket_connect_timeout=SIGN_IN_SECONDS,
        max_connections=8,
        timeout=SIGN_IN_SECONDS,
        decode_responses=True,
        encoding_errors="replace",  # a malformed account must not fail the reply for all others
        # not socket.timeout: a server that cannot be reached in 3 s is not tried again
        retry=Retry(
            ExponentialWithJitterBackoff(base=0.02, cap=0.2), 2, (redis.ConnectionError, redis.TimeoutError)
        ),
        driver_info=None,  # saves two commands per connect
    )
    return redis.Redis.from_pool(pool)
