"""Takes batches of stream records: locate them, claim them, store their chunks, append the span, send, settle.

The rows are in S3 before the conditional put that appends a span to its shard's chain. From then on the stream may move on, whatever
becomes of the rows: whoever sends them reads them in S3. docs/internals/delivery.md explains why each step is needed.
"""

import gc
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import batched
from typing import Any

from shared.accounts import Account
from shared.clock import Clock
from shared.errors import BucketUnavailableError, HeldError, UnavailableError
from shared.telemetry import Telemetry, about
from worker.account_cache import AccountCache
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.claims import Claims, Decided
from worker.deadline import Deadline
from worker.executor import Executor, Executors, run_parallel
from worker.health import WORKER_PROBE_SECONDS, DatabaseHealth
from worker.ledger import Gap, Ledger
from worker.membership import BORDERS, Membership
from worker.plan import Cut, Plan, plan
from worker.record import NOBODY, START, Number, Records, from_event, sequence_number
from worker.rejected_events import name_of
from worker.restored import RestoreGuard
from worker.rows import compress
from worker.settlement import Settlement, report_dead
from worker.shards import Shards
from worker.span import ChunkKey, Group, Place, Span
from worker.span_object import SpanObjects, encode
from worker.states import State
from worker.tables import Tables
from worker.upload import Upload, Uploader

SEND_SECONDS = 5.0
"""No send begins later than this after its span was planned. What is left then waits for the sender."""
_TRIES = 5  # to append a span whose claims others take meanwhile
_PROBES_AT_ONCE = 16  # of failing databases; as many answer at least before more are sent
_PROBING_SECONDS = 2.0  # after which no more probes begin
_KEEPING_SECONDS = 2.0  # after which no more puts of rejected events begin


@dataclass(slots=True)
class _Batch:
    """Records of one shard, as Lambda or a replay delivered them.

    Attributes:
        executor: runs puts to S3.
        done: how many of them are in a span.
        appended: the spans that this invocation has appended, with the import bodies of their chunks.
    """

    chain: ChainId
    records: Records
    executor: Executor
    done: int = 0
    appended: list[tuple[Span, Mapping[ChunkKey, bytes]]] = field(default_factory=list)

    def about(self) -> dict[str, Any]:
        """Return what a log line says about the records that are in no span yet."""
        rest = self.records.numbers[self.done :]
        number = sequence_number(rest[0]) if rest else ""
        return {"shard": self.chain.shard, "sequence_number": number, "records": len(rest)}


