"""Lightweight AWS clients with only the operations that the ingest calls.

boto3 spends most of a put's CPU time on work that is the same for every call, and loading it takes half of a cold start. These
clients accept the same arguments and return the same responses; their errors are `shared.errors.AwsError`. They support HTTPS to the
region's endpoint or to one set with `AWS_ENDPOINT_URL…`, and no proxies.
"""

import os
import re
import ssl
import time
import weakref
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from ingest.connection import Address, AwsResponse, Connection
from ingest.signature import Credentials, Signer
from shared.errors import AwsError, ErrorAnswerError, SettingsError, UnreadableAnswerError

MAX_IDLE_SECONDS = 15
"""How long an unused connection is kept. An older one may be dead without our noticing: Lambda purges idle connections, and a frozen
function instance misses what arrives. If it is reset on use, the put is doubtful and goes through the overflow queue, whereas opening
another connection takes milliseconds. Users report that S3 closes idle connections after 20 s and DynamoDB after 60 s, which is
also how long AWS's SDK for Java keeps them."""

_SUFFIXES = {
    "cn": "amazonaws.com.cn",
    "eusc": "amazonaws.eu",
}  # of regions outside the partitions `aws` and `aws-us-gov`
_ERROR_CODE = re.compile(rb"<Code>(\w+)</Code>")


