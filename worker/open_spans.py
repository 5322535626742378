"""Takes up open spans: those that an earlier invocation planned and did not settle."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shared.errors import HeldError, ShardUnreadableError
from worker.archive import Archive
from worker.batch import ShardBatch, Work
from worker.chunk import pending_leaves, planned_chunks
from worker.contiguity import left_out
from worker.delivery import Entry, Event, State
from worker.execution import Delivery
from worker.guards import Guard
from worker.plan import Groups, as_planned, group, owners_of
from worker.record import Record
from worker.shards import Shards
from worker.span import EXPIRED_PART, ChunkKey, Span

# Lambda's largest event. If a chunk may have this many bytes or more, only the limit of rows cuts a group.
_MAX_BATCH_BYTES = 6 << 20


class OpenSpans:
    """Prepares open spans for execution."""

    def __init__(self, shards: Shards, archive: Archive, delivery: Delivery) -> None:
        self._shards = shards
        self._archive = archive
        self._delivery = delivery
        self._ledger = delivery.ledger
        self._rules = delivery.rules
        self._clock = delivery.clock
        self._telemetry = delivery.telemetry

    def take_up(self, batch: ShardBatch, span: Span) -> Work | None:
        """Fence a span, so that no other invocation can settle it unnoticed; return None if another invocation has settled it meanwhile.

        Raises:
            HeldError: its records cannot be read now, the shard has others between them, or the time is up.
            UnavailableError: the ledger, the shard or the archive cannot be reached.
        """
        if batch.terms.deadline.near:
            raise HeldError(HeldError.NO_TIME)
        records = self._records_of(batch, span)
        is_whole = span.is_whole([record.number for record in records])
        if not is_whole and not self._has_expired(span):
            if len(records) > span.records:
                raise left_out(len(records) - span.records, span.first, span.last)
            raise HeldError("records of an open span cannot be read yet")
        ignored = frozenset(records[position].number for position in span.ignored if is_whole)
        groups = as_planned(group(records, owners_of(records, span.destinations), ignored), span.counts)
        if batch.terms.forced is not None:  # rows that the plan left out
            groups = {key: blocks for key, blocks in groups.items() if key in span.counts}
        while not span.done:
            expired, left = ({}, groups) if is_whole else self._without_expired(span, groups)
            opened = {
                leaf.key
                for chunk in planned_chunks(left, span.cut)
                for leaf in pending_leaves(chunk, span)
                if span.entry(leaf.key).since is None
            }
            fenced = {key: self._delivery.follow(span.entry(key), Event.DOUBT_OPENS) for key in opened}
            won, current = self._ledger.fence(span.with_entries(expired | fenced))
            if won:
                self._report_expired(span, expired)
                return Work(current, records, left, opened, is_whole)
            span = current
        return None

    def settle_missing(self, span: Span) -> None:
        """Settle a span whose records have all expired: its undelivered rows become missing.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
        """
        while not span.done:
            expired, _ = self._without_expired(span, {})
            won, current = self._ledger.update(span.with_entries(expired, done=True))
            if won:
                self._report_expired(span, expired)
            span = current

    def is_over(self, span: Span) -> bool:
        """Return whether a span was planned longer ago than the stream's retention, according to the setting."""
        return self._clock.now() - span.planned_at / 1000 > self._rules.retention_seconds

    def origin(self, span: Span) -> Span:
        """Return the span of the shard's own chain that holds a span's records: itself, unless it is of a forced replay."""
        if not span.chain.is_forced:
            return span
        origin = self._ledger.locate(span.chain.root, span.first)
        return origin if isinstance(origin, Span) else span

    def read(self, batch: ShardBatch, span: Span, at_hand: Sequence[Record] = ()) -> list[Record]:
        """Return the records of a span of a shard's own chain, as far as `at_hand`, the stream or the archive has them now.

        Raises:
            ShardUnreadableError: the stream cannot be read, and the archive does not have them.
            BucketUnavailableError: the stream does not show them, and the archive cannot be read.
        """
        merged = {record.number: record for record in at_hand}
        unreadable: ShardUnreadableError | None = None
        if not batch.terms.from_archive:
            try:
                read = self._shards.read(
                    batch.shard, span.first, span.last, span.records, batch.terms.deadline
                )
            except ShardUnreadableError as error:
                unreadable = error
            else:
                merged = {record.number: record for record in read} | merged
        numbers = sorted(merged)
        if not span.is_whole(numbers):
            archived = self._archive.get(span)
            if archived is not None:
                return archived
            if unreadable is not None:
                raise unreadable
        return [merged[number] for number in numbers]

    def _records_of(self, batch: ShardBatch, span: Span) -> list[Record]:
        """Return a span's records: from the batch and, if it does not hold them all, from the shard or the archive."""
        within = batch.within(span)
        if span.is_whole([record.number for record in within]):
            return within
        if batch.terms.forced is None:
            return self.read(batch, span, within)
        read = self.read(batch, self.origin(span))
        return batch.terms.forced.narrow(one for one in read if span.first <= one.number <= span.last)

    def _has_expired(self, span: Span) -> bool:
        """Return whether the stream no longer keeps a span's records, according to both the setting and the stream itself."""
        if Guard.WHOLE_SPAN in self._rules.without:
            return True
        if not self.is_over(span):
            return False
        retention: int = self._shards.summary()["RetentionPeriodHours"] * 3600
        return self._clock.now() - span.planned_at / 1000 > retention

    def _without_expired(self, span: Span, groups: Groups) -> tuple[dict[ChunkKey, Entry], Groups]:
        """Return the entries for rows whose records have expired, and the groups that can still be cut as planned.

        A group with several chunks, or with one that was split or settled, can be cut again only from all its rows. If some of the
        span's records do not count, no group can be cut, because the plan names these by their positions among all records.
        """
        changes: dict[ChunkKey, Entry] = {}
        left = dict(groups)
        for place, planned in span.counts.items():
            present = sum(block[1] for block in groups.get(place, ()))
            if present == planned and not span.ignored:
                continue
            expired = ChunkKey(place, EXPIRED_PART)
            entries = {
                key: entry for key, entry in span.entries.items() if key.group == place and key != expired
            }
            ended = sum(
                entry.rows
                for entry in entries.values()
                if entry.state not in (State.PENDING, State.SPLIT, State.MISSING)
            )
            if (
                span.ignored
                or planned > span.cut.rows
                or span.cut.bytes < _MAX_BATCH_BYTES
                or any(entry.state is not State.PENDING for entry in entries.values())
            ):
                left.pop(place, None)
                present = 0
            if not present:
                for key, entry in entries.items():  # their rows are counted once, by `expired`
                    if entry.state is State.PENDING:
                        changes[key] = self._delivery.follow(replace(entry, rows=0), Event.RECORDS_EXPIRED)
            if rows := planned - present - ended:
                changes[expired] = self._delivery.follow(Entry(rows=rows), Event.RECORDS_EXPIRED)
        return changes, left

    def _report_expired(self, before: Span, expired: Mapping[ChunkKey, Entry]) -> None:
        for key, entry in expired.items():
            known = before.entries.get(key)
            if rows := entry.rows - (known.rows if known is not None else 0):
                self._telemetry.count("RowsMissing", rows)
                self._telemetry.error(
                    "planned rows have expired", account=key.account, table=key.group.label, rows=rows
                )
