"""Delivers batches of stream records: decode them, find or plan the span that holds the first one, execute it, repeat to the end.

The conditional put that appends a span to its shard's chain fixes the span's borders, each account's database, and the cut into
chunks. From then on every invocation executes that plan. docs/delivery.md explains why each step is needed.
"""

import gc
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from operator import itemgetter
from typing import Any

from shared.errors import HeldError, UnavailableError
from worker.account_cache import AccountCache
from worker.archive import Archive, Archiving
from worker.batch import ShardBatch, Terms, Work
from worker.chain import ChainId
from worker.chunk import Chunk, planned_chunks
from worker.claims import Claims
from worker.contiguity import Contiguity
from worker.deadline import Deadline
from worker.delivery import State
from worker.execution import Delivery, Execution
from worker.forced_replay import ForcedReplay
from worker.ledger import Gap
from worker.open_spans import OpenSpans
from worker.plan import Plan, only_delivered, plan
from worker.record import DIGITS, NOBODY, Number, Record, from_event, sequence_number
from worker.set_aside import SetAside
from worker.shards import Shards
from worker.span import Cut, Group, Span, milliseconds
from worker.tables import Tables
from worker.upload import Uploader

_number = itemgetter(0)
_METRICS = {
    State.PARKED: "RowsParked",
    State.IN_DOUBT: "RowsInDoubt",
    State.DEAD_LETTER: "RowsDeadLettered",
}


def _without_cyclic_gc[**P, R](run: Callable[P, R]) -> Callable[P, R]:
    """Disable the cyclic GC while a batch is processed: its tuples form no cycles, and scanning them doubles the CPU time."""

    @wraps(run)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return run(*args, **kwargs)
        finally:
            if was_enabled:
                gc.enable()

    return wrapper


