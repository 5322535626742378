"""The life of a batch: decode the records, ask the ledger what is planned, plan one span, execute it, and so on.

Borders, destinations and accounts are decided once, by the conditional put that appends a span to its shard's chain; from
then on every invocation executes that plan. docs/delivery.md says why each step is needed.
"""

import gc
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any

from shared.errors import (
    HeldError,
    InvalidReplayError,
    NoSuchRecordError,
    ShardUnreadableError,
    UnavailableError,
)
from worker.account_cache import AccountCache
from worker.archive import Archive, Archiving
from worker.chain import ChainId
from worker.chunk import Chunk, pending_leaves, planned_chunks
from worker.claims import Claims
from worker.deadline import Deadline
from worker.delivery import Entry, Event, Happening, State
from worker.execution import Delivery, Execution
from worker.forced_replay import ForcedReplay
from worker.guards import Guard
from worker.ledger import Gap
from worker.plan import (
    Groups,
    Plan,
    accounts_of,
    as_planned,
    group,
    no_excess,
    only_delivered,
    owners_of,
    plan,
)
from worker.record import Number, Record, from_event, milliseconds, sequence_number
from worker.set_aside import SetAside
from worker.shards import Shards
from worker.span import EXPIRED, Archived, ChunkKey, Cut, Group, Span, digest_of
from worker.tables import Tables
from worker.upload import Uploader

MAX_BATCH_BYTES = 6 << 20
"""Lambda's limit of an event: a cut by bytes that is no lower cuts no group."""

_ARCHIVE_SECONDS = 2.0  # of those kept back for the end of an invocation, to wait for the archive
_CHECK_EVERY_SECONDS = 60.0
_CHECK_RECORDS = 100
_MOST_CHECKED = 1000

_number = itemgetter(0)
_METRICS = {
    State.PARKED: "RowsParked",
    State.IN_DOUBT: "RowsInDoubt",
    State.DEAD_LETTER: "RowsDeadLettered",
}


@dataclass(slots=True)
class _Given:
    """What an invocation was given beside records.

    Attributes:
        deadline: when it must have settled.
        forced: what is sent again; None where the ledger decides.
        chain: of the shard, where the records come from the archive: the stream may no longer have them, or the shard.
        is_replay: the records do not come in the stream's order.
        passed_over: by account and table, rows that a forced replay leaves out.
    """

    deadline: Deadline
    forced: ForcedReplay | None = None
    chain: ChainId | None = None
    is_replay: bool = False
    passed_over: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Batch:
    """Records of one shard, as they were delivered."""

    given: _Given
    shard: str
    chain: ChainId
    records: list[Record]
    is_checked: bool = False

    @property
    def deadline(self) -> Deadline:
        return self.given.deadline

    @property
    def forced(self) -> ForcedReplay | None:
        return self.given.forced

    @property
    def from_archive(self) -> bool:
        return self.given.chain is not None


