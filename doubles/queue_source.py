"""Lambda's event source mapping of a queue, with ReportBatchItemFailures."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_log = logging.getLogger("doubles.queue_source")

_RECEIVED = 10  # SQS returns no more at a time; Lambda collects a larger batch by several receives


@dataclass(frozen=True, slots=True)
class QueueSource:
    """Calls a function with a queue's messages, up to `batch_size` in an event, and deletes those that it has settled."""

    client: Any
    queue_url: str
    queue_arn: str
    invoke: Callable[[dict[str, Any]], Any]
    batch_size: int = 10

    def poll(self) -> int:
        """Pass on what is visible, and return how many messages were deleted.

        Messages that the function reports as failed become visible again after the queue's time-out. So do all of
        them if it raises or reports a message that is not in the batch.
        """
        messages = self._receive()
        if not messages:
            return 0
        receipts = {message["MessageId"]: message["ReceiptHandle"] for message in messages}
        try:
            result = self.invoke({"Records": [self._record(message) for message in messages]}) or {}
            failed = {failure["itemIdentifier"] for failure in result.get("batchItemFailures") or []}
        except Exception:  # noqa: BLE001 -- whatever a function raises, its messages come back
            _log.exception("%d messages will be sent again", len(messages))
            return 0
        if failed - receipts.keys():
            return 0
        for message_id in receipts.keys() - failed:
            self.client.delete_message(QueueUrl=self.queue_url, ReceiptHandle=receipts[message_id])
        return len(receipts) - len(failed)

    def _receive(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        while wanted := min(self.batch_size - len(messages), _RECEIVED):
            answer = self.client.receive_message(
                QueueUrl=self.queue_url,
                MaxNumberOfMessages=wanted,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            if not answer.get("Messages"):
                break
            messages += answer["Messages"]
        return messages

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
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
            "eventSourceARN": self.queue_arn,
            "awsRegion": self.queue_arn.split(":")[3],
        }
