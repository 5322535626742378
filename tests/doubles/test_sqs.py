"""The in-memory SQS behaves like moto's and follows its clock, and its event source behaves like Lambda's."""

from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from doubles.sqs import MAX_MESSAGE_BYTES, MemorySQS, pass_on

ARN = "arn:aws:sqs:us-east-1:123456789012:overflow"
SECOND = {"itemIdentifier": f"{2:032x}"}


def _bodies(client: Any, url: str) -> list[str]:
    answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    return sorted(message["Body"] for message in answer.get("Messages", []))


def _behaviour(client: Any) -> list[Any]:
    """Send, receive, hide, show and delete messages, and return the results."""
    url = client.create_queue(QueueName="overflow")["QueueUrl"]
    sent = [client.send_message(QueueUrl=url, MessageBody=body) for body in ("one", "two")]
    asked = {"MaxNumberOfMessages": 10, "AttributeNames": ["All"], "VisibilityTimeout": 60}
    received = client.receive_message(QueueUrl=url, **asked)
    first, second = sorted(received["Messages"], key=lambda message: message["Body"])
    hidden = _bodies(client, url)
    client.change_message_visibility(QueueUrl=url, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=0)
    client.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        client.receive_message(QueueUrl=url, MaxNumberOfMessages=11)
    count = first["Attributes"]["ApproximateReceiveCount"]
    same = sent[0]["MessageId"] == first["MessageId"]
    return [sent[0]["MD5OfMessageBody"], first["Body"], count, same, hidden, _bodies(client, url)]


def test_messages_behave_as_in_moto() -> None:
    """Every call behaves like moto's, including a receive of more than ten messages."""
    with mock_aws():
        real = boto3.client("sqs", "us-east-1")

        assert _behaviour(real) == _behaviour(MemorySQS())


def test_the_documented_limits_apply() -> None:
    """Body and attributes together have at most 1 MiB, a body at least one byte, and a delay at most 15 minutes."""
    client = MemorySQS()
    url = client.create_queue(QueueName="overflow")["QueueUrl"]
    attributes = {"n": {"DataType": "String", "StringValue": "v"}}
    body = "x" * (MAX_MESSAGE_BYTES - len("nStringv"))
    client.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes, DelaySeconds=900)

    for wrong, delay in ((body + "x", 0), ("", 0), ("x", 901)):
        request = {"QueueUrl": url, "MessageBody": wrong, "DelaySeconds": delay}
        with pytest.raises(ClientError):
            client.send_message(**request, MessageAttributes=attributes)


def test_delay_and_visibility_depend_on_the_clock() -> None:
    """A message is visible after its delay, and after its visibility time-out, with its receive count. Both are the queue's unless the call names others."""
    now = [100.0]
    client = MemorySQS(lambda: now[0])
    limits = {"DelaySeconds": "120", "VisibilityTimeout": "30"}
    url = client.create_queue(QueueName="overflow", Attributes=limits)["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody="late")
    counts = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    seen = []
    for now[0] in (100.0, 220.0, 249.0):
        seen.append(_bodies(client, url))
    now[0] = 250.0
    [message] = client.receive_message(QueueUrl=url)["Messages"]
    told = message["Attributes"]

    assert ([[], ["late"], []], "1") == (seen, counts["ApproximateNumberOfMessagesDelayed"])
    assert ("2", "100000") == (told["ApproximateReceiveCount"], told["SentTimestamp"])


@pytest.mark.parametrize(
    ("result", "left"),
    [
        (None, []),
        ({"batchItemFailures": []}, []),
        ({"batchItemFailures": [SECOND]}, ["2"]),
        ({"batchItemFailures": [{"itemIdentifier": "another"}]}, [str(number) for number in range(1, 16)]),
        ({"batchItemFailures": [{}]}, [str(number) for number in range(1, 16)]),
        (ValueError("no"), [str(number) for number in range(1, 16)]),
    ],
)
def test_settled_messages_are_deleted(result: Any, left: list[str]) -> None:
    """Exactly the messages that the function does not report as failed are deleted; a batch takes several receives."""
    sqs = MemorySQS(lambda: 1_764_000_000.0)
    url = sqs.create_queue(QueueName="overflow")["QueueUrl"]
    for number in range(1, 16):
        attributes = {"n": {"DataType": "String", "StringValue": str(number)}}
        sqs.send_message(QueueUrl=url, MessageBody=str(number), MessageAttributes=attributes)
    function = Mock(side_effect=[result])
    deleted = [pass_on(sqs, url, ARN, function, batch_size=100) for _ in range(2)]
    told = {"stringValue": "1", "stringListValues": [], "binaryListValues": [], "dataType": "String"}
    expected = {
        "messageId": f"{1:032x}",
        "receiptHandle": f"{1:032x}/1",
        "body": "1",
        "attributes": {"SentTimestamp": "1764000000000", "ApproximateReceiveCount": "1"},
        "messageAttributes": {"n": told},
        "md5OfBody": "c4ca4238a0b923820dcc509a6f75849b",
        "eventSource": "aws:sqs",
        "eventSourceARN": ARN,
        "awsRegion": "us-east-1",
    }

    assert ([15 - len(left), 0], left) == (deleted, [message.body for message in sqs.messages(url)])
    [event] = [call.args[0] for call in function.mock_calls]
    assert (15, expected) == (len(event["Records"]), event["Records"][0])
