"""The overflow queue holds envelopes that the stream rejected or may have stored.

A message's body is the envelope in base64. Its attribute `partition_key` is the key to put it with; it has the attribute
`refused` if the stream definitely rejected every put. Rejected envelopes and claims can be put again without searching the
stream first, so the queue delivers them at once. Others wait for the queue's delay, in case a late put still arrives. The
drainer tolerates duplicate messages.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ingest.aws_client import error_code
from shared.envelope import Envelope
from shared.telemetry import Telemetry

CLIENT_OPTIONS: Mapping[str, Any] = {"connect_timeout": 1, "read_timeout": 1, "attempts": 2}
"""Client options: two attempts, because the queue is the last resort."""
LONGEST_SECONDS = 4.0
"""The longest time that `send` takes with them."""


class Overflow:
    """Sends envelopes to the queue.

    Args:
        make_client: returns a boto3-like SQS client; called for the first envelope, because most function instances never need one.
        queue_url: the queue.
        telemetry: logs failures.
    """

    def __init__(self, make_client: Callable[[], Any], queue_url: str, telemetry: Telemetry) -> None:
        self._make_client = make_client
        self._client: Any = None
        self._queue_url = queue_url
        self._telemetry = telemetry

    def send(self, envelope: Envelope, partition_key: str, *, refused: bool) -> bool:
        """Send an envelope; return whether the queue acknowledged it.

        Args:
            envelope: to send.
            partition_key: the key to put it on the stream with.
            refused: whether the stream definitely rejected every put.
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
            self._telemetry.warning("the overflow queue did not store an envelope", code=error_code(error))
            return False
        return "MessageId" in answer