class AwsClient:
    """Calls one service.

    Args:
        endpoint: its URL; only scheme, host and port are used.
        region: the service's region.
        credentials: the function's.
        ca_bundle: file with trusted CA certificates, for HTTPS.
        connect_timeout: seconds for name resolution, TCP and TLS together.
        read_timeout: seconds from sending a request to the end of its response.
        attempts: maximum attempts per call.
        now: returns UNIX seconds.
    """

    SERVICE = ""
    """Service name in signatures and endpoints."""
    SETTING = ""
    """Service name in `AWS_ENDPOINT_URL_…`."""
    TARGET = ""
    """Prefix of an operation's name in `x-amz-target`."""
    CONTENT_TYPE = "application/x-amz-json-1.1"

    def __init__(
        self,
        endpoint: str,
        region: str,
        credentials: Credentials,
        *,
        ca_bundle: str,
        connect_timeout: float,
        read_timeout: float,
        attempts: int = 1,
        now: Callable[[], float] = time.time,
    ) -> None:
        url = urlsplit(endpoint)
        host = url.hostname or ""
        if url.scheme == "https":
            self._address = Address(host, url.port or 443, _tls(ca_bundle))
        else:
            self._address = Address(host, url.port or 80, None)
        host = f"[{host}]" if ":" in host else host
        if self._address.port != (443 if self._address.tls else 80):
            host = f"{host}:{self._address.port}"
        self._signer = Signer(credentials, self.SERVICE, region, host, self.CONTENT_TYPE)
        self._timeouts = connect_timeout, read_timeout
        self._attempts = attempts
        self._now = now
        self._idle: list[tuple[Connection, float]] = []  # with the time of the last response
        weakref.finalize(self, _close, self._idle)

    def call(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call an operation and return its response.

        Args:
            operation: the API's name, such as `PutRecord`.
            arguments: JSON values.

        Raises:
            ErrorAnswerError: the service returned an error.
            AwsError: there was no response. After NotSentError, the call definitely did not arrive.
        """
        body = orjson.dumps(arguments)
        for _ in range(self._attempts - 1):
            try:
                return self._call(operation, body)
            except AwsError:
                continue
        return self._call(operation, body)

    def _call(self, operation: str, body: bytes) -> dict[str, Any]:
        signed = self._signer.lines(f"{self.TARGET}.{operation}", body, self._now())
        answer = self._exchange(_head("POST /", f"{signed}content-length:{len(body)}\n") + body)
        if answer.status != 200:
            raise _error_of(answer, operation)
        return self._parse(answer)

    def _exchange(self, request: bytes) -> AwsResponse:
        connection = self._idle_connection() or Connection(self._address, *self._timeouts)
        try:
            answer = connection.exchange(request)
        except BaseException:
            connection.close()
            raise
        if connection.is_reusable:
            self._idle.append((connection, self._now()))
        else:
            connection.close()
        return answer

    def _idle_connection(self) -> Connection | None:
        while self._idle:
            try:
                connection, used = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if 0 <= self._now() - used < MAX_IDLE_SECONDS and connection.is_idle():
                return connection
            connection.close()
        return None

    def _parse(self, answer: AwsResponse) -> dict[str, Any]:
        try:
            value = orjson.loads(answer.body)
        except ValueError as error:
            raise UnreadableAnswerError(f"{self._address.url}: {error}") from error
        if not isinstance(value, dict):
            raise UnreadableAnswerError(f"{self._address.url}: not an object")
        return value


class KinesisClient(AwsClient):
    """Puts records, and describes the stream."""

    SERVICE, SETTING, TARGET = "kinesis", "KINESIS", "Kinesis_20131202"

    def put_record(self, **arguments: Any) -> dict[str, Any]:
        """Put one record: `StreamName`, `Data`, `PartitionKey`."""
        return self.call("PutRecord", _in_base64(arguments))

    def put_records(self, **arguments: Any) -> dict[str, Any]:
        """Put several: `StreamName`, `Records`."""
        records = [_in_base64(record) for record in arguments["Records"]]
        return self.call("PutRecords", {**arguments, "Records": records})

    def describe_stream_summary(self, **arguments: Any) -> dict[str, Any]:
        """Describe a stream: `StreamName`."""
        return self.call("DescribeStreamSummary", arguments)


class SqsClient(AwsClient):
    """Sends messages."""

    SERVICE, SETTING, TARGET = "sqs", "SQS", "AmazonSQS"
    CONTENT_TYPE = "application/x-amz-json-1.0"

    def send_message(self, **arguments: Any) -> dict[str, Any]:
        """Send one message."""
        return self.call("SendMessage", arguments)


class DynamoDbClient(AwsClient):
    """Changes items."""

    SERVICE, SETTING, TARGET = "dynamodb", "DYNAMODB", "DynamoDB_20120810"
    CONTENT_TYPE = "application/x-amz-json-1.0"

    def update_item(self, **arguments: Any) -> dict[str, Any]:
        """Change one item."""
        return self.call("UpdateItem", arguments)


class SecretsManagerClient(AwsClient):
    """Reads secrets."""

    SERVICE, SETTING, TARGET = "secretsmanager", "SECRETS_MANAGER", "secretsmanager"

    def get_secret_value(self, **arguments: Any) -> dict[str, Any]:
        """Read one secret."""
        return self.call("GetSecretValue", arguments)


class S3Client(AwsClient):
    """Reads objects. A bucket's name goes into the path, which every endpoint supports."""

    SERVICE, SETTING = "s3", "S3"

    def get_object(self, **arguments: Any) -> dict[str, Any]:
        """Read an object: `Bucket`, `Key`, `IfNoneMatch`; both names must consist of characters that URLs need not escape."""
        path = f"/{arguments['Bucket']}/{arguments['Key']}"
        lines = self._signer.lines_of_get(path, self._now())
        if "IfNoneMatch" in arguments:
            lines += f"if-none-match:{arguments['IfNoneMatch']}\n"
        answer = self._exchange(_head(f"GET {path}", lines))
        if answer.status == 200:
            return {"Body": BytesIO(answer.body), "ETag": answer.headers.get("etag", "")}
        code = _ERROR_CODE.search(answer.body)
        raise _error(answer, "GetObject", code[1].decode() if code else str(answer.status))


def endpoint_of(kind: type[AwsClient], environment: Mapping[str, str], region: str) -> str:
    """Return a service's endpoint: from the environment, else AWS's default."""
    if environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() != "true":
        for name in (f"AWS_ENDPOINT_URL_{kind.SETTING}", "AWS_ENDPOINT_URL"):
            if environment.get(name):
                return environment[name]
    suffix = _SUFFIXES.get(region.partition("-")[0], "amazonaws.com")
    return f"https://{kind.SERVICE}.{region}.{suffix}"


def credentials_from(environment: Mapping[str, str]) -> Credentials:
    """Return the credentials that Lambda sets in the environment.

    Raises:
        SettingsError: there are none.
    """
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        raise SettingsError("there are no AWS credentials in the environment")
    return Credentials(key, secret, environment.get("AWS_SESSION_TOKEN") or None)


def ca_bundle_from(environment: Mapping[str, str]) -> str:
    """Return the CA bundle set in the environment, else the one in the zip."""
    own = environment.get("AWS_CA_BUNDLE") or environment.get("REQUESTS_CA_BUNDLE")
    if own:
        return own
    certifi = find_spec("certifi")  # importing it would take a tenth of a cold start
    if certifi is None or certifi.origin is None:
        raise SettingsError("there is no CA bundle: set AWS_CA_BUNDLE, or install certifi")
    return str(Path(certifi.origin).with_name("cacert.pem"))


@cache
def _tls(ca_bundle: str) -> ssl.SSLContext:
    """Return the TLS context that all clients share; reading the CA bundle is slow."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    context.load_verify_locations(ca_bundle)
    return context


def _close(idle: list[tuple[Connection, float]]) -> None:
    for connection, _ in idle:
        connection.close()


def _head(request: str, lines: str) -> bytes:
    """Return the head of a request, given its header lines."""
    if trace := os.environ.get("_X_AMZN_TRACE_ID"):  # Lambda detects recursive loops with it
        lines += f"x-amzn-trace-id:{quote(trace, safe='-=;:+&[]{}"\',')}\n"
    return f"{request} HTTP/1.1\n{lines}user-agent:sluice\n\n".replace("\n", "\r\n").encode()


def _in_base64(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {**arguments, "Data": b64encode(arguments["Data"]).decode()}


def _error_of(answer: AwsResponse, operation: str) -> ErrorAnswerError:
    """Return the error of a response, with the code that boto3 would give it."""
    try:
        value = orjson.loads(answer.body)
    except ValueError:
        value = {}
    if not isinstance(value, dict):
        value = {}
    code = str(value.get("__type") or answer.status).partition(":")[0].rpartition("#")[2]
    return _error(answer, operation, code, str(value.get("message") or value.get("Message") or ""))


def _error(answer: AwsResponse, operation: str, code: str, message: str = "") -> ErrorAnswerError:
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": answer.status, "HTTPHeaders": dict(answer.headers)},
    }
    return ErrorAnswerError(response, operation)
