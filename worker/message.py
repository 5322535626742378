"""Parses messages of the overflow queue. Each holds an envelope that the stream refused, or may have stored."""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared import envelope
from shared.envelope import Envelope
from shared.errors import EnvelopeError

UNDECODABLE = "undecodable"
NO_PARTITION_KEY = "no_partition_key"


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of a message.

    Attributes:
        message_id: SQS's name for the message.
        receipt: SQS's name for this delivery.
        sent_at: UNIX seconds, by SQS's clock.
        refused: the stream has definitely refused every put.
        envelope: the envelope in the body; None if there is none, or the message has no valid partition key to put it with.
        fault: why there is no envelope, in one word.
    """

    message_id: str
    receipt: str
    sent_at: float
    body: str
    partition_key: str
    refused: bool
    envelope: Envelope | None
    fault: str = ""


def read(record: Mapping[str, Any]) -> Message:
    """Return the message in a record of Lambda's event, whatever its body holds."""
    attributes = record.get("messageAttributes", {})
    partition_key = attributes.get("partition_key", {}).get("stringValue") or ""
    content = _decode(record["body"])
    fault = "" if content is not None else UNDECODABLE
    if content is not None and not 1 <= len(partition_key) <= 256:
        content, fault = None, NO_PARTITION_KEY
    return Message(
        message_id=record["messageId"],
        receipt=record["receiptHandle"],
        sent_at=int(record["attributes"]["SentTimestamp"]) / 1000,
        body=record["body"],
        partition_key=partition_key,
        refused=attributes.get("refused", {}).get("stringValue") == "true",
        envelope=content,
        fault=fault,
    )


def _decode(body: str) -> Envelope | None:
    try:
        return envelope.decode(b64decode(body, validate=True))
    except (ValueError, EnvelopeError):  # not base64, or not an envelope
        return None