class Worker:
    """Delivers batches.

    Args:
        archive_days: how many days the archive keeps records; 0 turns it off.
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
        contiguity: Contiguity,
        open_spans: OpenSpans,
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
        self._contiguity = contiguity
        self._open_spans = open_spans
        self._ledger = delivery.ledger
        self._rules = delivery.rules
        self._clock = delivery.clock
        self._telemetry = delivery.telemetry
        self._ends: dict[str, Gap] = {}  # ends of chains by shard, as this function instance left them

    @_without_cyclic_gc
    def run(self, event: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Deliver the records of one invocation; return Lambda's partial batch response.

        For a forced replay the response also has `passed_over`: by account and table, how many rows the replay skips because other
        rows that were planned with them have not been delivered.

        Args:
            event: Lambda's event, with records of the stream. A replay adds `replay`. A forced replay, which resends rows whatever
                the ledger says, adds `forced`. A replay from the archive adds `chain`, the shard's chain.
            deadline: after it, nothing may be sent; it leaves time to settle.

        Raises:
            InvalidReplayError: `forced` or `chain` is invalid.
        """
        terms = Terms.from_event(event, deadline)
        held = []
        for shard, records in from_event(event).items():
            number = self._deliver(terms, shard, records)
            if number is not None:
                held.append(number)
        answer: dict[str, Any] = {
            "batchItemFailures": [{"itemIdentifier": sequence_number(number)} for number in held]
        }
        return answer if terms.forced is None else answer | {"passed_over": dict(terms.passed_over)}

    def _deliver(self, terms: Terms, shard: str, records: list[Record]) -> Number | None:
        """Deliver records of one shard; return the lowest sequence number that is not settled."""
        done, forced = 0, terms.forced
        try:
            chain = terms.from_archive or self._chain(shard, records[0])
            if forced is not None:
                chain, records = chain.forced(forced.name), forced.narrow(records)
            batch = ShardBatch(terms, shard, chain, records)
            while done < len(records):
                last = self._advance(batch, records[done:])
                done = bisect_right(records, last, done, key=_number)
        except (HeldError, UnavailableError) as reason:
            self._telemetry.count("Holds")
            self._telemetry.warning(
                "held", **_about(shard, records[done:]), reason=str(reason), error=type(reason).__name__
            )
        except Exception as error:  # noqa: BLE001 -- whatever went wrong, Lambda redelivers the records that are not settled
            self._telemetry.count("UnforeseenErrors")
            self._telemetry.count("Holds")
            self._telemetry.error("held by an unforeseen error", error, **_about(shard, records[done:]))
        return records[done].number if done < len(records) else None

    def _chain(self, shard: str, first: Record) -> ChainId:
        """Return the chain of a shard whose records have just been received."""
        chain = self._shards.chain(shard)
        if first.number < chain.lowest:
            raise HeldError("the records come from a stream that was deleted")
        return chain

    def _advance(self, batch: ShardBatch, records: Sequence[Record]) -> Number:
        """Settle the span that holds the first record, and append it if there is none; return the span's last sequence number."""
        while True:
            found = self._locate(batch, records[0].number)
            if isinstance(found, Span):
                if not found.done:
                    self._take_up(batch, found)
                if batch.terms.is_stretch:
                    self._contiguity.check_span(batch, found)
                return found.last
            if batch.terms.from_archive and batch.terms.forced is None:
                raise HeldError(
                    "the ledger has no span for these archived records, so it does not show whether they were delivered"
                )
            if found.open_before is not None:
                self._take_up(batch, found.open_before)  # the event source may not deliver its records again
            planned = self._plan(batch, records, found.limit)
            is_forced = batch.terms.forced is not None
            span = planned.span(
                found.chain,
                found.after,
                self._clock.now(),
                archive_days=0 if is_forced else self._archive_days,  # they are archived already
                in_order=not is_forced and not batch.terms.is_replay,
            )
            won, current = self._ledger.append(span)
            self._ends.pop(batch.shard, None)
            if won:
                self._report_passed_over(batch, planned.passed_over)
                self._execute(batch, Work(current, planned.records, planned.groups))
                if found.chain == batch.chain and not is_forced:
                    self._ends[batch.shard] = Gap(found.chain, current.last)
                return current.last

    def _locate(self, batch: ShardBatch, first: Number) -> Gap | Span:
        """Return the span that holds a record, or where to append one."""
        end = self._ends.get(batch.shard)
        if end is not None and end.chain == batch.chain and end.after < first:
            return end
        return self._ledger.locate(batch.chain, first)

    def _report_passed_over(self, batch: ShardBatch, passed_over: Mapping[Group, int]) -> None:
        for group, rows in passed_over.items():
            batch.terms.passed_over[f"{group.owner.account}/{group.label}"] += rows
            self._telemetry.warning(
                "a forced replay skips rows: others that were planned with them have not been delivered",
                account=group.owner.account,
                table=group.label,
                rows=rows,
            )

    def _plan(self, batch: ShardBatch, records: Sequence[Record], limit: Number | None) -> Plan:
        """Plan the next span.

        Raises:
            HeldError: the batch lacks records of the shard, or the first one must wait.
        """
        if batch.terms.is_stretch and len(batch.records) > 1:  # a single record has no gaps to check
            self._contiguity.check_batch(batch)
        ignored: frozenset[Number] = frozenset()
        root: Span | None = None
        if batch.terms.forced is not None:
            root, ignored = self._delivered_before(batch, records)
            records = [record for record in records if record.number <= root.last]
        too_old = partial(self._rules.is_held_too_long, now=self._clock.now())
        accounts = dict.fromkeys([record.account for record in records if record.account != NOBODY])
        answers = self._accounts.resolve(accounts)
        excess = self._tables.excess if root is None else None
        make = partial(plan, answers=answers, cut=self._cut, limit=limit, is_too_old=too_old, excess=excess)
        planned = make(records, ignored=ignored)
        if not planned.records:
            raise HeldError(HeldError.UNKNOWN_ACCOUNT)
        if batch.terms.forced is None and planned.has_claims:
            decided, ignored = self._claims.decide(planned.records, batch.chain)
            if not decided:
                raise HeldError("the ledger does not say which copy of an envelope counts")
            planned = make(decided, ignored=ignored)
        return planned if root is None else only_delivered(planned, root)

    def _delivered_before(
        self, batch: ShardBatch, records: Sequence[Record]
    ) -> tuple[Span, frozenset[Number]]:
        """Return the span of the shard's own chain that holds the first record, and the records of it that do not count.

        Raises:
            HeldError: the span is not settled, or its records cannot be read now.
        """
        span = self._ledger.locate(batch.chain.root, records[0].number)
        if not isinstance(span, Span) or not span.done:
            raise HeldError("rows are still being delivered for the first time: force the replay later")
        if not span.ignored:
            return span, frozenset()
        whole = self._open_spans.read(batch, span)
        if not span.is_whole([record.number for record in whole]):
            raise HeldError("records of the span cannot be read yet")
        return span, frozenset(whole[position].number for position in span.ignored)

    def _take_up(self, batch: ShardBatch, span: Span) -> None:
        """Execute an open span of an earlier invocation."""
        if (work := self._open_spans.take_up(batch, span)) is not None:
            self._execute(batch, work)

    def end_expired(self, span: Span, deadline: Deadline) -> None:
        """Settle an open span whose records have expired: deliver them from the archive, or record their rows as missing.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
            BucketUnavailableError: the archive cannot be read.
            HeldError: its rows cannot be delivered now.
        """
        if not self._open_spans.is_over(span):
            return
        if self._archive.get(self._open_spans.origin(span)) is None:
            self._open_spans.settle_missing(span)
            return
        forced = ForcedReplay.parse(span.chain.replay) if span.chain.is_forced else None
        self._take_up(
            ShardBatch(Terms(deadline, forced, span.chain.root), span.chain.shard, span.chain, []), span
        )

    def _execute(self, batch: ShardBatch, work: Work) -> None:
        """Send the pending chunks of a span.

        Raises:
            HeldError: chunks are still pending, or the archive does not have the records.
        """
        span, records = work.span, work.records
        began = self._clock.now()
        sources = {chunk.key: chunk for chunk in planned_chunks(work.groups, span.cut)}
        with self._delivery.executors() as executor:
            archiving = Archiving(self._archive, self._delivery, executor, work, batch.terms.deadline)
            executor.submit(archiving.put)
            execution = Execution(
                self._delivery,
                span,
                sources,
                describe=partial(_describe, batch.shard, records),
                report=self._delivery.report_set_aside,
                opened=work.opened,
                oldest=records[0].arrived_at if records else 0.0,
                may_close=archiving.may_close,
            )
            execution.deliver(self._uploader.upload, batch.terms.deadline)
        for state, rows in execution.rows.items():
            if state in _METRICS:
                self._telemetry.count(_METRICS[state], rows)
        self._telemetry.info(
            "span",
            shard=batch.shard,
            first=span.first[DIGITS],
            last=span.last[DIGITS],
            records=len(records),
            ignored=len(span.ignored),
            chunks=len(sources),
            seconds=round(self._clock.now() - began, 3),
            **{state.value: rows for state, rows in execution.rows.items()},
        )
        if not execution.span.done:
            if pending := execution.pending():
                raise HeldError(f"{HeldError.CHUNKS_PENDING}{', '.join(pending)}")
            raise HeldError(f"{HeldError.NOT_ARCHIVED}: {archiving.failure}")


def _describe(shard: str, records: Sequence[Record], span: Span, chunk: Chunk) -> SetAside:
    """Return the set-aside object of a planned chunk."""
    group, blocks = chunk.key.group, {id(block) for block in chunk.blocks}
    sources = [
        record
        for record in records
        if any(id(block) in blocks for block in (*record.blocks, *record.refused))
        or (group.is_gathered and record.account == group.owner.account)
    ]
    numbers = () if group.is_gathered else [sequence_number(one.number) for one in sources]
    return SetAside.of(span, chunk, [milliseconds(one.arrived_at) for one in sources], shard, numbers)


def _about(shard: str, records: Sequence[Record]) -> dict[str, Any]:
    return {
        "shard": shard,
        "sequence_number": sequence_number(records[0].number) if records else "",
        "records": len(records),
    }
