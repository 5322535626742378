"""Looks at the messages of the overflow queue without consuming any."""

from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from worker.record import START, Record, decode

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_PEEKS = 3  # consecutive receives without a new message after which the queue counts as read
_MOST_PEEKS = 500
_PEEK_SECONDS = 5  # how long a received message is hidden, so that the next receive returns others


def peeked(
    sqs: "SQSClient", url: str, sent_by: float, is_time_up: Callable[[], bool]
) -> Iterator[Record | None]:
    """Yield the envelope in each message that was sent by then, UNIX seconds; None if it has none.

    Each is hidden from the drainer for a few seconds. Which messages are shown is up to SQS: `queue_counts` tells how many there are.
    """
    known: set[str] = set()
    idle = 0
    for _ in range(_MOST_PEEKS):
        received = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=_PEEK_SECONDS,
            AttributeNames=["SentTimestamp"],
        ).get("Messages", [])
        new = [one for one in received if one["MessageId"] not in known and _sent_at(one) <= sent_by]
        idle = 0 if new else idle + 1
        for message in new:
            known.add(message["MessageId"])
            yield _of_message(message["Body"], _sent_at(message))
        if idle >= _PEEKS or is_time_up():
            return


def _sent_at(message: "MessageTypeDef") -> float:
    return int(message["Attributes"]["SentTimestamp"]) / 1000


def _of_message(body: str, sent_at: float) -> Record | None:
    try:
        data = b64decode(body, validate=True)
    except ValueError:
        return None
    record = decode(data, "", START, sent_at)
    return record if record.request_id else None
