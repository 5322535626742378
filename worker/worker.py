"""A batch's way: decode, ask the ledger what is planned, plan one span, upload its chunks, settle the span.

Borders, accounts and databases are decided once, by the conditional put that appends a span to its shard's chain;
from then on everybody only carries out that plan. docs/delivery.md says why each step is needed.
"""

import gc
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

from worker.accounts import Directory
from worker.aside import AsideUnavailableError
from worker.chunk import Groups, chunks, group
from worker.deadline import Deadline
from worker.execution import Execution, HeldError, Means, Work
from worker.executor import all_of
from worker.forced import Forced
from worker.ledger import LedgerUnavailableError
from worker.plan import Plan, accounts_of, owners_of, plan
from worker.record import START, Number, Record, from_event, sequence_number
from worker.shard import Shards, ShardUnreadableError
from worker.span import Span

_number = itemgetter(0)


@dataclass(slots=True)
class _Batch:
    """Records of one shard, as they were delivered."""

    shard: str
    records: list[Record]
    deadline: Deadline
    forced: Forced | None = None
    claims: dict[str, bool] = field(default_factory=dict)


class Worker:
    """Carries out batches.

    Args:
        shards: the stream.
        directory: accounts.
        means: what plans are carried out with.
    """

    def __init__(self, shards: Shards, directory: Directory, means: Means) -> None:
        self._shards = shards
        self._directory = directory
        self._means = means
        self._ledger = means.ledger
        self._executors = means.executors
        self._rules = means.rules
        self._clock = means.clock
        self._journal = means.journal
        self._ends: dict[str, Number] = {}

    def run(self, event: Mapping[str, Any], remaining_ms: float) -> dict[str, Any]:
        """Carry out one invocation; return Lambda's partial batch response.

        Args:
            event: Lambda's, with records of the stream; with `forced` where they are to be sent again whatever the
                ledger says.
            remaining_ms: until the invocation times out.

        Raises:
            InvalidReplayError: what is `forced` cannot be done.
        """
        deadline = Deadline.of(self._clock, remaining_ms)
        forced = Forced.from_event(event)
        held = []
        with _uncollected():
            for shard, records in from_event(event).items():
                number = self.carry_out(shard, records, deadline, forced)
                if number is not None:
                    held.append(number)
        return {"batchItemFailures": [{"itemIdentifier": sequence_number(number)} for number in held]}

    def carry_out(
        self, shard: str, records: list[Record], deadline: Deadline, forced: Forced | None = None
    ) -> Number | None:
        """Carry out records of one shard; return the lowest sequence number that is not settled.

        Args:
            shard: its id.
            records: without gaps, in the shard's order.
            deadline: after which nothing is sent.
            forced: what is sent again, on a chain of its own; otherwise everything, on the shard's.
        """
        batch = _Batch(shard, records if forced is None else forced.narrow(records), deadline, forced)
        records = batch.records
        done = 0
        try:
            root = self._shards.chain(shard)
            if forced is not None:
                root = forced.chain(root)
            while done < len(records):
                last = self._advance(batch, records[done:], root)
                done = bisect_right(records, last, done, key=_number)
        except (HeldError, LedgerUnavailableError, ShardUnreadableError, AsideUnavailableError) as reason:
            self._hold(batch, done, str(reason), type(reason).__name__)
        except Exception as error:  # noqa: BLE001 -- whatever it is, what is not settled is delivered again
            self._journal.count("UnforeseenErrors")
            self._hold(batch, done, repr(error), type(error).__name__)
        if done < len(records):
            return records[done][0]
        return None

    def _hold(self, batch: _Batch, done: int, reason: str, error: str) -> None:
        self._journal.count("Holds")
        self._journal.note(
            "held",
            shard=batch.shard,
            sequence_number=sequence_number(batch.records[done][0]),
            records=len(batch.records) - done,
            reason=reason,
            error=error,
        )

    def _advance(self, batch: _Batch, records: Sequence[Record], root: str) -> Number:
        """Settle the span that holds the first record, appending it if there is none; return where it ends."""
        while True:
            first = records[0][0]
            span, chain, after, limit = self._find(root, first)
            if span is not None:
                if not span.done:
                    self._carry_on(batch, span)
                return span.last
            draft, planned = self._draft(batch, records, chain, after, limit)
            ours, standing = self._ledger.append(draft)
            self._ends.pop(root, None)
            if ours:
                if chain == root:
                    self._ends[root] = standing.last
                self._execute(batch, standing, Work(planned.records, planned.groups), fresh=None)
                return standing.last

    def _find(self, root: str, first: Number) -> tuple[Span | None, str, Number, Number | None]:
        """Return the span that holds a record, or else the chain, its end, and the record before which a new one ends."""
        end = self._ends.get(root)
        if end is not None and end < first:
            return None, root, end, None
        chain, limit = root, None
        while True:
            span = self._ledger.preceding(chain, first)
            if span is None or span.last < first:
                return None, chain, START if span is None else span.last, limit
            if first >= span.first:
                return span, chain, span.after, limit
            # In front of the span's first record: a hole, which is a chain of its own.
            chain, limit = f"{chain}#{span.after}", span.first

    def _draft(
        self, batch: _Batch, records: Sequence[Record], chain: str, after: Number, limit: Number | None
    ) -> tuple[Span, Plan]:
        answers = self._directory.resolve(accounts_of(records))
        planned = plan(records, answers, limit, self._clock.now() - self._rules.held_at_most)
        if not planned.records:
            raise HeldError("an account cannot be asked for")
        planned = self._without_repeats(batch, planned)
        draft = Span(
            chain=chain,
            after=after,
            first=planned.records[0][0],
            last=planned.records[-1][0],
            planned_at=round(self._clock.now() * 1000),
            databases=planned.databases,
            cut=self._rules.cut,
            counts=planned.counts,
        )
        return draft, planned

    def _without_repeats(self, batch: _Batch, planned: Plan) -> Plan:
        """Return the plan without the rows of envelopes that stand on the stream a second time."""
        kept = self._claimed(batch, planned.records)
        if kept is planned.records:
            return planned
        return Plan(planned.records, planned.databases, group(kept, owners_of(kept, planned.databases)))

    def _claimed(self, batch: _Batch, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records whose rows count: of an envelope put twice, the one that claims it first."""
        repeated = [record for record in records if record[2][5] and record[0] not in batch.claims]
        if repeated:
            jobs = [self._claim_job(batch, record) for record in repeated]
            for record, owned in zip(repeated, all_of(self._executors, jobs), strict=True):
                batch.claims[record[0]] = owned
        if not batch.claims:
            return records
        return [record for record in records if batch.claims.get(record[0], True)]

    def _claim_job(self, batch: _Batch, record: Record) -> Callable[[], bool]:
        owner = f"{self._shards.chain(batch.shard)}#{record[0]}"

        def claim() -> bool:
            if batch.deadline.near:
                raise HeldError("the time was up before all envelopes were claimed")
            return self._ledger.claim(record[2][4], owner)

        return claim

    def _carry_on(self, batch: _Batch, span: Span) -> None:
        """Carry out an open span that is met again."""
        if batch.deadline.near:
            raise HeldError("the time is up")
        records = self._claimed(batch, self._records_of(batch, span))
        groups = group(records, owners_of(records, span.databases))
        self._compare(span, groups)
        while not span.done:
            pending = [chunk.key for chunk in chunks(groups, span)]
            cleared = {key for key in pending if span.chunk(key).since is None}
            now = round(self._clock.now() * 1000)
            opened = {key: replace(span.chunk(key), since=now) for key in cleared}
            ours, span = self._ledger.update(span.with_chunks(opened))  # fences others; opens the doubt
            if ours:
                self._execute(batch, span, Work(records, groups), fresh=cleared)
                return

    def _compare(self, span: Span, groups: Groups) -> None:
        """Tell of rows that were planned and are no longer on the shard: the retention has ended for them."""
        missing = sum(span.counts.values()) - sum(block[1] for blocks in groups.values() for block in blocks)
        if missing:
            self._journal.count("RowsMissing", missing)
            self._journal.note("rows that were planned are not on the shard", chain=span.chain, rows=missing)

    def _records_of(self, batch: _Batch, span: Span) -> list[Record]:
        if batch.records[0][0] <= span.first and span.last <= batch.records[-1][0]:
            return [record for record in batch.records if span.first <= record[0] <= span.last]
        records = self._shards.read(batch.shard, span.first, span.last, batch.deadline)
        return records if batch.forced is None else batch.forced.narrow(records)

    def _execute(self, batch: _Batch, span: Span, work: Work, *, fresh: set[str] | None) -> None:
        Execution(self._means, batch.shard, span, work, fresh).carry_out(batch.deadline)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let Python look for no cycles: a batch's tens of thousands of tuples form none, and walking them takes half its time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
