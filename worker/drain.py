"""The drainer: brings what waits in the overflow queue to the stream, unless it is there already.

A put whose answer was lost may have landed, or may still land for a while. So a message is left alone until nothing
of it can land any more, then the shards that its partition key can have gone to are searched, and only what is absent
is put, as attempt 1. Puts of attempt 1 may be repeated freely: of all records that carry such an envelope, only the
first that the worker meets counts, by a claim in the ledger. What cannot be decided or put stays on the queue, and
after half the time for which it is safe there it is set aside: in doubt where the stream may have it, else parked.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from shared.clock import Clock
from shared.envelope import Envelope
from worker.aside import AsideUnavailableError
from worker.deadline import Deadline
from worker.journal import Journal
from worker.ledger import LedgerUnavailableError
from worker.message import Message, read
from worker.sandbox import Sandbox
from worker.search import THROTTLED, Findings, Identity, Search, Sought
from worker.unplaced import Unplaced

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


class Verdict(Enum):
    """What becomes of a message in one invocation."""

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
        return self in (Verdict.FOUND, Verdict.PUT, Verdict.SET_ASIDE)


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
        unplaced: sets aside what waited too long, and what is no envelope.
        clock: tells the time and waits.
        chance: returns a random number below 1, for pauses.
        retention_seconds: how long the stream keeps a record.
        journal: counts and notes.
    """

    def __init__(
        self,
        *,
        kinesis: Any,
        stream_name: str,
        search: Search,
        sqs: Any,
        queue_url: str,
        unplaced: Unplaced,
        clock: Clock,
        chance: Callable[[], float],
        retention_seconds: float,
        journal: Journal,
    ) -> None:
        self._kinesis = kinesis
        self._stream_name = stream_name
        self._search = search
        self._sqs = sqs
        self._queue_url = queue_url
        self._unplaced = unplaced
        self._clock = clock
        self._chance = chance
        self._retention_seconds = retention_seconds
        self._held_at_most = min(retention_seconds, QUEUE_RETENTION_SECONDS) / 2
        self._journal = journal

    def run(self, event: Mapping[str, Any], remaining_ms: float) -> dict[str, Any]:
        """Carry out one invocation; return Lambda's partial batch response.

        Args:
            event: Lambda's, with messages of the queue.
            remaining_ms: until the invocation times out.
        """
        deadline = Deadline.of(self._clock, remaining_ms)
        messages = [read(record) for record in event["Records"]]
        verdicts: dict[str, Verdict] = {}
        waiting: dict[Identity, _Waiting] = {}
        for message in sorted(messages, key=lambda message: message.sent_at):
            if message.envelope is None:
                verdicts[message.message_id] = self._bury(message)
            else:
                identity = Identity(message.envelope.account, message.envelope.request_id)
                envelope = waiting.setdefault(identity, _Waiting(message.envelope, message.partition_key))
                envelope.messages.append(message)
        findings = self._decide(waiting.values(), verdicts, deadline)
        left = [message for message in messages if not verdicts[message.message_id].is_done]
        for message in left:
            self._show_again(message, verdicts[message.message_id], deadline)
        self._tell(messages, verdicts, findings)
        return {"batchItemFailures": [{"itemIdentifier": message.message_id} for message in left]}

    def _decide(
        self, waiting: Iterable[_Waiting], verdicts: dict[str, Verdict], deadline: Deadline
    ) -> Findings:
        now = self._clock.now()
        ripe = []
        for envelope in waiting:
            if now - envelope.sent_at < LATEST_LANDING_SECONDS:
                _enter(verdicts, envelope, Verdict.YOUNG)
            else:
                ripe.append(envelope)
        readable = now - self._retention_seconds + _MARGIN_SECONDS
        sought = [envelope.sought for envelope in ripe if envelope.sought.since >= readable]
        findings = self._find(sought, now + max(0.0, deadline.left()) * _SEARCH_SHARE)
        crowded: set[str] = set()
        for envelope in ripe:
            verdict = self._verdict(envelope, findings, crowded, deadline)
            if not verdict.is_done and now - envelope.sent_at >= self._held_at_most:
                verdict = self._give_up(envelope, absent=envelope.identity in findings.absent)
            _enter(verdicts, envelope, verdict)
        return findings

    def _find(self, sought: list[Sought], until: float) -> Findings:
        try:
            return self._search.find(sought, until) if sought else Findings(frozenset(), frozenset())
        except Exception as error:  # noqa: BLE001 -- whatever it is, nothing is decided and nothing lost
            self._journal.count("UnforeseenErrors")
            self._journal.note("the stream could not be searched", error=repr(error))
            return Findings(frozenset(), frozenset())

    def _verdict(
        self, envelope: _Waiting, findings: Findings, crowded: set[str], deadline: Deadline
    ) -> Verdict:
        if envelope.identity in findings.found:
            return Verdict.FOUND
        if envelope.identity not in findings.absent:
            return Verdict.UNDECIDED
        if envelope.partition_key in crowded:
            return Verdict.REFUSED
        verdict = self._put(envelope, deadline)
        if verdict is Verdict.REFUSED:
            crowded.add(envelope.partition_key)
        return verdict

    def _put(self, envelope: _Waiting, deadline: Deadline) -> Verdict:
        """Put an envelope; what Kinesis throttles is put again a few times."""
        data = replace(envelope.envelope, attempt=1).encode()
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
                    return Verdict.DOUBTFUL
            except (BotoCoreError, ResponseParserError):
                return Verdict.DOUBTFUL
            else:
                return Verdict.PUT
            self._clock.sleep(min(self._chance() * pause, max(0.0, deadline.left())))
            pause *= 2
        return Verdict.REFUSED

    def _bury(self, message: Message) -> Verdict:
        def bury() -> bool:
            self._unplaced.bury(message)
            return True

        return self._set_aside(bury)

    def _give_up(self, envelope: _Waiting, *, absent: bool) -> Verdict:
        return self._set_aside(
            lambda: self._unplaced.set_aside(envelope.envelope, envelope.sent_at, absent=absent)
        )

    def _set_aside(self, job: Callable[[], bool]) -> Verdict:
        try:
            return Verdict.SET_ASIDE if job() else Verdict.FOUND
        except (AsideUnavailableError, LedgerUnavailableError) as error:
            self._journal.note("a message could not be set aside", error=str(error))
        except Exception as error:  # noqa: BLE001 -- one odd message must not keep others from the stream
            self._journal.count("UnforeseenErrors")
            self._journal.note("a message could not be set aside", error=repr(error))
        return Verdict.FAILED

    def _show_again(self, message: Message, verdict: Verdict, deadline: Deadline) -> None:
        """Let the queue deliver a message as soon as it is worth a look; by itself it would take longer."""
        if deadline.near:
            return
        seconds = _RETRY_SECONDS
        if verdict is Verdict.YOUNG:
            age = self._clock.now() - message.sent_at
            seconds = max(0, min(_RETRY_SECONDS, int(LATEST_LANDING_SECONDS - age) + 1))
        try:
            self._sqs.change_message_visibility(
                QueueUrl=self._queue_url, ReceiptHandle=message.receipt, VisibilityTimeout=seconds
            )
        except (ClientError, BotoCoreError):
            return  # the queue's own time-out then decides

    def _tell(self, messages: list[Message], verdicts: Mapping[str, Verdict], findings: Findings) -> None:
        counts = Counter(verdict.value for verdict in verdicts.values())
        for verdict in (Verdict.FOUND, Verdict.PUT, Verdict.SET_ASIDE):
            if counts[verdict.value]:
                self._journal.count(_METRICS[verdict], counts[verdict.value])
        left = sum(not verdict.is_done for verdict in verdicts.values())
        if left:
            self._journal.count("OverflowLeft", left)
        oldest = min((message.sent_at for message in messages), default=self._clock.now())
        self._journal.note(
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
    Verdict.FOUND: "OverflowFound",
    Verdict.PUT: "OverflowPut",
    Verdict.SET_ASIDE: "OverflowSetAside",
}


@cache
def _drain() -> tuple[Drain, Journal]:
    sandbox = Sandbox()
    settings = sandbox.settings
    # One attempt: a put that botocore repeats could stand on the stream twice; reads are repeated by the search.
    kinesis = sandbox.client("kinesis", attempts=1)
    drain = Drain(
        kinesis=kinesis,
        stream_name=settings.stream_name,
        search=Search(kinesis, settings.stream_name, sandbox.clock),
        sqs=sandbox.client("sqs"),
        queue_url=settings.overflow_queue_url,
        unplaced=Unplaced(sandbox.ledger, sandbox.aside, sandbox.clock),
        clock=sandbox.clock,
        chance=random.random,
        retention_seconds=settings.retention_hours * 3600,
        journal=sandbox.journal,
    )
    return drain, sandbox.journal


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Carry out a batch of the queue's messages; Lambda deletes those that are not returned."""
    drain, journal = _drain()
    try:
        return drain.run(event, context.get_remaining_time_in_millis())
    finally:
        journal.flush()


def _enter(verdicts: dict[str, Verdict], envelope: _Waiting, verdict: Verdict) -> None:
    for message in envelope.messages:
        verdicts[message.message_id] = verdict
