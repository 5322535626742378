"""The event source of the overflow queue."""

from collections.abc import Callable
from typing import Any

import pytest

from doubles.queue_source import QueueSource
from doubles.sqs import MemorySQS

ARN = "arn:aws:sqs:us-east-1:123456789012:overflow"
FIRST, SECOND = f"{1:032x}", f"{2:032x}"


@pytest.fixture
def sqs() -> MemorySQS:
    """A queue with two messages."""
    sqs = MemorySQS(lambda: 1_764_000_000.0)
    url = sqs.create_queue(QueueName="overflow")["QueueUrl"]
    for body in ("one", "two"):
        attributes = {"n": {"DataType": "String", "StringValue": body}}
        sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes)
    return sqs


def source(sqs: MemorySQS, function: Callable[[dict[str, Any]], Any]) -> QueueSource:
    """Return the source of the queue."""
    return QueueSource(sqs, sqs.create_queue(QueueName="overflow")["QueueUrl"], ARN, function)


def fail(_event: dict[str, Any]) -> None:
    """Fail like a function."""
    raise ValueError("no")


def test_large_batches_take_several_receives(sqs: MemorySQS) -> None:
    """A batch of more than ten messages is collected ten at a time."""
    queue = sqs.create_queue(QueueName="overflow")["QueueUrl"]
    for number in range(20):
        sqs.send_message(QueueUrl=queue, MessageBody=str(number))
    sizes: list[int] = []
    large = QueueSource(sqs, queue, ARN, lambda event: sizes.append(len(event["Records"])), batch_size=15)
    deleted = [large.poll() for _ in range(3)]

    assert ([15, 7, 0], [15, 7]) == (deleted, sizes)


def test_messages_have_lambdas_form(sqs: MemorySQS) -> None:
    """A function gets messages as Lambda writes them, and is not called for an empty queue."""
    events: list[dict[str, Any]] = []
    deleted = [source(sqs, events.append).poll() for _ in range(2)]
    expected = {
        "messageId": FIRST,
        "receiptHandle": f"{FIRST}/1",
        "body": "one",
        "attributes": {
            "SentTimestamp": "1764000000000",
            "ApproximateReceiveCount": "1",
            "ApproximateFirstReceiveTimestamp": "1764000000000",
        },
        "messageAttributes": {
            "n": {"stringValue": "one", "stringListValues": [], "binaryListValues": [], "dataType": "String"}
        },
        "md5OfBody": "f97c5d29941bfb1b2fdab0874906ab82",
        "eventSource": "aws:sqs",
        "eventSourceARN": ARN,
        "awsRegion": "us-east-1",
    }

    assert ([2, 0], [2]) == (deleted, [len(event["Records"]) for event in events])
    assert expected == events[0]["Records"][0]


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (lambda _: None, []),
        (lambda _: {"batchItemFailures": []}, []),
        (lambda _: {"batchItemFailures": [{"itemIdentifier": SECOND}]}, ["two"]),
        (lambda _: {"batchItemFailures": [{"itemIdentifier": "another"}]}, ["one", "two"]),
        (lambda _: {"batchItemFailures": [{}]}, ["one", "two"]),
        (fail, ["one", "two"]),
    ],
    ids=["nothing", "no failures", "one failure", "a foreign id", "no id", "raises"],
)
def test_settled_messages_are_deleted(
    sqs: MemorySQS, function: Callable[[dict[str, Any]], Any], left: list[str]
) -> None:
    """Messages that the function does not report as failed are deleted, and no others."""
    deleted = source(sqs, function).poll()
    queue = sqs.create_queue(QueueName="overflow")["QueueUrl"]

    assert (2 - len(left), left) == (deleted, [message.body for message in sqs.messages(queue)])
