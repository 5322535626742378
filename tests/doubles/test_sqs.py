"""The in-memory SQS behaves as moto's does, and by the clock it is given."""

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from doubles.sqs import MAX_MESSAGE_BYTES, MemorySQS


def _bodies(client: Any, url: str, **request: Any) -> list[str]:
    answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, **request)
    return sorted(message["Body"] for message in answer.get("Messages", []))


def test_messages_go_the_way_they_go_in_moto() -> None:
    """Send, receive, hide, show again and delete answer alike."""
    with mock_aws():
        real = boto3.client("sqs", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        for client in (MemorySQS(), real):
            url = client.create_queue(QueueName="overflow")["QueueUrl"]
            sent = client.send_message(QueueUrl=url, MessageBody="one")
            client.send_message_batch(QueueUrl=url, Entries=[{"Id": "0", "MessageBody": "two"}])
            assert sent["MD5OfMessageBody"] == "f97c5d29941bfb1b2fdab0874906ab82"
            answer = client.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"], VisibilityTimeout=60
            )
            first, second = sorted(answer["Messages"], key=lambda message: message["Body"])
            assert (first["Body"], second["Body"]) == ("one", "two")
            assert first["Attributes"]["ApproximateReceiveCount"] == "1"
            assert first["MessageId"] == sent["MessageId"]
            assert _bodies(client, url) == []
            client.change_message_visibility(
                QueueUrl=url, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=0
            )
            client.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
            assert _bodies(client, url) == ["two"]


@pytest.mark.parametrize("size", [0, MAX_MESSAGE_BYTES + 1])
def test_a_message_without_size_or_too_large_is_refused(size: int) -> None:
    """A message has 1 byte to 1 MiB."""
    client = MemorySQS()
    url = client.create_queue(QueueName="overflow")["QueueUrl"]
    with pytest.raises(ClientError):
        client.send_message(QueueUrl=url, MessageBody="x" * size)


def test_delay_and_visibility_go_by_the_clock() -> None:
    """A delayed message shows after its delay; a received one after its visibility, with its count."""
    now = [100.0]
    client = MemorySQS(lambda: now[0], visibility_seconds=30)
    url = client.create_queue(QueueName="overflow")["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody="late", DelaySeconds=120)
    assert _bodies(client, url) == []
    counts = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessagesDelayed"] == "1"
    now[0] = 220.0
    assert _bodies(client, url) == ["late"]
    now[0] = 249.0
    assert _bodies(client, url) == []
    now[0] = 250.0
    (message,) = client.receive_message(QueueUrl=url)["Messages"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "2"
    assert message["Attributes"]["SentTimestamp"] == "100000"