class Worker:
    """Delivers batches.

    Args:
        shards: the stream.
        accounts: tell where rows go.
        claims: tell which copy of an envelope counts.
        tables: tell which would be too many.
        uploader: sends chunks.
        delivery: what spans are executed with.
        archive: takes the records of new spans.
        archive_days: for how many days; 0 for not at all.
        cut: by which new spans' groups are cut into chunks.
    """

    def __init__(
        self,
        *,
        shards: Shards,
        accounts: AccountCache,
        claims: Claims,
        tables: Tables,
        uploader: Uploader,
        delivery: Delivery,
        archive: Archive,
        archive_days: int,
        cut: Cut,
    ) -> None:
        self._shards = shards
        self._accounts = accounts
        self._claims = claims
        self._tables = tables
        self._uploader = uploader
        self._delivery = delivery
        self._archive = archive
        self._archive_days = archive_days
        self._cut = cut
        self._ledger = delivery.ledger
        self._rules = delivery.rules
        self._clock = delivery.clock
        self._telemetry = delivery.telemetry
        self._checked: set[tuple[str, Number]] = set()  # spans that hold all records between their borders
        self._check_due: dict[str, float] = {}  # by shard, when a batch is to be compared with the shard
        self._ends: dict[str, tuple[ChainId, Number]] = {}  # by shard, as this function instance left them

    def run(self, event: Mapping[str, Any], remaining_ms: float) -> dict[str, Any]:
        """Deliver the records of one invocation; return Lambda's partial batch response.

        The answer to a forced replay also has `passed_over`: by account and table the rows that it will not send, because not all
        rows that were planned with them have been delivered.

        Args:
            event: Lambda's, with records of the stream; with `replay` where they do not come in the stream's order, with
                `forced` where they are to be sent again whatever the ledger says, and with `chain`, a shard's, where they
                come from the archive.
            remaining_ms: until the invocation times out.

        Raises:
            InvalidReplayError: what is `forced` is not possible.
        """
        forced = ForcedReplay.from_event(event) if "forced" in event else None
        chain = _chain_of(event) if "chain" in event else None
        given = _Given(Deadline.of(self._clock, remaining_ms), forced, chain, is_replay="replay" in event)
        held = []
        with _no_cyclic_gc():
            for shard, records in from_event(event).items():
                number = self._deliver(given, shard, records)
                if number is not None:
                    held.append(number)
        answer: dict[str, Any] = {
            "batchItemFailures": [{"itemIdentifier": sequence_number(number)} for number in held]
        }
        return answer if forced is None else answer | {"passed_over": dict(given.passed_over)}

    def _deliver(self, given: _Given, shard: str, records: list[Record]) -> Number | None:
        """Deliver records of one shard; return the lowest sequence number that is not settled."""
        done, forced = 0, given.forced
        try:
            chain = given.chain or self._chain(shard, records[0])
            if forced is not None:
                chain, records = chain.forced(forced.name), forced.narrow(records)
            batch = _Batch(given, shard, chain, records)
            while done < len(records):
                last = self._advance(batch, records[done:])
                done = bisect_right(records, last, done, key=_number)
        except (HeldError, UnavailableError) as reason:
            self._telemetry.count("Holds")
            self._telemetry.warning(
                "held", **_about(shard, records[done:]), reason=str(reason), error=type(reason).__name__
            )
        except Exception as error:  # noqa: BLE001 -- whatever it is, what is not settled is delivered again
            self._telemetry.count("UnforeseenErrors")
            self._telemetry.count("Holds")
            self._telemetry.error("held by an unforeseen error", error, **_about(shard, records[done:]))
        return records[done].number if done < len(records) else None

    def _chain(self, shard: str, first: Record) -> ChainId:
        """Return the chain of a shard whose records have just been received."""
        chain = self._shards.chain(shard)
        if first.number < chain.lowest:
            raise HeldError("the records are of a stream that was deleted")
        return chain

    def _advance(self, batch: _Batch, records: Sequence[Record]) -> Number:
        """Settle the span that holds the first record, appending it if there is none; return where it ends."""
        while True:
            first = records[0].number
            gap: Gap | Span
            known = self._ends.get(batch.shard) if batch.forced is None else None
            if known is not None and known[0] == batch.chain and known[1] < first:
                gap = Gap(batch.chain, known[1])
            else:
                gap = self._ledger.locate(batch.chain, first)
            if isinstance(gap, Span):
                if not gap.done:
                    self._take_up(batch, gap)
                if batch.forced is None and not batch.from_archive:
                    self._check_planned(batch, gap)
                return gap.last
            if batch.from_archive and batch.forced is None:
                raise HeldError(
                    "the ledger does not know the span that the archive has: nothing tells what was delivered"
                )
            self._prepare(batch, gap)
            planned = self._plan(batch, records, gap.limit)
            draft = Span(
                chain=gap.chain,
                after=gap.after,
                first=planned.records[0].number,
                last=planned.records[-1].number,
                planned_at=round(self._clock.now() * 1000),
                destinations=planned.destinations,
                cut=self._cut,
                counts=planned.counts,
                records=len(planned.records),
                digest=digest_of([record[0] for record in planned.records]),
                ignored=planned.ignored,
                in_order=batch.forced is None and not batch.given.is_replay,
                archived=self._archived(batch, planned.records),
            )
            won, standing = self._ledger.append(draft)
            self._ends.pop(batch.shard, None)
            if won:
                self._report_passed_over(batch, planned.passed_over)
                self._execute(batch, standing, planned.records, planned.groups, opened=None)
                if gap.chain is batch.chain and batch.forced is None:
                    self._ends[batch.shard] = gap.chain, standing.last
                return standing.last

    def _archived(self, batch: _Batch, records: Sequence[Record]) -> Archived | None:
        """Return how a new span is to be archived; a forced replay's records are in the archive already."""
        if not self._archive_days or batch.forced is not None:
            return None
        arrivals = [record[1] for record in records]
        return Archived(milliseconds(min(arrivals)), milliseconds(max(arrivals)), self._archive_days)

    def _report_passed_over(self, batch: _Batch, passed_over: Mapping[Group, int]) -> None:
        for place, rows in passed_over.items():
            batch.given.passed_over[f"{place.owner.account}/{place.label}"] += rows
            self._telemetry.warning(
                "a forced replay passes over rows that were planned with others that are not delivered",
                account=place.owner.account,
                table=place.label,
                rows=rows,
            )

    def _prepare(self, batch: _Batch, gap: Gap) -> None:
        """Settle what an event source has left behind, and see that it leaves nothing out.

        Raises:
            HeldError: the next span cannot be planned yet.
            UnavailableError: the ledger or the shard is away.
        """
        if gap.behind_open is not None:
            self._take_up(batch, gap.behind_open)  # its records need not be delivered again
        if batch.forced is None and not batch.from_archive:
            self._check_batch(batch)

    def _check_planned(self, batch: _Batch, span: Span) -> None:
        """Check that the batch's records in a span are among those that were planned.

        Raises:
            HeldError: there are others, or it cannot be told.
            ShardUnreadableError: the shard cannot be read.
        """
        place = span.chain.name, span.after
        within = [record for record in batch.records if span.first <= record.number <= span.last]
        may_be_gone = within[0].arrived_at < self._clock.now() - self._rules.held_at_most_seconds
        if not span.digest or place in self._checked or may_be_gone:  # the rest of its span may have expired
            return
        if span.is_whole([record.number for record in within]):
            return
        for _ in range(2):
            read = [
                one.number for one in self._shards.read(batch.shard, span.first, span.last, batch.deadline)
            ]
            if span.is_whole(read):
                break
        else:
            if len(read) > span.records:
                raise self._left_out(len(read) - span.records, span.first, span.last)
            archived = {one.number for one in self._archive.get(span) or ()}
            if not archived.issuperset(one.number for one in within):
                raise HeldError("records of a settled span cannot be read yet")
        if len(self._checked) >= _MOST_CHECKED:
            self._checked.clear()
        self._checked.add(place)

    def _check_batch(self, batch: _Batch) -> None:
        """Check that the shard has no records among the first of a batch but the batch's; now and then, among all of them.

        A lane takes or leaves records by their partition keys, so it leaves out some of the first. Reading all records of every
        batch again would take half of what a shard lets all readers read. A shard that shows nothing at all says nothing: recorded
        events are of another stream.

        Raises:
            HeldError: it has others, or shows the batch's own only in part.
            ShardUnreadableError: the shard cannot be read.
        """
        if batch.is_checked or Guard.CONTIGUOUS in self._rules.without:
            return
        is_due = self._clock.now() >= self._check_due.get(batch.shard, 0.0)
        given = {record.number for record in batch.records[: None if is_due else _CHECK_RECORDS]}
        if len(given) < 2:
            return
        first, last = min(given), max(given)
        for _ in range(2):
            try:
                read = self._shards.read(batch.shard, first, last, batch.deadline, limit=len(given) + 1)
            except NoSuchRecordError:
                return
            numbers = {record.number for record in read}
            if numbers == given:
                batch.is_checked = True
                if is_due:
                    self._check_due[batch.shard] = self._clock.now() + _CHECK_EVERY_SECONDS
                return
        if numbers > given:
            raise self._left_out(len(numbers) - len(given), first, last)
        if numbers:
            raise HeldError("the shard does not show all records of the batch")

    @staticmethod
    def _left_out(count: int, first: Number, last: Number) -> HeldError:
        return HeldError(
            f"the event source passed over {count} records between {sequence_number(first)} and {sequence_number(last)}:"
            " its mapping was changed, `sluice doctor` says how"
        )

    def _plan(self, batch: _Batch, records: Sequence[Record], limit: Number | None) -> Plan:
        """Plan the next span.

        Raises:
            HeldError: the first record must wait.
            LedgerUnavailableError: the ledger cannot be reached.
        """
        ignored: frozenset[Number] = frozenset()
        root: Span | None = None
        if batch.forced is not None:
            root, ignored = self._delivered_before(batch, records)
            records = [record for record in records if record.number <= root.last]
        too_old = self._clock.now() - self._rules.held_at_most_seconds
        answers = self._accounts.resolve(accounts_of(records))
        excess = self._tables.excess if root is None else no_excess
        make = partial(plan, answers=answers, cut=self._cut, limit=limit, too_old=too_old, excess=excess)
        planned = make(records, ignored=ignored)
        if not planned.records:
            raise HeldError("nobody can say where an account's rows go")
        if batch.forced is None and planned.has_claims:
            decided, ignored = self._claims.decide(planned.records, batch.chain)
            if not decided:
                raise HeldError("it cannot be told which copy of an envelope counts")
            planned = make(decided, ignored=ignored)
        return planned if root is None else only_delivered(planned, root)

    def _delivered_before(self, batch: _Batch, records: Sequence[Record]) -> tuple[Span, frozenset[Number]]:
        """Return the span of the shard's own chain that holds the first record, and which records do not count.

        Raises:
            HeldError: it has not been delivered yet, or its records cannot be read.
        """
        span = self._ledger.locate(batch.chain.root, records[0].number)
        if not isinstance(span, Span) or not span.done:
            raise HeldError("rows are being delivered for the first time: force them later")
        if not span.ignored:
            return span, frozenset()
        whole = self._read(batch, span)
        if not span.is_whole([record.number for record in whole]):
            raise HeldError("records of the span cannot be read yet")
        return span, frozenset(whole[place].number for place in span.ignored)

    def _take_up(self, batch: _Batch, span: Span) -> None:
        """Execute an open span that was met again."""
        if batch.deadline.near:
            raise HeldError("the time is up")
        records = self._records_of(batch, span)
        is_whole = span.is_whole([record.number for record in records])
        if not is_whole and not self._has_expired(span):
            if len(records) > span.records:
                raise self._left_out(len(records) - span.records, span.first, span.last)
            raise HeldError("records of an open span cannot be read yet")
        ignored = frozenset(records[place].number for place in span.ignored if is_whole)
        groups = as_planned(group(records, owners_of(records, span.destinations), ignored), span.counts)
        if batch.forced is not None:  # rows that the plan left out
            groups = {place: blocks for place, blocks in groups.items() if place in span.counts}
        self._fence(batch, span, records, groups, is_whole=is_whole)

    def _without_expired(self, span: Span, groups: Groups) -> tuple[dict[ChunkKey, Entry], Groups]:
        """Return the entries for rows whose records have expired, and the groups that can be cut as planned.

        A group that is cut into several chunks, or a chunk of which has been split or settled, can only be cut again from all its
        rows. None can where copies of envelopes do not count: which ones is told by their positions.
        """
        happening = Happening(Event.VANISHED, milliseconds(self._clock.now()))
        changes: dict[ChunkKey, Entry] = {}
        left = dict(groups)
        for place, planned in span.counts.items():
            present = sum(block[1] for block in groups.get(place, ()))
            if present == planned and not span.ignored:
                continue
            expired = ChunkKey(place, EXPIRED)
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
                or span.cut.bytes < MAX_BATCH_BYTES
                or any(entry.state is not State.PENDING for entry in entries.values())
            ):
                left.pop(place, None)
                present = 0
            if not present:
                for key, entry in entries.items():  # their rows are counted once, by `expired`
                    if entry.state is State.PENDING:
                        changes[key] = self._rules.follow(replace(entry, rows=0), happening)
            if rows := planned - present - ended:
                changes[expired] = self._rules.follow(Entry(rows=rows), happening)
        return changes, left

    def end_expired(self, span: Span, deadline: Deadline) -> None:
        """Settle an open span that the stream no longer has: from the archive, or else its rows are missing.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
            ArchiveUnavailableError: the archive cannot be read.
            HeldError: its rows cannot be delivered now.
        """
        if not self._is_over(span):
            return
        if self._archive.get(self._origin(span)) is not None:
            forced = ForcedReplay.parse(span.chain.replay) if span.chain.is_forced else None
            given = _Given(deadline, forced, span.chain.root)
            self._take_up(_Batch(given, span.chain.shard, span.chain, []), span)
            return
        while not span.done:
            expired, _ = self._without_expired(span, {})
            won, standing = self._ledger.update(span.with_entries(expired, done=True))
            if won:
                self._report_expired(span, expired)
            span = standing

    def _has_expired(self, span: Span) -> bool:
        """Tell whether the stream no longer keeps a span's records, by the setting and by what the stream says of itself.

        Raises:
            ShardUnreadableError: Kinesis does not say.
        """
        if Guard.WHOLE_SPAN in self._rules.without:
            return True
        if not self._is_over(span):
            return False
        retention: int = self._shards.summary()["RetentionPeriodHours"] * 3600
        return self._clock.now() - span.planned_at / 1000 > retention

    def _is_over(self, span: Span) -> bool:
        return self._clock.now() - span.planned_at / 1000 > self._rules.retention_seconds

    def _fence(
        self, batch: _Batch, span: Span, records: Sequence[Record], groups: Groups, *, is_whole: bool
    ) -> None:
        """Write the span's version, so that whoever works on it too cannot settle it unnoticed, then execute it."""
        while not span.done:
            expired, left = ({}, groups) if is_whole else self._without_expired(span, groups)
            pending = [
                leaf.key for chunk in planned_chunks(left, span.cut) for leaf in pending_leaves(chunk, span)
            ]
            opened = {key for key in pending if span.entry(key).since is None}
            happening = Happening(Event.FENCED, milliseconds(self._clock.now()))
            fenced = {key: self._rules.follow(span.entry(key), happening) for key in opened}
            won, standing = self._ledger.fence(span.with_entries(expired | fenced))
            if won:
                self._report_expired(span, expired)
                self._execute(batch, standing, records, left, opened)
                return
            span = standing

    def _report_expired(self, before: Span, expired: Mapping[ChunkKey, Entry]) -> None:
        for key, entry in expired.items():
            known = before.entries.get(key)
            if rows := entry.rows - (known.rows if known is not None else 0):
                self._telemetry.count("RowsMissing", rows)
                self._telemetry.error(
                    "planned rows have expired", account=key.account, table=key.group.label, rows=rows
                )

    def _records_of(self, batch: _Batch, span: Span) -> list[Record]:
        """Return a span's records: those at hand, and those before and behind the batch from the shard."""
        within = [record for record in batch.records if span.first <= record.number <= span.last]
        if span.is_whole([record.number for record in within]):
            return within
        if batch.forced is None:
            return self._read(batch, span, within)
        read = self._read(batch, self._origin(span))
        return batch.forced.narrow(one for one in read if span.first <= one.number <= span.last)

    def _origin(self, span: Span) -> Span:
        """Return the span of the shard's own chain whose records a span holds."""
        if not span.chain.is_forced:
            return span
        origin = self._ledger.locate(span.chain.root, span.first)
        return origin if isinstance(origin, Span) else span

    def _read(self, batch: _Batch, span: Span, at_hand: Sequence[Record] = ()) -> list[Record]:
        """Return the records of a span of a shard's own chain, from the stream or the archive, as far as these have them now.

        Raises:
            ShardUnreadableError: the stream cannot be read, and the archive does not have them.
            ArchiveUnavailableError: the stream does not show them, and the archive cannot be read.
        """
        merged = {record.number: record for record in at_hand}
        unreadable: ShardUnreadableError | None = None
        if not batch.from_archive:
            try:
                read = self._shards.read(batch.shard, span.first, span.last, batch.deadline)
            except ShardUnreadableError as error:
                unreadable = error
            else:
                merged = {record.number: record for record in (*read, *at_hand)}
        numbers = sorted(merged)
        if not span.is_whole(numbers):
            archived = self._archive.get(span)
            if archived is not None:
                return archived
            if unreadable is not None:
                raise unreadable
        return [merged[number] for number in numbers]

    def _execute(
        self,
        batch: _Batch,
        span: Span,
        records: Sequence[Record],
        groups: Groups,
        opened: set[ChunkKey] | None,
    ) -> None:
        """Send what is pending of a span.

        Raises:
            HeldError: chunks are still pending.
        """
        began = self._clock.now()
        sources = {chunk.key: chunk for chunk in planned_chunks(groups, span.cut)}
        with Archiving(self._delivery.executors, partial(self._put_in_archive, span, records)) as archiving:
            execution = Execution(
                self._delivery,
                span,
                sources,
                describe=partial(_describe, batch.shard, records),
                report=self._report,
                opened=opened,
                may_close=partial(self._may_close, archiving, records, batch.deadline),
            )
            execution.deliver(
                execution.first_uploads(began, records[0].arrived_at), self._uploader.upload, batch.deadline
            )
        for state, rows in execution.rows.items():
            if state in _METRICS:
                self._telemetry.count(_METRICS[state], rows)
        self._telemetry.info(
            "span",
            shard=batch.shard,
            first=span.first[3:],
            last=span.last[3:],
            records=len(records),
            ignored=len(span.ignored),
            chunks=len(sources),
            seconds=round(self._clock.now() - began, 3),
            **{state.value: rows for state, rows in execution.rows.items()},
        )
        if not execution.span.done:
            if pending := execution.pending():
                raise HeldError(f"chunks are pending: {', '.join(pending)}")
            raise HeldError(f"the archive does not take the records: {archiving.failure}")

    def _put_in_archive(self, span: Span, records: Sequence[Record]) -> None:
        """Write a span's object, unless records of it have expired.

        Raises:
            ArchiveUnavailableError: S3 did not acknowledge it.
        """
        if span.archived is not None and span.is_whole([record.number for record in records]):
            self._archive.put(span, records)

    def _may_close(self, archiving: Archiving, records: Sequence[Record], deadline: Deadline) -> bool:
        """Tell whether a span whose chunks are settled may be done: the archive has its records, or they cannot wait any longer."""
        if archiving.is_done(max(0.0, deadline.left()) + _ARCHIVE_SECONDS):
            return True
        if (
            min(record.arrived_at for record in records)
            >= self._clock.now() - self._rules.held_at_most_seconds
        ):
            return False
        self._telemetry.error("a span is settled without the archive, which does not take its records")
        return True

    def _report(self, key: ChunkKey, entry: Entry) -> None:
        self._telemetry.warning(
            "rows set aside",
            kind=entry.state.value,
            reason=entry.reason,
            account=key.account,
            table=key.group.label,
            rows=entry.rows,
        )


