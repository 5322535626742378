"""Rereads a range of a shard, and passes it to the worker."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ops import screen
from ops.books.accounting import row_count
from ops.books.replayed import Planned
from ops.stream.reader import RangeEnd, Read, ShardRecords, StreamReader, arrival, batches_of, member
from shared import envelope
from shared.clock import Clock
from shared.errors import EnvelopeError, SluiceError
from worker.forced_replay import ForcedReplay
from worker.record import number
from worker.span import Span

PATIENCE_SECONDS = 300.0
"""How long to retry while the worker holds."""
_CLOCK_SECONDS = 60.0  # by which the clocks of the worker and of the stream may differ
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
Invoke = Callable[[dict[str, Any]], dict[str, Any]]


class HoldsError(SluiceError):
    """The worker has held for PATIENCE_SECONDS."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The range that is replayed.

    Attributes:
        start: where it begins.
        end: where it ends.
        forced: what to send again; None if the ledger decides.
    """

    start: RangeEnd
    end: RangeEnd
    forced: ForcedReplay | None = None

    def may_overlap(self, span: Span) -> bool:
        """Return whether a span may have records of this stretch. A span's records arrived before it was planned."""
        if self.start.at is not None and span.planned_at / 1000 < self.start.at - _CLOCK_SECONDS:
            return False
        if self.start.number is not None and span.last < number(str(self.start.number)):
            return False
        return self.end.number is None or span.first <= number(str(self.end.number))


@dataclass(slots=True)
class Progressing:
    """The progress of one shard's replay.

    Attributes:
        records: number of settled records.
        arrived: when the last of them arrived, in UNIX seconds.
        next: the sequence number of the first record read that is not settled; empty if there is none.
        passed_over: rows that a forced replay has left out, by account and table.
        rows: rows in the records read; in a forced replay, those that it selects.
    """

    records: int = 0
    arrived: float = 0.0
    next: str = ""
    passed_over: Counter[str] = field(default_factory=Counter)
    rows: int = 0


class Replay:
    """Replays shards.

    Args:
        stream: reads the records.
        invoke: passes an event to the worker and returns its response.
        clock: paces retries.
        planned: counts rows by outcome, if given.
    """

    def __init__(
        self,
        stream: StreamReader,
        invoke: Invoke,
        clock: Clock,
        planned: Planned | None = None,
    ) -> None:
        self._stream = stream
        self._invoke = invoke
        self._clock = clock
        self._planned = planned

    def shard(self, shard: str, stretch: Stretch, settled: Callable[[Progressing], None]) -> Progressing:
        """Replay a stretch of one shard. The next batch is read while the worker handles the current one.

        Args:
            shard: its id.
            stretch: the range.
            settled: called with the progress after every response of the worker.

        Raises:
            HoldsError: the worker holds.
            Failure: the stretch has expired, or the worker failed.
            ClientError: AWS rejects a call.
        """
        progress = Progressing()
        pieces = self._stream.pieces(shard, stretch.start, stretch.end)
        for batch, archived in _ahead(batches_of(pieces)):
            progress.next = batch[0]["SequenceNumber"]
            settled(progress)
            progress.rows += sum(_rows(record["Data"], stretch.forced) for record in batch)
            numbers = [number(record["SequenceNumber"]) for record in batch]
            chain = self._stream.chain(shard)
            if stretch.forced is not None:
                chain = chain.forced(stretch.forced.name)
            if self._planned is not None:
                self._planned.note_before(chain, numbers)
            try:
                self._settle(ShardRecords(batch, archived), shard, stretch.forced, progress, settled)
            finally:
                if self._planned is not None:
                    self._planned.note_after(chain, numbers)
        return progress

    def _settle(
        self,
        piece: ShardRecords,
        shard: str,
        forced: ForcedReplay | None,
        progress: Progressing,
        settled: Callable[[Progressing], None],
    ) -> None:
        pause, until = _FIRST_PAUSE_SECONDS, self._clock.now() + PATIENCE_SECONDS
        batch, archived = piece
        shard = shard if archived is None else archived.shard
        while batch:
            event: dict[str, Any] = {
                "Records": [member(record, shard) for record in batch],
                "replay": True,
            }
            if archived is not None:
                event["chain"] = archived.name
            if forced is not None:
                event["forced"] = {"tag": forced.tag, "account": forced.account, "table": forced.table}
            answer = self._invoke(event)
            progress.passed_over.update(answer.get("passed_over", {}))
            rest = _unsettled(batch, answer)
            done = len(batch) - len(rest)
            if done:
                progress.records += done
                progress.arrived = arrival(batch[done - 1])
                pause, until = _FIRST_PAUSE_SECONDS, self._clock.now() + PATIENCE_SECONDS
            batch = rest
            progress.next = batch[0]["SequenceNumber"] if batch else ""
            settled(progress)
            if batch and not done:
                if self._clock.now() >= until:
                    raise HoldsError(f"the worker has held for {screen.lasting(PATIENCE_SECONDS)}")
                self._clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _rows(data: bytes, forced: ForcedReplay | None) -> int:
    """Return how many rows of a record a replay selects."""
    if forced is None or not (forced.account or forced.table):
        return row_count(data)
    try:
        found = envelope.decode(data)
    except EnvelopeError:
        return 0
    if forced.account not in (None, found.account):
        return 0
    return sum(table.row_count for table in found.tables if forced.table in (None, table.table))


def _unsettled(batch: list[Read], answer: dict[str, Any]) -> list[Read]:
    """Return the records from the first one that the worker reports as failed."""
    failed = [int(failure["itemIdentifier"]) for failure in answer.get("batchItemFailures", ())]
    if not failed:
        return []
    return [record for record in batch if int(record["SequenceNumber"]) >= min(failed)]


def _ahead(made: Iterator[ShardRecords]) -> Iterator[ShardRecords]:
    """Yield batches while a thread reads the next one. At most two are in memory."""
    with ThreadPoolExecutor(1, "reading ahead") as thread:
        coming = thread.submit(next, made, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, made, None)
            yield batch
