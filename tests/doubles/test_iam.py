"""Roles in memory allow what AWS would allow, and deny calls as each service does."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from doubles.dynamodb import MemoryDynamoDB
from doubles.iam import ACCOUNT_ID, Authorized, Role, arn
from doubles.kinesis import MemoryKinesis
from doubles.s3 import MemoryS3
from doubles.sqs import MemorySQS

ACCOUNT = "s3:ResourceAccount"
PUT = {"Action": "s3:PutObject", "Resource": "arn:aws:s3:::aside/*"}
QUEUE = {"Action": "sqs:SendMessage", "Resource": arn("sqs", "overflow")}
LEDGER = {"Action": ["dynamodb:Query", "dynamodb:PutItem"], "Resource": arn("dynamodb", "table/ledger")}
CLAIM = {"Statement": "INSERT INTO \"ledger\" VALUE {'pk': ?}", "Parameters": [{"S": "a"}]}


def role(*statements: dict[str, Any]) -> Role:
    """Return a role with these statements, whose default effect is Allow."""
    return Role("TestRole", [{"Effect": "Allow", **statement} for statement in statements])


def refusal(client: Authorized, operation: str, **request: Any) -> tuple[str, int]:
    """Return the code and the status with which a call is denied."""
    with pytest.raises(ClientError, match="TestRole is not authorized to perform: ") as raised:
        getattr(client, operation)(**request)
    response = raised.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize(
    ("changes", "resource", "allowed"),
    [
        ({}, "aside/a/b", True),
        ({"Action": "s3:putobject"}, "aside/a", True),
        ({"Action": "s3:Put*", "Resource": "*"}, "aside/a", True),
        ({"Action": ["s3:GetObject", "s3:PutObject"]}, "aside/a", True),
        ({"Resource": [PUT["Resource"], "x"]}, "aside/a", True),
        ({}, "other/a", False),
        ({}, "aside", False),
        ({"Action": "s3:PutObjectAcl"}, "aside/a", False),
        ({"Resource": "arn:aws:s3:::a.b/*"}, "axb/a", False),
        ({"Condition": {"StringEquals": {ACCOUNT: ACCOUNT_ID}}}, "aside/a", True),
        ({"Condition": {"StringEquals": {ACCOUNT: ["1", ACCOUNT_ID]}}}, "aside/a", True),
        ({"Condition": {"StringEquals": {ACCOUNT: "12345678901*"}}}, "aside/a", False),
        ({"Condition": {"StringEquals": {ACCOUNT: "1"}}}, "aside/a", False),
        ({"Condition": {"StringEquals": {ACCOUNT: ACCOUNT_ID, "s3:prefix": "a"}}}, "aside/a", False),
        ({"Effect": "Deny"}, "aside/a", False),
        ({"Effect": "Deny", "Action": "s3:DeleteObject"}, "aside/a", True),
    ],
)
def test_a_role_allows_what_statements_match(changes: dict[str, Any], resource: str, allowed: bool) -> None:
    """Action, in any case, and resource must match completely, with wildcards, and all conditions hold; a denial overrides."""
    statements = [PUT | changes, *([PUT] if "Effect" in changes else ())]
    some, context = role(*statements), {ACCOUNT: ACCOUNT_ID}

    assert allowed is some.allows("s3:PutObject", f"arn:aws:s3:::{resource}", context)


DENIED = ("AccessDeniedException", 400)
WRITES = [{"Put": {"TableName": "ledger"}}, {"Update": {"TableName": "ledger"}}]


@pytest.mark.parametrize(
    ("service", "operation", "request_", "refused"),
    [
        ("kinesis", "list_shards", {"StreamName": "s"}, DENIED),
        ("secretsmanager", "get_secret_value", {"SecretId": "s"}, DENIED),
        ("s3", "delete_object", {"Bucket": "aside", "Key": "k"}, ("AccessDenied", 403)),
        ("sqs", "send_message", {"QueueUrl": "https://q/1/other"}, ("AccessDenied", 403)),
        ("dynamodb", "put_item", {"TableName": "other"}, DENIED),
        ("dynamodb", "batch_get_item", {"RequestItems": {"ledger": {}}}, DENIED),
        # an index, each statement of a batch and each write of a transaction need their own permissions
        ("dynamodb", "query", {"TableName": "ledger", "IndexName": "i"}, DENIED),
        ("dynamodb", "batch_execute_statement", {"Statements": [CLAIM]}, DENIED),
        ("dynamodb", "transact_write_items", {"TransactItems": WRITES}, DENIED),
    ],
)
def test_each_service_denies_with_its_own_error(
    service: str, operation: str, request_: dict[str, Any], refused: tuple[str, int]
) -> None:
    """Code and status are the service's, and a denied call does not reach it."""
    assert refused == refusal(Authorized(service, None, role(PUT, QUEUE, LEDGER)), operation, **request_)


