"""The overflow queue holds envelopes that the stream rejected or may have stored.

A message's body is the envelope in base64. Its attribute `partition_key` is the key to put it with; it has the attribute
`refused` if the stream definitely rejected every put. Rejected envelopes and those with a claim can be put again without searching
the stream first, so the queue delivers them at once. Others wait for the queue's delay, in case a late put still arrives. The
drainer tolerates duplicate messages.

The queue's counts of messages lag, so a count of zero does not prove that it is empty. Therefore a function instance sends a notice
to a second queue before it sends an envelope. Notices stay there for minutes: if there is none, no envelope was sent recently.
"""

from base64 import b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shared.clock import Clock
from shared.envelope import Envelope
from shared.errors import aws_errors, error_code
from shared.telemetry import Telemetry

if TYPE_CHECKING:
    from ingest.aws_client import SqsClient

CLIENT_OPTIONS: Mapping[str, Any] = {"connect_timeout": 0.5, "read_timeout": 0.5, "attempts": 2}
"""Client options: two attempts, because the queue is the last resort."""
LONGEST_SECONDS = 4.0
"""The longest time that `send` takes with these options, including a notice."""
NOTICE_EVERY_SECONDS = 60.0
"""Maximum age of a notice when an envelope is sent under it."""


class Overflow:
    """Sends envelopes to the queue.

    Args:
        client: a boto3-like SQS client.
        queue_url: the queue.
        notices_url: the queue of notices.
        clock: measures the last notice's age.
        telemetry: logs failures.
    """

    def __init__(
        self, client: "SqsClient", queue_url: str, notices_url: str, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._client = client
        self._queue_url = queue_url
        self._notices_url = notices_url
        self._clock = clock
        self._noticed_at = float("-inf")
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
        return self._give_notice() and self._send(
            QueueUrl=self._queue_url,
            MessageBody=b64encode(envelope.encode()).decode(),
            MessageAttributes=attributes,
            **({"DelaySeconds": 0} if refused or envelope.claim else {}),
        )

    def _give_notice(self) -> bool:
        """Send a notice unless the last one is recent; return whether an envelope may be sent."""
        now = self._clock.now()
        if not 0 <= now - self._noticed_at < NOTICE_EVERY_SECONDS:
            if not self._send(QueueUrl=self._notices_url, MessageBody="the overflow queue is used"):
                return False
            self._noticed_at = now
        return True

    def _send(self, **message: Any) -> bool:
        try:
            answer = self._client.send_message(**message)
        except aws_errors() as error:
            self._telemetry.warning("the overflow queue did not store an envelope", code=error_code(error))
            return False
        return bool(answer.get("MessageId"))
