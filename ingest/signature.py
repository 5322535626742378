"""AWS Signature Version 4 for `POST /` requests with a JSON body, and for GET requests to S3.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. Tests compare it with botocore's.
"""

import hashlib
import hmac
import time
from typing import Any, NamedTuple

_ALGORITHM = "AWS4-HMAC-SHA256"
_EMPTY = hashlib.sha256(b"").hexdigest()


class Credentials(NamedTuple):
    """AWS credentials; `token` is None without a session."""

    access_key: str
    secret_key: str
    token: str | None = None


class Signer:
    """Signs the requests to one service. The signing key is cached for the day on which it is valid.

    Args:
        credentials: the caller's.
        service: name in the signature's scope, such as `kinesis`.
        region: the service's region.
        host: value of the `host` header.
        content_type: content type of all bodies.
    """

    def __init__(
        self, credentials: Credentials, service: str, region: str, host: str, content_type: str
    ) -> None:
        self._credentials = credentials
        self._service = service
        self._region = region
        self._fixed_lines = f"content-type:{content_type}\nhost:{host}\n"
        self._host = host
        self._cached_key: tuple[str, Any] | None = None

    def lines(self, target: str, body: bytes, now: float) -> str:
        """Return a request's header lines, each with its line feed, including the signature.

        Args:
            target: the operation, such as `Kinesis_20131202.PutRecord`.
            body: the request body.
            now: UNIX seconds.
        """
        timestamp, token, token_name = self._time_and_token(now)
        names = f"content-type;host;x-amz-date{token_name};x-amz-target"
        lines = f"{self._fixed_lines}x-amz-date:{timestamp}\n{token}x-amz-target:{target}\n"
        request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        return lines + self._authorization(request, names, timestamp)

    def lines_of_get(self, path: str, now: float) -> str:
        """Return the header lines of a GET request to S3, including the signature; arguments as for `lines`."""
        timestamp, token, token_name = self._time_and_token(now)
        names = f"host;x-amz-content-sha256;x-amz-date{token_name}"
        lines = f"host:{self._host}\nx-amz-content-sha256:{_EMPTY}\nx-amz-date:{timestamp}\n{token}"
        request = f"GET\n{path}\n\n{lines}\n{names}\n{_EMPTY}"
        return lines + self._authorization(request, names, timestamp)

    def _authorization(self, request: str, names: str, timestamp: str) -> str:
        day = timestamp[:8]
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        mac = self._mac(day).copy()
        mac.update(
            f"{_ALGORITHM}\n{timestamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}".encode()
        )
        return (
            f"authorization:{_ALGORITHM} Credential={self._credentials.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={mac.hexdigest()}\n"
        )

    def _mac(self, day: str) -> Any:
        cached = self._cached_key
        if cached is None or cached[0] != day:
            key = f"AWS4{self._credentials.secret_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._cached_key = cached = (day, hmac.new(key, digestmod="sha256"))
        return cached[1]

    def _time_and_token(self, now: float) -> tuple[str, str, str]:
        """Return the time, the token's header line and its name among those signed; without a token both are empty."""
        timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        token = self._credentials.token
        if not token:
            return timestamp, "", ""
        return timestamp, f"x-amz-security-token:{token}\n", ";x-amz-security-token"