def _chain_of(event: Mapping[str, Any]) -> ChainId:
    """Return the chain of a shard that an event names.

    Raises:
        InvalidReplayError: it names none.
    """
    try:
        chain = ChainId.parse(event["chain"])
    except ValueError as error:
        raise InvalidReplayError(str(error)) from error
    if chain.is_overflow or chain != chain.root:
        raise InvalidReplayError(f"{chain.name!r} is not the chain of a shard")
    return chain


def _describe(shard: str, records: Sequence[Record], span: Span, chunk: Chunk) -> SetAside:
    """Return the object of a planned chunk."""
    group, blocks = chunk.key.group, {id(block) for block in chunk.blocks}
    sources = [
        record
        for record in records
        if any(id(block) in blocks for block in (*record.blocks, *record.refused))
        or (group.is_gathered and record.account == group.owner.account)
    ]
    arrivals = [milliseconds(record.arrived_at) for record in sources]
    return SetAside(
        account=chunk.key.account,
        table=group.label,
        rows=chunk.count,
        payload_form=_form(group),
        shard=shard,
        sequence_numbers=() if group.is_gathered else tuple(sequence_number(one.number) for one in sources),
        first_seen=min(arrivals),
        last_seen=max(arrivals),
        chain=span.chain.name,
        after=span.after,
        chunk=chunk.key.name,
        object_id=span.object_id(chunk.key),
        payload=chunk.payload(),
    )


def _form(group: Group) -> str:
    if group.is_rejected:
        return "rejected"
    if group.is_gathered:
        return "tables"
    return "original" if group.code else "rows"


def _about(shard: str, records: Sequence[Record]) -> dict[str, Any]:
    return {
        "shard": shard,
        "sequence_number": sequence_number(records[0].number) if records else "",
        "records": len(records),
    }


@contextmanager
def _no_cyclic_gc() -> Iterator[None]:
    """Disable the cyclic GC while a batch is processed: its tuples form no cycles, and scanning them doubles the CPU time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