def test_an_allowed_call_reaches_the_service() -> None:
    """The service's response or error is passed through; a queue is identified by its URL."""
    s3, sqs, some = MemoryS3(), MemorySQS(), role(PUT, QUEUE, LEDGER)
    s3.create_bucket(Bucket="aside")
    url = sqs.create_queue(QueueName="overflow")["QueueUrl"]

    assert Authorized("s3", s3, some).put_object(Bucket="aside", Key="k", Body=b"x")["ETag"]
    assert Authorized("sqs", sqs, some).send_message(QueueUrl=url, MessageBody="b")["MessageId"]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        Authorized("dynamodb", MemoryDynamoDB(), some).put_item(TableName="ledger", Item={})


def test_an_absent_object_is_hidden_without_list_permission() -> None:
    """For an absent object, S3 answers 403 instead of 404 without permission to list the bucket."""
    s3 = MemoryS3()
    s3.create_bucket(Bucket="aside")
    read = PUT | {"Action": "s3:GetObject"}
    find = {"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::aside"}
    absent = {"Bucket": "aside", "Key": "k"}

    assert ("AccessDenied", 403) == refusal(Authorized("s3", s3, role(read)), "get_object", **absent)
    with pytest.raises(ClientError, match="NoSuchKey"):
        Authorized("s3", s3, role(read, find)).get_object(**absent)


def test_reading_records_needs_permission_on_their_stream() -> None:
    """Reading through an iterator needs permission on the stream that the iterator was created for."""
    kinesis = MemoryKinesis(lambda: 0.0)
    kinesis.create_stream(StreamName="events")
    may_look = {"Action": "kinesis:GetShardIterator", "Resource": arn("kinesis", "stream/events")}
    may_read = may_look | {"Action": "kinesis:GetRecords"}

    def read(*statements: dict[str, Any]) -> Any:
        client = Authorized("kinesis", kinesis, role(*statements))
        place = {"ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
        iterator = client.get_shard_iterator(StreamName="events", **place)
        return client.get_records(ShardIterator=iterator["ShardIterator"])["Records"]

    with pytest.raises(ClientError, match="kinesis:GetRecords"):
        read(may_look)
    assert [] == read(may_look, may_read)


def test_unsupported_statements_and_calls_raise() -> None:
    """An unsupported statement, service or operation raises NotImplementedError, and is neither allowed nor denied."""
    everything = {"Action": "*", "Resource": "*"}
    for unknown in (
        lambda: role(everything | {"Condition": {"StringLike": {ACCOUNT: "1*"}}}),
        lambda: role({"NotAction": "s3:*", "Resource": "*"}),
        lambda: Authorized("sns", None, role(everything)).publish(Message="m"),
        lambda: Authorized("s3", None, role(everything)).copy_object(Bucket="b", Key="k"),
    ):
        with pytest.raises(NotImplementedError):
            unknown()
