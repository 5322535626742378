"""Claims ensure that only one of all copies of an envelope on the stream counts.

An envelope that its sender may repeat, or that the drainer has put, has `claim` set. Its rows count only for the record that owns
the claim of its request id. The worker decides claims once, before it plans a span; the plan stores which records do not count.
"""

from collections.abc import Sequence
from functools import partial
from itertools import batched

from worker.chain import ChainId, ClaimOwner
from worker.execution import Delivery
from worker.executor import run_parallel
from worker.ledger import MOST_CLAIMS, Claim
from worker.record import Number, Record
from worker.shards import Shards
from worker.span import Span

_REPEATED_SECONDS = 30 * 86_400  # how long a sender may repeat a request
_QUEUED_SECONDS = 14 * 86_400  # how long an envelope may wait in the overflow queue
# Arrival times may be wrong by minutes, and an invocation may hold a record for 15 minutes more.
_UNCERTAIN_SECONDS = 20 * 60


class Claims:
    """Claims envelopes for records."""

    def __init__(self, delivery: Delivery, shards: Shards) -> None:
        self._ledger = delivery.ledger
        self._shards = shards
        self._executors = delivery.executors
        self._clock = delivery.clock
        self._retention_seconds = delivery.rules.retention_seconds
        self.seconds_kept = _REPEATED_SECONDS + round(self._retention_seconds) + _QUEUED_SECONDS
        """How long a claim is kept: longer than a copy of its envelope can still be planned."""

    def decide(self, records: Sequence[Record], chain: ChainId) -> tuple[Sequence[Record], frozenset[Number]]:
        """Decide which records count. They must be in the shard's order, without gaps.

        Returns:
            The records before the first that cannot be decided now, and the sequence numbers of those that do not count.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
            ShardUnreadableError: Kinesis does not say whether the shard of a claim's owner still exists.
        """
        first: dict[str, Record] = {}
        for record in records:
            if record.claim:
                first.setdefault(record.request_id, record)
        claims = self._claim({one: _claim_of(record, chain) for one, record in first.items()})
        ignored: set[Number] = set()
        for position, record in enumerate(records):
            if not record.claim:
                continue
            claim, me = claims.get(record.request_id), _claim_of(record, chain)
            counts: bool | None = claim is not None and claim.owner == me.owner
            if not counts and first[record.request_id] is record:
                counts = None if claim is None else self._takes_over(record.request_id, me, claim)
            if counts is None:
                return records[:position], frozenset(ignored)
            if not counts:
                ignored.add(record.number)
        return records, frozenset(ignored)

    def _claim(self, wanted: dict[str, Claim]) -> dict[str, Claim]:
        parts = [dict(part) for part in batched(wanted.items(), MOST_CLAIMS, strict=False)]
        jobs = [partial(self._ledger.claim, part, self.seconds_kept) for part in parts]
        claims: dict[str, Claim] = {}
        for answer in run_parallel(self._executors, jobs):
            claims |= answer
        return claims

    def _takes_over(self, request_id: str, me: Claim, claim: Claim) -> bool | None:
        """Take over a claim if its owner was never planned and never will be, because it has expired or its shard is gone.

        Returns:
            Whether it was taken over; None while the owner may or may not have expired, because clocks differ.
        """
        held_by, number = claim.owner
        if number is None:
            return False
        age = self._clock.now() - claim.arrived_at
        is_gone = age > self._retention_seconds + _UNCERTAIN_SECONDS or not self._shards.has(held_by)
        if not is_gone and age < self._retention_seconds - _UNCERTAIN_SECONDS:
            return False
        if isinstance(self._ledger.locate(held_by, number), Span):
            return False
        return self._ledger.take_over(request_id, me, claim.owner) if is_gone else None


def _claim_of(record: Record, chain: ChainId) -> Claim:
    return Claim(ClaimOwner.record(chain, record.number), int(record.arrived_at))
