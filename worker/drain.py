"""The drainer: puts the envelopes of the overflow queue on the stream again.

Every envelope that it puts carries a claim, so the worker counts only one of the records that carry the envelope. If an earlier put of it
may have landed without a claim, the claim is the time at which it was sent to the queue instead of 1. That marks its rows as put again: the
sender decides about them once every shard has shown what it received until a first copy would have had to claim. How long an envelope waits
in the queue decides nothing.

What is not an envelope becomes a dead span.
"""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shared import envelope
from shared.clock import Clock
from shared.errors import UnavailableError, aws_errors
from shared.puts import Fate, batches, put
from shared.telemetry import Telemetry, about
from worker.chain import ChainId
from worker.deadline import Deadline
from worker.ledger import Ledger
from worker.record import CLAIMED, UNDECODABLE, packed
from worker.settlement import report_dead
from worker.span import NO_SENDER, ChunkKey, Group, milliseconds
from worker.span_object import Chunk, SpanObjects, span_of_rows

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_sqs import SQSClient

NO_PARTITION_KEY = "no_partition_key"

_RETRY_SECONDS = 30  # how soon a message that stays on the queue is handled again
_OVERDUE_SECONDS = 1800.0  # as for the alarm overflow-age, which SQS's metric leaves without messages that were received three times


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of a message.

    Attributes:
        message_id: SQS's name for the message.
        receipt: SQS's name for this delivery.
        sent_at: UNIX seconds, by SQS's clock.
        data: what to put on the stream: the envelope in the body, with its claim. With a fault, the body itself.
        fault: why it cannot be put, in one word: the body is not an envelope, or there is no valid partition key.
    """

    message_id: str
    receipt: str
    sent_at: float
    partition_key: str
    data: bytes
    fault: str


def read(record: Mapping[str, Any]) -> Message:
    """Return the message in a record of Lambda's event, whatever its body holds."""
    attributes = record.get("messageAttributes", {})
    partition_key = attributes.get("partition_key", {}).get("stringValue") or ""
    sent_at = int(record["attributes"]["SentTimestamp"])
    fault = "" if 1 <= len(partition_key) <= 256 else NO_PARTITION_KEY
    try:
        found = envelope.decode(b64decode(record["body"], validate=True))
    except ValueError:  # not base64, or not an envelope
        fault = UNDECODABLE
    else:
        # if it was refused, no record carries it without a claim
        was_refused = attributes.get("refused", {}).get("stringValue") == "true"
        claim = found.claim or (CLAIMED if was_refused else max(CLAIMED + 1, sent_at))
        data = found._replace(claim=claim).encode()
    body = record["body"].encode() if fault else data
    return Message(record["messageId"], record["receiptHandle"], sent_at / 1000, partition_key, body, fault)


@dataclass(eq=False)
class Drain:
    """Drains the overflow queue. Its Kinesis client must not retry."""

    _kinesis: "KinesisClient"
    _stream_name: str
    _sqs: "SQSClient"
    _queue_url: str
    _ledger: Ledger
    _objects: SpanObjects
    _clock: Clock
    _telemetry: Telemetry

    def run(self, event: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Handle the messages of one invocation; return Lambda's partial batch response."""
        messages = [read(record) for record in event["Records"]]
        done = self._put([message for message in messages if not message.fault], deadline)
        done |= {
            message.message_id
            for message in messages
            if message.fault and not deadline.near and self._bury(message)
        }
        left = [message for message in messages if message.message_id not in done]
        for message in left:
            if deadline.near or not self._show_again(message):
                break  # a queue that hangs for each message would outlast this invocation
        if overdue := sum(self._clock.now() - message.sent_at >= _OVERDUE_SECONDS for message in left):
            self._telemetry.count("EnvelopesOverdue", overdue)
        oldest = min((message.sent_at for message in messages), default=self._clock.now())
        self._telemetry.info(
            "drained",
            messages=len(messages),
            left=len(left),
            oldest_seconds=round(self._clock.now() - oldest, 3),
        )
        return {"batchItemFailures": [{"itemIdentifier": message.message_id} for message in left]}

    def _put(self, messages: list[Message], deadline: Deadline) -> set[str]:
        """Put the envelopes of messages; return the ids of the messages whose envelopes the stream has acknowledged."""
        done: set[str] = set()
        for batch in batches(messages, lambda message: len(message.data + message.partition_key.encode())):
            if deadline.near:
                break
            entries = [{"Data": one.data, "PartitionKey": one.partition_key} for one in batch]
            fates, _ = put(self._kinesis, self._stream_name, entries)
            known = zip(batch, fates, strict=True)
            done |= {message.message_id for message, fate in known if fate is Fate.ACKNOWLEDGED}
        return done

    def _bury(self, message: Message) -> bool:
        """Store a message that is not an envelope as a dead span; return whether that succeeded."""
        key = ChunkKey(Group(NO_SENDER, "", message.fault), 0)
        chunk = Chunk(key, [packed(message.data)], [1])
        chain, received_at = ChainId.overflow(message.message_id), milliseconds(message.sent_at)
        span, data = span_of_rows(chain, [chunk], received_at, self._clock.now())
        try:
            self._objects.put(span, data)
            won, _ = self._ledger.append(span)
        except UnavailableError as error:
            self._telemetry.warning("a message cannot be stored", error=type(error).__name__)
            return False
        if won:
            with about(span=span.place.name):
                report_dead(self._telemetry, span, key, span.entry(key))
        return True

    def _show_again(self, message: Message) -> bool:
        """Have the queue deliver a message again soon; return whether it answers. If it does not do so, its visibility timeout applies instead."""
        try:
            self._sqs.change_message_visibility(
                QueueUrl=self._queue_url, ReceiptHandle=message.receipt, VisibilityTimeout=_RETRY_SECONDS
            )
        except ClientError:
            return True
        except aws_errors():
            return False
        return True
