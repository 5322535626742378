"""The event source of the overflow queue."""

from typing import Any

import pytest

from doubles.queue_source import QueueSource
from doubles.sqs import MemorySQS

ARN = "arn:aws:sqs:us-east-1:123456789012:overflow"
SECOND = {"itemIdentifier": f"{2:032x}"}


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
    """Messages that the function does not report as failed are deleted, and no others; a batch takes several receives."""
    sqs = MemorySQS(lambda: 1_764_000_000.0)
    url = sqs.create_queue(QueueName="overflow")["QueueUrl"]
    for number in range(1, 16):
        attributes = {"n": {"DataType": "String", "StringValue": str(number)}}
        sqs.send_message(QueueUrl=url, MessageBody=str(number), MessageAttributes=attributes)
    events: list[dict[str, Any]] = []

    def function(event: dict[str, Any]) -> Any:
        events.append(event)
        if isinstance(result, Exception):
            raise result
        return result

    source = QueueSource(sqs, url, ARN, function, batch_size=100)
    deleted = [source.poll(), source.poll()]
    expected = {
        "messageId": f"{1:032x}",
        "receiptHandle": f"{1:032x}/1",
        "body": "1",
        "attributes": {"SentTimestamp": "1764000000000", "ApproximateReceiveCount": "1"},
        "messageAttributes": {
            "n": {"stringValue": "1", "stringListValues": [], "binaryListValues": [], "dataType": "String"}
        },
        "md5OfBody": "c4ca4238a0b923820dcc509a6f75849b",
        "eventSource": "aws:sqs",
        "eventSourceARN": ARN,
        "awsRegion": "us-east-1",
    }

    assert ([15 - len(left), 0], left) == (deleted, [message.body for message in sqs.messages(url)])
    assert ([15], expected) == ([len(event["Records"]) for event in events], events[0]["Records"][0])