@dataclass(eq=False)
class Worker:
    """Takes batches."""

    _shards: Shards
    _accounts: AccountCache
    _claims: Claims
    _membership: Membership
    _tables: Tables
    _uploader: Uploader
    _health: DatabaseHealth
    _ledger: Ledger
    _objects: SpanObjects
    _bucket: Bucket
    _guard: RestoreGuard
    _settlement: Settlement
    _executors: Executors
    _clock: Clock
    _telemetry: Telemetry
    _cut: Cut
    # ends of chains, as this function instance left them
    _ends: dict[ChainId, Gap] = field(default_factory=dict, init=False)
    _noted: set[ChainId] = field(default_factory=set, init=False)  # chains that the ledger lists

    def run(self, event: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Take the records of one invocation; return Lambda's partial batch response.

        The event is Lambda's, with records of the stream; a replay adds `replay`. After the deadline, nothing may be sent; it leaves time to settle.
        """
        was_enabled, is_live = gc.isenabled(), "replay" not in event
        gc.disable()  # a batch's tuples form no cycles, and scanning them doubles the CPU time
        try:
            shards = from_event(event).items()
            taken = [self._take(shard, records, deadline, is_live=is_live) for shard, records in shards]
        finally:
            if was_enabled:
                gc.enable()
        held = [sequence_number(number) for number in taken if number is not None]
        return {"batchItemFailures": [{"itemIdentifier": number} for number in held]}

    def _take(self, shard: str, records: Records, deadline: Deadline, *, is_live: bool) -> Number | None:
        """Take records of one shard; return the lowest sequence number that is in no span yet."""
        with self._executors() as executor:
            batch = _Batch(ChainId("", "", shard), records, executor)
            try:
                if self._guard.check():
                    self._ends.clear()
                    self._noted.clear()
                batch.chain = self._chain(shard, records.numbers[0])
                if not is_live:
                    batch.records = self._passed(batch)
                while batch.done < len(batch.records):
                    self._advance(batch, deadline)
            except (HeldError, UnavailableError) as reason:
                self._telemetry.count("Holds")
                self._telemetry.warning(
                    "held", **batch.about(), reason=str(reason), error=type(reason).__name__
                )
            except Exception as error:  # noqa: BLE001 -- whatever went wrong, Lambda delivers again the records that are in no span
                self._telemetry.count("Holds")
                self._telemetry.unforeseen("held by an unforeseen error", error, **batch.about())
            for span, bodies in batch.appended:
                with about(span=span.place.name):
                    self._send(span, bodies, deadline)
        return records.numbers[batch.done] if batch.done < len(records) else None

    def _chain(self, shard: str, first: Number) -> ChainId:
        chain = self._shards.chain(shard)
        if first < chain.lowest:
            raise HeldError(HeldError.DELETED_STREAM)
        return chain

    def _passed(self, batch: _Batch) -> Records:
        """Return the records that are not behind the end of their chain: a replay fills gaps, and the event source alone goes on.

        Otherwise a shard would seem to have passed what the event source still holds. If it has gone on to a child, it has passed over what
        it left of a closed shard, where no later record shows the gap: then this ends the chain.
        """
        end = self._ledger.end(batch.chain)
        last = START if end is None else end.last
        if batch.records.numbers[-1] > last:
            has_gone_on = any(map(self._ledger.end, self._shards.descendants(batch.chain)))
            if has_gone_on and self._ledger.close(batch.chain):
                return batch.records
        return batch.records[: bisect_right(batch.records.numbers, last)]

    def _advance(self, batch: _Batch, deadline: Deadline) -> None:
        """Skip the records that are in the next one's span, or append a span for records that are in none."""
        if deadline.near:
            raise HeldError(HeldError.NO_TIME)
        records = batch.records[batch.done :]
        found: Gap | Span | None = self._ends.get(batch.chain)
        if found is None or found.after >= records.numbers[0]:
            found = self._membership.locate(batch.chain, records.numbers[0], batch.records.numbers)
        if isinstance(found, Span):
            members = self._membership.numbers(found, batch.records.numbers)
            batch.done += next(
                (n for n, one in enumerate(records.numbers) if one not in members), len(records)
            )
            return
        if found.limit is not None:
            records = records[: bisect_left(records.numbers, found.limit)]
        with about(span=Place(found.chain, found.after).name):
            self._append(batch, found, records)

    def _append(self, batch: _Batch, gap: Gap, records: Records) -> None:
        """Claim records, as many as fit into one span, store their chunks, and append the span, unless another has taken its place.

        This raises HeldError if the first record cannot be decided now.
        """
        for _ in range(_TRIES):
            planned = self._plan(self._claims.decide(records, gap), gap)
            span, bodies = self._store(planned, batch.executor)
            if batch.chain not in self._noted:
                # its spans must be found even when the stream no longer lists the shard
                self._ledger.note_chain(batch.chain)
                self._noted.add(batch.chain)
            if planned.claims:
                answer = self._ledger.append_with(span, planned.claims, self._claims.seconds_kept())
            else:
                answer = self._ledger.append(span)
            self._ends.pop(batch.chain, None)
            if answer is not None:
                break
        else:
            raise HeldError(HeldError.UNDECIDED_COPY)
        won, span = answer
        if not won:
            return  # another invocation has appended one; the records may be in it
        for key, entry in span.all_leaves():
            if entry.state is State.DEAD:
                report_dead(self._telemetry, span, key, entry)
        batch.appended.append((span, bodies))
        batch.done += span.records
        if gap.chain == batch.chain:
            self._ends[batch.chain] = Gap(gap.chain, span.last, latest=span.latest)

    def _plan(self, decided: Decided, gap: Gap) -> Plan:
        accounts = dict.fromkeys(decided.records.accounts)
        answers = self._accounts.resolve([account for account in accounts if account != NOBODY])
        self._probe({answer.database for answer in answers.values() if isinstance(answer, Account)})
        return plan(
            decided,
            gap,
            answers,
            self._cut,
            self._clock.now(),
            failing=self._health.reason,
            excess=self._tables.excess,
        )

    def _probe(self, databases: Iterable[str]) -> None:
        """Probe failing databases that are due, a few at once, and more for a moment if all of them answer."""
        until = self._clock.now() + _PROBING_SECONDS
        for some in batched(self._health.due(databases), _PROBES_AT_ONCE, strict=False):
            probes = [partial(self._health.probe, database, WORKER_PROBE_SECONDS) for database in some]
            if any(run_parallel(self._executors, probes)) or self._clock.now() >= until:
                return

    def _store(self, planned: Plan, executor: Executor) -> tuple[Span, Mapping[ChunkKey, bytes]]:
        """Store the chunks and rejected events of a planned span; return the span with its object, and the chunks' import bodies."""
        span, bodies = planned.span, dict[ChunkKey, bytes]()
        if span.chunks or span.records > BORDERS:
            data, ref, bodies = encode(planned.chunks, planned.index, span.planned_at / 1000)
            span = replace(span, object=ref)
            self._objects.put(span, data, executor)
        begin_by = self._clock.now() + _KEEPING_SECONDS
        jobs = [partial(self._keep, span, begin_by, *one) for one in planned.rejected.items()]
        run_parallel(self._executors, jobs)
        return span, bodies

    def _keep(self, span: Span, begin_by: float, group: Group, events: bytes) -> None:
        """Store rejected events. If S3 does not take them, or others for so long, they are only counted: nobody else's rows wait for them."""
        if self._clock.now() < begin_by:
            with suppress(BucketUnavailableError):
                self._bucket.put(name_of(span, group), compress(events))
                return
        self._telemetry.warning("rejected events are not kept", account=group.sender.account)

    def _send(self, span: Span, bodies: Mapping[ChunkKey, bytes], deadline: Deadline) -> None:
        """Send the chunks that have a database, and settle the span. If anything fails, the sender finds the span."""
        began = self._clock.now()
        uploads = [
            Upload(key, to, span.unique_id(key, to), bodies[key])
            for key, entry in span.all_leaves()
            if entry.since is not None and (to := span.destination(key).database)
        ]
        begin_by = Deadline(self._clock, min(span.planned_at / 1000 + SEND_SECONDS, deadline.at))
        try:
            if uploads:
                outcomes = self._uploader.upload(uploads, begin_by, deadline)
                span = self._settlement.settle(span, {upload.key for upload in uploads}, outcomes)
        except UnavailableError as error:
            self._telemetry.warning("a span is not settled", error=type(error).__name__)
        leaves = span.all_leaves()
        waiting = sum(span.rows(key) for key, entry in leaves if entry.state is State.WAITING)
        if waiting:
            self._telemetry.count("RowsWaiting", waiting)
        elif not uploads:
            return
        self._telemetry.info(
            "span",
            first=sequence_number(span.first),
            last=sequence_number(span.last),
            records=span.records,
            chunks=len(span.chunks),
            waiting=waiting,
            seconds=round(self._clock.now() - began, 3),
        )
