"""The ingest's AWS clients send the same requests as botocore's and interpret responses the same way."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as BotocoreCredentials
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from doubles.clock import ManualClock
from ingest import aws_client
from ingest.aws_client import (
    MAX_IDLE_SECONDS,
    AwsClient,
    DynamoDbClient,
    KinesisClient,
    S3Client,
    SecretsManagerClient,
    SqsClient,
)
from ingest.signature import Credentials, Signer
from shared.errors import ErrorAnswerError, SettingsError, TlsError
from tests.support import aws_server
from tests.support.tls_front import TlsFront

REGION = "eu-west-1"
KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a+session/token==")
MESSAGE = {
    "QueueUrl": "http://127.0.0.1/queue",
    "MessageBody": "aGVsbG8=",
    "MessageAttributes": {"partition_key": {"DataType": "String", "StringValue": "shop/1"}},
}
RECORD = {"Data": b"\x97\x01\xff", "PartitionKey": "shop/ü"}
COUNT = {
    "TableName": "counters",
    "Key": {"account": {"S": "shop"}},
    "UpdateExpression": "ADD s1 :s1",
    "ExpressionAttributeValues": {":s1": {"N": "1"}},
}
CALLS = [
    (KinesisClient, "put_record", {"StreamName": "events", **RECORD}),
    (KinesisClient, "put_records", {"StreamName": "events", "Records": [RECORD] * 2}),
    (SqsClient, "send_message", MESSAGE),
    (DynamoDbClient, "update_item", COUNT),
    (SecretsManagerClient, "get_secret_value", {"SecretId": "arn:aws:secretsmanager:keys"}),
]
SIGNED_OR_READ = ("content-type", "host", "x-amz-target", "x-amz-security-token", "x-amzn-trace-id")


@pytest.fixture
def aws() -> Iterator[Any]:
    """Yield a server that stands in for AWS on the loopback interface."""
    with aws_server.AwsServer({"k1": "secret"}) as server:
        yield server


def ours(kind: type[AwsClient], url: str, **options: Any) -> Any:
    """Return the ingest's client for a service."""
    waits = {"ca_bundle": "", "connect_timeout": 5, "read_timeout": 5}
    return kind(url, REGION, KEYS, **waits | options)


def botocores(kind: type[AwsClient], url: str) -> Any:
    """Return botocore's client for the same service."""
    return botocore.session.get_session().create_client(
        kind.SERVICE,
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id=KEYS.access_key,
        aws_secret_access_key=KEYS.secret_key,
        aws_session_token=KEYS.token,
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
    )


@pytest.mark.parametrize(("kind", "operation", "arguments"), CALLS, ids=[call[1] for call in CALLS])
def test_a_call_matches_botocore(
    aws: Any,
    kind: type[AwsClient],
    operation: str,
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Operation, members and headers match, including the header for Lambda's loop detection."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "ingest")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=ü;Sampled=1")
    answers = [getattr(make(kind, aws.url), operation)(**arguments) for make in (botocores, ours)]

    [theirs, mine] = aws.calls
    assert theirs == mine
    [theirs, mine] = [{name: head.get(name) for name in SIGNED_OR_READ} for head in aws.heads]
    assert theirs == mine
    assert {name: value for name, value in answers[0].items() if name != "ResponseMetadata"} == answers[1]


def test_reading_an_object_matches_botocore(aws: Any) -> None:
    """The bytes and the tag match, and so do the errors for an unchanged object and an unreadable one."""
    aws.objects["edge/policy"] = b"content"
    found = []
    for client in (botocores(S3Client, aws.url), ours(S3Client, aws.url)):
        answer = client.get_object(Bucket="aside", Key="edge/policy")
        errors = []
        for wrong in ({"Key": "edge/policy", "IfNoneMatch": answer["ETag"]}, {"Key": "edge/other"}):
            with pytest.raises((ClientError, ErrorAnswerError)) as raised:
                client.get_object(Bucket="aside", **wrong)
            errors.append((raised.value.response["Error"]["Code"], str(raised.value.operation_name)))
        found.append((answer["Body"].read(), answer["ETag"], errors))

    assert found[0] == found[1]
    assert [("304", "GetObject"), ("AccessDenied", "GetObject")] == found[1][2]


def authorization(request: Any, auth: Any) -> tuple[str, float]:
    """Return the authorization line of a request that botocore signs, and the time when it did."""
    auth.add_auth(request)
    moment = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return f"authorization:{request.headers['Authorization']}", moment.timestamp()


@given(
    service=st.sampled_from(["kinesis", "sqs", "secretsmanager"]),
    region=st.sampled_from(["eu-west-1", "us-gov-west-1"]),
    target=st.from_regex(r"[A-Za-z0-9_]{1,20}\.[A-Za-z]{1,20}", fullmatch=True),
    body=st.binary(max_size=200),
    token=st.none() | st.from_regex(r"[A-Za-z0-9+/=]{1,40}", fullmatch=True),
    secret=st.from_regex(r"[A-Za-z0-9+/]{1,40}", fullmatch=True),
    path=st.from_regex(r"/[a-z0-9-]{3,20}/edge/policy", fullmatch=True),
)
def test_a_signature_matches_botocore(
    *, service: str, region: str, target: str, body: bytes, token: str | None, secret: str, path: str
) -> None:
    """It does for a POST of any service, body and credentials, also after a day, and for a read of any object."""
    kind, host = "application/x-amz-json-1.1", "127.0.0.1:8080"
    headers = {"Content-Type": kind, "X-Amz-Target": target}
    credentials, theirs = Credentials("AKID", secret, token), BotocoreCredentials("AKID", secret, token)
    request = AWSRequest("POST", f"http://{host}/", headers, body)  # type: ignore[no-untyped-call]
    expected, now = authorization(request, SigV4Auth(theirs, service, region))  # type: ignore[no-untyped-call]

    signer = Signer(credentials, service, region, host, kind)
    signer.lines(target, body, now - 86_400)
    assert expected == signer.lines(target, body, now).splitlines()[-1]

    read = AWSRequest("GET", f"http://{host}{path}")  # type: ignore[no-untyped-call]
    expected, now = authorization(read, S3SigV4Auth(theirs, "s3", region))  # type: ignore[no-untyped-call]
    signer = Signer(credentials, "s3", region, host, "")
    assert expected == signer.lines_of_get(path, now).splitlines()[-1]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"__type": "ProvisionedThroughputExceededException", "message": "Rate exceeded"}),
        (400, {"__type": "com.amazonaws.kinesis#LimitExceededException", "Message": "too many"}),
        (400, {"__type": "KMSThrottlingException:http://internal.amazon.com/", "message": "kms"}),
        (503, b""),
        (502, b"<html>Bad Gateway</html>"),
        (400, [1]),
    ],
)
def test_an_error_matches_botocore(aws: Any, status: int, body: Any) -> None:
    """Error code and status match; an error that does not come from AWS has its status as its code."""
    aws.faults["PutRecord"] = [aws_server.answer(status, body)] * 2
    found = []
    for make in (ours, botocores)[: 1 if body == [1] else 2]:  # botocore cannot handle this one
        with pytest.raises((ClientError, ErrorAnswerError)) as raised:
            make(KinesisClient, aws.url).put_record(**CALLS[0][2])
        response = raised.value.response
        found.append((response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]))

    assert [found[0]] == list(dict.fromkeys(found))


