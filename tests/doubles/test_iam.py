"""Roles in memory allow what AWS would allow, and refuse as each service does."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from doubles.dynamodb import MemoryDynamoDB
from doubles.iam import ACCOUNT_ID, Authorized, Role, arn
from doubles.kinesis import MemoryKinesis
from doubles.s3 import MemoryS3
from doubles.sqs import MemorySQS

HERE = {"s3:ResourceAccount": ACCOUNT_ID}
OBJECTS = "arn:aws:s3:::aside/*"


def role(*statements: dict[str, Any]) -> Role:
    """Return a role with these statements, which allow unless they say otherwise."""
    return Role("TestRole", [{"Effect": "Allow", **statement} for statement in statements])


def refusal(client: Authorized, operation: str, **request: Any) -> tuple[str, int]:
    """Return the code and the status with which a call is refused."""
    with pytest.raises(ClientError) as raised:
        getattr(client, operation)(**request)
    response = raised.value.response
    assert "TestRole is not authorized to perform: " in response["Error"]["Message"]
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize(
    ("statement", "action", "resource", "allowed"),
    [
        ({"Action": "s3:PutObject", "Resource": OBJECTS}, "s3:PutObject", "arn:aws:s3:::aside/a/b", True),
        ({"Action": "s3:putobject", "Resource": OBJECTS}, "s3:PutObject", "arn:aws:s3:::aside/a", True),
        ({"Action": "s3:Put*", "Resource": "*"}, "s3:PutObject", "arn:aws:s3:::aside/a", True),
        ({"Action": ["s3:GetObject", "s3:PutObject"], "Resource": OBJECTS}, "s3:PutObject", "arn:aws:s3:::aside/a", True),
        ({"Action": "s3:PutObject", "Resource": [OBJECTS, "x"]}, "s3:PutObject", "arn:aws:s3:::aside/a", True),
        ({"Action": "s3:PutObject", "Resource": OBJECTS}, "s3:PutObject", "arn:aws:s3:::other/a", False),
        ({"Action": "s3:PutObject", "Resource": OBJECTS}, "s3:PutObject", "arn:aws:s3:::aside", False),
        ({"Action": "s3:PutObject", "Resource": OBJECTS}, "s3:PutObjectAcl", "arn:aws:s3:::aside/a", False),
        ({"Action": "s3:PutObject", "Resource": "arn:aws:s3:::a.b/*"}, "s3:PutObject", "arn:aws:s3:::axb/a", False),
    ],
)  # fmt: skip
def test_an_action_needs_a_statement_that_covers_it(
    statement: dict[str, Any], action: str, resource: str, allowed: bool
) -> None:
    """Action and resource match as a whole, with wildcards; only a resource's case counts."""
    assert allowed is role(statement).allows(action, resource, {})


