"""SQS in memory: a standard queue with delay, visibility and receive counts, without network, faults or delay."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from doubles.aws_errors import Exceptions, client_error

MAX_MESSAGE_BYTES = 1024 * 1024


@dataclass(slots=True)
class Message:
    """One message and its state."""

    message_id: str
    body: str
    attributes: dict[str, Any]
    sent_at: float
    visible_at: float
    receives: int = 0
    first_received_at: float | None = None
    receipt: str = field(default="")


class MemorySQS:
    """A boto3-shaped SQS client and its queues.

    Args:
        now: tells UNIX seconds.
        visibility_seconds: how long a received message stays hidden where the call does not say.
    """

    exceptions = Exceptions()

    def __init__(self, now: Callable[[], float] = lambda: 0.0, visibility_seconds: float = 30) -> None:
        self._now = now
        self._visibility = visibility_seconds
        self._queues: dict[str, dict[str, Message]] = {}
        self._serial = 0

    def create_queue(self, *, QueueName: str, **_ignored: Any) -> dict[str, str]:  # noqa: N803 -- boto3's names
        """Make a queue."""
        url = f"https://sqs.invalid/000000000000/{QueueName}"
        self._queues.setdefault(url, {})
        return {"QueueUrl": url}

    def send_message(self, **request: Any) -> dict[str, str]:
        """Take a message, to be seen after `DelaySeconds`."""
        queue = self._queue(request, "SendMessage")
        body = request["MessageBody"]
        if not body:
            raise client_error("MissingParameter", "SendMessage", "MessageBody is required")
        if len(body.encode()) > MAX_MESSAGE_BYTES:
            raise client_error(
                "InvalidParameterValue",
                "SendMessage",
                f"Message must be shorter than {MAX_MESSAGE_BYTES} bytes.",
            )
        delay = request.get("DelaySeconds", 0)
        if not 0 <= delay <= 900:
            raise client_error("InvalidParameterValue", "SendMessage", "DelaySeconds must be <= 900")
        self._serial += 1
        now = self._now()
        message = Message(
            f"{self._serial:032x}", body, dict(request.get("MessageAttributes") or {}), now, now + delay
        )
        queue[message.message_id] = message
        return {"MessageId": message.message_id, "MD5OfMessageBody": _md5(body)}

    def send_message_batch(self, **request: Any) -> dict[str, Any]:
        """Take up to ten messages."""
        done = []
        for entry in request["Entries"]:
            message = {name: value for name, value in entry.items() if name != "Id"}
            answer = self.send_message(QueueUrl=request["QueueUrl"], **message)
            done.append({"Id": entry["Id"], **answer})
        return {"Successful": done}

    def receive_message(self, **request: Any) -> dict[str, Any]:
        """Return up to `MaxNumberOfMessages` that are visible, and hide them."""
        queue = self._queue(request, "ReceiveMessage")
        now = self._now()
        visible = [message for message in queue.values() if message.visible_at <= now]
        visible.sort(key=lambda message: message.visible_at)
        taken = visible[: request.get("MaxNumberOfMessages", 1)]
        hidden = request.get("VisibilityTimeout", self._visibility)
        for message in taken:
            message.receives += 1
            message.first_received_at = message.first_received_at or now
            message.visible_at = now + hidden
            message.receipt = f"{message.message_id}/{message.receives}"
        return {"Messages": [_received(message) for message in taken]} if taken else {}

    def delete_message(self, **request: Any) -> dict[str, Any]:
        """Delete the message of a receipt; an old receipt deletes too, as in a standard queue."""
        queue = self._queue(request, "DeleteMessage")
        queue.pop(request["ReceiptHandle"].partition("/")[0], None)
        return {}

    def delete_message_batch(self, **request: Any) -> dict[str, Any]:
        """Delete up to ten messages."""
        for entry in request["Entries"]:
            self.delete_message(QueueUrl=request["QueueUrl"], ReceiptHandle=entry["ReceiptHandle"])
        return {"Successful": [{"Id": entry["Id"]} for entry in request["Entries"]], "Failed": []}

    def change_message_visibility(self, **request: Any) -> dict[str, Any]:
        """Hide a message, or show it, from now on."""
        queue = self._queue(request, "ChangeMessageVisibility")
        message = queue.get(request["ReceiptHandle"].partition("/")[0])
        if message is None:
            raise client_error(
                "InvalidParameterValue", "ChangeMessageVisibility", "The receipt handle has expired"
            )
        message.visible_at = self._now() + request["VisibilityTimeout"]
        return {}

    def get_queue_attributes(self, **request: Any) -> dict[str, dict[str, str]]:
        """Return how many messages are visible, hidden and delayed."""
        messages, now = self._queue(request, "GetQueueAttributes").values(), self._now()
        visible = sum(message.visible_at <= now for message in messages)
        delayed = sum(message.visible_at > now and not message.receives for message in messages)
        return {
            "Attributes": {
                "ApproximateNumberOfMessages": str(visible),
                "ApproximateNumberOfMessagesDelayed": str(delayed),
                "ApproximateNumberOfMessagesNotVisible": str(len(messages) - visible - delayed),
            }
        }

    def messages(self, queue_url: str) -> list[Message]:
        """Return every message of a queue; not a call of SQS's."""
        return list(self._queues[queue_url].values())

    def _queue(self, request: dict[str, Any], operation: str) -> dict[str, Message]:
        queue = self._queues.get(request["QueueUrl"])
        if queue is None:
            raise client_error("AWS.SimpleQueueService.NonExistentQueue", operation)
        return queue


def _received(message: Message) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "MessageId": message.message_id,
        "ReceiptHandle": message.receipt,
        "MD5OfBody": _md5(message.body),
        "Body": message.body,
        "Attributes": {
            "SentTimestamp": str(int(message.sent_at * 1000)),
            "ApproximateReceiveCount": str(message.receives),
            "ApproximateFirstReceiveTimestamp": str(int((message.first_received_at or 0) * 1000)),
        },
    }
    if message.attributes:
        answer["MessageAttributes"] = message.attributes
    return answer


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
