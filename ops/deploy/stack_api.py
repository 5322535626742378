"""Sends requests to a deployed stack's API."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests

from ops.failure import Failure
from ops.stack import Stack
from shared.clock import Clock

_HTTP_SECONDS = 30.0
_AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
_LOOPBACK = ("127.0.0.1", "localhost")


def emulator_of(stack: Stack) -> str:
    """Return the URL of an emulator of AWS; empty for AWS itself."""
    url: str = stack.client("cloudformation").meta.endpoint_url
    return "" if is_of_aws(url) else url


def is_of_aws(endpoint: str) -> bool:
    """Return whether an endpoint is one of AWS itself."""
    return _host(endpoint).endswith(_AWS_HOSTS)


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A response of the API: its status, Sluice's error code (empty without one), its body, and how many seconds it took."""

    status: int
    code: str
    body: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class StackApi:
    """The API of one stack. The endpoint, if there is one, is an emulator's, used instead of the API's own address."""

    url: str
    session: requests.Session
    endpoint: str
    clock: Clock
    option: str

    @classmethod
    def of(cls, stack: Stack, clock: Clock) -> "StackApi":
        """Return the API of a stack. DNS cannot resolve the address that an emulator gives it, so the emulator's is used."""
        url = stack.outputs["ApiUrl"]
        endpoint = "" if _host(url) in _LOOPBACK else emulator_of(stack)
        return cls(url, stack.http(), endpoint, clock, stack.option)

    def request(
        self, method: str, target: str, body: bytes | str | None = None, headers: Mapping[str, str] = {}
    ) -> HttpAnswer:
        """Send a request.

        Raises:
            Failure: there was no response.
        """
        sent = {**headers, "Host": urlsplit(self.url).netloc}
        data = body.encode() if isinstance(body, str) else body
        began = self.clock.now()
        try:
            answer = self.session.request(
                method,
                f"{self.endpoint or self.url}{target}",
                data=data,
                headers=sent,
                timeout=_HTTP_SECONDS,
                allow_redirects=False,
                verify=self.session.verify,  # otherwise environment variables would take precedence
            )
        except requests.RequestException as error:
            raise Failure(
                f"{self.url} did not respond ({type(error).__name__}): check your network, then run `sluice doctor {self.option}`"
            ) from error
        return HttpAnswer(
            answer.status_code,
            answer.headers.get("x-sluice-error", ""),
            answer.content,
            self.clock.now() - began,
        )
