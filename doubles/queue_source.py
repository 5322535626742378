"""The event source of a queue: hands its messages to a function, and deletes those that it is through with."""

import logging
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("doubles.queue_source")


class QueueSource:
    """Calls a function with a queue's messages, as a mapping with ReportBatchItemFailures does.

    Args:
        client: boto3-shaped SQS client.
        queue_url: the queue.
        queue_arn: stands in the messages.
        invoke: the handler, called with an event.
        batch_size: messages of one event, at most 10.
    """

    def __init__(
        self,
        client: Any,
        queue_url: str,
        queue_arn: str,
        invoke: Callable[[dict[str, Any]], Any],
        batch_size: int = 10,
    ) -> None:
        self._client = client
        self._queue_url = queue_url
        self._queue_arn = queue_arn
        self._invoke = invoke
        self._batch_size = batch_size

    def poll(self) -> int:
        """Hand on what is there now, and return how many messages were deleted.

        What the function reports as failed stays and comes back after the queue's time-out; so does all when it
        raises or reports what is not in the batch.

        Raises:
            ClientError: as SQS has it.
        """
        answer = self._client.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=self._batch_size,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return 0
        try:
            result = self._invoke({"Records": [self._record(message) for message in messages]}) or {}
            failures = result.get("batchItemFailures") or []
            failed = {failure["itemIdentifier"] for failure in failures}
            if failed - {message["MessageId"] for message in messages}:
                failed = {message["MessageId"] for message in messages}
        except Exception:  # noqa: BLE001 -- whatever a function raises, its messages come back
            _log.exception("%d messages are to be sent again", len(messages))
            return 0
        done = [message for message in messages if message["MessageId"] not in failed]
        for message in done:
            self._client.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
        return len(done)

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
            "eventSourceARN": self._queue_arn,
            "awsRegion": self._queue_arn.split(":")[3],
        }
