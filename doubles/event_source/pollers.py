"""Lambda's pollers as state machines, one for each shard while it exists.

A poller has no threads, never waits, and knows only the time that it is passed. The caller asks `poll` for the next
invocation, runs it, and reports its outcome to `complete`.

- A batch is sent when it is full, when it fills an event, or when the window has passed. The next window begins when
  an invocation ends (AWS's documentation). One batch is in progress at a time.
- Results are interpreted as recorded on AWS; see `settled_count`. A failed batch is sent again unchanged, without
  records that have arrived since.
- Records that the retention removes from the stream expire here too, one by one.
"""

import logging
from collections.abc import Mapping
from itertools import takewhile
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from doubles.event_source import (
    EVENT_BYTES,
    EventSourceMapping,
    Invocation,
    Outcome,
    Record,
    count_that_fits,
    event_of,
    settled_count,
)

_log = logging.getLogger("doubles.event_source")

_NEVER = float("inf")


class ShardPoller:
    """Reads one shard and hands out its records in batches, in order, until each is settled or expired.

    Args:
        client: boto3-shaped Kinesis client (`get_shard_iterator`, `get_records`).
        mapping: the settings.
        shard_id: the shard.
        after: the sequence number to start after; empty to start at the oldest record.

    Attributes:
        last_settled: the sequence number up to which all records are settled or expired; `rewind` sets it back.
        ended: whether the shard is closed and read to its end.
    """

    def __init__(self, client: Any, mapping: EventSourceMapping, shard_id: str, after: str = "") -> None:
        self.shard_id = shard_id
        self.last_settled: str | None = None
        self.ended = False
        self._client = client
        self._mapping = mapping
        self._start: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        if after:
            self._start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": after}
        self._iterator: str | None = None
        # records that were read and are neither settled nor expired
        self._pending: list[Record] = []
        self._invocation: Invocation | None = None
        # how many of the pending records are what remains of a failed batch
        self._again = 0
        self._failures = 0
        self._not_before = _NEVER  # when a failed batch may be sent again
        self._window_start = _NEVER

    @property
    def drained(self) -> bool:
        """Whether the shard is closed and everything in it is settled or expired."""
        return self.ended and not self._pending and self._invocation is None

    @property
    def ready_at(self) -> float:
        """When pending records can be sent, in UNIX seconds; infinity if waiting alone does not help."""
        if self._invocation is not None or not self._pending:
            return _NEVER
        if self._failures:
            return self._not_before
        return -_NEVER if self._full() else self._window_end()

    def poll(self, now: float, retention_seconds: float) -> Invocation | None:
        """Return the next invocation if one is due now (UNIX seconds). The time must not go backwards."""
        if self._invocation is not None:
            return None
        self._window_start = min(self._window_start, now)  # the first time
        self._read()
        while self._expire(now - retention_seconds):
            self._read()
        if not self._pending and now >= self._window_end():
            self._window_start = now
        if now >= self.ready_at:
            records = tuple(self._pending[: self._batch_size()])
            self._invocation = Invocation(self.shard_id, str(uuid4()), event_of(records), records)
        return self._invocation

    def complete(self, invocation: Invocation, outcome: Outcome, now: float) -> None:
        """Process an invocation's outcome.

        Raises:
            ValueError: the invocation is not the one in progress.
        """
        if invocation is not self._invocation:
            raise ValueError(f"invocation {invocation.request_id} is not in progress")
        self._invocation = None
        self._window_start = now
        settled = settled_count(outcome, invocation.sequence_numbers)
        if settled:
            self._remove(settled)
            self._failures = 0
        if settled < len(invocation.records):
            self._failures += 1
            self._not_before = now + self._mapping.backoff(self._failures)
            if self._mapping.borders is None:
                self._again = len(invocation.records) - settled

    def rewind(self, sequence_number: str) -> None:
        """Read again from a record on, settled or not, as a poller does that has lost its checkpoint.

        Raises:
            ValueError: an invocation is in progress.
        """
        if self._invocation is not None:
            raise ValueError("an invocation is in progress")
        self._start = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence_number}
        self.last_settled = str(int(sequence_number) - 1)
        self._iterator = None
        self.ended = False
        self._pending.clear()
        self._again = self._failures = 0

    def _read(self) -> None:
        # Kinesis may return nothing although there is more: ask again, but not forever.
        for _ in range(100):
            if self.ended or self._full():
                return
            try:
                if self._iterator is None:
                    self._iterator = self._client.get_shard_iterator(
                        StreamName=self._mapping.stream_name, ShardId=self.shard_id, **self._start
                    )["ShardIterator"]
                answer = self._client.get_records(ShardIterator=self._iterator, Limit=10_000)
            except (ClientError, BotoCoreError) as error:
                self._iterator = None
                code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
                if code == "ExpiredIteratorException":
                    continue
                # A shard that has disappeared with its last record has no more records.
                self.ended = code == "ResourceNotFoundException"
                _log.warning("%s could not be read: %s", self.shard_id, error)
                return
            self._iterator = answer.get("NextShardIterator")
            self.ended = self._iterator is None
            self._pending += [self._mapping.record(self.shard_id, one) for one in answer["Records"]]
            if answer["Records"]:
                last = answer["Records"][-1]["SequenceNumber"]
                self._start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": last}
            if not answer.get("MillisBehindLatest"):
                return

    def _full(self) -> bool:
        batch = self._pending[: self._mapping.batch_size]
        return len(batch) == self._mapping.batch_size or sum(record.size for record in batch) >= EVENT_BYTES

    def _window_end(self) -> float:
        return self._window_start + self._mapping.maximum_batching_window_seconds

    def _batch_size(self) -> int:
        """Return how many records to send now."""
        if self._again:
            return self._again
        count = count_that_fits(self._pending[: self._mapping.batch_size])
        if self._mapping.borders is not None:
            count = max(1, min(count, self._mapping.borders(self._pending[:count])))
        return count

    def _expire(self, horizon: float) -> bool:
        """Drop the first records if the retention has removed them. Return whether there were any."""
        expired = list(takewhile(lambda record: record.arrival <= horizon, self._pending))
        if expired:
            if len(expired) >= self._again:
                self._failures = 0
            self._remove(len(expired))
        return bool(expired)

    def _remove(self, count: int) -> None:
        self.last_settled = self._pending[count - 1].sequence_number
        del self._pending[:count]
        self._again = max(0, self._again - count)


