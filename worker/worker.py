"""Takes batches of stream records: locate them, claim them, store their chunks, append the span, send, settle.

The rows are in S3 before the conditional put that appends a span to its shard's chain. From then on the stream may move on, whatever
becomes of the rows: whoever sends them reads them in S3. docs/internals/delivery.md explains why each step is needed.
"""

import gc
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from itertools import batched
from typing import Any, NamedTuple

from shared.accounts import Account
from shared.clock import Clock
from shared.errors import BucketUnavailableError, HeldError, UnavailableError
from shared.telemetry import Telemetry, about
from worker import rejected_events
from worker.account_cache import AccountCache
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.claims import Claims, Decided
from worker.deadline import Deadline
from worker.executor import Executor, Executors, run_parallel
from worker.health import WORKER_PROBE_SECONDS, DatabaseHealth
from worker.ledger import ClaimsRefused, Gap, Ledger
from worker.membership import BORDERS, Membership
from worker.plan import Cut, Plan, plan
from worker.record import DIGITS, NOBODY, START, Number, Records, from_event, sequence_number
from worker.restored import RestoreGuard
from worker.settlement import Settlement, report_dead
from worker.shards import Shards
from worker.span import ChunkKey, Database, Group, Place, Span, milliseconds
from worker.span_object import SpanObjects, encode
from worker.states import State
from worker.tables import Tables
from worker.upload import Upload, Uploader

SEND_SECONDS = 5.0
"""No send begins later than this after its span was planned. What is left then waits for the sender."""
_TRIES = 5  # to append a span whose claims others take meanwhile
_PROBES_AT_ONCE = 16  # of failing databases; as many answer at least before more are sent
_PROBING_SECONDS = 2.0  # after which no more probes begin


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


class _Appended(NamedTuple):
    """A span that this invocation has appended, with the import bodies of its chunks."""

    span: Span
    bodies: Mapping[ChunkKey, bytes]