@pytest.mark.parametrize(("idle", "expected"), [(MAX_IDLE_SECONDS - 1, 1), (MAX_IDLE_SECONDS, 2), (-60, 2)])
def test_a_connection_is_not_reused_after_a_long_idle_time(aws: Any, idle: float, expected: int) -> None:
    """Nor is it reused if the clock was set back, because its idle time is then unknown."""
    clock = ManualClock()
    client = ours(KinesisClient, aws.url, now=clock.now)
    for _ in range(2):
        client.put_record(**CALLS[0][2])
        clock.time += idle

    assert expected == len(set(aws.ports))


def test_a_failed_call_is_attempted_as_often_as_configured(aws: Any) -> None:
    """With two attempts, a call that fails twice raises an error and is not sent a third time."""
    aws.faults["SendMessage"] = [aws_server.close, aws_server.error(500, "InternalFailure"), None]
    client = ours(SqsClient, aws.url, attempts=2)

    with pytest.raises((ClientError, ErrorAnswerError)):
        client.send_message(**MESSAGE)
    assert {"MessageId": "1"} == client.send_message(**MESSAGE)
    assert 3 == aws.count("SendMessage")


def test_rejects_untrusted_certificate(aws: Any, tmp_path: Path) -> None:
    """A server with an untrusted certificate receives no request."""
    port = int(aws.url.rpartition(":")[2])
    with TlsFront(port, tmp_path) as front:
        own = str(tmp_path / "certificate.pem")
        url = f"https://127.0.0.1:{front.port}"
        assert "MessageId" in ours(SqsClient, url, ca_bundle=own).send_message(**MESSAGE)
        stranger = ours(SqsClient, url, ca_bundle=aws_client.ca_bundle_from({}))
        with pytest.raises(TlsError):
            stranger.send_message(**MESSAGE)

    assert 1 == aws.count("SendMessage")


@pytest.mark.parametrize("kind", [KinesisClient, SqsClient, DynamoDbClient, SecretsManagerClient])
def test_endpoints_match_botocore(kind: type[AwsClient], monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints match in every commercial region, and in one of each other partition that reaches the internet."""
    aws_server.unset_variables(monkeypatch)
    session: Any = botocore.session.get_session()
    regions = [*session.get_available_regions(kind.SERVICE), "cn-north-1", "us-gov-west-1", "eusc-de-east-1"]
    clients = [session.create_client(kind.SERVICE, region_name=region) for region in regions]

    ours = [aws_client.endpoint_of(kind, {}, region) for region in regions]
    assert [client.meta.endpoint_url for client in clients] == ours
    assert len(regions) > 20


def test_the_environment_can_set_endpoints() -> None:
    """A service's own endpoint takes precedence over the general one, and a third variable disables both."""
    named = {"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://secrets"}

    assert "http://all" == aws_client.endpoint_of(KinesisClient, named, REGION)
    assert "http://secrets" == aws_client.endpoint_of(SecretsManagerClient, named, REGION)
    named["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "true"
    assert "https://sqs.eu-west-1.amazonaws.com" == aws_client.endpoint_of(SqsClient, named, REGION)


def test_credentials_come_from_the_environment() -> None:
    """Lambda sets the variables; an empty session token counts as none."""
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}

    assert Credentials("a", "b", "c") == aws_client.credentials_from(given)
    assert Credentials("a", "b") == aws_client.credentials_from(given | {"AWS_SESSION_TOKEN": ""})
    with pytest.raises(SettingsError, match="no AWS credentials"):
        aws_client.credentials_from({"AWS_ACCESS_KEY_ID": "a"})
