"""The event source of the overflow queue."""

from collections.abc import Callable
from typing import Any

import pytest

from doubles.queue_source import QueueSource
from doubles.sqs import MemorySQS

ARN = "arn:aws:sqs:us-east-1:123456789012:overflow"


class Queue:
    """A queue with two messages."""

    def __init__(self) -> None:
        """Send them."""
        self.sqs = MemorySQS(lambda: 1_764_000_000.0)
        self.url = self.sqs.create_queue(QueueName="overflow")["QueueUrl"]
        for body in ("one", "two"):
            attributes = {"n": {"DataType": "String", "StringValue": body}}
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body, MessageAttributes=attributes)

    def poll(self, function: Callable[[dict[str, Any]], Any]) -> int:
        """Hand what is there to a function."""
        return QueueSource(self.sqs, self.url, ARN, function).poll()

    @property
    def left(self) -> list[str]:
        """The bodies that are still in the queue."""
        return [message.body for message in self.sqs.messages(self.url)]


def fail(_event: dict[str, Any]) -> None:
    """Fail as a function does."""
    raise ValueError("no")


def test_messages_have_lambdas_form() -> None:
    """A function gets messages as Lambda's event source mapping writes them."""
    events: list[dict[str, Any]] = []
    Queue().poll(events.append)

    assert [len(event["Records"]) for event in events] == [2]
    assert events[0]["Records"][0] == {
        "messageId": f"{1:032x}",
        "receiptHandle": f"{1:032x}/1",
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


@pytest.mark.parametrize(
    ("function", "deleted", "left"),
    [
        (lambda _: None, 2, []),
        (lambda _: {"batchItemFailures": []}, 2, []),
        (lambda _: {"batchItemFailures": [{"itemIdentifier": f"{2:032x}"}]}, 1, ["two"]),
        (lambda _: {"batchItemFailures": [{"itemIdentifier": "another"}]}, 0, ["one", "two"]),
        (lambda _: {"batchItemFailures": [{}]}, 0, ["one", "two"]),
        (fail, 0, ["one", "two"]),
    ],
    ids=["nothing", "no failures", "one failure", "a foreign id", "no id", "raises"],
)
def test_what_a_function_is_through_with_is_deleted(
    function: Callable[[dict[str, Any]], Any], deleted: int, left: list[str]
) -> None:
    """Messages that the function does not report as failed are deleted, and no others."""
    queue = Queue()

    assert (queue.poll(function), queue.left) == (deleted, left)


def test_an_empty_queue_calls_nobody() -> None:
    """Where nothing is visible the function is not called."""
    queue = Queue()
    queue.poll(lambda _: None)

    assert queue.poll(fail) == 0
