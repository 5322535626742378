"""The overflow queue: where an envelope waits that the stream refused, or may have stored.

A message's body is the envelope in base64. Its attribute `partition_key` says with which key to put it; `refused` is there
if the stream definitely refused every put. Such an envelope, and one that is a claim, can be put again without a search,
so the queue delivers it at once. Any other waits for the queue's own delay, in which a late put still lands. The drainer
tolerates a message that is sent twice.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ingest.aws_client import error_code
from shared.envelope import Envelope
from shared.telemetry import Telemetry

CLIENT_OPTIONS: Mapping[str, Any] = {"connect_timeout": 1, "read_timeout": 1, "attempts": 2}
"""How the client is made: it asks twice, because there is no other place to go."""


class Overflow:
    """Sends envelopes to the queue.

    Args:
        make_client: makes a boto3-shaped SQS client; called when the first envelope comes, because most sandboxes
            never need one.
        queue_url: the queue.
        telemetry: learns of each envelope.
    """

    def __init__(self, make_client: Callable[[], Any], queue_url: str, telemetry: Telemetry) -> None:
        self._make_client = make_client
        self._client: Any = None
        self._queue_url = queue_url
        self._telemetry = telemetry

    def send(self, envelope: Envelope, partition_key: str, *, refused: bool) -> bool:
        """Return whether the queue has acknowledged the envelope.

        Args:
            envelope: to send.
            partition_key: with which to put it on the stream.
            refused: the stream has definitely refused every put.
        """
        attributes = {"partition_key": {"DataType": "String", "StringValue": partition_key}}
        if refused:
            attributes["refused"] = {"DataType": "String", "StringValue": "true"}
        try:
            self._client = self._client or self._make_client()
            answer = self._client.send_message(
                QueueUrl=self._queue_url,
                MessageBody=b64encode(envelope.encode()).decode(),
                MessageAttributes=attributes,
                **({"DelaySeconds": 0} if refused or envelope.claim else {}),
            )
        except (BotoCoreError, ClientError) as error:
            self._telemetry.warning("the overflow queue did not take an envelope", code=error_code(error))
            return False
        if "MessageId" not in answer:
            return False
        self._telemetry.count("EnvelopesOverflowed")
        return True
