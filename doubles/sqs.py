"""SQS in memory: a standard queue with delays, visibility and receive counts, and Lambda's event source mapping for it."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doubles.aws_errors import check_members, client_error

_log = logging.getLogger("doubles.sqs")

MAX_MESSAGE_BYTES = 1024 * 1024
"""The limit for a message's body and attributes together."""

_MAX_RECEIVED = 10  # messages per call; Lambda collects a larger batch with several calls
_MAX_DELAY_SECONDS = 900
_DEFAULTS = {"DelaySeconds": "0", "VisibilityTimeout": "30", "MessageRetentionPeriod": "1209600"}


@dataclass(slots=True)
class Message:
    """One message and its state; times are UNIX seconds."""

    message_id: str
    body: str
    attributes: dict[str, Any]
    sent_at: float
    visible_at: float
    receives: int = 0

    def received(self) -> dict[str, Any]:
        """Return the message as ReceiveMessage does."""
        answer: dict[str, Any] = {
            "MessageId": self.message_id,
            "ReceiptHandle": f"{self.message_id}/{self.receives}",
            "MD5OfBody": _md5(self.body),
            "Body": self.body,
            "Attributes": {
                "SentTimestamp": str(int(self.sent_at * 1000)),
                "ApproximateReceiveCount": str(self.receives),
            },
        }
        return answer | ({"MessageAttributes": self.attributes} if self.attributes else {})


class MemorySQS:
    """A boto3-shaped SQS client and its queues.

    Args:
        now: returns UNIX seconds.
        url: the part of the queues' URLs before their names.
    """

    def __init__(
        self, now: Callable[[], float] = lambda: 0.0, url: str = "https://sqs.invalid/000000000000"
    ) -> None:
        self._now = now
        self._url = url
        self._queues: dict[str, dict[str, Message]] = {}
        self._attributes: dict[str, Mapping[str, str]] = {}
        self._serial = 0

    def create_queue(self, *, QueueName: str, Attributes: Mapping[str, str] | None = None) -> dict[str, str]:  # noqa: N803 -- boto3's names
        """Create a queue. The attributes `DelaySeconds`, `VisibilityTimeout` and `MessageRetentionPeriod` have an effect."""
        self._attributes[QueueName] = _DEFAULTS | dict(Attributes or {})
        self._queues.setdefault(QueueName, {})
        return {"QueueUrl": f"{self._url}/{QueueName}"}

    def send_message(self, **request: Any) -> dict[str, str]:
        """Accept a message that becomes visible after `DelaySeconds`."""
        queue = self._queue("SendMessage", request, "MessageBody", "DelaySeconds", "MessageAttributes")
        body, attributes = request["MessageBody"], request.get("MessageAttributes", {})
        delay = self._limit(request, "DelaySeconds")
        size = len(body.encode()) + sum(
            len(f"{name}{value['DataType']}{value['StringValue']}".encode())
            for name, value in attributes.items()
        )
        if not body:
            raise client_error("MissingParameter", "SendMessage", "MessageBody is required")
        if size > MAX_MESSAGE_BYTES or not 0 <= delay <= _MAX_DELAY_SECONDS:
            reason = f"a message of {size} bytes, visible after {delay} seconds"
            raise client_error("InvalidParameterValue", "SendMessage", reason)
        self._serial += 1
        now = self._now()
        message_id = f"{self._serial:032x}"
        queue[message_id] = Message(message_id, body, attributes, now, now + delay)
        return {"MessageId": message_id, "MD5OfMessageBody": _md5(body)}

    def receive_message(self, **request: Any) -> dict[str, Any]:
        """Return up to `MaxNumberOfMessages` visible messages, ten at most, and hide them, without waiting for any."""
        shown = "AttributeNames", "MessageAttributeNames"  # ignored: it returns all attributes
        limits = "MaxNumberOfMessages", "VisibilityTimeout", "WaitTimeSeconds"
        queue = self._queue("ReceiveMessage", request, *shown, *limits)
        most = request.get("MaxNumberOfMessages", 1)
        if not 1 <= most <= _MAX_RECEIVED:
            reason = f"Value {most} for parameter MaxNumberOfMessages is invalid: must be between 1 and 10."
            raise client_error("InvalidParameterValue", "ReceiveMessage", reason)
        now = self._now()
        visible = [message for message in queue.values() if message.visible_at <= now]
        taken = sorted(visible, key=lambda message: message.visible_at)[:most]
        for message in taken:
            message.receives += 1
            message.visible_at = now + self._limit(request, "VisibilityTimeout")
        return {"Messages": [message.received() for message in taken]} if taken else {}

    def delete_message(self, **request: Any) -> dict[str, Any]:
        """Delete a message by its receipt handle. An old handle also works, as in a standard queue."""
        queue = self._queue("DeleteMessage", request, "ReceiptHandle")
        queue.pop(request["ReceiptHandle"].partition("/")[0], None)
        return {}

    def change_message_visibility(self, **request: Any) -> dict[str, Any]:
        """Hide a message for `VisibilityTimeout` seconds from now; 0 shows it at once."""
        operation = "ChangeMessageVisibility"
        queue = self._queue(operation, request, "ReceiptHandle", "VisibilityTimeout")
        message = queue.get(request["ReceiptHandle"].partition("/")[0])
        if message is None:
            raise client_error("InvalidParameterValue", operation, "The receipt handle has expired")
        message.visible_at = self._now() + request["VisibilityTimeout"]
        return {}

    def get_queue_attributes(self, **request: Any) -> dict[str, dict[str, str]]:
        """Return how many messages are visible, hidden and delayed."""
        queue = self._queue("GetQueueAttributes", request, "AttributeNames")
        messages, now = queue.values(), self._now()
        visible = sum(message.visible_at <= now for message in messages)
        delayed = sum(message.visible_at > now and not message.receives for message in messages)
        counts = {"": visible, "Delayed": delayed, "NotVisible": len(messages) - visible - delayed}
        return {"Attributes": {f"ApproximateNumberOfMessages{name}": str(n) for name, n in counts.items()}}

    def messages(self, queue_url: str) -> list[Message]:
        """Return every message of a queue. Not an SQS operation."""
        return list(self._queues[_name(queue_url)].values())

    def _queue(self, operation: str, request: dict[str, Any], *known: str) -> dict[str, Message]:
        check_members(operation, request, {"QueueUrl", *known})
        queue = self._queues.get(_name(request["QueueUrl"]))
        if queue is None:
            raise client_error("AWS.SimpleQueueService.NonExistentQueue", operation)
        oldest = self._now() - self._limit(request, "MessageRetentionPeriod")
        for message in [one for one in queue.values() if one.sent_at < oldest]:
            del queue[message.message_id]
        return queue

    def _limit(self, request: Mapping[str, Any], name: str) -> float:
        """Return the seconds that a request asks for, or that its queue has."""
        return float(request.get(name, self._attributes[_name(request["QueueUrl"])][name]))


