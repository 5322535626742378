"""The drainer: moves what waits in the overflow queue to the stream, unless it is there already.

A put whose answer was lost may have landed, or may still land for a while. So a message is left alone until nothing of it
can land any more; then the shards that its partition key can have gone to are searched, and only what is absent is put,
with a claim. Such puts may be repeated freely: of all records that carry such an envelope, the rows of one count. What
cannot be decided or put stays on the queue, and after half the time for which it is safe there it is set aside: in doubt
where the stream may have it, else parked.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from shared.clock import Clock
from shared.envelope import Envelope
from shared.errors import UnavailableError
from shared.telemetry import Telemetry
from worker.deadline import Deadline
from worker.message import Message, read
from worker.overflow_quarantine import OverflowQuarantine
from worker.search import Findings, Identity, Search, Sought
from worker.shards import THROTTLED

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_sqs import SQSClient

LATEST_LANDING_SECONDS = 120
"""A put lands within this time or never."""

QUEUE_RETENTION_SECONDS = 14 * 86_400
"""SQS forgets a message after this time."""

_LONGEST_MEMORY_SECONDS = 2 * 3600  # a repeated request is known for half as long
_MARGIN_SECONDS = 15  # by which the clocks of stream and queue may differ
_REQUEST_SECONDS = 30  # API Gateway's limit: as a rule a put precedes its message by less
_LONGEST_INVOCATION_SECONDS = 15 * 60  # Lambda's limit: never by more
_RETRY_SECONDS = 120  # after which a message that is left is looked at again
_SEARCH_SHARE = 0.6  # of the time, the rest is for puts
_PUT_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.1


class Handling(Enum):
    """What became of a message in one invocation."""

    FOUND = "found"
    PUT = "put"
    SET_ASIDE = "set_aside"
    YOUNG = "young"
    UNDECIDED = "undecided"
    REFUSED = "refused"
    DOUBTFUL = "doubtful"
    FAILED = "failed"

    @property
    def is_done(self) -> bool:
        """Whether the queue may forget the message."""
        return self in (Handling.FOUND, Handling.PUT, Handling.SET_ASIDE)


@dataclass(slots=True, eq=False)
class _Waiting:
    """An envelope and the messages that carry it: the queue may hold and deliver one more than once."""

    envelope: Envelope
    partition_key: str
    messages: list[Message] = field(default_factory=list)

    @property
    def identity(self) -> Identity:
        return Identity(self.envelope.account, self.envelope.request_id)

    @property
    def sent_at(self) -> float:
        return min(message.sent_at for message in self.messages)

    @property
    def sought(self) -> Sought:
        """What to look for; by the clocks of queue and stream, whatever the ingest's said."""
        sent_at = self.sent_at
        began = min(self.envelope.received_at / 1000, sent_at - _REQUEST_SECONDS)
        began = max(began, sent_at - _LONGEST_INVOCATION_SECONDS)
        for message in self.messages:  # a request that repeats one may find its envelope from much earlier
            if message.since is not None:
                began = min(began, max(message.since, message.sent_at - _LONGEST_MEMORY_SECONDS))
        return Sought(
            self.identity,
            self.partition_key,
            since=began - _MARGIN_SECONDS,
            until=sent_at + LATEST_LANDING_SECONDS + _MARGIN_SECONDS,
        )


