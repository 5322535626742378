"""The records of a stream: from the stream itself or, where they have expired, from the archive."""

from collections.abc import Iterator
from operator import attrgetter
from typing import override

from ops import screen
from ops.failure import Failure
from ops.stream.reader import ExpiredError, RangeEnd, Read, ShardRecords, StreamReader, arrival
from shared.clock import Clock
from worker.archive import Archive
from worker.chain import ChainId
from worker.record import Number, number
from worker.shards import Shards

_DAY_SECONDS = 86_400.0
_LONGEST_BEFORE_PLAN_SECONDS = 8 * _DAY_SECONDS
"""The least to assume for how long after its arrival a record may have been planned, in case the retention was longer once."""


class StreamHistory(StreamReader):
    """Reads stream and archive as one.

    A shard of the current stream is named by its id. A shard that only the archive has, because the stream was deleted or the
    shard's last record has expired, is named by its chain, `stream@start#shard`.

    Args:
        shards: the stream.
        stream: its name.
        archive: the archive.
        days: how many days the archive keeps records for; 0 if it is off.
        clock: tells what has expired.
    """

    def __init__(self, shards: Shards, stream: str, archive: Archive, days: int, clock: Clock) -> None:
        super().__init__(shards, clock)
        self._stream = stream
        self._archive = archive
        self._days = days
        self._chains: dict[str, ChainId] = {}

    @override
    def check(self, start: RangeEnd) -> None:
        """Check that the beginning of a range has not expired, on the stream or else in the archive.

        Raises:
            Failure: it has expired in both.
            ShardUnreadableError: Kinesis does not answer.
        """
        try:
            super().check(start)
        except ExpiredError:
            oldest = self._clock.now() - self._days * _DAY_SECONDS
            if not self._days:
                raise
            if start.at is not None and start.at < oldest:
                raise Failure(
                    f"the archive has no records from {screen.utc(start.at)}: use --from {screen.utc(int(oldest) + 1)} or later. "
                    "Older rows are in Treasure Data or set aside"
                ) from None

    def names(self, start: RangeEnd, end: RangeEnd, only: str | None = None) -> list[str]:
        """Return the shards that may have records of a range: first those that only the archive has, then the current ones.

        Raises:
            Failure: there is no shard named `only`.
            ShardUnreadableError: Kinesis does not answer.
            BucketUnavailableError: S3 does not answer.
        """
        current = super().shards()
        chains = {self._shards.chain(shard) for shard in current}
        begins_late = start.at is None and start.number is None
        old = [] if begins_late else [one for one in self._archive.chains(self._stream) if one not in chains]
        self._chains = {one.name: one for one in sorted(old, key=lambda one: int(one.start))}
        if only is None:
            return [*(name for name in self._chains if self._has_any(name, start, end)), *current]
        if only in current or only in self._chains:
            return [only]
        gone = [name for name, chain in self._chains.items() if chain.shard == only]
        if len(gone) == 1:
            return gone
        known = ", ".join([*self._chains, *current])
        raise Failure(f"there is no shard {only}: the stream and the archive have {known}")

    @override
    def chain(self, shard: str) -> ChainId:
        """Return the chain of a shard that `names` returned."""
        return self._chains.get(shard) or super().chain(shard)

    @override
    def pieces(self, shard: str, start: RangeEnd, end: RangeEnd) -> Iterator[ShardRecords]:
        """Yield a shard's records from one border to another, each piece from the stream or from the archive.

        Raises:
            Failure: the first record of the range has expired, or never existed.
            ShardUnreadableError: Kinesis does not answer.
            BucketUnavailableError: S3 does not answer, or not with an archived object.
        """
        if shard in self._chains:
            self._check_first_archived(self._chains[shard], start)
            yield from self._archived(self._chains[shard], start, end)
            return
        try:
            super().check(start)
            for records in self.read(shard, start, end):
                yield ShardRecords(records)
        except ExpiredError:
            chain = self._shards.chain(shard)
            if not self._days and not self._has_first(chain, start):
                raise
            self._check_first_archived(chain, start)
        else:
            return
        yield from self._from_archive_on(chain, start, end)

    def _check_first_archived(self, chain: ChainId, start: RangeEnd) -> None:
        """Check that the archive has the first record of a range. Without it, the archive's part would be incomplete."""
        if not self._has_first(chain, start):
            raise ExpiredError(
                f"{start.number} is not a sequence number of {chain.shard}, or has expired in the archive too: "
                "use a time with --from"
            )

    def _has_first(self, chain: ChainId, start: RangeEnd) -> bool:
        """Return whether the archive has the record at which a range begins; always true for a range of time."""
        if start.number is None:
            return True
        return any(True for _ in self._archived(chain, start, RangeEnd(number=start.number)))

    def _from_archive_on(self, chain: ChainId, start: RangeEnd, end: RangeEnd) -> Iterator[ShardRecords]:
        """Yield what has expired on the stream, then what it has, starting over if more expires in the meantime."""
        while True:
            kept = self.first(chain.shard)
            yield from self._archived(chain, start, end, kept)
            if kept is None:
                return
            start = RangeEnd(number=int(kept[3:]))
            try:
                for records in self.read(chain.shard, start, end):
                    yield ShardRecords(records)
            except ExpiredError:  # the stream's first record has expired since it was looked up
                self._check_first_archived(chain, start)
            else:
                return

    def _has_any(self, name: str, start: RangeEnd, end: RangeEnd) -> bool:
        return any(True for _ in self._archive.listed(self._chains[name], start.at, end.at, self._held()))

    def _held(self) -> float:
        """Return the longest time between the arrival and the planning of a record, in seconds."""
        retention: float = self._shards.summary()["RetentionPeriodHours"] * 3600.0
        return max(_LONGEST_BEFORE_PLAN_SECONDS, retention + _DAY_SECONDS)

    def _archived(
        self, chain: ChainId, start: RangeEnd, end: RangeEnd, kept: Number | None = None
    ) -> Iterator[ShardRecords]:
        """Yield the archive's records of a range, in the shard's order, up to but excluding `kept` if given."""
        objects = self._archive.listed(chain, start.at, end.at, self._held())
        for one in sorted(objects, key=attrgetter("first")):
            if kept is not None and one.first >= kept:
                continue
            if start.number is not None and one.last < number(str(start.number)):
                continue
            if end.number is not None and one.first > number(str(end.number)):
                continue
            inside = [
                record
                for record in self._archive.read(one) or ()
                if _is_from(record, start)
                and not end.is_before(record)
                and (kept is None or number(record["SequenceNumber"]) < kept)
            ]
            if inside:
                yield ShardRecords(inside, chain)


def _is_from(record: Read, start: RangeEnd) -> bool:
    """Return whether a record is at or after the start of a range."""
    if start.number is not None:
        return int(record["SequenceNumber"]) >= start.number
    return start.at is None or arrival(record) >= start.at
