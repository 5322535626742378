"""Rereads a range of a shard, and passes to the worker what is in no span."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ops import screen
from ops.background import begun
from ops.books.accounting import row_count
from ops.books.replayed import Planned
from ops.stream.reader import RangeEnd, Read, StreamReader, arrival, batches_of, member
from shared.clock import Clock
from shared.errors import SluiceError
from worker.record import number

PATIENCE_SECONDS = 300.0
"""How long to retry while the worker takes no record: it holds, or leaves to the event source what that has not read."""
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
Invoke = Callable[[dict[str, Any]], dict[str, Any]]


class HoldsError(SluiceError):
    """The worker has taken no record for PATIENCE_SECONDS."""


@dataclass(slots=True)
class Progressing:
    """The progress of one shard's replay: records in a span now, when the last arrived (UNIX seconds), and rows in what was read."""

    shard: str
    records: int = 0
    arrived: float = 0.0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Replay:
    """Replays shards: reads their records, and passes to the worker, by `invoke`, those that are in no span yet."""

    stream: StreamReader
    invoke: Invoke
    clock: Clock
    planned: Planned

    def shard(
        self, shard: str, start: RangeEnd, end: RangeEnd, settled: Callable[[Progressing], None]
    ) -> Progressing:
        """Replay a range of one shard. The next batch is read while the worker handles the current one.

        `settled` is called with the progress after every batch and every response of the worker.

        Raises:
            HoldsError: the worker takes no record.
            Failure: the range has expired, or the worker failed.
        """
        progress = Progressing(shard)
        settled(progress)
        chain = self.stream.stream.chain(shard)
        for batch in _ahead(batches_of(self.stream.read(shard, start, end))):
            progress.rows += sum(row_count(record["Data"]) for record in batch)
            numbers = [number(record["SequenceNumber"]) for record in batch]
            members = self.planned.note_before(chain, numbers)
            missing = [record for record, one in zip(batch, numbers, strict=True) if one not in members]
            progress.records += len(batch) - len(missing)
            progress.arrived = arrival(batch[-1])
            try:
                self._pass_on(missing, shard, progress, settled)
            finally:
                self.planned.note_after(chain, numbers)
            settled(progress)
        return progress

    def _pass_on(
        self, batch: list[Read], shard: str, progress: Progressing, settled: Callable[[Progressing], None]
    ) -> None:
        pause, until = _FIRST_PAUSE_SECONDS, self.clock.now() + PATIENCE_SECONDS
        while batch:
            answer = self.invoke({"Records": [member(record, shard) for record in batch], "replay": True})
            rest = _unsettled(batch, answer)
            done = len(batch) - len(rest)
            if done:
                progress.records += done
                pause, until = _FIRST_PAUSE_SECONDS, self.clock.now() + PATIENCE_SECONDS
            batch = rest
            settled(progress)
            if batch and not done:
                if self.clock.now() >= until:
                    raise HoldsError(f"the worker has taken no record for {screen.lasting(PATIENCE_SECONDS)}")
                self.clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _unsettled(batch: list[Read], answer: dict[str, Any]) -> list[Read]:
    """Return the records from the first one that the worker reports as failed."""
    failed = [int(failure["itemIdentifier"]) for failure in answer.get("batchItemFailures", ())]
    if not failed:
        return []
    return [record for record in batch if int(record["SequenceNumber"]) >= min(failed)]


def _ahead(made: Iterator[list[Read]]) -> Iterator[list[Read]]:
    """Yield batches while a thread reads the next one. At most two are in memory."""
    coming = begun(lambda: next(made, None))
    while (batch := coming.result()) is not None:
        coming = begun(lambda: next(made, None))
        yield batch