class Drain:
    """Carries out invocations.

    Args:
        kinesis: a boto3-shaped client that repeats nothing by itself.
        stream_name: the stream.
        search: looks for envelopes there.
        sqs: a boto3-shaped client.
        queue_url: the overflow queue.
        quarantine: sets aside what waited too long, and what is no envelope.
        clock: tells the time and waits.
        chance: returns a random number below 1, for pauses.
        retention_seconds: how long the stream keeps a record.
        landing_seconds: after which a put has landed, or never will.
        telemetry: counts and logs.
    """

    def __init__(
        self,
        *,
        kinesis: "KinesisClient",
        stream_name: str,
        search: Search,
        sqs: "SQSClient",
        queue_url: str,
        quarantine: OverflowQuarantine,
        clock: Clock,
        chance: Callable[[], float],
        retention_seconds: float,
        landing_seconds: float = LATEST_LANDING_SECONDS,
        telemetry: Telemetry,
    ) -> None:
        self._kinesis = kinesis
        self._stream_name = stream_name
        self._search = search
        self._sqs = sqs
        self._queue_url = queue_url
        self._quarantine = quarantine
        self._clock = clock
        self._chance = chance
        self._retention_seconds = retention_seconds
        self._landing_seconds = landing_seconds
        self._held_at_most = min(retention_seconds, QUEUE_RETENTION_SECONDS) / 2
        self._telemetry = telemetry

    def run(self, event: Mapping[str, Any], remaining_ms: float) -> dict[str, Any]:
        """Carry out one invocation; return Lambda's partial batch response.

        Args:
            event: Lambda's, with messages of the queue.
            remaining_ms: until the invocation times out.
        """
        deadline = Deadline.of(self._clock, remaining_ms)
        messages = [read(record) for record in event["Records"]]
        handled: dict[str, Handling] = {}
        waiting: dict[Identity, _Waiting] = {}
        for message in sorted(messages, key=lambda message: message.sent_at):
            if message.envelope is None:
                handled[message.message_id] = self._bury(message)
            else:
                identity = Identity(message.envelope.account, message.envelope.request_id)
                envelope = waiting.setdefault(identity, _Waiting(message.envelope, message.partition_key))
                envelope.messages.append(message)
        findings = self._decide(waiting.values(), handled, deadline)
        left = [message for message in messages if not handled[message.message_id].is_done]
        for message in left:
            self._show_again(message, handled[message.message_id], deadline)
        self._tell(messages, handled, findings)
        return {"batchItemFailures": [{"itemIdentifier": message.message_id} for message in left]}

    def _decide(
        self, waiting: Iterable[_Waiting], handled: dict[str, Handling], deadline: Deadline
    ) -> Findings:
        now = self._clock.now()
        ripe = []
        for envelope in waiting:
            if now - envelope.sent_at < self._landing_seconds:
                _enter(handled, envelope, Handling.YOUNG)
            else:
                ripe.append(envelope)
        readable = now - self._retention_seconds + _MARGIN_SECONDS
        sought = [envelope.sought for envelope in ripe if envelope.sought.since >= readable]
        findings = self._find(sought, now + max(0.0, deadline.left()) * _SEARCH_SHARE)
        crowded: set[str] = set()
        for envelope in ripe:
            handling = self._handling(envelope, findings, crowded, deadline)
            if not handling.is_done and now - envelope.sent_at >= self._held_at_most:
                handling = self._give_up(envelope, absent=envelope.identity in findings.absent)
            _enter(handled, envelope, handling)
        return findings

    def _find(self, sought: list[Sought], until: float) -> Findings:
        try:
            return self._search.find(sought, until) if sought else Findings(frozenset(), frozenset())
        except Exception as error:  # noqa: BLE001 -- whatever it is, nothing is decided and nothing lost
            self._telemetry.count("UnforeseenErrors")
            self._telemetry.error("the stream cannot be searched", error)
            return Findings(frozenset(), frozenset())

    def _handling(
        self, envelope: _Waiting, findings: Findings, crowded: set[str], deadline: Deadline
    ) -> Handling:
        if envelope.identity in findings.found:
            return Handling.FOUND
        if envelope.identity not in findings.absent:
            return Handling.UNDECIDED
        if envelope.partition_key in crowded:
            return Handling.REFUSED
        handling = self._put(envelope, deadline)
        if handling is Handling.REFUSED:
            crowded.add(envelope.partition_key)
        return handling

    def _put(self, envelope: _Waiting, deadline: Deadline) -> Handling:
        """Put an envelope; what Kinesis throttles is put again a few times."""
        data = replace(envelope.envelope, claim=1).encode()
        pause = _FIRST_PAUSE_SECONDS
        for _ in range(_PUT_TRIES):
            if deadline.near:
                break
            try:
                self._kinesis.put_record(
                    StreamName=self._stream_name, Data=data, PartitionKey=envelope.partition_key
                )
            except ClientError as error:
                if error.response["Error"]["Code"] not in THROTTLED:
                    return Handling.DOUBTFUL
            except (BotoCoreError, ResponseParserError):
                return Handling.DOUBTFUL
            else:
                return Handling.PUT
            self._clock.sleep(min(self._chance() * pause, max(0.0, deadline.left())))
            pause *= 2
        return Handling.REFUSED

    def _bury(self, message: Message) -> Handling:
        def bury() -> bool:
            self._quarantine.bury(message)
            return True

        return self._set_aside(bury)

    def _give_up(self, envelope: _Waiting, *, absent: bool) -> Handling:
        return self._set_aside(
            lambda: self._quarantine.set_aside(envelope.envelope, envelope.sent_at, absent=absent)
        )

    def _set_aside(self, job: Callable[[], bool]) -> Handling:
        try:
            return Handling.SET_ASIDE if job() else Handling.FOUND
        except UnavailableError as error:
            self._telemetry.warning("a message cannot be set aside", error=type(error).__name__)
        except Exception as error:  # noqa: BLE001 -- one odd message must not keep others from the stream
            self._telemetry.count("UnforeseenErrors")
            self._telemetry.error("a message cannot be set aside", error)
        return Handling.FAILED

    def _show_again(self, message: Message, handling: Handling, deadline: Deadline) -> None:
        """Let the queue deliver a message as soon as it is worth a look; by itself it would take longer."""
        if deadline.near:
            return
        seconds = _RETRY_SECONDS
        if handling is Handling.YOUNG:
            age = self._clock.now() - message.sent_at
            seconds = max(0, min(_RETRY_SECONDS, int(self._landing_seconds - age) + 1))
        try:
            self._sqs.change_message_visibility(
                QueueUrl=self._queue_url, ReceiptHandle=message.receipt, VisibilityTimeout=seconds
            )
        except (ClientError, BotoCoreError):
            return  # the queue's own time-out then decides

    def _tell(self, messages: list[Message], handled: Mapping[str, Handling], findings: Findings) -> None:
        counts = Counter(handling.value for handling in handled.values())
        for handling in (Handling.FOUND, Handling.PUT, Handling.SET_ASIDE):
            if counts[handling.value]:
                self._telemetry.count(_METRICS[handling], counts[handling.value])
        left = sum(not handling.is_done for handling in handled.values())
        if left:
            self._telemetry.count("OverflowLeft", left)
        oldest = min((message.sent_at for message in messages), default=self._clock.now())
        self._telemetry.info(
            "drained",
            messages=len(messages),
            left=left,
            oldest_seconds=round(self._clock.now() - oldest, 3),
            shards=findings.shards,
            reads=findings.reads,
            records=findings.records,
            **counts,
        )


_METRICS = {
    Handling.FOUND: "OverflowFound",
    Handling.PUT: "OverflowPut",
    Handling.SET_ASIDE: "OverflowSetAside",
}


def _enter(handled: dict[str, Handling], envelope: _Waiting, handling: Handling) -> None:
    for message in envelope.messages:
        handled[message.message_id] = handling
