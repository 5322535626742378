"""Lambda's poller of one shard, as a state machine.

It holds no thread, never waits and knows the time only as it is told. Whoever drives it asks `poll` for the next
invocation, runs it or not, and tells `complete` how that ended; nothing else happens.

What is modelled and what that rests on:

- A batch is sent when it is full, when it fills an event, or when the window has passed; the next window begins where
  an invocation ends (AWS's documentation). One batch is under way at a time.
- Whatever the function returns is read as recorded on AWS; see `outcome`. The lowest number reported is a checkpoint:
  what lies before it is done and never sent again.
- N retries make N + 1 calls (recorded). After progress the count begins anew: recorded with 3 retries, a batch that
  failed at its last record was followed by four calls with that record alone, and the failure record said 4.
- Throttles and failures before the function runs use no retry. Halving a batch uses none either.
- Waiting between tries is exponential; its numbers are not documented. The default gives the eight calls that were
  recorded within a record age of 60 s.
- Records older than the maximum age are given up one by one from the front, younger ones behind them are sent
  (recorded). What the retention has removed from the stream is given up likewise.
- A record too large for any event is never sent and blocks its shard until it is too old.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from doubles.event_source.failure_record import Condition, FailureRecord
from doubles.event_source.invocation import Invocation
from doubles.event_source.mapping import Mapping, StartingPosition
from doubles.event_source.outcome import Outcome, Raised, Returned, Throttled, TimedOut, settled_count
from doubles.event_source.record import EVENT_BYTES, EventForm, Record, count_that_fits

Borders = Callable[[Sequence[Record]], int]
"""Told the records that the next batch could take at most, says how many it takes; a harness's way to cut at will."""

_log = logging.getLogger("doubles.event_source")

_NEVER = float("inf")