def pass_on(
    client: Any, url: str, queue_arn: str, invoke: Callable[[dict[str, Any]], Any], batch_size: int = 10
) -> int:
    """Invoke a function with visible messages of a queue, and return how many were deleted.

    Messages that the function reports as failed become visible again after the queue's time-out. If it raises, or
    reports a message that is not in the batch, all of them do.
    """
    messages = receive(client, url, batch_size)
    if not messages:
        return 0
    try:
        result = invoke({"Records": [record_of(message, queue_arn) for message in messages]})
        return settle(client, url, messages, result)
    except Exception:  # noqa: BLE001 -- whatever a function raises, its messages are delivered again
        _log.exception("%d messages will be sent again", len(messages))
        return 0


def receive(client: Any, queue_url: str, most: int) -> list[dict[str, Any]]:
    """Return up to so many visible messages, which SQS returns ten at a time."""
    messages: list[dict[str, Any]] = []
    while wanted := min(most - len(messages), _MAX_RECEIVED):
        answer = client.receive_message(
            QueueUrl=queue_url,
            MaxNumberOfMessages=wanted,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        if not answer.get("Messages"):
            break
        messages += answer["Messages"]
    return messages


def settle(client: Any, queue_url: str, messages: Sequence[dict[str, Any]], result: Any) -> int:
    """Delete the messages that a function's result does not report as failed, and return how many; none if it reports another."""
    receipts = {message["MessageId"]: message["ReceiptHandle"] for message in messages}
    failed = {failure["itemIdentifier"] for failure in (result or {}).get("batchItemFailures") or []}
    if failed - receipts.keys():
        return 0
    for message_id in receipts.keys() - failed:
        client.delete_message(QueueUrl=queue_url, ReceiptHandle=receipts[message_id])
    return len(receipts) - len(failed)


def record_of(message: dict[str, Any], queue_arn: str) -> dict[str, Any]:
    """Return a message as the queue's event source mapping delivers it."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {
            name: {
                "stringValue": value.get("StringValue"),
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": value["DataType"],
            }
            for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }


def _name(queue_url: str) -> str:
    """Return a queue's name: containers reach it under another host."""
    return queue_url.rpartition("/")[2]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