def test_a_denial_outweighs_every_permission() -> None:
    """A statement that denies is stronger than one that allows."""
    allow = {"Action": "s3:*", "Resource": "*"}
    deny = {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"}

    assert role(allow, deny).allows("s3:PutObject", "arn:aws:s3:::aside/a", {})
    assert not role(allow, deny).allows("s3:DeleteObject", "arn:aws:s3:::aside/a", {})


@pytest.mark.parametrize(
    ("condition", "context", "allowed"),
    [
        ({"StringEquals": {"s3:ResourceAccount": ACCOUNT_ID}}, HERE, True),
        ({"StringEquals": {"s3:ResourceAccount": ["1", ACCOUNT_ID]}}, HERE, True),
        ({"StringEquals": {"s3:ResourceAccount": "12345678901*"}}, HERE, False),
        ({"StringEquals": {"s3:ResourceAccount": "1"}}, HERE, False),
        ({"StringEquals": {"s3:ResourceAccount": ACCOUNT_ID, "s3:prefix": "a"}}, HERE, False),
        ({"StringLike": {"s3:ResourceAccount": "1234567890??"}}, HERE, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:lambda:*"}}, HERE, False),
    ],
)
def test_a_condition_must_hold(condition: dict[str, Any], context: dict[str, str], allowed: bool) -> None:
    """All keys of all operators count, and a key without a value fails."""
    statement = {"Action": "s3:ListBucket", "Resource": "*", "Condition": condition}

    assert allowed is role(statement).allows("s3:ListBucket", "arn:aws:s3:::aside", context)


@pytest.mark.parametrize(
    "statement",
    [
        {"Action": "*", "Resource": "*", "Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}},
        {"NotAction": "s3:*", "Resource": "*"},
    ],
)
def test_what_is_not_evaluated_is_not_overlooked(statement: dict[str, Any]) -> None:
    """A statement that says more than is understood cannot become a role."""
    with pytest.raises(NotImplementedError):
        role(statement)


def test_each_service_refuses_in_its_own_way() -> None:
    """Code and status are the service's."""
    nothing = role()

    assert ("AccessDeniedException", 400) == refusal(
        Authorized("kinesis", None, nothing), "list_shards", StreamName="s"
    )
    assert ("AccessDeniedException", 400) == refusal(
        Authorized("dynamodb", None, nothing), "put_item", TableName="t", Item={}
    )
    assert ("AccessDeniedException", 400) == refusal(
        Authorized("secretsmanager", None, nothing), "get_secret_value", SecretId="s"
    )
    assert ("AccessDenied", 403) == refusal(
        Authorized("s3", None, nothing), "put_object", Bucket="b", Key="k"
    )
    assert ("AccessDenied", 403) == refusal(
        Authorized("sqs", None, nothing), "send_message", QueueUrl="https://q/1/q", MessageBody="b"
    )


def test_a_call_that_is_allowed_reaches_the_service() -> None:
    """Its answer comes back, and what is not allowed changes nothing."""
    s3 = MemoryS3()
    s3.create_bucket(Bucket="aside")
    client = Authorized("s3", s3, role({"Action": "s3:PutObject", "Resource": OBJECTS}))
    assert client.put_object(Bucket="aside", Key="k", Body=b"x")["ETag"]

    assert ("AccessDenied", 403) == refusal(client, "delete_object", Bucket="aside", Key="k")
    assert ["k"] == list(s3.objects("aside"))


def test_an_absent_object_is_hidden_from_whoever_may_not_list() -> None:
    """S3 answers 403, not 404, without the right to list the bucket."""
    s3 = MemoryS3()
    s3.create_bucket(Bucket="aside")
    read = {"Action": "s3:GetObject", "Resource": OBJECTS}
    find = {"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::aside"}

    assert ("AccessDenied", 403) == refusal(
        Authorized("s3", s3, role(read)), "get_object", Bucket="aside", Key="k"
    )
    with pytest.raises(ClientError, match="NoSuchKey"):
        Authorized("s3", s3, role(read, find)).get_object(Bucket="aside", Key="k")


def test_records_are_read_with_a_right_on_their_stream() -> None:
    """An iterator is of the stream that it was asked for."""
    kinesis = MemoryKinesis(lambda: 0.0)
    kinesis.create_stream(StreamName="events")
    may_look = {
        "Action": ["kinesis:ListShards", "kinesis:GetShardIterator"],
        "Resource": arn("kinesis", "stream/events"),
    }
    may_read = {"Action": "kinesis:GetRecords", "Resource": arn("kinesis", "stream/events")}
    client = Authorized("kinesis", kinesis, role(may_look))
    place = {"StreamName": "events", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    iterator = client.get_shard_iterator(**place)["ShardIterator"]
    assert ("AccessDeniedException", 400) == refusal(client, "get_records", ShardIterator=iterator)

    reader = Authorized("kinesis", kinesis, role(may_look, may_read))
    assert (
        [] == reader.get_records(ShardIterator=reader.get_shard_iterator(**place)["ShardIterator"])["Records"]
    )


def test_an_index_and_a_statement_have_rights_of_their_own() -> None:
    """A query of an index needs a right on the index, a batch of statements one on what each of them does."""
    dynamodb = MemoryDynamoDB()
    table = arn("dynamodb", "table/ledger")
    client = Authorized(
        "dynamodb", dynamodb, role({"Action": ["dynamodb:Query", "dynamodb:PutItem"], "Resource": table})
    )
    claim = {"Statement": "INSERT INTO \"ledger\" VALUE {'pk': ?}", "Parameters": [{"S": "a"}]}

    assert "AccessDeniedException" == refusal(client, "query", TableName="ledger", IndexName="worklist")[0]
    assert "AccessDeniedException" == refusal(client, "batch_execute_statement", Statements=[claim])[0]
    assert "AccessDeniedException" == refusal(client, "batch_get_item", RequestItems={"ledger": {}})[0]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.put_item(TableName="ledger", Item={})


def test_a_queue_is_named_by_its_url() -> None:
    """The right is on the queue's ARN."""
    sqs = MemorySQS()
    url = sqs.create_queue(QueueName="overflow")["QueueUrl"]
    client = Authorized("sqs", sqs, role({"Action": "sqs:SendMessage", "Resource": arn("sqs", "overflow")}))
    assert client.send_message(QueueUrl=url, MessageBody="b")["MessageId"]

    other = sqs.create_queue(QueueName="other")["QueueUrl"]
    assert ("AccessDenied", 403) == refusal(client, "send_message", QueueUrl=other, MessageBody="b")


def test_services_and_operations_that_are_not_known_are_not_let_through() -> None:
    """What cannot be judged is neither allowed nor refused."""
    everything = role({"Action": "*", "Resource": "*"})
    with pytest.raises(NotImplementedError):
        Authorized("sns", None, everything).publish(Message="m")
    with pytest.raises(NotImplementedError):
        Authorized("s3", None, everything).copy_object(Bucket="b", Key="k")