def exponential_backoff(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: 0.3, 0.6, 1.2 … 60."""
    return min(60.0, 0.3 * 2.0 ** min(failures - 1, 16))


def random_id() -> str:
    """Return a random UUID, as Lambda's request ids are."""
    return str(uuid4())


def _ignore(_: FailureRecord) -> None:
    pass


class ShardPoller:
    """Reads one shard and hands its records on in batches, in order, until each is settled or given up.

    Args:
        client: boto3-shaped Kinesis client (`get_shard_iterator`, `get_records`).
        mapping: the settings.
        shard_id: the shard.
        position: where to begin instead of the mapping's starting position.
        borders: cuts batches; without it a batch is as large as may be and is sent again as it was.
        backoff: seconds to wait after that many failures in a row.
        on_failure: gets a record of each batch that is given up.
        new_id: makes request ids.
        retention_seconds: the stream's retention; None when nothing expires.
    """

    def __init__(
        self,
        client: Any,
        mapping: Mapping,
        shard_id: str,
        *,
        position: StartingPosition | None = None,
        borders: Borders | None = None,
        backoff: Callable[[int], float] = exponential_backoff,
        on_failure: Callable[[FailureRecord], None] = _ignore,
        new_id: Callable[[], str] = random_id,
        retention_seconds: float | None = None,
    ) -> None:
        self.shard_id = shard_id
        self.retention_seconds = retention_seconds
        self.last_settled: str | None = None
        """The sequence number of the last record that was settled or given up."""
        self._client = client
        self._mapping = mapping
        self._borders = borders
        self._backoff = backoff
        self._on_failure = on_failure
        self._new_id = new_id
        self._form = EventForm(mapping, shard_id)

        # Where reading goes on when there is no iterator.
        self._start: dict[str, Any] = {"ShardIteratorType": position or mapping.starting_position}
        if self._start["ShardIteratorType"] == "AT_TIMESTAMP":
            self._start["Timestamp"] = mapping.starting_position_timestamp
        self._iterator: str | None = None
        self._closed = False
        # What has been read and is neither settled nor given up.
        self._pending: deque[Record] = deque()
        self._pending_bytes = 0

        self._invocation: Invocation | None = None
        # How the front of what is pending is cut already: the rest of a batch that failed, or its halves.
        self._cuts: deque[int] = deque()
        # Calls of the function for the batch in front since it last made progress.
        self._calls = 0
        # Failures of any kind in a row: the more, the longer the wait.
        self._failures = 0
        self._not_before = -_NEVER
        self._window_start: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the shard is closed and read to its end."""
        return self._closed

    @property
    def drained(self) -> bool:
        """Whether the shard is closed and everything in it is settled or given up."""
        return self._closed and not self._pending and self._invocation is None

    @property
    def reads_from(self) -> dict[str, Any]:
        """Where it will read next, as arguments of `get_shard_iterator`."""
        return dict(self._start)

    @property
    def ready_at(self) -> float:
        """When what has been read already can be sent, in UNIX seconds; inf where waiting alone changes nothing."""
        if self._invocation is not None or not self._pending:
            return _NEVER
        return self._not_before if self._failures or self._full() else self._window_end()

    def poll(self, now: float) -> Invocation | None:
        """Return the next invocation if there is one for now.

        Args:
            now: UNIX seconds, never less than before.
        """
        if self._invocation is not None:
            return None
        if self._window_start is None:
            self._window_start = now
        self._read(now)
        while self._give_up_aged(now):
            self._read(now)
        if not self._pending and now >= self._window_end():
            self._window_start = now
        count = self._batch_size(now) if now >= self.ready_at else 0
        if not count:
            return None
        records = tuple(islice(self._pending, count))
        self._invocation = Invocation(
            self.shard_id, self._new_id(), self._form.event(records), records, self._calls + 1, now
        )
        return self._invocation

    def complete(self, invocation: Invocation, outcome: Outcome, now: float) -> None:
        """Go on from how an invocation ended.

        After `TimedOut` the old invocation may well be running on; its end is of no interest any more.

        Raises:
            ValueError: it is not the invocation under way.
        """
        if invocation is not self._invocation:
            raise ValueError(f"invocation {invocation.request_id} is not under way")
        self._invocation = None
        self._window_start = now
        size = len(invocation.records)
        settled = 0
        if isinstance(outcome, Returned):
            settled = size
            if self._mapping.report_batch_item_failures:
                settled = settled_count(outcome.value, invocation.sequence_numbers)
        if settled:
            self._remove(settled)
            self._forget_failures()
        if settled == size:
            return
        self._wait(now)
        if self._borders is None and not self._cuts:
            self._cuts.append(size - settled)
        if not settled and not isinstance(outcome, Throttled):
            self._fail(invocation, outcome, now)

    def rewind(self, sequence_number: str) -> None:
        """Read again from this record on, settled or not, as a poller does that has lost its checkpoint.

        Raises:
            ValueError: an invocation is under way.
        """
        if self._invocation is not None:
            raise ValueError("an invocation is under way")
        self._start = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence_number}
        self._iterator = None
        self._closed = False
        self._pending.clear()
        self._pending_bytes = 0
        self._cuts.clear()
        self._forget_failures()

    def _read(self, now: float) -> None:
        # Kinesis may answer with nothing although there is more: then it is asked again, but not for ever.
        for _ in range(100):
            if self._closed or self._full():
                return
            try:
                if self._iterator is None:
                    self._iterator = self._client.get_shard_iterator(
                        StreamName=self._mapping.stream_name, ShardId=self.shard_id, **self._start
                    )["ShardIterator"]
                    if self._start["ShardIteratorType"] == "LATEST":
                        # Should this iterator expire unused, the next one must not skip what came since.
                        # Arrival times are cut to milliseconds.
                        since = math.floor(now * 1000) / 1000
                        self._start = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": since}
                answer = self._client.get_records(ShardIterator=self._iterator, Limit=10_000)
            except (ClientError, BotoCoreError) as error:
                self._iterator = None
                code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
                if code == "ExpiredIteratorException":
                    continue
                # A shard that has gone with its last record has nothing more to give.
                self._closed = code == "ResourceNotFoundException"
                _log.warning("%s could not be read: %s", self.shard_id, error)
                return
            self._iterator = answer.get("NextShardIterator")
            self._closed = self._iterator is None
            for read in answer["Records"]:
                record = self._form.record(read)
                self._pending.append(record)
                self._pending_bytes += record.event_bytes
                self._start = {
                    "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                    "StartingSequenceNumber": record.sequence_number,
                }
            if not answer.get("MillisBehindLatest"):
                return

    def _full(self) -> bool:
        return len(self._pending) >= self._mapping.batch_size or self._pending_bytes >= EVENT_BYTES

    def _window_end(self) -> float:
        start = -_NEVER if self._window_start is None else self._window_start
        return start + self._mapping.maximum_batching_window_seconds

    def _batch_size(self, now: float) -> int:
        """Return how many records go out now, 0 when the first one never can."""
        if self._cuts:
            return self._cuts[0]
        candidates = tuple(islice(self._pending, self._mapping.batch_size))
        count = count_that_fits(candidates)
        if not count:
            _log.error(
                "%s: record %s is too large for any event", self.shard_id, candidates[0].sequence_number
            )
            self._wait(now)
        elif self._borders is not None:
            count = max(1, min(count, self._borders(candidates[:count])))
        return count

    def _wait(self, now: float) -> None:
        self._failures += 1
        self._not_before = now + self._backoff(self._failures)

    def _forget_failures(self) -> None:
        self._calls = self._failures = 0
        self._not_before = -_NEVER

    def _fail(self, invocation: Invocation, outcome: Returned | Raised | TimedOut, now: float) -> None:
        """Decide what becomes of a batch of which nothing was settled."""
        size = len(invocation.records)
        if self._mapping.bisect_batch_on_function_error and size > 1 and self._cuts:
            self._cuts.popleft()
            self._cuts.extendleft((size - size // 2, size // 2))
            return
        self._calls += 1
        if 0 <= self._mapping.maximum_retry_attempts < self._calls:
            self._give_up("RetryAttemptsExhausted", size, outcome, invocation.request_id, now)
            self._forget_failures()

    def _give_up_aged(self, now: float) -> bool:
        """Give up what has become too old in front; say whether there was any."""
        limits = (self._mapping.maximum_record_age_seconds, self.retention_seconds)
        limit = min((limit for limit in limits if limit is not None and limit >= 0), default=_NEVER)
        found = False
        while self._pending and now - self._pending[0].arrival >= limit:
            front = islice(self._pending, self._cuts[0] if self._cuts else self._mapping.batch_size)
            aged = sum(1 for _ in takewhile(lambda record: now - record.arrival >= limit, front))
            whole = not self._cuts or aged == self._cuts[0]
            self._give_up("RecordAgeExceeded", aged, None, self._new_id(), now)
            if whole:
                self._forget_failures()
            found = True
        return found

    def _give_up(
        self,
        condition: Condition,
        count: int,
        outcome: Returned | Raised | TimedOut | None,
        request_id: str,
        now: float,
    ) -> None:
        records = tuple(islice(self._pending, count))
        record = FailureRecord(
            mapping=self._mapping,
            shard_id=self.shard_id,
            condition=condition,
            request_id=request_id,
            invoke_count=max(1, self._calls),
            outcome=outcome,
            records=records,
            event=self._form.event(records),
            failed_at=now,
        )
        self._remove(count)
        self._on_failure(record)

    def _remove(self, count: int) -> None:
        for _ in range(count):
            record = self._pending.popleft()
            self._pending_bytes -= record.event_bytes
            self.last_settled = record.sequence_number
        if self._cuts:
            self._cuts[0] -= count
            if not self._cuts[0]:
                self._cuts.popleft()