@dataclass(slots=True)
class _Batch:
    """Records of one shard, as Lambda or a replay delivered them.

    Attributes:
        done: how many of them are in a span.
        executor: runs puts to S3.
    """

    shard: str
    chain: ChainId
    records: Records
    numbers: Sequence[Number]
    executor: Executor
    done: int = 0

    def about(self) -> dict[str, Any]:
        """Return what a log line says about the records that are in no span yet."""
        rest = self.numbers[self.done :]
        number = sequence_number(rest[0]) if rest else ""
        return {"shard": self.shard, "sequence_number": number, "records": len(rest)}


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
    # ends of chains by shard, as this function instance left them
    _ends: dict[str, Gap] = field(default_factory=dict, init=False)
    _noted: set[ChainId] = field(default_factory=set, init=False)  # chains that the ledger lists

    @_without_cyclic_gc
    def run(self, event: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Take the records of one invocation; return Lambda's partial batch response.

        Args:
            event: Lambda's event, with records of the stream. A replay adds `replay`.
            deadline: after it, nothing may be sent; it leaves time to settle.
        """
        held = []
        for shard, records in from_event(event).items():
            number = self._take(shard, records, deadline, is_live="replay" not in event)
            if number is not None:
                held.append(number)
        return {"batchItemFailures": [{"itemIdentifier": sequence_number(number)} for number in held]}

    def _take(self, shard: str, records: Records, deadline: Deadline, *, is_live: bool) -> Number | None:
        """Take records of one shard; return the lowest sequence number that is in no span yet."""
        numbers = records.numbers
        appended: list[_Appended] = []
        with self._executors() as executor:
            batch = _Batch(shard, ChainId("", "", shard), records, numbers, executor)
            try:
                if self._guard.check():
                    self._ends.clear()
                    self._noted.clear()
                batch.chain = self._chain(shard, numbers[0])
                if not is_live:
                    batch.records = self._passed(batch)
                while batch.done < len(batch.records):
                    appended += self._advance(batch, deadline)
            except (HeldError, UnavailableError) as reason:
                self._telemetry.count("Holds")
                self._telemetry.warning(
                    "held", **batch.about(), reason=str(reason), error=type(reason).__name__
                )
            except Exception as error:  # noqa: BLE001 -- whatever went wrong, Lambda delivers again the records that are in no span
                self._telemetry.count("UnforeseenErrors")
                self._telemetry.count("Holds")
                self._telemetry.error("held by an unforeseen error", error, **batch.about())
            for one in appended:
                with about(span=one.span.place.name):
                    self._send(one, deadline)
        return numbers[batch.done] if batch.done < len(records) else None

    def _chain(self, shard: str, first: Number) -> ChainId:
        """Return the chain of a shard whose records have just been received."""
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
        if batch.numbers[-1] > last:
            has_gone_on = any(map(self._ledger.end, self._shards.descendants(batch.chain)))
            if has_gone_on and self._ledger.close(batch.chain):
                return batch.records
        return batch.records[: bisect_right(batch.numbers, last)]

    def _advance(self, batch: _Batch, deadline: Deadline) -> list[_Appended]:
        """Skip the records that are in the next one's span, or append a span for records that are in none."""
        if deadline.near:
            raise HeldError(HeldError.NO_TIME)
        records = batch.records[batch.done :]
        found = self._locate(batch, records.numbers[0])
        if isinstance(found, Span):
            members = self._membership.numbers(found, batch.numbers)
            batch.done += next(
                (n for n, one in enumerate(records.numbers) if one not in members), len(records)
            )
            return []
        if found.limit is not None:
            records = records[: bisect_left(records.numbers, found.limit)]
        with about(span=Place(found.chain, found.after).name):
            return self._plan_and_append(batch, found, records)

    def _plan_and_append(self, batch: _Batch, found: Gap, records: Records) -> list[_Appended]:
        for _ in range(_TRIES):
            decided = self._claims.decide(records, found, batch.chain)
            planned = self._plan(decided)
            answer = self._append(batch, found, decided, planned)
            if not isinstance(answer, ClaimsRefused):
                break
        else:
            raise HeldError(HeldError.UNDECIDED_COPY)
        if answer is None:
            return []  # another invocation has appended one; the records may be in it
        batch.done += len(planned.records)
        if found.chain == batch.chain:
            self._ends[batch.shard] = Gap(found.chain, answer.span.last, latest=answer.span.latest)
        return [answer]

    def _locate(self, batch: _Batch, first: Number) -> Gap | Span:
        """Return the span that has a record, or where to append one."""
        end = self._ends.get(batch.shard)
        if end is not None and end.chain == batch.chain and end.after < first:
            return end
        return self._membership.locate(batch.chain, first, batch.numbers)

    def _plan(self, decided: Decided) -> Plan:
        accounts = dict.fromkeys(decided.records.accounts)
        answers = self._accounts.resolve([account for account in accounts if account != NOBODY])
        self._probe({answer.database for answer in answers.values() if isinstance(answer, Account)})
        return plan(
            decided.records,
            answers,
            self._cut,
            uncounted=decided.uncounted,
            claimed=decided.claimed,
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

    def _append(
        self, batch: _Batch, gap: Gap, decided: Decided, planned: Plan
    ) -> _Appended | ClaimsRefused | None:
        """Store the chunks, then append their span; return None if another span is in its place.

        Raises:
            BucketUnavailableError: S3 does not take the object.
            LedgerUnavailableError: the ledger cannot be reached.
        """
        now = self._clock.now()
        kept = frozenset(planned.index.numbers if decided.owners or decided.with_append else ())
        span = Span(
            chain=gap.chain,
            after=gap.after,
            first=planned.index.numbers[0],
            last=planned.index.numbers[-1],
            planned_at=milliseconds(now),
            chunks=planned.counts,
            destinations=planned.destinations,
            records=len(planned.records),
            digest=planned.digest,
            earliest=planned.earliest,
            latest=max(gap.latest, planned.latest),
            received_at=planned.received_at,
            copies={
                request_id: owner
                for number, (request_id, owner) in decided.owners.items()
                if number in kept and (owner.chain != batch.chain or owner.number not in kept)
            },
        )
        bodies: Mapping[ChunkKey, bytes] = {}
        if span.chunks or span.records > len(BORDERS):
            index = replace(
                planned.index,
                after=span.after,
                planned_at=span.planned_at,
                destinations={sender.name: to.text for sender, to in span.destinations.items()},
            )
            encoded = encode(planned.chunks, index, now)
            span, bodies = replace(span, object=encoded.ref), encoded.bodies
            self._objects.put(span, encoded.data, batch.executor)
        jobs = [
            partial(self._keep, span, group, events)
            for group, (_, _, events) in planned.rejected.items()
            if events
        ]
        run_parallel(self._executors, jobs)
        if all(entry.since is None for _, entry in span.all_leaves()):  # it has nothing to send now
            span = span.with_entries({}, settled=True)
        if batch.chain not in self._noted:
            # its spans must be found even when the stream no longer lists the shard
            self._ledger.note_chain(batch.chain)
            self._noted.add(batch.chain)
        claims = {one: claim for one, claim in decided.with_append.items() if claim.owner.number in kept}
        answer = self._ledger.append(span, claims, self._claims.seconds_kept() if claims else 0)
        self._ends.pop(batch.shard, None)
        if isinstance(answer, ClaimsRefused):
            return answer
        won, current = answer
        if not won:
            return None
        for key, entry in current.all_leaves():
            if entry.state is State.DEAD:
                report_dead(self._telemetry, current, key, entry)
        return _Appended(current, bodies)

    def _keep(self, span: Span, group: Group, events: bytes) -> bool:
        """Store rejected events. If S3 does not take them, they are only counted: nobody else's rows wait for them."""
        try:
            rejected_events.put(self._bucket, span, group, events)
        except BucketUnavailableError:
            self._telemetry.warning("rejected events are not kept", account=group.sender.account)
        return True

    def _send(self, appended: _Appended, deadline: Deadline) -> None:
        """Send the chunks that have a database, and settle the span. If anything fails, the sender finds the span."""
        span, began = appended.span, self._clock.now()
        uploads = [
            Upload(key, to.name, span.unique_id(key, to.name), appended.bodies[key])
            for key, entry in span.all_leaves()
            if entry.since is not None and isinstance(to := span.destination(key), Database)
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
            first=span.first[DIGITS],
            last=span.last[DIGITS],
            records=span.records,
            chunks=len(span.chunks),
            waiting=waiting,
            seconds=round(self._clock.now() - began, 3),
        )
