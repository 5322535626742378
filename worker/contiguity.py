"""Compares batches with their shard, because an event source that filters or parallelizes leaves records out."""

from collections.abc import Callable
from enum import Enum, auto

from shared.errors import HeldError, NoSuchRecordError
from worker.archive import Archive
from worker.batch import ShardBatch
from worker.execution import Delivery
from worker.guards import Guard
from worker.record import Number, sequence_number
from worker.shards import Shards
from worker.span import Span

_ALL_EVERY_SECONDS = 60.0
_COMPARED_RECORDS = 100
_EXPIRING_SECONDS = 3600.0
_MOST_WHOLE = 1000


class _Shown(Enum):
    """How the records that the shard shows compare with the expected ones."""

    ALL = auto()
    FEWER = auto()
    FOREIGN = auto()  # the shard never had the first of them


class Contiguity:
    """Holds batches that the event source left records out of."""

    def __init__(self, shards: Shards, archive: Archive, delivery: Delivery) -> None:
        self._shards = shards
        self._archive = archive
        self._rules = delivery.rules
        self._clock = delivery.clock
        self._all_due: dict[str, float] = {}  # by shard, when to compare all records of a batch again
        self._whole: set[tuple[str, Number]] = set()  # spans known to hold all records between their borders

    def check_batch(self, batch: ShardBatch) -> None:
        """Check that the shard has no other records between the first ones of a batch; once a minute, between all of them.

        With a ParallelizationFactor, Lambda distributes records over invocations by partition key, so each batch lacks some of the
        shard's first records. Rereading every batch in full would take half of the shard's read budget. Recorded events are
        not compared, because Kinesis says that the shard never had them. Nor are records that may expire before they are read.

        Raises:
            HeldError: the shard has others, or does not show all of the batch's own.
            ShardUnreadableError: the shard cannot be read.
        """
        if batch.is_checked or Guard.CONTIGUOUS in self._rules.without:
            return
        now = self._clock.now()
        is_due = now >= self._all_due.get(batch.shard, 0.0)
        given = [record.number for record in batch.records[: None if is_due else _COMPARED_RECORDS]]
        may_be_gone = batch.records[0].arrived_at < now - self._rules.retention_seconds + _EXPIRING_SECONDS
        if not may_be_gone:
            shown = self._compare(batch, given[0], given[-1], len(given), lambda read: read == given)
            if shown is _Shown.FEWER:
                raise HeldError("the shard does not show all records of the batch")
            if shown is _Shown.ALL and is_due:
                self._all_due[batch.shard] = now + _ALL_EVERY_SECONDS
        batch.is_checked = True

    def check_span(self, batch: ShardBatch, span: Span) -> None:
        """Check that the batch's records within a settled span are among those that were planned.

        Raises:
            HeldError: some are not, or neither the shard nor the archive shows that they are.
            ShardUnreadableError: the shard cannot be read.
        """
        place = span.chain.name, span.after
        within = batch.within(span)
        may_be_gone = self._rules.is_held_too_long(within[0].arrived_at, self._clock.now())
        if not span.digest or place in self._whole or may_be_gone:  # the rest of its span may have expired
            return
        given = [record.number for record in within]
        if span.is_whole(given):
            return
        shown = self._compare(batch, span.first, span.last, span.records, span.is_whole)
        if shown is not _Shown.ALL and set(given) - {
            record.number for record in self._archive.get(span) or ()
        }:
            raise HeldError("records of a settled span cannot be read yet")
        if len(self._whole) >= _MOST_WHOLE:
            self._whole.clear()
        self._whole.add(place)

    def _compare(
        self,
        batch: ShardBatch,
        first: Number,
        last: Number,
        count: int,
        is_all: Callable[[list[Number]], bool],
    ) -> _Shown:
        """Compare what the shard shows between two records with the expected ones; believe a difference only if a second read shows it too.

        Raises:
            HeldError: the shard shows more records than `count`.
            ShardUnreadableError: the shard cannot be read.
        """
        for _ in range(2):
            try:
                read = self._shards.read(batch.shard, first, last, count, batch.terms.deadline)
            except NoSuchRecordError:
                return _Shown.FOREIGN
            if is_all([record.number for record in read]):
                return _Shown.ALL
        if len(read) > count:
            raise left_out(len(read) - count, first, last)
        return _Shown.FEWER


def left_out(count: int, first: Number, last: Number) -> HeldError:
    """Return the error that says how many records the event source skipped, and between which."""
    return HeldError(
        f"the event source skipped {count} records between {sequence_number(first)} and {sequence_number(last)},"
        " because its mapping was changed: `sluice doctor` shows which setting to restore"
    )
