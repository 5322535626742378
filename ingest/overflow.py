"""The overflow queue: where an envelope waits that the stream did not take, or may have taken.

A message's body is the envelope in base64; its attributes are `partition_key`, `received_at` (UNIX milliseconds),
`request_id` and, where the request said that it repeats one, `since` (UNIX milliseconds): the first one's envelope may
have landed on the stream from then on. The drainer puts the envelope on the stream after it has looked there for the request's id, so a message
that is sent twice does no harm.
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

    def send(self, envelope: Envelope, partition_key: str, since: int | None = None) -> bool:
        """Return whether the queue has acknowledged the envelope.

        Args:
            envelope: is sent.
            partition_key: with which it is to be put.
            since: UNIX milliseconds from which on it may have landed, where an earlier request may have put it.
        """
        attributes = {
            "partition_key": {"DataType": "String", "StringValue": partition_key},
            "received_at": {"DataType": "Number", "StringValue": str(envelope.received_at)},
            "request_id": {"DataType": "String", "StringValue": envelope.request_id},
        }
        if since is not None:
            attributes["since"] = {"DataType": "Number", "StringValue": str(since)}
        try:
            self._client = self._client or self._make_client()
            answer = self._client.send_message(
                QueueUrl=self._queue_url,
                MessageBody=b64encode(envelope.encode()).decode(),
                MessageAttributes=attributes,
            )
        except (BotoCoreError, ClientError) as error:
            self._telemetry.warning("the overflow queue did not take an envelope", code=error_code(error))
            return False
        if "MessageId" not in answer:
            return False
        self._telemetry.count("EnvelopesOverflowed" if since is None else "EnvelopesRepeated")
        return True
