"""The drainer: moves envelopes from the overflow queue to the stream, so that each counts once.

It sets `claim` on every envelope that it puts, so the worker counts only one of the records that carry the envelope. An envelope that
had a claim from the start, or that the stream definitely rejected every time, is therefore put at once, as often as it takes.

Any other envelope may be on the stream without a claim, or may still land there. The drainer leaves its message on the queue until no
earlier put can land any more. Then it searches the shards that the partition key may have led to, and puts the envelope only if it is
not there.

An envelope that cannot be put stays on the queue, and is parked after half the time for which it is safe there. Setting it aside
begins with a claim, after which no record on the stream counts. An envelope that is old enough to be set aside is therefore never put
again, not even by a run with a slow clock.

If an earlier put may have landed without a claim, the worker may still deliver that record. The envelope then stays on the queue until
its search has ended. Only if the search can never end does the drainer set it aside in doubt. Either Treasure Data then proves to have
the rows, or an operator decides.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from shared.envelope import Envelope
from shared.errors import LedgerUnavailableError, UnavailableError
from shared.puts import Fate, batches, put
from worker.deadline import Deadline
from worker.delivery import LONGEST_INVOCATION_SECONDS
from worker.execution import Delivery
from worker.guards import Guard
from worker.message import Message, read
from worker.overflow_set_aside import OverflowSetAside
from worker.search import INACCURACY_SECONDS, Finding, Identity, Search, Sought
from worker.shards import Shards

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_sqs import SQSClient

LATEST_LANDING_SECONDS = 120
"""A put lands within this time or never."""

QUEUE_RETENTION_SECONDS = 14 * 86_400
"""SQS forgets a message after this time."""

CLOCKS_DIFFER_SECONDS = 15 * 60
"""The clocks of two runs differ by less than this."""

_EXPIRY_MARGIN_SECONDS = 15  # a search must begin this long before the records that it reads expire
_LAST_DAY_SECONDS = 86_400  # the last part of the queue's retention, in which no message waits for a search
_REQUEST_SECONDS = 30  # API Gateway's limit: a put usually precedes its message by less
_RETRY_SECONDS = 120  # how soon a message that stays on the queue is handled again
_SEARCH_SHARE = 0.6  # of an invocation's time; the rest is for puts
_PUT_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.1


class Handling(Enum):
    """How one invocation handled a message."""

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
        """Whether the message may be deleted from the queue."""
        return self in (Handling.FOUND, Handling.PUT, Handling.SET_ASIDE)


_HANDLINGS = {
    Fate.ACKNOWLEDGED: Handling.PUT,
    Fate.REFUSED: Handling.REFUSED,
    Fate.DOUBTFUL: Handling.DOUBTFUL,
}


@dataclass(slots=True, eq=False)
class _Waiting:
    """An envelope and the messages that carry it. The queue may hold or deliver an envelope more than once."""

    envelope: Envelope
    partition_key: str
    messages: list[Message] = field(default_factory=list)

    @property
    def identity(self) -> Identity:
        return Identity(self.envelope.account, self.envelope.request_id)

    @property
    def sent_at(self) -> float:
        return min(message.sent_at for message in self.messages)

    def size(self) -> int:
        """Return its size in the queue, in bytes. In Base64, that is more than on the stream."""
        return len(self.messages[0].body)

    @property
    def is_certain(self) -> bool:
        """Whether no record carries it without a claim: it has a claim itself, or every put of it was definitely rejected."""
        return bool(self.envelope.claim) or all(message.refused for message in self.messages)

    @property
    def window(self) -> tuple[float, float]:
        """The UNIX seconds between which a put can have landed, by the clocks of queue and stream; the ingest's clock may be wrong."""
        sent_at = self.sent_at
        began = min(self.envelope.received_at / 1000, sent_at - _REQUEST_SECONDS)
        return max(began, sent_at - LONGEST_INVOCATION_SECONDS), self.put_at + LATEST_LANDING_SECONDS

    @property
    def put_at(self) -> float:
        """The latest time of its put, in UNIX seconds."""
        return _put_at(self.envelope, self.sent_at)


def _put_at(envelope: Envelope, sent_at: float) -> float:
    """Return the latest time of a message's put, although the queue's timestamp may be minutes early and the ingest's clock wrong."""
    return max(sent_at, min(envelope.received_at / 1000, sent_at + INACCURACY_SECONDS))