class StreamPoller:
    """Finds a stream's shards and hands out the invocations of all of them.

    Args:
        client: boto3-shaped Kinesis client (`list_shards`, `describe_stream_summary`, `get_shard_iterator`,
            `get_records`).
        mapping: the settings.
        checkpoints: by shard id, the sequence number to start after.

    Attributes:
        pollers: the pollers that were started, by shard id, in the order in which they are served next.
    """

    def __init__(
        self, client: Any, mapping: EventSourceMapping, checkpoints: Mapping[str, str] | None = None
    ) -> None:
        self.pollers: dict[str, ShardPoller] = {}
        self._client = client
        self._mapping = mapping
        self._checkpoints = dict(checkpoints or {})
        # the parents of the shards that were listed but not started
        self._waiting: dict[str, list[str]] = {}
        self._listed: set[str] = set()
        self._listed_at = -_NEVER
        self._ended: set[str] = set()
        self._retention_seconds = _NEVER

    @property
    def ready_at(self) -> float:
        """When pending records can be sent, in UNIX seconds; infinity if waiting alone does not help."""
        return min((poller.ready_at for poller in self.pollers.values()), default=_NEVER)

    def poll(self, now: float) -> Invocation | None:
        """Return the next invocation of any shard that has none in progress. The shards take turns."""
        self._discover(now)
        for shard_id, poller in list(self.pollers.items()):
            invocation = poller.poll(now, self._retention_seconds)
            if invocation is not None:
                self.pollers[shard_id] = self.pollers.pop(shard_id)  # to the end
                return invocation
        # A shard may just have ended, so that its children can start.
        return self.poll(now) if self._discover(now) else None

    def complete(self, invocation: Invocation, outcome: Outcome, now: float) -> None:
        """Process an invocation's outcome, as `ShardPoller.complete` does."""
        self.pollers[invocation.shard_id].complete(invocation, outcome, now)

    def _discover(self, now: float) -> bool:
        """Look for new shards if it is time to. Return whether any poller was started."""
        ended = {shard_id for shard_id, poller in self.pollers.items() if poller.ended}
        if now >= self._listed_at + self._mapping.discovery_seconds or ended != self._ended:
            try:
                self._list(now)
            except (ClientError, BotoCoreError) as error:
                _log.warning("the shards of %s could not be listed: %s", self._mapping.stream_name, error)
            else:
                self._ended = ended
        startable = [shard_id for shard_id in self._waiting if self._may_start(shard_id)]
        for shard_id in startable:
            del self._waiting[shard_id]
            checkpoint = self._checkpoints.get(shard_id, "")
            self.pollers[shard_id] = ShardPoller(self._client, self._mapping, shard_id, checkpoint)
        return bool(startable)

    def _list(self, now: float) -> None:
        shards: list[dict[str, Any]] = []
        page: dict[str, Any] = {"StreamName": self._mapping.stream_name}
        while page:
            answer = self._client.list_shards(**page)
            shards += answer["Shards"]
            page = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else {}
        summary = self._client.describe_stream_summary(StreamName=self._mapping.stream_name)
        self._retention_seconds = summary["StreamDescriptionSummary"]["RetentionPeriodHours"] * 3600
        for shard in shards:
            if shard["ShardId"] not in self.pollers:
                names = ("ParentShardId", "AdjacentParentShardId")
                self._waiting[shard["ShardId"]] = [shard[name] for name in names if name in shard]
        self._listed = {shard["ShardId"] for shard in shards}
        self._listed_at = now

    def _may_start(self, shard_id: str) -> bool:
        return not self._mapping.children_wait or all(map(self._is_drained, self._waiting[shard_id]))

    def _is_drained(self, shard_id: str) -> bool:
        poller = self.pollers.get(shard_id)
        return poller.drained if poller is not None else shard_id not in self._listed
