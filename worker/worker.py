"""The life of a batch: decode the records, ask the ledger what is planned, plan one span, execute it, and so on.

Borders, destinations and accounts are decided once, by the conditional put that appends a span to its shard's chain; from
then on every invocation executes that plan. docs/delivery.md says why each step is needed.
"""

import gc
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

from shared.errors import HeldError, UnavailableError
from worker.account_cache import AccountCache
from worker.chain import ChainId
from worker.chunk import Chunk, pending_leaves, planned_chunks
from worker.deadline import Deadline
from worker.delivery import Action, Event
from worker.execution import Delivery, Execution
from worker.executor import run_parallel
from worker.forced_replay import ForcedReplay
from worker.guards import Guard
from worker.plan import Groups, Plan, accounts_of, count, group, owners_of, plan
from worker.record import START, Number, Record, from_event, milliseconds, sequence_number
from worker.set_aside import SetAside
from worker.shards import Shards
from worker.span import Database, NotDeliverable, Span
from worker.upload import Uploader

_number = itemgetter(0)


@dataclass(slots=True)
class _Batch:
    """Records of one shard, as they were delivered."""

    shard: str
    chain: ChainId
    records: list[Record]
    deadline: Deadline
    forced: ForcedReplay | None = None
    claims: dict[Number, bool] = field(default_factory=dict)


class Worker:
    """Delivers batches.

    Args:
        shards: the stream.
        accounts: tell where rows go.
        uploader: sends chunks.
        delivery: what spans are executed with.
    """

    def __init__(
        self, shards: Shards, accounts: AccountCache, uploader: Uploader, delivery: Delivery
    ) -> None:
        self._shards = shards
        self._accounts = accounts
        self._uploader = uploader
        self._delivery = delivery
        self._ledger = delivery.ledger
        self._rules = delivery.rules
        self._clock = delivery.clock
        self._telemetry = delivery.telemetry
        self._ends: dict[ChainId, Number] = {}

    def run(self, event: Mapping[str, Any], remaining_ms: float) -> dict[str, Any]:
        """Deliver the records of one invocation; return Lambda's partial batch response.

        Args:
            event: Lambda's, with records of the stream; with `forced` where they are to be sent again whatever the
                ledger says.
            remaining_ms: until the invocation times out.

        Raises:
            InvalidReplayError: what is `forced` is not possible.
        """
        deadline = Deadline.of(self._clock, remaining_ms)
        forced = ForcedReplay.from_event(event)
        held = []
        with _no_cyclic_gc():
            for shard, records in from_event(event).items():
                number = self._deliver(shard, records, deadline, forced)
                if number is not None:
                    held.append(number)
        return {"batchItemFailures": [{"itemIdentifier": sequence_number(number)} for number in held]}

    def _deliver(
        self, shard: str, records: list[Record], deadline: Deadline, forced: ForcedReplay | None
    ) -> Number | None:
        """Deliver records of one shard; return the lowest sequence number that is not settled."""
        done = 0
        try:
            chain = self._shards.chain(shard)
            if forced is not None:
                chain, records = chain.forced(forced.name), forced.narrow(records)
            batch = _Batch(shard, chain, records, deadline, forced)
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

    def _advance(self, batch: _Batch, records: Sequence[Record]) -> Number:
        """Settle the span that holds the first record, appending it if there is none; return where it ends."""
        while True:
            first = records[0].number
            span, chain, after, limit = self._find(batch.chain, first)
            if span is not None:
                if not span.done:
                    self._take_up(batch, span)
                return span.last
            planned = self._plan(batch, records, limit)
            draft = Span(
                chain=chain,
                after=after,
                first=planned.records[0].number,
                last=planned.records[-1].number,
                planned_at=milliseconds(self._clock.now()),
                destinations=planned.destinations,
                cut=self._rules.cut,
                counts=planned.counts,
                records=len(planned.records),
            )
            won, standing = self._ledger.append(draft)
            self._ends.pop(batch.chain, None)
            if won:
                if chain is batch.chain:
                    self._ends[chain] = standing.last
                chunks = planned_chunks(planned.groups, standing.cut)
                self._execute(batch, Execution(self._delivery, standing, chunks, _described(batch, planned.records)), planned.records)
                return standing.last

    def _find(self, root: ChainId, first: Number) -> tuple[Span | None, ChainId, Number, Number | None]:
        """Return the span that holds a record, or else its chain, that one's end, and before which record to end."""
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
            chain, limit = chain.hole(span.after), span.first