class Drain:
    """Drains the overflow queue.

    Args:
        kinesis: a boto3-shaped client that must not retry.
        landing_seconds: how long after it was made a put can still land.
    """

    def __init__(
        self,
        delivery: Delivery,
        *,
        kinesis: "KinesisClient",
        stream_name: str,
        shards: Shards,
        search: Callable[[Collection[Sought], float], Search],
        sqs: "SQSClient",
        queue_url: str,
        aside: OverflowSetAside,
        chance: Callable[[], float],
        landing_seconds: float = LATEST_LANDING_SECONDS,
    ) -> None:
        self._kinesis = kinesis
        self._stream_name = stream_name
        self._shards = shards
        self._search = search
        self._ledger = delivery.ledger
        self._sqs = sqs
        self._queue_url = queue_url
        self._aside = aside
        self._clock = delivery.clock
        self._chance = chance
        self._retention_seconds = delivery.rules.retention_seconds
        self._landing_seconds = landing_seconds
        self._held_at_most = min(self._retention_seconds, QUEUE_RETENTION_SECONDS) / 2
        self._telemetry = delivery.telemetry
        self._without = delivery.rules.without

    def run(self, event: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Handle the messages of one invocation; return Lambda's partial batch response."""
        messages = [read(record) for record in event["Records"]]
        handled: dict[str, Handling] = {}
        waiting: dict[Identity, _Waiting] = {}
        for message in sorted(messages, key=lambda message: message.sent_at):
            if message.envelope is None:
                handled[message.message_id] = self._set_aside(partial(self._aside.bury, message))
            else:
                identity = Identity(message.envelope.account, message.envelope.request_id)
                envelope = waiting.setdefault(identity, _Waiting(message.envelope, message.partition_key))
                envelope.messages.append(message)
        counts = self._handle(list(waiting.values()), handled, deadline)
        left = [message for message in messages if not handled[message.message_id].is_done]
        for message in left:
            self._show_again(message, handled[message.message_id], deadline)
        self._log(messages, handled, counts)
        return {"batchItemFailures": [{"itemIdentifier": message.message_id} for message in left]}

    def _handle(
        self, waiting: list[_Waiting], handled: dict[str, Handling], deadline: Deadline
    ) -> dict[str, int]:
        """Handle each envelope and enter the result in `handled`; return the search's counts for the log."""
        certain, absent, doubtful = [], [], {}
        for envelope in waiting:
            if envelope.is_certain:
                certain.append(envelope)
            elif self._clock.now() - envelope.put_at < self._landing_seconds:
                _enter(handled, envelope, Handling.YOUNG)
            else:
                doubtful[envelope.identity] = envelope
        self._place(certain, handled, deadline)
        created_at = self._created_at() if doubtful else 0.0
        run = self._begin_search(doubtful.values(), created_at, deadline)
        for identity, is_there in self._findings(run):
            envelope = doubtful.pop(identity)
            if is_there:
                _enter(handled, envelope, Handling.FOUND)
            else:
                absent.append(envelope)
        self._place(absent, handled, deadline)
        for envelope in doubtful.values():
            handling = Handling.UNDECIDED
            if self._is_old(envelope) and not self._waits_for_search(envelope, created_at):
                handling = self._give_up(envelope, absent=False)
            _enter(handled, envelope, handling)
        self._note(run, deadline)
        return {"shards": run.shards, "reads": run.reads, "records": run.records}

    def _created_at(self) -> float | None:
        """Return when the stream was created, in UNIX seconds; None if Kinesis does not say."""
        try:
            return self._shards.created_at()
        except UnavailableError:
            return None

    def _begin_search(
        self, doubtful: Iterable[_Waiting], created_at: float | None, deadline: Deadline
    ) -> Search:
        """Return a search for those envelopes that the stream would still have."""
        windows = {one: one.window for one in doubtful if self._is_kept(one, created_at)}
        try:
            read = self._ledger.searches(one.identity.request_id for one in windows)
        except LedgerUnavailableError:
            read = {}  # the search begins from the start
        sought = [
            Sought(one.identity, one.partition_key, *window, read.get(one.identity.request_id, {}))
            for one, window in windows.items()
        ]
        until = self._clock.now() + max(0.0, deadline.left()) * _SEARCH_SHARE
        return self._search(sought, until)

    def _is_kept(self, envelope: _Waiting, created_at: float | None) -> bool:
        """Return whether the stream still has all records of an envelope's window; a stream created after the window never had them."""
        if created_at is None or envelope.sent_at < created_at:
            return False
        oldest = self._clock.now() - self._retention_seconds + INACCURACY_SECONDS + _EXPIRY_MARGIN_SECONDS
        return envelope.window[0] >= oldest

    def _waits_for_search(self, envelope: _Waiting, created_at: float | None) -> bool:
        """Return whether to wait for a search: it can still find out whether the envelope is on the stream."""
        if Guard.SEARCHED in self._without:
            return False
        age = self._clock.now() - envelope.sent_at
        is_possible = created_at is None or self._is_kept(envelope, created_at)
        return is_possible and age < QUEUE_RETENTION_SECONDS - _LAST_DAY_SECONDS

    def _findings(self, run: Search) -> Iterator[Finding]:
        """Yield the findings of a search. If it fails, the other envelopes stay undecided."""
        try:
            yield from run
        except Exception as error:  # noqa: BLE001 -- the envelopes stay on the queue, and nothing is lost
            self._telemetry.count("UnforeseenErrors")
            self._telemetry.error("the stream cannot be searched", error)

    def _note(self, run: Search, deadline: Deadline) -> None:
        """Note how far a search has read, so that the next one continues there."""
        try:
            for identity, read in run.undecided.items():
                if read and not deadline.near:
                    self._ledger.note_search(identity.request_id, read, QUEUE_RETENTION_SECONDS)
        except LedgerUnavailableError:
            return  # the next search begins from the start

    def _place(self, envelopes: list[_Waiting], handled: dict[str, Handling], deadline: Deadline) -> None:
        """Put envelopes that no record carries without a claim; set aside those that are too old."""
        ready: list[_Waiting] = []
        for envelope in envelopes:
            if self._is_old(envelope):
                _enter(handled, envelope, self._give_up(envelope, absent=True))
            elif self._clock.now() - envelope.sent_at >= self._held_at_most:
                _enter(handled, envelope, Handling.UNDECIDED)
            else:
                ready.append(envelope)
        crowded: set[str] = set()
        for batch in batches(ready, _Waiting.size):
            fates = self._put([one for one in batch if one.partition_key not in crowded], deadline)
            for envelope in batch:
                fate = fates.get(envelope.identity, Handling.REFUSED)
                if fate is Handling.REFUSED:
                    crowded.add(envelope.partition_key)
                _enter(handled, envelope, fate)

    def _is_old(self, envelope: _Waiting) -> bool:
        """Return whether an envelope is so old that no run will put it again, whatever that run's clock says."""
        return self._clock.now() - envelope.sent_at >= self._held_at_most + CLOCKS_DIFFER_SECONDS

    def _put(self, batch: list[_Waiting], deadline: Deadline) -> dict[Identity, Handling]:
        """Put a batch, and retry refused envelopes; return the results, without those that were refused each time."""
        fates: dict[Identity, Handling] = {}
        pause = _FIRST_PAUSE_SECONDS
        for _ in range(_PUT_TRIES):
            left = [one for one in batch if one.identity not in fates]
            if not left or deadline.near:
                break
            for envelope, fate in zip(left, self._call(left), strict=True):
                if fate is not Handling.REFUSED:
                    fates[envelope.identity] = fate
            if len(fates) < len(batch):
                self._clock.sleep(min(self._chance() * pause, max(0.0, deadline.left())))
                pause *= 2
        return fates

    def _call(self, batch: list[_Waiting]) -> list[Handling]:
        """Make one put request; return its result for each envelope."""
        entries = [
            {"Data": one.envelope._replace(claim=1).encode(), "PartitionKey": one.partition_key}
            for one in batch
        ]
        try:
            fates, _ = put(self._kinesis, self._stream_name, entries)
        except ResponseParserError:
            return [Handling.DOUBTFUL] * len(batch)
        return [_HANDLINGS[fate] for fate in fates]

    def _give_up(self, envelope: _Waiting, *, absent: bool) -> Handling:
        return self._set_aside(
            lambda: self._aside.set_aside(envelope.envelope, envelope.sent_at, absent=absent)
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
        """Have the queue deliver a message again as soon as it can be handled further."""
        if deadline.near:
            return
        seconds = _RETRY_SECONDS
        if handling is Handling.YOUNG and message.envelope is not None:
            age = self._clock.now() - _put_at(message.envelope, message.sent_at)
            seconds = max(0, min(_RETRY_SECONDS, int(self._landing_seconds - age) + 1))
        try:
            self._sqs.change_message_visibility(
                QueueUrl=self._queue_url, ReceiptHandle=message.receipt, VisibilityTimeout=seconds
            )
        except (ClientError, BotoCoreError):
            return  # the queue's visibility timeout applies instead

    def _log(
        self, messages: list[Message], handled: Mapping[str, Handling], search: Mapping[str, int]
    ) -> None:
        counts = Counter(handling.value for handling in handled.values())
        if counts[Handling.SET_ASIDE.value]:
            self._telemetry.count("OverflowSetAside", counts[Handling.SET_ASIDE.value])
        left = sum(not handling.is_done for handling in handled.values())
        oldest = min((message.sent_at for message in messages), default=self._clock.now())
        self._telemetry.info(
            "drained",
            messages=len(messages),
            left=left,
            oldest_seconds=round(self._clock.now() - oldest, 3),
            **search,
            **counts,
        )


def _enter(handled: dict[str, Handling], envelope: _Waiting, handling: Handling) -> None:
    for message in envelope.messages:
        handled[message.message_id] = handling
