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
    """Signs the requests to one service.

    The signing key depends only on the secret and the day, so it is cached while both stay the same.

    Args:
        service: name in the signature's scope, such as `kinesis`.
        region: the service's region.
        host: value of the `host` header.
        content_type: content type of all bodies.
    """

    def __init__(self, service: str, region: str, host: str, content_type: str) -> None:
        self._service = service
        self._region = region
        self._first = f"content-type:{content_type}\nhost:{host}\n"
        self._content_type = content_type
        self._host = host
        self._made: tuple[str, Credentials, Any] | None = None

    def headers(self, target: str, body: bytes, credentials: Credentials, now: float) -> dict[str, str]:
        """Return a request's headers, including the signature.

        Args:
            target: the operation, such as `Kinesis_20131202.PutRecord`.
            body: the request body.
            credentials: the sender's credentials.
            now: UNIX seconds.
        """
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        headers = {"host": self._host, "content-type": self._content_type, "x-amz-date": moment}
        names, token = "content-type;host;x-amz-date;x-amz-target", ""
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
            names = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"
            token = f"x-amz-security-token:{credentials.token}\n"
        headers["x-amz-target"] = target
        lines = f"{self._first}x-amz-date:{moment}\n{token}x-amz-target:{target}\n"
        request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        headers["authorization"] = self._authorization(request, names, moment, credentials)
        return headers

    def headers_of_get(self, path: str, credentials: Credentials, now: float) -> dict[str, str]:
        """Return the headers of a GET request to S3, including the signature; arguments as for `headers`."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        headers = {"host": self._host, "x-amz-content-sha256": _EMPTY, "x-amz-date": moment}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        lines = "".join([f"{name}:{value}\n" for name, value in headers.items()])
        names = ";".join(headers)
        request = f"GET\n{path}\n\n{lines}\n{names}\n{_EMPTY}"
        headers["authorization"] = self._authorization(request, names, moment, credentials)
        return headers

    def _authorization(self, request: str, names: str, moment: str, credentials: Credentials) -> str:
        day = moment[:8]
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        mac = self._mac(day, credentials).copy()
        mac.update(
            f"{_ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}".encode()
        )
        return (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={mac.hexdigest()}"
        )

    def _mac(self, day: str, credentials: Credentials) -> Any:
        made = self._made
        if made is None or made[0] != day or made[1] != credentials:
            key = f"AWS4{credentials.secret_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._made = made = (day, credentials, hmac.new(key, digestmod="sha256"))
        return made[2]
